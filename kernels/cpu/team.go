package cpu

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// team runs the parts of a job on a fixed number of workers, the caller being worker 0. Which worker takes
// which part is left to chance: jobs must not depend on it. It is for one caller; close ends the goroutines.
//
// A step on a small network lasts 20 µs, a goroutine's way through the scheduler 5 to 50. So a helper that has
// just worked looks out for the next job for a while before it parks, and the caller takes back a call that nobody
// has answered once no part is left.
type team struct {
	helpers []helper
	done    sync.WaitGroup // helpers still running

	job   func(worker, part int)
	parts int32
	next  atomic.Int32
}

// lookout is how long a helper stays awake without work: longer than what a training loop needs to fetch the next
// rows, too short to matter to whoever else wants the core.
const lookout = 50 * time.Microsecond

type helper struct {
	state atomic.Int32
	wake  chan struct{} // one token for each change from parked to called or closing
	ready chan struct{} // one token for each change from awaited to idle
}

const (
	idle    int32 = iota // awake, or with a token to wake it
	parked               // waits for a token
	called               // there is a job: by the caller, who may take it back
	working              //
	awaited              // working, and the caller has parked until it has done
	closing
)

func newTeam(workers int) *team {
	// A helper without a core of its own would only keep the caller from its.
	t := &team{helpers: make([]helper, min(workers, runtime.GOMAXPROCS(0))-1)}
	for i := range t.helpers {
		h := &t.helpers[i]
		h.wake, h.ready = make(chan struct{}, 1), make(chan struct{}, 1)
		t.done.Go(func() { t.help(h, i+1) })
	}
	return t
}

func (t *team) help(h *helper, worker int) {
	for since := time.Now(); ; {
		switch h.state.Load() {
		case closing:
			return
		case called:
			if h.state.CompareAndSwap(called, working) {
				t.work(worker)
				if h.state.Swap(idle) == awaited {
					h.ready <- struct{}{}
				}
				since = time.Now()
			}
		case idle:
			if time.Since(since) > lookout && h.state.CompareAndSwap(idle, parked) {
				<-h.wake
				since = time.Now()
			}
		}
	}
}

func (t *team) run(parts int, job func(worker, part int)) {
	t.job, t.parts = job, int32(parts)
	t.next.Store(0)
	helpers := t.helpers[:min(len(t.helpers), parts-1)]
	for i := range helpers {
		if h := &helpers[i]; h.state.Swap(called) == parked {
			h.wake <- struct{}{}
		}
	}
	t.work(0)
	for i := range helpers {
		helpers[i].finish()
	}
}

// finish returns when the helper has done its work, or not begun any.
func (h *helper) finish() {
	if h.state.CompareAndSwap(called, idle) {
		return
	}
	for since := time.Now(); h.state.Load() == working; {
		if time.Since(since) > lookout && h.state.CompareAndSwap(working, awaited) {
			<-h.ready
		}
	}
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
	for i := range t.helpers {
		if h := &t.helpers[i]; h.state.Swap(closing) == parked {
			h.wake <- struct{}{}
		}
	}
	t.done.Wait()
}
