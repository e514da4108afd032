package trainer

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
)

// earlyEngine is one whose device takes rows before there is a trainer.
type earlyEngine struct {
	*faultyEngine
	add  func(block int) (room bool, err error) // comes before a block is taken; nil = all are
	gone bool                                   // something else gets the memory when training begins
	made []*earlyRows
}

func newEarly(room int) *earlyEngine { return &earlyEngine{faultyEngine: newFaulty(room)} }

func (e *earlyEngine) HoldRaw(width, rows int) kernels.RawRows {
	r := &earlyRows{e: e, words: width * rows}
	e.made = append(e.made, r)
	return r
}

func (e *earlyEngine) Trainer(p *kernels.Program, o kernels.TrainOptions) (kernels.Trainer, error) {
	if e.gone {
		e.made[0].blocks = nil
	}
	return e.faultyEngine.Trainer(p, o)
}

// earlyRows are in the memory of a device.
type earlyRows struct {
	e     *earlyEngine
	words int // of a block

	mu     sync.Mutex
	blocks [][]float32
	asked  int
	closed int
}

func (r *earlyRows) Add(rows []float32) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed > 0 || len(rows) != r.words {
		return -1, errors.New("the engine is misused")
	}
	r.asked++
	if r.e.add != nil {
		if room, err := r.e.add(r.asked); err != nil || !room {
			if err != nil {
				r.blocks = nil
			}
			return -1, err
		}
	}
	r.blocks = append(r.blocks, slices.Clone(rows))
	return len(r.blocks) - 1, nil
}

func (r *earlyRows) Close() error {
	r.closed++
	r.blocks = nil
	return nil
}

// Rows that went to the device while the topic was read are those that go there afterwards, at the same numbers: the same bytes come out
// whether all, some or none did, in memory or in a file, for one network and for several; and the device's memory is given back, once.
func TestRowsGoToTheDeviceWhileTheyAreRead_Case7_04(t *testing.T) {
	const n, full = 30_000, 3 * 2 * chunkRows // each of three partitions fills two blocks
	b := newBench(t)
	b.topic("t", 3, values(3, machine(15, n)...)...)
	model := func(e kernels.Engine, o Options) []byte {
		t.Helper()
		b.deps.Engine = e
		m := b.mustRun(o).Model
		m.Lineage.Metrics = nil
		data, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	plain := quick("t")
	plain.Alias = "none"
	several := plain
	several.Candidates, several.Vary = 2, VarySeed
	little := plain
	little.MaxMemory, little.SpillDir = 1300<<10, t.TempDir()
	first, firstOfSeveral := model(cpu.New(), plain), model(cpu.New(), several)
	noMemory := func(block int) (bool, error) {
		if block >= 3 {
			return false, kernels.ErrOutOfMemory
		}
		return true, nil
	}
	for _, tt := range []struct {
		name       string
		o          Options
		e          earlyEngine
		taken, put int
		says       string
	}{
		{"all that are full", plain, earlyEngine{}, full, n - full, "rows=24576 of=30000"},
		{"of several networks", several, earlyEngine{}, full, n - full, "rows=24576 of=30000"},
		{"as many as there is room for", plain, earlyEngine{add: func(block int) (bool, error) { return block <= 2, nil }}, 2 * chunkRows, n - 2*chunkRows, "rows=8192 of=30000"},
		{"out of memory", plain, earlyEngine{add: noMemory}, 0, n, "rows no longer go to the device"},
		{"memory taken afterwards", plain, earlyEngine{gone: true}, 0, n, "rows=24576 of=30000"},
	} {
		e, log := tt.e, b.log.Len()
		e.faultyEngine = newFaulty(n)
		want := first
		if tt.o.Candidates > 1 {
			want = firstOfSeveral
		}
		if !bytes.Equal(model(&e, tt.o), want) {
			t.Errorf("%s: other bytes come out", tt.name)
		}
		if e.taken != tt.taken || e.put != tt.put || e.given != 0 {
			t.Errorf("%s: %d rows were there and %d went there, want %d and %d", tt.name, e.taken, e.put, tt.taken, tt.put)
		}
		if len(e.made) != 1 || e.made[0].closed != 1 {
			t.Errorf("%s: not given back once: %+v", tt.name, e.made)
		}
		if e.add != nil && e.made[0].asked > 4 { // by two goroutines, of which the second may be under way
			t.Errorf("%s: it is asked for %d blocks", tt.name, e.made[0].asked)
		}
		if said := b.log.String()[log:]; strings.Count(said, tt.says) != 1 || tt.taken == 0 && strings.Count(said, "rows no longer go") > 1 {
			t.Errorf("%s: the log does not say %q once:\n%s", tt.name, tt.says, said)
		}
	}

	// Blocks that went into a file are not read from it again.
	e := newEarly(n)
	if !bytes.Equal(model(e, little), first) || e.taken+e.put != n || e.taken < n*9/10 || e.made[0].closed != 1 {
		t.Errorf("with little memory %d rows were there and %d went there; or other bytes came out", e.taken, e.put)
	}
	// A device that cannot hold the history has no use for them.
	e = newEarly(n - 1)
	if !bytes.Equal(model(e, plain), first) || e.taken+e.put != 0 || e.walks != 0 || e.made[0].closed != 1 {
		t.Errorf("without room for the history %d rows were there and %d went there; or other bytes came out", e.taken, e.put)
	}
	// Wrong numbers: what the device has is not trusted, and all rows go there once more.
	e = newEarly(n)
	e.loss = func(f *faultyTrainer) (bool, error) { return f.number == 1, nil }
	if !bytes.Equal(model(e, plain), first) || e.faultyEngine.made != 2 || e.taken != full || e.put != n-full+n || e.made[0].closed != 1 {
		t.Errorf("after wrong numbers, with %d trainers, %d rows were there and %d went there; or other bytes came out", e.faultyEngine.made, e.taken, e.put)
	}
	// A run that trains nothing sends nothing.
	e, dry := newEarly(n), plain
	dry.DryRun = true
	b.deps.Engine = e
	if b.mustRun(dry); len(e.made) != 0 {
		t.Error("a dry run sends rows to the device")
	}
}

// A run that is called off while it reads gives the device's memory back.
func TestCalledOffWhileRowsGoToTheDevice(t *testing.T) {
	b := newBench(t)
	b.topic("t", 3, values(3, machine(15, 30_000)...)...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e := newEarly(30_000)
	e.add = func(block int) (bool, error) {
		if block == 2 {
			cancel()
		}
		return true, nil
	}
	b.deps.Engine = e
	if _, err := Run(ctx, b.deps, quick("t")); !errors.Is(err, context.Canceled) {
		t.Errorf("the run comes to %v", err)
	}
	if len(e.made) != 1 || e.made[0].closed != 1 || e.made[0].asked < 2 || e.faultyEngine.made != 0 {
		t.Errorf("not given back once: %+v", e.made)
	}
}
