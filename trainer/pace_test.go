package trainer

import (
	"math"
	"testing"
	"time"
)

// After the first tenth of a stage, the end foretold is right within a fifth of the whole stage: for a steady rate, for a slow
// start, for pauses, for noise, and for a rate that changes early on. The schedules are replayed, no clock is asked.
func TestTimeLeftIsRightAfterATenth(t *testing.T) {
	const total = 1_000_000
	noise := newSequence(1)
	for _, c := range []struct {
		name string
		rate func(done float64, step int) float64 // work in the next tenth of a second
	}{
		{"steady", func(float64, int) float64 { return 2000 }},
		{"slow start", func(_ float64, step int) float64 {
			if step < 20 { // two seconds of nothing, of fifty
				return 0
			}
			return 2000
		}},
		{"cold caches", func(done float64, _ int) float64 { return 2000 * min(.3+done/20_000, 1) }},
		{"a pause for each evaluation", func(_ float64, step int) float64 {
			if step%20 == 19 {
				return 0
			}
			return 2000
		}},
		{"noise", func(float64, int) float64 { return 500 + 3000*float64(noise.below(1000))/1000 }},
		{"rows begin to go to a file", func(done float64, _ int) float64 {
			if done < total/20 {
				return 3000
			}
			return 2000
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin := time.Unix(1_750_000_000, 0)
			p := newPace(total, begin)
			type said struct {
				at, left time.Duration
				done     float64
			}
			var all []said
			done := 0.
			var at time.Duration
			for step := 0; done < total; step++ {
				done = min(done+c.rate(done, step), total)
				at += 100 * time.Millisecond
				all = append(all, said{at, p.left(int64(done), begin.Add(at)), done})
			}
			whole := float64(at)
			for _, s := range all {
				if s.at < at/10 {
					continue
				}
				if end := float64(s.at + s.left); math.Abs(end-whole) > .2*whole {
					t.Fatalf("after %v of %v: %v left", s.at, at, s.left)
				}
				if share := s.done / total; math.Abs(share-float64(s.at)/whole) > .2 {
					t.Fatalf("after %v of %v the progress is %.2f", s.at, at, share)
				}
			}
			if last := all[len(all)-1]; last.left != 0 {
				t.Errorf("%v left at the end", last.left)
			}
			if len(p.marks) > paceMarks+2 {
				t.Errorf("%d marks are kept", len(p.marks))
			}
		})
	}
}

// Every stage of a run says how much of it is done: from nothing to all, never back, and never time left when all is.
func TestProgressGoesFromNothingToAll(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, values(2, machine(21, 20_000)...)...)
	at := map[string]float64{}
	var order []string
	b.deps.Progress = func(p Progress) {
		was, seen := at[p.Stage]
		if !seen {
			order = append(order, p.Stage)
		}
		if p.Done < was || p.Done > 1 || p.Done == 1 && p.Left != 0 || p.Left < 0 {
			t.Errorf("%s: %.3f done after %.3f, %v left", p.Stage, p.Done, was, p.Left)
		}
		at[p.Stage] = p.Done
	}
	o := quick("t")
	o.Patience = 1000 // else it may end early, with work undone
	b.mustRun(o)
	for _, stage := range []string{"read", "fit", "judge"} {
		if at[stage] != 1 {
			t.Errorf("%s ended with %.3f done", stage, at[stage])
		}
	}
	t.Log(order)
}
