package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// abreastDevice is the CPU's engine as a device on which networks learn abreast. Its hooks plant faults.
type abreastDevice struct {
	kernels.Engine
	room    int                             // rows that it holds
	refused error                           // of a cohort
	walk    func(n int) error               // before the n-th walk over all cohorts, from 1
	loss    func(k int, is float64) float64 // of a step
	proof   func(k int, is float64) float64 // over as many rows as a proof takes
	wrong   func(n int) error               // the n-th time

	cohorts []int // networks of each
	walks   int
	wrongs  int
	alone   atomic.Int64 // networks that learned by themselves
}

func (e *abreastDevice) Trainer(p *kernels.Program, o kernels.TrainOptions) (kernels.Trainer, error) {
	e.alone.Add(1)
	return e.Engine.Trainer(p, o)
}

func (e *abreastDevice) Abreast(programs []*kernels.Program, o kernels.TrainOptions) (kernels.Cohort, error) {
	if e.refused != nil {
		return nil, e.refused
	}
	e.cohorts = append(e.cohorts, len(programs))
	c := &abreastNetworks{e: e, width: programs[0].Width}
	for _, p := range programs {
		t, err := e.Engine.Trainer(p, o)
		if err != nil {
			return nil, err
		}
		c.of = append(c.of, t)
	}
	return c, nil
}

// abreastNetworks are a cohort of it.
type abreastNetworks struct {
	kernels.Cohort // nil: of its methods only those below are asked for
	e              *abreastDevice
	width          int
	of             []kernels.Trainer
	rows           []float32
	owner          []int // of each row, + 1
}

func (c *abreastNetworks) Close() error {
	for _, t := range c.of {
		t.Close()
	}
	return nil
}

func (c *abreastNetworks) Hold(n int) (bool, error) {
	c.rows, c.owner = make([]float32, n*c.width), make([]int, n)
	return n <= c.e.room, nil
}

func (c *abreastNetworks) PutOf(k, first int, rows []float32) error {
	copy(c.rows[first*c.width:], rows)
	for i := range len(rows) / c.width {
		if c.owner[first+i] != 0 {
			return fmt.Errorf("row %d is put twice", first+i)
		}
		c.owner[first+i] = k + 1
	}
	return nil
}

// gather are rows of network k, and of no other.
func (c *abreastNetworks) gather(k int, order []int32) (rows []float32, err error) {
	for _, g := range order {
		if c.owner[g] != k+1 {
			return nil, fmt.Errorf("network %d asks for row %d, which is network %d's", k, g, c.owner[g]-1)
		}
		rows = append(rows, c.rows[int(g)*c.width:][:c.width]...)
	}
	return rows, nil
}

func (c *abreastNetworks) WalkEach(orders [][]int32, sizes [][]int, rates [][]float32) ([][]float64, error) {
	c.e.walks++
	if c.e.walk != nil {
		if err := c.e.walk(c.e.walks); err != nil {
			return nil, err
		}
	}
	losses := make([][]float64, len(c.of))
	for k, t := range c.of {
		rows, err := c.gather(k, orders[k])
		if err != nil {
			return nil, err
		}
		for i, n := range sizes[k] {
			loss, err := t.Step(rows[:n*c.width], rates[k][i])
			if err != nil {
				return nil, err
			}
			if c.e.loss != nil {
				loss = c.e.loss(k, loss)
			}
			rows = rows[n*c.width:]
			if losses[k] = append(losses[k], loss); !finite(loss) {
				break
			}
		}
	}
	return losses, nil
}

func (c *abreastNetworks) LossEach(orders [][]int32) ([]float64, error) {
	losses := make([]float64, len(c.of))
	for k, t := range c.of {
		if len(orders[k]) == 0 {
			continue
		}
		rows, err := c.gather(k, orders[k])
		if err != nil {
			return nil, err
		}
		if losses[k], err = t.Loss(rows); err != nil {
			return nil, err
		}
		if c.e.proof != nil && len(orders[k]) <= proofRows {
			losses[k] = c.e.proof(k, losses[k])
		}
	}
	return losses, nil
}

func (c *abreastNetworks) Parameters(k int) [][]float32 { return c.of[k].Parameters() }

func (c *abreastNetworks) Beside(k int, rows []float32) (float64, error) { return c.of[k].Loss(rows) }

func (c *abreastNetworks) Wrong(how string) error {
	c.e.wrongs++
	if c.e.wrong != nil {
		return c.e.wrong(c.e.wrongs)
	}
	return nil
}

// keyed are records of seven things, of several lengths and habits; one has too few.
func keyedRecords() []stream.Record {
	var all []stream.Record
	for i, n := range []int{900, 300, 350, 30, 120, 600, 2800} {
		for at, row := range machine(uint64(i+1), n) {
			row = strings.Replace(row, `"temp":`, `"temp":`+[]string{"", "1", "2", "", "3", "4", "5"}[i], 1)
			all = append(all, stream.Record{Partition: int32((i + at/50) % 2), Key: []byte{byte('a' + i)}, Value: []byte(row), Time: start + int64(at)*60_000})
		}
	}
	return all
}

// Networks of keys that learn abreast come out as those of keys that learn one after another, to the byte, whatever befalls one of them or the
// device on the way; a fault of a key is that key's.
func TestKeysLearnAbreast_Case7_07(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, keyedRecords()...)
	spec := model.Spec{Format: "json"}
	for _, name := range []string{"flow", "load", "temp", "volts"} {
		spec.Fields = append(spec.Fields, model.Field{Name: name, Type: model.Number})
	}
	// Without publishing, which would be most of the test's time.
	outcome := func(e kernels.Engine, o Options) (got []string, err error) {
		t.Helper()
		j := &job{Deps: b.deps, Options: o}
		j.Engine = e
		r := &Report{Topic: o.Topic, Name: o.Model}
		h, err := j.read(t.Context(), r)
		if err != nil {
			return nil, err
		}
		defer h.store.close()
		all, _, err := j.keys(h)
		if err != nil {
			return nil, err
		}
		var todo []*keyRows
		for i := range all {
			if all[i].Fault == "" {
				todo = append(todo, &all[i])
			}
		}
		if err := j.eachKey(t.Context(), h, r, todo); err != nil {
			return nil, err
		}
		for _, k := range all {
			digest := ""
			if (k.Report == nil) != (k.Fault != "") {
				t.Errorf("key %s: fault %q, and a model %v", k.Key, k.Fault, k.Report != nil)
			} else if k.Report != nil {
				data, err := k.Report.Model.Encode()
				if err != nil || len(data) < 1000 {
					t.Fatalf("%d bytes, %v", len(data), err)
				}
				digest = registry.Digest(data)
			}
			got = append(got, fmt.Sprintf("%s %s %s", k.Name, digest, k.Fault))
		}
		return got, nil
	}
	base := quick("t")
	base.Spec, base.PerKey, base.Epochs, base.Alias = &spec, true, 7, "none"
	own := base
	own.Layers = nil // each key's code has its own width
	wild := base
	wild.Optimizer, wild.LearningRate = "sgd", 20
	short := base
	short.Patience, short.LearningRate = 1, .3
	memory := fmt.Errorf("planted: %w", kernels.ErrOutOfMemory)
	want := map[string][]string{}
	for _, tt := range []struct {
		name    string
		o       Options
		plant   func(e *abreastDevice)
		cohorts []int // networks of each; nil: at least one
		alone   int   // networks; −1: any
		wrongs  int
	}{
		{"all at once", base, nil, []int{6}, 0, 0},
		{"other threads", base.with(func(o *Options) { o.Threads = 5 }), nil, []int{6}, 0, 0},
		{"codes of several widths", own, nil, nil, -1, 0},
		{"ended early", short, nil, []int{6}, 0, 0},
		{"divergence", wild, nil, []int{6}, -1, 0},
		{"waves", base.with(func(o *Options) { o.MaxMemory = 700 << 10 }), nil, []int{5}, 1, 0},
		{"memory for the rows of some", base, func(e *abreastDevice) { e.room = 4500 }, []int{6, 3, 3}, 0, 0},
		{"memory for the rows of one", base, func(e *abreastDevice) { e.room = 1 }, nil, 6, 0},
		{"memory goes on the way", base, func(e *abreastDevice) {
			e.walk = func(n int) error {
				if n == 5 {
					return memory
				}
				return nil
			}
		}, []int{6, 3, 3}, 0, 0},
		{"memory goes when one has ended", base, func(e *abreastDevice) {
			e.walk = func(n int) error {
				if n == 20 {
					return memory
				}
				return nil
			}
		}, []int{6, 2, 3}, 0, 0},
		{"no memory for a cohort", base, func(e *abreastDevice) { e.refused = memory }, []int{}, 6, 0},
		{"a device that cannot", base, func(e *abreastDevice) { e.refused = errors.New("planted") }, []int{}, 6, 0},
		{"a loss that is not finite", base, func(e *abreastDevice) {
			steps := 0
			e.loss = func(k int, is float64) float64 {
				if k == 2 {
					if steps++; steps == 6 {
						return math.NaN()
					}
				}
				return is
			}
		}, []int{6}, 1, 0},
		{"wrong numbers", base, func(e *abreastDevice) {
			e.proof = func(k int, is float64) float64 {
				if k == 3 && e.walks > 3 {
					return is * 1.01
				}
				return is
			}
		}, []int{6}, 1, 1},
	} {
		same := fmt.Sprint(tt.o.Layers, tt.o.Optimizer, tt.o.Patience)
		if want[same] == nil {
			var err error
			if want[same], err = outcome(cpu.New(), tt.o); err != nil {
				t.Fatal(err)
			}
		}
		e := &abreastDevice{Engine: cpu.New(), room: math.MaxInt}
		if tt.plant != nil {
			tt.plant(e)
		}
		var shown []float64
		b.deps.Progress = func(p Progress) {
			if p.Stage == "keys" {
				shown = append(shown, p.Done)
			}
		}
		got, err := outcome(e, tt.o)
		b.deps.Progress = nil
		if err != nil || !slices.Equal(got, want[same]) {
			t.Errorf("%s:\n%q, %v; one after another\n%q", tt.name, got, err, want[same])
		}
		if tt.cohorts != nil && !slices.Equal(e.cohorts, tt.cohorts) || tt.cohorts == nil && len(e.cohorts) == 0 ||
			tt.alone >= 0 && int(e.alone.Load()) != tt.alone || e.wrongs != tt.wrongs {
			t.Errorf("%s: cohorts of %v, %d networks by themselves, %d times wrong", tt.name, e.cohorts, e.alone.Load(), e.wrongs)
		}
		if n := len(shown); n == 0 || shown[n-1] != 1 || !slices.IsSorted(shown) {
			t.Errorf("%s: progress %v", tt.name, shown)
		}
	}
	for _, all := range want {
		without := slices.DeleteFunc(slices.Clone(all), func(k string) bool { return strings.HasSuffix(k, " ") })
		if len(all) != 7 || !slices.Equal(without, []string{"m.d  30 rows; a model takes at least 100"}) && len(without) == 1 {
			t.Errorf("one after another:\n%q", all)
		}
	}
}

func (o Options) with(change func(o *Options)) Options {
	change(&o)
	return o
}

// A device that fails, or is wrong for the second time, ends the run, as it ends that of one network; so does an interruption. Nothing is published.
func TestKeysAbreastEnd_Case7_06(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, keyedRecords()...)
	o := quick("t")
	o.PerKey, o.Epochs, o.Alias = true, 7, "none"
	planted := errors.New("planted")
	var device *DeviceError
	for name, e := range map[string]*abreastDevice{
		"a walk fails": {walk: func(n int) error {
			if n == 4 {
				return planted
			}
			return nil
		}},
		"wrong again": {proof: func(_ int, is float64) float64 { return 2 * is }, wrong: func(n int) error {
			if n == 2 {
				return planted
			}
			return nil
		}},
	} {
		e.Engine, e.room = cpu.New(), math.MaxInt
		b.deps.Engine = e
		if _, err := b.run(o); !errors.As(err, &device) || !errors.Is(err, planted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e := &abreastDevice{Engine: cpu.New(), room: math.MaxInt, walk: func(n int) error {
		if n == 3 {
			cancel()
		}
		return nil
	}}
	b.deps.Engine = e
	if _, err := Run(ctx, b.deps, o); err == nil || ctx.Err() == nil || e.walks != 3 {
		t.Errorf("interrupted in walk 3: %v, %d walks", err, e.walks)
	}
	if published, _ := b.deps.Registry.List(t.Context()); len(published) != 0 {
		t.Errorf("published: %v", published)
	}
}

func TestWaveOfKeys(t *testing.T) {
	keys := func(n, rows int) (all []*keyRows) {
		for range n {
			all = append(all, &keyRows{rows: make([]uint32, rows)})
		}
		return all
	}
	for _, tt := range []struct {
		keys, rows int
		memory     int64
		want       int
	}{
		{5, 100, 1 << 30, 5},
		{1000, 100, 1 << 30, waveKeys},
		{1000, 50_000, 1 << 30, 32},
		{20, 50_000, 1 << 20, 4}, // one a thread
		{3, 50_000, 1, 3},
	} {
		o := Defaults()
		o.MaxMemory, o.Threads, o.Layers = tt.memory, 4, []int{8, 4, 8}
		j := &job{Options: o}
		if got := j.waveOf(20, keys(tt.keys, tt.rows)); got != tt.want {
			t.Errorf("%d keys of %d rows in %d bytes: a wave of %d, want %d", tt.keys, tt.rows, tt.memory, got, tt.want)
		}
	}
}
