package stream

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A static member is replaced in the middle of a rebalance, while it still holds the partition that another is to get. The coordinator
// takes the successor in without a rebalance, and would leave that partition to nobody for ever.
func TestGroupFindsAPartitionThatNobodyReads(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	// Apache Kafka takes a successor in without a rebalance where the names of its assignors are its predecessor's; the fake compares
	// what they say of owned partitions too. So the successor says what its predecessor said.
	var mu sync.Mutex
	said := map[string][]kmsg.JoinGroupRequestProtocol{}
	k.ControlKey(int16(kmsg.JoinGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		if j := r.(*kmsg.JoinGroupRequest); j.InstanceID != nil {
			if before := said[*j.InstanceID]; before != nil && j.MemberID == "" {
				j.Protocols = before
			}
			said[*j.InstanceID] = j.Protocols
		}
		return nil, nil, false
	})
	c = connect(t, c.Brokers(), map[string]string{"heartbeat.interval.ms": "50"}) // by heartbeats members learn of rebalances
	top, other := topic(t, c, 2), topic(t, c, 1)
	produce(t, c, records(top, 0, 0, 10)...)
	produce(t, c, records(top, 1, 0, 10)...)
	o := GroupOptions{Group: name("g"), censusAfter: 200 * time.Millisecond}
	of := func(id, topic string) GroupOptions {
		o := o
		o.InstanceID, o.Topics = id, []string{topic}
		return o
	}
	leader := join(t, c, of("leader", other)) // the coordinator rebalances where a leader is replaced
	leader.untilAssigned(1)
	owner := join(t, c, of("owner", top))
	owner.untilAssigned(2)
	third := join(t, c, of("third", top))
	// The owner is asked for a partition, and ends before it has given it up.
	for {
		e, err := owner.g.Next(ctxOf(t))
		if err != nil {
			t.Fatal(err)
		}
		if b, ok := e.(*Batch); ok {
			b.Release()
		}
		if _, ok := e.(*Revoked); ok {
			break
		}
	}
	if err := owner.g.Close(); err != nil {
		t.Fatal(err)
	}
	owner = join(t, c, of("owner", top))
	ctx := ctxOf(t)
	for len(owner.mine)+len(third.mine) < 2 || len(third.mine) == 0 {
		for _, m := range []*member{leader, owner, third} {
			short, stop := context.WithTimeout(ctx, 20*time.Millisecond)
			m.step(short)
			stop()
		}
		if ctx.Err() != nil {
			t.Fatalf("a partition stayed with nobody: the owner has %v, the third member %v", owner.mine, third.mine)
		}
	}
}
