//go:build gpu

package cuda

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"gorgonia.org/cu"
)

// Options of Open.
type Options struct {
	Index   int           // device, as the driver counts those that CUDA_VISIBLE_DEVICES leaves visible; default 0
	Queue   int           // requests that may wait; default 64
	Timeout time.Duration // a driver call that takes longer means that the device is lost; default 30s
	Log     *slog.Logger  // default slog.Default()
}

// Device is a GPU in use. Requests are done one after another by one goroutine, see do. It is safe for concurrent use.
type Device struct {
	info     Info
	log      *slog.Logger
	timeout  time.Duration
	requests chan *request
	stop     chan struct{}
	ended    chan struct{} // closed once everything is released
	closed   error         // what releasing it came to; after ended
	closing  sync.Once
	lost     atomic.Pointer[Error]
	calling  atomic.Pointer[call] // the driver call that is under way; nil = none
	held     atomic.Int64         // bytes of memory
	busy     atomic.Int64         // ns in which requests ran

	mu        sync.Mutex
	discarded []*resident // programs whose scorers are gone
}

// call is a driver call under way.
type call struct {
	what  string
	since time.Time
}

// request is a function for the device's goroutine.
type request struct {
	f    func(*session) error
	done chan error // of capacity 1: nobody may be waiting any more

	mu    sync.Mutex
	state requestState
}

type requestState uint8

const (
	waiting requestState = iota
	running
	withdrawn // its caller has gone: memory of the caller's must not be touched
)

// Open takes a device into use: it makes a context, and loads nothing yet.
func Open(o Options) (*Device, error) {
	d := &Device{
		log: cmp.Or(o.Log, slog.Default()), timeout: cmp.Or(o.Timeout, 30*time.Second),
		requests: make(chan *request, cmp.Or(o.Queue, 64)), stop: make(chan struct{}), ended: make(chan struct{}),
	}
	d.info.Index = o.Index
	ready := make(chan error, 1)
	go d.run(o.Index, ready)
	// A driver that hangs while it starts is a driver that hangs.
	timer := time.NewTimer(d.timeout)
	defer timer.Stop()
	select {
	case err := <-ready:
		if err != nil {
			return nil, err
		}
	case <-timer.C:
		return nil, hung("open the GPU", fmt.Sprintf("GPU %d", o.Index), d.timeout)
	}
	d.log.Info("GPU in use", "gpu", d.info.Index, "name", d.info.Name, "uuid", d.info.UUID, "capability", d.info.Capability(), "cuda", d.info.DriverVersion(), "memory", d.info.Memory, "free", d.info.Free)
	return d, nil
}

// Info describes the device as it was when it was opened.
func (d *Device) Info() Info { return d.info }

// Lost is why the device cannot be used any more, or nil.
func (d *Device) Lost() error {
	if e := d.lost.Load(); e != nil {
		return e
	}
	return nil
}

// errClosed is what a request to a closed device comes to.
var errClosed = errors.New("the GPU was closed")

// do runs f on the device's own thread and returns its error. Requests run one after another. ctx ends the waiting, not
// f once it has begun. Where a driver call takes too long the device is lost, and do returns although f has not: f
// touches what belongs to its caller only within session.guard.
func (d *Device) do(ctx context.Context, f func(*session) error) error {
	if err := d.Lost(); err != nil {
		return err
	}
	r := &request{f: f, done: make(chan error, 1)}
	tick := time.NewTicker(max(d.timeout/4, time.Millisecond))
	defer tick.Stop()
	queue, cancelled := d.requests, ctx.Done()
	for {
		select {
		case queue <- r:
			queue = nil
		case err := <-r.done:
			return err
		case <-cancelled:
			if queue != nil || r.withdraw(false) {
				return ctx.Err()
			}
			cancelled = nil
		case <-tick.C:
			if err := d.overdue(); err != nil {
				r.withdraw(true)
				return err
			}
		case <-d.ended:
			select {
			case err := <-r.done:
				return err
			default:
				return errClosed
			}
		}
	}
}

// withdraw keeps a request from touching its caller's memory; one that runs only where evenRunning is set. It waits
// for a guard that is within.
func (r *request) withdraw(evenRunning bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == running && !evenRunning {
		return false
	}
	r.state = withdrawn
	return true
}

func (r *request) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == withdrawn {
		return false
	}
	r.state = running
	return true
}

// overdue marks the device lost where a driver call takes too long. The callers in do are the watchdog: a hung call
// matters only to those who wait.
func (d *Device) overdue() error {
	if c := d.calling.Load(); c != nil {
		if took := time.Since(c.since); took > d.timeout {
			d.lose(hung(c.what, d.info.Title(), took))
		}
	}
	return d.Lost()
}

// lose marks the device lost; the first reason counts.
func (d *Device) lose(why *Error) {
	if d.lost.CompareAndSwap(nil, why) {
		d.log.Error("GPU lost", "gpu", d.info.Index, "uuid", d.info.UUID, "reason", why.Error(), "next", why.Next)
	}
}

// Close releases everything. Requests that wait fail. It fails where the device does not let go.
func (d *Device) Close() error {
	d.closing.Do(func() { close(d.stop) })
	timer := time.NewTimer(d.timeout)
	defer timer.Stop()
	select {
	case <-d.ended:
		return d.closed
	case <-timer.C:
		return hung("close the GPU", d.info.Title(), d.timeout)
	}
}

// discard gives the memory of a program back, when the device next has something to do.
func (d *Device) discard(r *resident) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.discarded = append(d.discarded, r)
}

// run is the device's goroutine. The thread is never unlocked: it ends with the goroutine and takes its binding to the
// context along.
func (d *Device) run(index int, ready chan<- error) {
	runtime.LockOSThread()
	s := &session{d: d, functions: map[functionName]cu.Function{}, modules: map[*module]cu.Module{}, shared: map[cu.Function]int{}, buffers: map[*buffer]bool{}, pins: map[*pinned]bool{}, raw: map[*rawRows]bool{}}
	if err := s.open(index); err != nil {
		ready <- err
		return
	}
	ready <- nil
	defer close(d.ended)
	for {
		select {
		case <-d.stop:
			d.closed = s.close()
			for {
				select {
				case r := <-d.requests:
					r.done <- errClosed
				default:
					return
				}
			}
		case r := <-d.requests:
			if !r.begin() {
				continue
			}
			if err := d.Lost(); err != nil {
				r.done <- err
				continue
			}
			s.freeDiscarded()
			s.request = r
			began := time.Now()
			err := r.f(s)
			d.busy.Add(int64(time.Since(began)))
			s.request = nil
			r.done <- err
		}
	}
}
