package cpu

import (
	"sync"
	"sync/atomic"
)

// team runs the parts of a job on a fixed number of workers, the caller being worker 0. Which worker takes
// which part is left to chance: jobs must not depend on it. It is for one caller; close ends the goroutines.
type team struct {
	wake []chan struct{} // one for each worker but the caller
	done sync.WaitGroup  // workers still running
	busy sync.WaitGroup  // workers in the current job

	job   func(worker, part int)
	parts int32
	next  atomic.Int32
}

func newTeam(workers int) *team {
	t := &team{}
	for w := 1; w < workers; w++ {
		wake := make(chan struct{}, 1)
		t.wake = append(t.wake, wake)
		t.done.Go(func() {
			for range wake {
				t.work(w)
				t.busy.Done()
			}
		})
	}
	return t
}

func (t *team) run(parts int, job func(worker, part int)) {
	t.job, t.parts = job, int32(parts)
	t.next.Store(0)
	helpers := min(len(t.wake), parts-1)
	t.busy.Add(helpers)
	for _, wake := range t.wake[:helpers] {
		wake <- struct{}{}
	}
	t.work(0)
	t.busy.Wait()
}

func (t *team) work(worker int) {
	for {
		part := t.next.Add(1) - 1
		if part >= t.parts {
			return
		}
		t.job(worker, int(part))
	}
}

func (t *team) close() {
	for _, wake := range t.wake {
		close(wake)
	}
	t.wake = nil
	t.done.Wait()
}
