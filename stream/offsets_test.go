package stream

import (
	"maps"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestOffsetsForTime(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 2)
	produce(t, c, records(top, 0, 0, 100)...) // one a millisecond
	at, err := c.OffsetsForTime(ctxOf(t), top, 1_700_000_000_040)
	if err != nil || at[0] != 40 || at[1] != 0 {
		t.Fatal(at, err)
	}
	if at, err = c.OffsetsForTime(ctxOf(t), top, 1_800_000_000_000); err != nil || at[0] != 100 {
		t.Fatal(at, err)
	}
}

// The broker that coordinates a group may stop doing so between two requests. Then the group's offsets are asked for anew: by who has
// joined it, and by who has not. (librdkafka took the process with it where a client asked that has no group of its own.)
func TestOffsetsAsTheCoordinatorMoves(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	top, group := topic(t, c, 2), name("g")
	var fetches, commits atomic.Int32
	k.ControlKey(int16(kmsg.OffsetFetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		if fetches.Add(1)%2 == 0 {
			return nil, nil, false
		}
		answer := req.ResponseKind().(*kmsg.OffsetFetchResponse)
		answer.ErrorCode = kerr.NotCoordinator.Code
		for _, g := range req.(*kmsg.OffsetFetchRequest).Groups {
			one := kmsg.NewOffsetFetchResponseGroup()
			one.Group, one.ErrorCode = g.Group, kerr.NotCoordinator.Code
			answer.Groups = append(answer.Groups, one)
		}
		return answer, nil, true
	})
	k.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		if commits.Add(1)%2 == 0 {
			return nil, nil, false
		}
		answer := req.ResponseKind().(*kmsg.OffsetCommitResponse)
		for _, asked := range req.(*kmsg.OffsetCommitRequest).Topics {
			one := kmsg.NewOffsetCommitResponseTopic()
			one.Topic, one.TopicID = asked.Topic, asked.TopicID
			for _, p := range asked.Partitions {
				one.Partitions = append(one.Partitions, kmsg.OffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: kerr.NotCoordinator.Code})
			}
			answer.Topics = append(answer.Topics, one)
		}
		return answer, nil, true
	})
	want := map[TopicPartition]int64{{top, 0}: 0, {top, 1}: 0}
	if ok, err := c.CommitInitial(ctxOf(t), group, want); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if got, err := c.Committed(ctxOf(t), group, []string{top}); err != nil || !maps.Equal(got, want) {
		t.Errorf("committed: %v, %v", got, err)
	}
	m := join(t, c, GroupOptions{Topics: []string{top}, Group: group})
	m.untilAssigned(2)
	m.g.Rewind()
	m.until("asked anew", func() bool { return fetches.Load() >= 6 })
	m.untilAssigned(2)
}

// Where another broker has become the group's coordinator, that one is asked where partitions begin, however long this client has asked
// the first.
func TestRewindAfterTheCoordinatorMoved(t *testing.T) {
	t.Parallel()
	c, k := fake(t, kfake.NumBrokers(3))
	top, group := topic(t, c, 2), name("g")
	m := join(t, c, GroupOptions{Topics: []string{top}, Group: group})
	m.untilAssigned(2)
	for range 3 {
		for was := k.CoordinatorFor(group); k.CoordinatorFor(group) == was; {
			k.RehashCoordinators()
		}
		m.g.Rewind()
		m.until("taken back", func() bool { return len(m.mine) == 0 })
		m.untilAssigned(2)
	}
}
