package trainer

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/model"
)

// Called off while the history is read, for longer than from one checkpoint to the next, a run leaves which offsets it reads: another
// reads the same, whatever has been written since, and makes the model of an unbroken run. Called off sooner it leaves nothing.
func TestInterruptedReadIsMadeAgain(t *testing.T) {
	b := newBench(t)
	b.topic("h", 3, values(3, machine(4, 3000)...)...)
	o := slow("h")
	o.Epochs, o.Last = 2, 40*time.Minute
	unbroken := o
	unbroken.Model = "whole"
	want := b.mustRun(unbroken)

	var left *InterruptedError
	if err := b.interrupt(o, 0, "read"); !errors.As(err, &left) || left.Run != "" {
		t.Fatalf("called off at once: %v", err)
	}
	o.Checkpoint = time.Nanosecond
	for range 2 { // the second reads what the first did, and says so
		if err := b.interrupt(o, 0, "read"); !errors.As(err, &left) || left.Run == "" || left.Steps != 0 || left.Unwritten != nil || !strings.Contains(err.Error(), "which offsets were being read") {
			t.Fatalf("called off while it reads: %v\n%s", err, b.log)
		}
		late := values(1, machine(9, 50)...)
		for i := range late {
			late[i].Time = start + 10_000_000 // Last would count back from these
		}
		b.produce("h", late...)
		o.Resume, o.Threads = Newest, 3
	}
	o.Checkpoint = time.Minute
	got := b.mustRun(o)
	if got.From != want.From || model.Digest(got.Data) != model.Digest(want.Data) {
		t.Errorf("read again from %d: %+v; unbroken from %d: %+v", got.From, got.Model.Lineage.Partitions, want.From, want.Model.Lineage.Partitions)
	}
	if !strings.Contains(b.log.String(), "reading the offsets of an interrupted run again") {
		t.Errorf("nothing is said of it:\n%s", b.log)
	}
}

// Nothing had been learned, so a read that cannot be made again is no reason to end: training begins anew, and says why.
func TestInterruptedReadThatCannotBeMadeAgain(t *testing.T) {
	b := newBench(t)
	b.topic("h", 1, values(1, machine(4, 1000)...)...)
	o := slow("h")
	o.Epochs, o.Checkpoint = 2, time.Nanosecond
	var left *InterruptedError
	if err := b.interrupt(o, 0, "read"); !errors.As(err, &left) || left.Run == "" {
		t.Fatal(err)
	}
	o.Resume, o.Seed = left.Run, 7
	if _, err := b.run(o); !errors.Is(err, ErrOtherRun) {
		t.Errorf("a run that was named, with another seed: %v", err)
	}
	o.Resume = Newest
	if r := b.mustRun(o); !r.Published || !strings.Contains(b.log.String(), "begins at the beginning") {
		t.Errorf("published %v\n%s", r.Published, b.log)
	}
}

// A history that is at fault is not read again: more of it may be there by then.
func TestReadThatFailedIsForgotten(t *testing.T) {
	b := newBench(t)
	b.topic("h", 1, values(1, machine(4, 50)...)...)
	o := slow("h")
	o.Checkpoint = time.Nanosecond
	if _, err := b.run(o); !errors.Is(err, ErrTooFewRows) {
		t.Fatal(err)
	}
	b.produce("h", values(1, machine(5, 200)...)...)
	o.Checkpoint, o.Resume, o.Epochs = time.Minute, Newest, 2
	if r := b.mustRun(o); r.Rows.Read != 250 {
		t.Errorf("%d records read of 250", r.Rows.Read)
	}
}
