package trainer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// stored fills a history with rows of width columns, sizes[p] in partition p: column c of row g is g + c/width, and missing in
// the last column of every 97th row. It goes through the store as the decoding goroutines do, all partitions at once.
func stored(t *testing.T, width int, memory int64, sizes ...int) *history {
	t.Helper()
	j := &job{Options: Options{Topic: "t", MaxMemory: memory, SpillDir: t.TempDir(), Threads: 3}}
	total := 0
	for _, n := range sizes {
		total += n
	}
	s, err := j.newRowStore(width, len(sizes), int64(total))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	h := &history{width: width, store: s, partitions: make([]partition, len(sizes))}
	var group sync.WaitGroup
	for i, n := range sizes {
		h.starts = append(h.starts, h.n)
		first := h.n
		h.n += n
		group.Go(func() {
			row := make([]float32, width)
			for g := first; g < first+n; g++ {
				fillRow(row, g)
				if err := h.partitions[i].rows.add(s, row); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	h.starts = append(h.starts, h.n)
	if err := h.finish(); err != nil {
		t.Fatal(err)
	}
	if held := s.resident; held > memory {
		t.Fatalf("%d bytes of rows are in memory, of %d allowed", held, memory)
	}
	return h
}

func fillRow(row []float32, g int) {
	for c := range row {
		row[c] = float32(g) + float32(c)/float32(len(row))
	}
	if g%97 == 0 {
		row[len(row)-1] = float32(math.NaN())
	}
}

func isRow(row []float32, g int) bool {
	want := make([]float32, len(row))
	fillRow(want, g)
	return slices.EqualFunc(row, want, func(a, b float32) bool { return a == b || a != a && b != b })
}

// sizes of partitions with an empty one, small ones, and ends within a block.
var oddSizes = []int{40_003, 0, 1, 7, 130_001, 4096, 64_000}

func TestRowsAreTheSameInMemoryAndInAFile(t *testing.T) {
	const width = 5
	for _, memory := range []int64{1 << 30, 16 << 20, 8 << 20, 5 << 20} {
		t.Run(mebibytes(memory), func(t *testing.T) {
			h := stored(t, width, memory, oddSizes...)
			if spilled := h.store.spilled() > 0; spilled != (memory <= 8<<20) {
				t.Errorf("%d bytes are in the file", h.store.spilled())
			}
			random := newSequence(3)
			numbers := make([]int, 5000)
			for i := range numbers {
				numbers[i] = random.below(h.n)
			}
			rows, err := h.gather(numbers, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i, g := range numbers {
				if row := rows[i*width : (i+1)*width]; !isRow(row, g) {
					t.Fatalf("row %d is %v", g, row)
				}
			}
			for _, threads := range []int{1, 3} {
				seen := make([]int32, h.n)
				err := h.pass(t.Context(), threads, func(worker, first int, rows []float32) error {
					if worker >= threads {
						return fmt.Errorf("worker %d", worker)
					}
					for i := range len(rows) / width {
						seen[first+i]++
						if row := rows[i*width : (i+1)*width]; !isRow(row, first+i) {
							return fmt.Errorf("row %d is %v", first+i, row)
						}
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if i := slices.IndexFunc(seen, func(n int32) bool { return n != 1 }); i >= 0 {
					t.Fatalf("row %d was handed out %d times", i, seen[i])
				}
			}
			missing, err := h.withMissing(4)
			if err != nil {
				t.Fatal(err)
			}
			all := (h.n + 96) / 97
			if want := []int{0, all / 4 * 97, all * 2 / 4 * 97, all * 3 / 4 * 97}; !slices.Equal(missing, want) {
				t.Errorf("rows with missing values: %v, want %v", missing, want)
			}
			if left, err := os.ReadDir(h.store.dir); err != nil || len(left) != 0 {
				t.Errorf("the folder shows %v, %v: nothing may stay behind however this process ends", left, err)
			}
		})
	}
}

// An epoch deals every row of the set once, in the same order whatever memory there is; the order of the next is another.
func TestEpochsDealEveryRowOnce(t *testing.T) {
	const width = 5
	var orders [][]float32
	for _, memory := range []int64{1 << 30, 5 << 20} {
		h := stored(t, width, memory, oddSizes...)
		train, validation := h.split()
		if n := train.n + validation.n; n != h.n || validation.n < h.n/10 {
			t.Fatalf("%d rows to train on and %d held back, of %d", train.n, validation.n, h.n)
		}
		e := h.epochs(train, 7)
		var order []float32
		var previous []int
		var buffer []float32
		for range 2 {
			var dealt []int
			for len(dealt) < train.n {
				var err error
				if buffer, err = e.next(256, buffer); err != nil {
					t.Fatal(err)
				}
				if n := len(buffer) / width; n != 256 && len(dealt)+n != train.n {
					t.Fatalf("a batch of %d rows in the middle of an epoch", n)
				}
				for i := 0; i < len(buffer); i += width {
					g := int(buffer[i])
					if row := buffer[i : i+width]; !isRow(row, g) {
						t.Fatalf("row %d is %v", g, row)
					}
					dealt = append(dealt, g)
					order = append(order, buffer[i])
				}
			}
			sorted := slices.Clone(dealt)
			slices.Sort(sorted)
			if want := train.appendRange(nil, 0, h.n); !slices.Equal(sorted, want) {
				t.Fatalf("an epoch dealt %d rows, of %d", len(slices.Compact(sorted)), len(want))
			}
			if slices.Equal(dealt, previous) {
				t.Error("two epochs in the same order")
			}
			previous = dealt
			// The mean distance between neighbours in the order is a third of the rows where all are shuffled; in windows of
			// chunks drawn from everywhere it is about that, too.
			sum := 0.
			for i := 1; i < len(dealt); i++ {
				sum += math.Abs(float64(dealt[i] - dealt[i-1]))
			}
			if mean := sum / float64(len(dealt)) / float64(h.n); mean < .25 {
				t.Errorf("neighbours in the order lie %.3f of the history apart, want about .33", mean)
			}
		}
		orders = append(orders, order)
	}
	if !slices.Equal(orders[0], orders[1]) {
		t.Error("the order depends on memory")
	}
}

func TestRowSets(t *testing.T) {
	const n = 20_011
	random := newSequence(5)
	s, in := newRowSet(n), make([]bool, n)
	for range 60 {
		from := random.below(n)
		to := min(from+random.below(700), n)
		s.addRange(from, to)
		for g := from; g < to; g++ {
			in[g] = true
		}
	}
	s.count()
	var want []int
	for g, ok := range in {
		if s.has(g) != ok {
			t.Fatalf("has(%d) = %v", g, !ok)
		}
		if ok {
			want = append(want, g)
		}
	}
	if s.n != len(want) || !slices.Equal(s.appendRange(nil, 0, n), want) {
		t.Fatalf("%d rows, want %d", s.n, len(want))
	}
	for i, g := range want {
		if s.nth(i) != g {
			t.Fatalf("row %d of the set is %d, want %d", i, s.nth(i), g)
		}
	}
	for range 200 {
		from := random.below(n)
		to := from + random.below(n-from)
		if part := s.appendRange(nil, from, to); len(part) != s.within(from, to) || len(part) > 0 && (part[0] < from || part[len(part)-1] >= to) {
			t.Fatalf("within %d … %d: %d rows, counted %d", from, to, len(part), s.within(from, to))
		}
	}
	for _, k := range []int{0, 1, 16, 5000, len(want), len(want) + 5} {
		drawn := s.draw(k, random)
		if len(drawn) != min(k, len(want)) || !slices.IsSorted(drawn) || len(slices.Compact(slices.Clone(drawn))) != len(drawn) ||
			slices.ContainsFunc(drawn, func(g int) bool { return !in[g] }) {
			t.Errorf("draw(%d) gave %d rows: %v", k, len(drawn), drawn[:min(len(drawn), 10)])
		}
		if got := s.spread(k); len(got) != min(k, len(want)) || len(got) > 0 && got[0] != want[0] {
			t.Errorf("spread(%d) gave %d rows", k, len(got))
		}
	}
	odd := newRowSet(n)
	for g := 1; g < n; g += 2 {
		odd.add(g)
	}
	s.retain(odd)
	if want = slices.DeleteFunc(want, func(g int) bool { return g%2 == 0 }); !slices.Equal(s.appendRange(nil, 0, n), want) {
		t.Error("retain keeps other rows than those of both sets")
	}
}

// Every row of a set is drawn as often as any other.
func TestDrawIsFair(t *testing.T) {
	s := newRowSet(50)
	s.addRange(5, 45)
	s.count()
	hits := make([]int, 50)
	random := newSequence(1)
	const times = 4000
	for range times {
		for _, g := range s.draw(10, random) {
			hits[g]++
		}
	}
	for g := 5; g < 45; g++ { // expected 1000, deviation 27
		if hits[g] < 850 || hits[g] > 1150 {
			t.Errorf("row %d was drawn %d times of %d, want a quarter", g, hits[g], times)
		}
	}
}

// A disk that is full, as the kernel says it: what was wanted, where, and how to go on.
func TestFullDisk_Case8_09(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	j := &job{Options: Options{Topic: "t", MaxMemory: 1 << 20, SpillDir: "/data/spill", Threads: 1}}
	s, err := j.newRowStore(18, 1, 5_000_000)
	if err != nil {
		t.Fatal(err)
	}
	s.file = full
	defer s.close()
	p := &partitionRows{}
	row := make([]float32, 18)
	for i := 0; err == nil && i < 50_000; i++ {
		err = p.add(s, row)
	}
	var fault *InputError
	if !errors.As(err, &fault) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%v", err)
	}
	const want = "folder /data/spill: rows beyond max_memory could not be kept in a file: no space left on device"
	if err.Error() != want || !strings.Contains(fault.Hint(), "up to 343 MiB of free space") || !strings.Contains(fault.Hint(), "train.spill_dir") {
		t.Errorf("%v\nnext: %s", err, fault.Hint())
	}
}

// The same bytes come out with 1 GiB and with little more than the least.
func TestMemoryDoesNotChangeTheModel_Case8_07(t *testing.T) {
	b := newBench(t)
	b.topic("t", 3, values(3, machine(15, 60_000)...)...)
	var first []byte
	for _, memory := range []int64{1 << 30, 13 << 17, 1300 << 10} {
		o := quick("t")
		o.Alias, o.MaxMemory, o.SpillDir = "none", memory, t.TempDir()
		r := b.mustRun(o)
		if (r.Spilled > 0) != (memory < 1<<30) {
			t.Errorf("with %s, %d bytes were spilled", mebibytes(memory), r.Spilled)
		}
		if first == nil {
			first = r.Data
		}
		if !bytes.Equal(r.Data, first) {
			t.Errorf("with %s other bytes come out", mebibytes(memory))
		}
	}
}

func TestTooLittleMemoryNamesWhatIsNeeded(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, values(2, machine(15, 60_000)...)...)
	o := quick("t")
	o.MaxMemory = 1 << 20
	_, err := b.run(o)
	var fault *InputError
	if !errors.Is(err, ErrMemory) || !strings.Contains(err.Error(), "holds the scores and labels of 47,662 rows") || !errors.As(err, &fault) ||
		!strings.Contains(fault.Hint(), "raise max_memory to 2 MiB, which is enough for 60,000 rows") {
		t.Fatalf("%v", err)
	}
	o.MaxMemory = 2 << 20
	b.mustRun(o)

	o.MaxMemory = 512
	_, err = b.run(o)
	if !errors.Is(err, ErrMemory) || !strings.Contains(err.Error(), "a row of 4 columns is too wide") || !errors.As(err, &fault) || !strings.Contains(fault.Hint(), "raise max_memory to 1 MiB") {
		t.Fatalf("%v", err)
	}
}

// An end of the run's context ends a pass, and a fault of the one who takes the rows is not swallowed.
func TestPassEnds(t *testing.T) {
	h := stored(t, 3, 1<<20, 40_000)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	if err := h.pass(ctx, 2, func(int, int, []float32) error { cancel(why); return nil }); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	if err := h.pass(t.Context(), 2, func(int, int, []float32) error { return why }); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

// Statistics of wide rows are part of max_memory: with 16 threads they would else be 1.5 GiB beside it.
func TestWideRowsLeaveRoomForTheirStatistics(t *testing.T) {
	for _, c := range []struct {
		width, threads, partitions int
		want                       int64
	}{
		{18, 2, 6, 1 << 30},
		{1000, 2, 6, 1<<30 - 2*1000*sketchBytes + usualSketches},
		{1000, 16, 2, 1<<30 - 2*1000*sketchBytes + usualSketches}, // a partition is one goroutine's
		{1000, 16, 64, 1 << 29},                                   // at most half
	} {
		j := &job{Options: Options{Topic: "t", MaxMemory: 1 << 30, Threads: c.threads}}
		s, err := j.newRowStore(c.width, c.partitions, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if s.max != c.want {
			t.Errorf("%d columns, %d threads, %d partitions: %s for rows, want %s", c.width, c.threads, c.partitions, mebibytes(s.max), mebibytes(c.want))
		}
	}
	s := newSketch()
	for i := range 3 * sketchBuckets {
		s.add(float32(i) * 1.001)
	}
	if got := len(s.keys)*4 + len(s.counts)*8; got > sketchBytes {
		t.Errorf("a sketch of %d bytes", got)
	}
}

// An order that is set to a place goes on as it would have: in the middle of a batch, a window, an epoch, and between two.
func TestEpochsGoOnFromAnyPlace(t *testing.T) {
	h := stored(t, 3, 1<<30, oddSizes...)
	train, _ := h.split()
	const batch = 999
	e := h.epochs(train, 7)
	perEpoch := (train.n + batch - 1) / batch
	var places []place
	var dealt [][]float32
	for range 2*perEpoch + 3 {
		places = append(places, e.place())
		rows, err := e.next(batch, nil)
		if err != nil {
			t.Fatal(err)
		}
		dealt = append(dealt, rows)
	}
	again := h.epochs(train, 99)
	for _, at := range []int{0, 1, perEpoch / 2, perEpoch - 1, perEpoch, perEpoch + 1, 2 * perEpoch, 5} {
		if err := again.seek(places[at]); err != nil {
			t.Fatal(err)
		}
		if got := again.place(); got != places[at] {
			t.Errorf("batch %d: set to %+v, stands at %+v", at, places[at], got)
		}
		for k := at; k < min(at+3, len(dealt)); k++ {
			rows, err := again.next(batch, nil)
			if err != nil || !bytes.Equal(bytesOf(rows), bytesOf(dealt[k])) { // some values are NaN
				t.Fatalf("set to batch %d, batch %d is another (%v)", at, k, err)
			}
		}
	}
	for _, bad := range []place{{1, -1}, {1, train.n + 1}} {
		if err := again.seek(bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
