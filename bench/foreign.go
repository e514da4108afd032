package bench

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// foreignShare finds what others than this process and its children took of the CPU during runs: other programs,
// the kernel's threads and the hypervisor. Linux alone says it.
//
// /proc counts in ticks of 10 ms, so that runs are put together until they cover leastWindow.
type foreignShare struct {
	all, own, at time.Duration // when the run began
	ticks, span  time.Duration // of the window so far
	most         float64       // of the windows that are full
	full, lost   bool
}

const (
	tick        = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	leastWindow = time.Second
)

var processStart = time.Now()

func (f *foreignShare) begin() {
	f.at = time.Since(processStart)
	var ok bool
	if f.all, f.own, ok = cpuTimes("/proc", os.Getpid()); !ok {
		f.lost = true
	}
}

func (f *foreignShare) end() {
	all, own, ok := cpuTimes("/proc", os.Getpid())
	if !ok || f.lost {
		f.lost = true
		return
	}
	f.add(all-f.all-(own-f.own), time.Since(processStart)-f.at)
}

func (f *foreignShare) add(others, span time.Duration) {
	f.ticks += max(others, 0)
	f.span += span
	if f.span >= leastWindow {
		f.most, f.full = max(f.most, float64(f.ticks)/float64(f.span)), true
		f.ticks, f.span = 0, 0
	}
}

// share is the largest of any window, of one core. It is not known where all runs together are too short for ticks to say.
func (f *foreignShare) share() (float64, bool) {
	if f.lost || !f.full && f.span < leastWindow/4 {
		return 0, false
	}
	if f.full {
		return f.most, true
	}
	return max(0, float64(f.ticks-tick)) / float64(f.span), true // one tick may be a rounding
}

// cpuTimes is what all processors and what pid, with its children, have worked so far.
func cpuTimes(proc string, pid int) (all, own time.Duration, ok bool) {
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return 0, 0, false
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, 0, false
	}
	for i, f := range fields[1:9] { // user nice system idle iowait irq softirq steal; guest time is in user
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, 0, false
		}
		if i != 3 && i != 4 {
			all += time.Duration(n) * tick
		}
	}
	own, ok = ownTimes(proc, pid)
	return all, own, ok
}

// ownTimes adds up a process, those of its children that are gone, and those that still run.
func ownTimes(proc string, pid int) (time.Duration, bool) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return 0, false
	}
	times, children := map[int]time.Duration{}, map[int][]int{}
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(proc, e.Name(), "stat"))
		if err != nil {
			continue // gone since
		}
		// The name is in parentheses and may hold anything; what counts stands behind the last one.
		at := bytes.LastIndexByte(stat, ')')
		fields := strings.Fields(string(stat[at+1:]))
		if len(fields) < 15 {
			continue
		}
		parent, _ := strconv.Atoi(fields[1])
		children[parent] = append(children[parent], id)
		for _, f := range fields[11:15] { // utime stime cutime cstime
			n, _ := strconv.ParseInt(f, 10, 64)
			times[id] += time.Duration(n) * tick
		}
	}
	if _, ok := times[pid]; !ok {
		return 0, false
	}
	var sum time.Duration
	for queue := []int{pid}; len(queue) > 0; queue = queue[1:] {
		sum += times[queue[0]]
		queue = append(queue, children[queue[0]]...)
	}
	return sum, true
}
