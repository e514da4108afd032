package cpu

import (
	"runtime"
	"sync/atomic"
	"testing"
)

// TestTeam: every part of every job is done once, before run returns, whether helpers are awake, parked or late.
func TestTeam(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	team := newTeam(4)
	var done [64]atomic.Int32
	for job := range 5000 {
		parts := 1 + job%len(done)
		if job%500 == 0 {
			for i := range team.helpers { // long enough for all to park
				for team.helpers[i].state.Load() != parked {
					runtime.Gosched()
				}
			}
		}
		team.run(parts, func(worker, part int) {
			done[part].Add(1)
			if job%7 == 0 && worker > 0 {
				runtime.Gosched()
			}
		})
		for i := range done {
			want := int32(0)
			if i < parts {
				want = 1
			}
			if got := done[i].Swap(0); got != want {
				t.Fatalf("job %d of %d parts: part %d was done %d times", job, parts, i, got)
			}
		}
	}
	team.close()
}
