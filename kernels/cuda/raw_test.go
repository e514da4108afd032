//go:build gpu

package cuda

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
)

const blockRows = 64 // of the tests' raw rows

// adds gives the device the full blocks of rows, from several goroutines at once, and says which number of row each is to have.
func adds(t *testing.T, r kernels.RawRows, width int, rows []float32) (first []int) {
	t.Helper()
	var mu sync.Mutex
	var group sync.WaitGroup
	full := len(rows) / width / blockRows
	for g := range 3 {
		group.Go(func() {
			for k := g; k < full; k += 3 {
				own := slices.Clone(rows[k*blockRows*width:][:blockRows*width])
				block, err := r.Add(own)
				clear(own) // the device has its own
				if err != nil {
					t.Error(err)
				}
				if block < 0 {
					continue
				}
				mu.Lock()
				for len(first) <= block {
					first = append(first, -1)
				}
				first[block] = k * blockRows
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return first
}

// free is how many bytes of the device nobody has.
func free(t *testing.T, d *Device) (bytes int64) {
	t.Helper()
	if err := d.do(t.Context(), func(s *session) (err error) { bytes, err = s.freeMemory(); return err }); err != nil {
		t.Fatal(err)
	}
	return bytes
}

// walks makes the steps of one epoch over held rows, which are there or are put, and gives what comes out.
func walks(t *testing.T, tr *trainer, rows []float32, raw kernels.RawRows, first []int) (losses []float64, after [][]float32, taken bool) {
	t.Helper()
	width := tr.c.t.width
	n := len(rows) / width
	if ok, err := tr.Hold(n); !ok || err != nil {
		t.Fatalf("room for %d rows: %v, %v", n, ok, err)
	}
	here := map[int]bool{}
	if raw != nil {
		var err error
		if taken, err = tr.Take(raw, first); err != nil {
			t.Fatal(err)
		}
		for _, at := range first {
			here[at] = taken
		}
	}
	for at := 0; at < n; at += blockRows {
		if !here[at] {
			if err := tr.Put(at, rows[at*width:min(at+blockRows, n)*width]); err != nil {
				t.Fatal(err)
			}
		}
	}
	var order []int32
	var sizes []int
	var rates []float32
	for g := range n {
		order = append(order, int32(g*7%n))
	}
	for left := n; left > 0; left -= 128 {
		sizes, rates = append(sizes, min(left, 128)), append(rates, .01)
	}
	losses, err := tr.Walk(order, sizes, rates)
	if err != nil {
		t.Fatal(err)
	}
	return losses, append(tr.Parameters(), tr.Moments().Second...), taken
}

// TestRowsThatAreThereAlready_Case7_04: rows that the device took before there was a trainer are those that it is given afterwards: the
// same bytes. They take up no more than half of the memory, and give it up to whatever else needs it.
func TestRowsThatAreThereAlready_Case7_04(t *testing.T) {
	const n = 1001 // of 1003 no multiple of a block
	p, o, values := sensors(n, 30, 14, 7, 14, 30)
	o.MaxBatch = 128
	fake(t, "")
	want, after, _ := walks(t, newTrainer(t, engine(t, open(t, Options{})), p, o), values, nil, nil)
	same := func(name string, losses []float64, weights [][]float32) {
		t.Helper()
		if !slices.Equal(losses, want) || !sameFloats(weights, after) {
			t.Errorf("%s: other bytes", name)
		}
	}
	blockBytes := int64(blockRows * 30 * wordSize)
	for _, tt := range []struct {
		settings string
		blocks   int // that are taken, at most; 0 = all
	}{{"", 0}, {"device=h100", 0}, {"sms=3", 10}} {
		fake(t, tt.settings)
		d := open(t, Options{})
		e := engine(t, d)
		if tt.blocks > 0 {
			fake(t, fmt.Sprintf("%s,reserve=%d", tt.settings, free(t, d)-2*int64(tt.blocks)*blockBytes))
		}
		before := d.held.Load()
		raw := e.HoldRaw(30, blockRows)
		if d.held.Load() != before {
			t.Error("memory is taken before there are rows")
		}
		first := adds(t, raw, 30, values)
		if blocks := len(first); tt.blocks == 0 && blocks != n/blockRows || tt.blocks > 0 && (blocks == 0 || blocks > tt.blocks) {
			t.Errorf("%q: %d blocks are taken", tt.settings, blocks)
		}
		if tt.blocks > 0 {
			fake(t, tt.settings) // the trainer has room
		}
		losses, weights, taken := walks(t, newTrainer(t, e, p, o), values, raw, first)
		if !taken {
			t.Errorf("%q: the rows are not there any more", tt.settings)
		}
		same(tt.settings, losses, weights)
		with := d.held.Load()
		for range 2 {
			if err := raw.Close(); err != nil {
				t.Error(err)
			}
		}
		if gone := with - d.held.Load(); gone < int64(len(first))*blockBytes {
			t.Errorf("%q: %d bytes come back of %d blocks", tt.settings, gone, len(first))
		}
	}

	// What else needs the memory gets it, and the rows go there again.
	fake(t, "")
	d := open(t, Options{})
	e := engine(t, d)
	raw := e.HoldRaw(30, blockRows)
	first := adds(t, raw, 30, values)
	tr := newTrainer(t, e, p, o)
	fake(t, fmt.Sprint("reserve=", free(t, d)-1<<10))
	losses, weights, taken := walks(t, tr, values, raw, first)
	if taken {
		t.Error("the rows are there, without memory for what is made of them")
	}
	same("without memory", losses, weights)
	if block, err := raw.Add(values[:blockRows*30]); block >= 0 || err != nil {
		t.Errorf("one more: block %d, %v", block, err)
	}

	// Rows of another device, of another width, and past the end.
	if taken, err := tr.Take(engine(t, open(t, Options{})).HoldRaw(30, blockRows), []int{0}); taken || err != nil {
		t.Errorf("rows of another device: %v, %v", taken, err)
	}
	if taken, err := tr.Take(e.HoldRaw(29, blockRows), []int{0}); taken || err != nil {
		t.Errorf("rows of another width: %v, %v", taken, err)
	}
	if _, err := tr.Take(raw, []int{n - blockRows + 1}); err == nil {
		t.Error("a block that ends past the last row")
	}
	if _, err := raw.Add(values[:30]); err == nil {
		t.Error("a row is taken for a block")
	}
}

// TestRowsGoEarlyToADeviceThatFails_Case7_04: without memory all that went there is given back, and training goes as it would have; a
// device that is lost says so, and nothing hangs. What is left over is reported when the device is closed.
func TestRowsGoEarlyToADeviceThatFails_Case7_04(t *testing.T) {
	p, o, values := sensors(1000, 30, 14, 7, 14, 30)
	o.MaxBatch = 128
	fake(t, "memory=104857600") // holds one piece of raw rows and not two
	d := open(t, Options{})
	e := engine(t, d)
	raw := e.HoldRaw(30, 4*blockRows)
	block := values[:4*blockRows*30]
	if err := d.do(t.Context(), func(s *session) error {
		r := raw.(*rawRows)
		r.begun, r.room = true, 1<<40 // so much was free at first
		s.raw[r] = true
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		got, err := raw.Add(block)
		if err == nil && got == i {
			continue
		}
		if !errors.Is(err, kernels.ErrOutOfMemory) || errors.Is(err, ErrLost) || i == 0 {
			t.Errorf("block %d: %d, %v", i, got, err)
		}
		break
	}
	if err := d.do(t.Context(), func(s *session) error {
		if len(s.buffers) != 0 || len(s.pins) != 0 || len(s.raw) != 0 {
			t.Errorf("%d buffers, %d pins and %d raw rows are left", len(s.buffers), len(s.pins), len(s.raw))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, _, taken := walks(t, newTrainer(t, e, p, o), values, raw, []int{0}); taken {
		t.Error("rows are taken that have gone")
	}

	// Not closed by its owner: the device frees what it has.
	left := e.HoldRaw(30, blockRows)
	if block, err := left.Add(values[:blockRows*30]); block != 0 || err != nil {
		t.Errorf("block %d, %v", block, err)
	}

	fake(t, "")
	lost := open(t, Options{})
	raw = engine(t, lost).HoldRaw(30, blockRows)
	if _, err := raw.Add(values[:blockRows*30]); err != nil {
		t.Fatal(err)
	}
	lost.lose(hung("do anything", "GPU 0", 0))
	if block, err := raw.Add(values[:blockRows*30]); block >= 0 || !errors.Is(err, ErrLost) {
		t.Errorf("block %d, %v", block, err)
	}
	if err := raw.Close(); err != nil {
		t.Errorf("rows of a lost device: %v", err)
	}
}
