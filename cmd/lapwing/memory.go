package main

import (
	"fmt"
	"math"
	"runtime/debug"

	"github.com/lapwing-stream/lapwing/stream"
)

const (
	// goBeside is what the Go heap needs beside max_memory: batches on their way, statistics, weights, garbage. The rest of
	// trainBeside is librdkafka's, which the Go runtime knows nothing of, and the program itself. Measured with five
	// million records of 18 fields: 62 MiB and 36 MiB.
	goBeside = 48 << 20
	// serveBeside is what serve's Go heap must leave: two queues of librdkafka, of 32 and 64 MiB, with what the C library keeps
	// around them, and the program.
	serveBeside = 200 << 20
	// leastMemory is what max_memory may be set to.
	leastMemory = 1 << 20
)

// fitMemory lowers a max_memory that nobody asked for to what the machine has, and says so; one that was asked for stays,
// with a warning. heap is the Go runtime's soft limit.
func (m *machine) fitMemory(asked int64, explicit bool) (granted, heap int64, said string) {
	granted = asked
	if m.memory > 0 && asked+trainBeside > m.memory {
		has := "this machine has"
		if m.memoryLimit {
			has = "this container may use"
		}
		if fits := max(m.memory-trainBeside, m.memory/4, leastMemory) >> 20 << 20; !explicit {
			granted = fits
			said = fmt.Sprintf("%s %s of memory: max_memory is %s in place of %s, and rows beyond it go to a file", has, Size(m.memory>>20<<20), Size(fits), Size(asked))
		} else {
			said = fmt.Sprintf("%s %s of memory, less than max_memory of %s and %s beside it: the system may end this process; --max-memory %s would fit",
				has, Size(m.memory>>20<<20), Size(asked), Size(trainBeside), Size(fits))
		}
	}
	return granted, granted + goBeside, said
}

// serveHeap is the Go runtime's soft limit for serve: nothing without a container's limit.
func (m *machine) serveHeap() int64 {
	if !m.memoryLimit {
		return math.MaxInt64
	}
	return max(m.memory-serveBeside, m.memory/2)
}

// limitHeap sets the soft limit, unless GOMEMLIMIT asks for a lower one. It gives back the one that was.
func limitHeap(bytes int64) (was int64) {
	if was = debug.SetMemoryLimit(-1); was > bytes {
		debug.SetMemoryLimit(bytes)
	}
	return was
}

// boundTraining sees to it that a training stays within max_memory and trainBeside. Call what it gives afterwards: the
// process may have more to do.
func (a *app) boundTraining(e *effective) (release func()) {
	here := readMachine(e.Train.SpillDir)
	granted, heap, said := here.fitMemory(int64(e.Train.MaxMemory), e.origin["train.max_memory"] != "")
	e.Train.MaxMemory = Size(granted)
	if said != "" {
		a.log.Warn(said)
	}
	was := limitHeap(heap)
	stream.FewArenas()
	return func() { debug.SetMemoryLimit(was) }
}
