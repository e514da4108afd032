//go:build e2e

package faults

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// diskFull: a broker's writes are refused as on a full disk. RLIMIT_FSIZE needs no right that a test may not have: the system says
// "file too large" in place of "no space left on device", and the broker takes both alike: its log directory fails, and it ends.
func diskFull(ctx context.Context, b *bed) error {
	i := b.anyBroker()
	if err := b.strike(ctx, "broker %d can write nothing more to its disk", i+1); err != nil {
		return err
	}
	n := b.cluster.Node(i)
	if said, err := exec.CommandContext(ctx, "prlimit", "--pid", strconv.Itoa(n.PID()), "--fsize=1:unlimited").CombinedOutput(); err != nil {
		return fmt.Errorf("prlimit: %w: %s", err, said)
	}
	limit, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := until(limit, "the broker ends", func() (bool, error) { return n.Ended() != nil, nil }); err != nil {
		b.logf("broker %d did not end with a full disk: it is killed", i+1)
		n.Kill()
	}
	return b.restart(ctx, i)
}

var saidLost = regexp.MustCompile(`"msg":"retention deleted records before they were read".*"lost":([0-9]+)`)

// saidLost is how many records the scorers have said to be lost.
func (b *bed) saidLost() (n int) {
	for _, s := range b.scorers {
		for _, m := range saidLost.FindAllStringSubmatch(s.Said(), -1) {
			lost, err := strconv.Atoi(m[1])
			if err == nil {
				n += lost
			}
		}
	}
	return n
}

// truncated: records are deleted that scorers have not read. Those are gone, as docs/delivery.md has it, and scorers have to say how many
// at least; every other record has its result.
func truncated(ctx context.Context, b *bed) (err error) {
	before := b.saidLost()
	if err := b.strike(ctx, "records past the scorers' positions are deleted"); err != nil {
		return err
	}
	for _, s := range b.scorers {
		err = errors.Join(err, signal(s, syscall.SIGSTOP))
	}
	defer func() {
		for _, s := range b.scorers {
			err = errors.Join(err, signal(s, syscall.SIGCONT))
		}
	}()
	b.source.flow(false)
	// What brokers hold requests open for goes out at once, and lies in the scorers' sockets: more has to come after it.
	b.source.write(ctx, 150, b.source.reading)
	err = errors.Join(err, b.source.written(ctx), wait(ctx, 300*time.Millisecond))
	b.source.write(ctx, 1200, b.source.reading)
	if err := errors.Join(err, b.source.written(ctx), b.checker.read(ctx, b.books, b.partitions, b.of.in)); err != nil {
		return err
	}
	r := kmsg.NewPtrDeleteRecordsRequest()
	r.TimeoutMillis = 15_000
	t := kmsg.NewDeleteRecordsRequestTopic()
	t.Topic = b.of.in
	for p := range b.partitions {
		dp := kmsg.NewDeleteRecordsRequestTopicPartition()
		dp.Partition, dp.Offset = int32(p), b.checker.next[lane(b.of.in, int32(p))]-int64(b.rng.IntN(100))
		t.Partitions = append(t.Partitions, dp)
	}
	r.Topics = append(r.Topics, t)
	answer, err := r.RequestWith(ctx, b.client)
	if err != nil {
		return err
	}
	for _, p := range answer.Topics[0].Partitions {
		if p.ErrorCode != 0 {
			return fmt.Errorf("records of %s/%d were not deleted: error code %d", b.of.in, p.Partition, p.ErrorCode)
		}
		b.books.deleted(p.Partition, p.LowWatermark)
		b.source.forget(p.Partition, p.LowWatermark)
	}
	b.then = func(got tally) error {
		said := b.saidLost() - before
		b.logf("%d records were deleted before they were read; scorers said %d", got.gone, said)
		// After an abort, or where another copy gets the partition before the next commit, the same records are said again.
		if said < got.gone {
			return fmt.Errorf("%d deleted records have no result; the scorers said %d", got.gone, said)
		}
		return nil
	}
	return nil
}
