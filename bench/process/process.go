// Package process runs what the bench measures as its own process: it ends with the bench whatever happens, and its
// processor time is read from outside, the same way for every language.
package process

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options configure a process.
type Options struct {
	Dir    string        // working folder; default the system's for temporary files
	Stdout io.Writer     // default none
	Stderr io.Writer     // gets what Said keeps the end of, as it is written; default none
	Grace  time.Duration // time from SIGTERM to SIGKILL; default 20s
	Keep   int           // how much of the end of its standard error is kept, bytes; default 4096
}

// Process is a running child.
type Process struct {
	name  string
	cmd   *exec.Cmd
	grace time.Duration
	said  tail
	done  chan struct{}
	err   error // once done is closed
	stop  sync.Once
	began time.Time
}

// Start runs a program. It is told to end when ctx ends.
func Start(ctx context.Context, o Options, program string, args ...string) (*Process, error) {
	if o.Grace == 0 {
		o.Grace = 20 * time.Second
	}
	if o.Keep == 0 {
		o.Keep = 4096
	}
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	p := &Process{name: filepath.Base(program), cmd: exec.Command(program, args...), grace: o.Grace, done: make(chan struct{})}
	p.said.keep = o.Keep
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = o.Dir, o.Stdout, &p.said
	if o.Stderr != nil {
		p.cmd.Stderr = io.MultiWriter(&p.said, o.Stderr)
	}
	p.cmd.SysProcAttr = orphansEnd()
	p.cmd.WaitDelay = time.Second // a grandchild that holds the pipe must not keep us waiting
	started := make(chan error)
	go func() {
		// The kernel ends the child when the thread that made it ends, so the thread is kept for as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		p.began = time.Now()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s did not start: %w", p.name, err)
	}
	detach := context.AfterFunc(ctx, func() { p.Stop() })
	go func() { <-p.done; detach() }()
	return p, nil
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended is nil while the process runs, and says how it ended and what it wrote last afterwards.
func (p *Process) Ended() error {
	select {
	case <-p.done:
		how := "with success"
		if p.err != nil {
			how = p.err.Error()
		}
		return fmt.Errorf("%s ended: %s\n%s", p.name, how, p.said.String())
	default:
		return nil
	}
}

// Said is the end of what it wrote to standard error.
func (p *Process) Said() string { return p.said.String() }

// Wait waits for a process that ends by itself; one that fails is an error with what it wrote last.
func (p *Process) Wait() error {
	<-p.done
	if p.err != nil {
		return p.Ended()
	}
	return nil
}

// Stop asks the process to end, makes it end after the grace, and waits.
func (p *Process) Stop() error {
	p.stop.Do(func() {
		p.cmd.Process.Signal(syscall.SIGTERM)
		timer := time.NewTimer(p.grace)
		defer timer.Stop()
		select {
		case <-p.done:
		case <-timer.C:
			p.cmd.Process.Kill()
		}
	})
	<-p.done
	return p.err
}

// Kill ends the process at once: nothing of it is of interest any more.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// ticks of /proc are hundredths of a second on every Linux that Go runs on (USER_HZ).
const tick = 10 * time.Millisecond

// CPU is the processor time of the process so far, all threads, user and system.
func (p *Process) CPU() (time.Duration, error) {
	pid := p.PID()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := bytes.Cut(stat, []byte(") ")) // the name before it may hold anything but ends here
	f := strings.Fields(string(rest))
	if !ok || len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat is not understood", pid)
	}
	var n time.Duration
	for _, f := range f[11:13] { // user and system
		v, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		n += time.Duration(v) * tick
	}
	return n, nil
}

// Resident is the memory that the process has in use, bytes, and the time since it was started; zero once it has ended.
func (p *Process) Resident() (bytes int64, age time.Duration) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.PID()))
	if err != nil {
		return 0, 0
	}
	f := strings.Fields(string(text))
	if len(f) < 2 {
		return 0, 0
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return 0, 0
	}
	return pages * int64(os.Getpagesize()), time.Since(p.began)
}

// tail keeps the last bytes that were written.
type tail struct {
	keep int
	mu   sync.Mutex
	b    []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if len(t.b) > 2*t.keep {
		t.b = append(t.b[:0], t.b[len(t.b)-t.keep:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b[max(0, len(t.b)-t.keep):])
}
