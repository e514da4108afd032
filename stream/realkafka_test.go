//go:build e2e

package stream

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// case 8.14: the broker's process is frozen for 15 s in the middle of a history. Reading waits and goes on; with less patience it is an error that
// says how far it came, never a shorter history. The test runs alone: everything else that needs the broker would be frozen too.
func TestRealKafkaFrozenBroker_Case8_14(t *testing.T) {
	pid, err := strconv.Atoi(os.Getenv("LAPWING_TEST_BROKER_PID"))
	if err != nil {
		// Only make test-kafka builds this file, and a skip there would go unseen.
		t.Fatal("LAPWING_TEST_BROKER_PID names no broker's process; make test-kafka starts one")
	}
	c, _ := broker(t)
	// Little is fetched ahead, so that the pause is felt.
	c = connect(t, c.Brokers(), map[string]string{"queued.min.messages": "10", "queued.max.messages.kbytes": "1", "max.partition.fetch.bytes": "2000", "fetch.max.bytes": "2000", "message.max.bytes": "2000"})
	top := topic(t, c, 2)
	for i := range 100 {
		produce(t, c, append(records(top, 0, i*50, 50), records(top, 1, i*50, 50)...)...)
	}
	ranges := mustRanges(t, c, top)
	for _, patience := range []time.Duration{time.Minute, 3 * time.Second} {
		h, err := c.ReadRanges(ctxOf(t), top, ranges, HistoryOptions{MaxBatch: 10, Ahead: 1, Stall: patience})
		if err != nil {
			t.Fatal(err)
		}
		n, frozen := 0, false
		var thawed <-chan error
		for {
			var b *Batch
			if b, err = h.Next(ctxOf(t)); err != nil {
				break
			}
			n += len(b.Records)
			b.Release()
			if n < 1000 || frozen {
				continue
			}
			frozen = true
			thawed = freeze(t, pid, 15*time.Second)
		}
		h.Close()
		if err := <-thawed; err != nil {
			t.Fatal(err)
		}
		var lost *LostError
		switch {
		case patience == time.Minute && (!errors.Is(err, io.EOF) || n != 10_000):
			t.Errorf("%d of 10000 records after the pause, then %v", n, err)
		case patience < time.Minute && (!errors.As(err, &lost) || n >= 10_000 || lost.At < 1 || lost.To != 5000):
			t.Errorf("%d records with less patience, then %v", n, err)
		case patience < time.Minute:
			wantText(t, err.Error(), "the history of "+top+" is incomplete", fmt.Sprintf("stopped at offset %d of 5000", lost.At))
		}
	}
}

// freeze stops a process and lets it go on after d.
func freeze(t *testing.T, pid int, d time.Duration) <-chan error {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	timer := time.NewTimer(d)
	go func() {
		<-timer.C
		done <- syscall.Kill(pid, syscall.SIGCONT)
	}()
	return done
}
