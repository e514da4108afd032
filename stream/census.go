package stream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

const (
	censusAfter = 3 * time.Second        // from joining to the first count, and to the next
	censusClose = 200 * time.Millisecond // bounds the end of the client that counted: Close waits for it
	censusMost  = time.Minute            // between leaving for a partition without a reader and the next count, at most
)

// census finds partitions that a group has given to nobody. A cooperative group moves a partition in two rebalances: its owner gives it
// up in the first, and asks for the second. Where the owner is static and is replaced in between (it was killed and started again, or
// its stream began anew), the coordinator takes the successor in without a rebalance, under the old assignment: the second never comes,
// the group counts as stable, and the partition stays unread until somebody joins or dies. Seen on Apache Kafka 4 with a broker
// killed, and its protocol has no cure.
//
// So a static member counts after it has joined, until it has seen the group stable and whole. Where the same is missing twice in a row it
// leaves, really, and joins again, which costs a rebalance.
type census struct {
	due     time.Time // zero: no more
	missing []TopicPartition
	left    int // how often this member has left for it
	found   chan counted
	stop    context.CancelFunc // ends a count that is on
}

// counted is what one count found.
type counted struct {
	stable  bool
	missing []TopicPartition
	err     error
}

// after sets the next count. Not all members' at once: one that leaves is enough.
func (c *census) after(d time.Duration) {
	c.due, c.found = time.Now().Add(d+rand.N(d)), nil
}

// count does what the census has to do next. In the poller's goroutine.
func (p *poller) count() {
	c, g := &p.census, p.g
	if g.o.InstanceID == "" || c.due.IsZero() || time.Now().Before(c.due) {
		return
	}
	if c.found == nil {
		g.mu.Lock()
		closing := g.closing
		if !closing {
			g.commits.Add(1) // Close waits for it
		}
		g.mu.Unlock()
		if closing {
			return
		}
		found := make(chan counted, 1)
		ctx, cancel := context.WithTimeout(g.ctx, g.o.CloseTimeout)
		c.found, c.stop = found, cancel
		go func() {
			defer g.commits.Done()
			defer cancel()
			found <- g.c.unread(ctx, g.o.Group, g.o.Topics)
		}()
		return
	}
	select {
	case found := <-c.found:
		p.judge(found)
	default:
	}
}

// judge decides what a count is to lead to.
func (p *poller) judge(found counted) {
	c, g := &p.census, p.g
	switch {
	case found.err != nil || !found.stable:
		c.missing = nil
		c.after(g.o.censusAfter)
	case len(found.missing) == 0:
		*c = census{}
	case !slices.Equal(found.missing, c.missing): // a rebalance may be on its way
		c.missing = found.missing
		c.after(g.o.censusAfter)
	default:
		g.c.log.Warn("partitions are read by no member of the group, though it counts as stable: leaving and joining again, so that they are given out",
			"group", g.o.Group, "partitions", lanes(found.missing))
		c.missing = nil
		c.left++
		c.after(min(g.o.censusAfter<<min(c.left, 10), censusMost))
		// Unlike the end of a consumer, this has a static member leave.
		err := p.k.Unsubscribe()
		if err == nil {
			err = p.k.SubscribeTopics(g.o.Topics, p.rebalance)
		}
		if err != nil {
			p.fatal = fmt.Errorf("the group could not be joined again: %w", err)
		}
	}
}

// lanes writes partitions as TOPIC/PARTITION.
func lanes(tps []TopicPartition) string {
	var out []string
	for _, tp := range tps {
		out = append(out, fmt.Sprintf("%s/%d", tp.Topic, tp.Partition))
	}
	return strings.Join(out, " ")
}

// unread finds the partitions of topics that no member of a group has. It asks by a client of its own: librdkafka's keep who coordinated
// the group when they asked first.
func (c *Client) unread(ctx context.Context, group string, topics []string) (found counted) {
	k, err := c.asker(group)
	if err != nil {
		return counted{err: err}
	}
	defer closeConsumer(k, censusClose)
	admin, err := kafka.NewAdminClientFromConsumer(k) // needs no end of its own
	if err != nil {
		return counted{err: err}
	}
	r, err := admin.DescribeConsumerGroups(ctx, []string{group})
	if err != nil {
		return counted{err: err}
	}
	if len(r.ConsumerGroupDescriptions) != 1 {
		return counted{err: fmt.Errorf("%d groups were described", len(r.ConsumerGroupDescriptions))}
	}
	d := r.ConsumerGroupDescriptions[0]
	if d.Error.Code() != kafka.ErrNoError {
		return counted{err: d.Error}
	}
	found.stable = d.State == kafka.ConsumerGroupStateStable
	read := map[TopicPartition]bool{}
	for _, m := range d.Members {
		for _, tp := range plain(m.Assignment.TopicPartitions) {
			read[tp] = true
		}
	}
	for _, topic := range topics {
		n, err := c.Partitions(ctx, topic)
		if err != nil {
			return counted{err: err}
		}
		for i := range n {
			if tp := (TopicPartition{topic, int32(i)}); !read[tp] {
				found.missing = append(found.missing, tp)
			}
		}
	}
	return found
}
