package stream

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// Range is the offsets [From, To) of one partition.
type Range struct {
	Partition int32
	From, To  int64
}

// Ranges is what topic holds now: earliest kept offset .. last stable offset, every partition, ascending. The last stable offset
// stands before the first record of a transaction that is still open.
func (c *Client) Ranges(ctx context.Context, topic string) ([]Range, error) {
	return c.ends(ctx, topic, kafka.IsolationLevelReadCommitted)
}

// Watermarks is log start and high watermark of every partition, ascending; records of open transactions count.
func (c *Client) Watermarks(ctx context.Context, topic string) ([]Range, error) {
	return c.ends(ctx, topic, kafka.IsolationLevelReadUncommitted)
}

func (c *Client) ends(ctx context.Context, topic string, level kafka.IsolationLevel) ([]Range, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	n, err := c.Partitions(ctx, topic)
	if err != nil {
		return nil, c.lacks(err, "topic", topic, "READ")
	}
	tps := make([]TopicPartition, n)
	for i := range tps {
		tps[i] = TopicPartition{topic, int32(i)}
	}
	low, high, err := c.lowHigh(ctx, tps, level)
	if err != nil {
		return nil, err
	}
	out := make([]Range, n)
	for i, tp := range tps {
		// Retention may pass the end between the two requests; an empty range is then right.
		out[i] = Range{tp.Partition, low[tp], max(high[tp], low[tp])}
	}
	return out, nil
}

func (c *Client) lowHigh(ctx context.Context, tps []TopicPartition, level kafka.IsolationLevel) (low, high map[TopicPartition]int64, err error) {
	if low, err = c.listOffsets(ctx, tps, kafka.EarliestOffsetSpec, level); err == nil {
		high, err = c.listOffsets(ctx, tps, kafka.LatestOffsetSpec, level)
	}
	return low, high, err
}

func (c *Client) listOffsets(ctx context.Context, tps []TopicPartition, spec kafka.OffsetSpec, level kafka.IsolationLevel) (map[TopicPartition]int64, error) {
	found, err := c.find(ctx, tps, spec, level)
	if err != nil {
		return nil, err
	}
	out := make(map[TopicPartition]int64, len(found))
	for tp, f := range found {
		out[tp] = f.offset
	}
	return out, nil
}

// found is a place in a partition and the time of the record there, ms since 1970; each -1 where there is none, the time also where
// the place was not asked for by time.
type found struct{ offset, time int64 }

// find looks up one place in each partition.
func (c *Client) find(ctx context.Context, tps []TopicPartition, spec kafka.OffsetSpec, level kafka.IsolationLevel) (map[TopicPartition]found, error) {
	out := make(map[TopicPartition]found, len(tps))
	if len(tps) == 0 {
		return out, nil
	}
	ask := make(map[kafka.TopicPartition]kafka.OffsetSpec, len(tps))
	names := map[string]*string{}
	for _, tp := range tps {
		ask[kafka.TopicPartition{Topic: intern(names, tp.Topic), Partition: tp.Partition}] = spec
	}
	for {
		r, err := c.admin.ListOffsets(ctx, ask, kafka.SetAdminIsolationLevel(level))
		where := "topic " + tps[0].Topic
		for tp, info := range r.ResultInfos {
			if info.Error.Code() != kafka.ErrNoError && err == nil {
				err, where = info.Error, fmt.Sprintf("topic %s, partition %d", *tp.Topic, tp.Partition)
			}
			out[TopicPartition{*tp.Topic, tp.Partition}] = found{int64(info.Offset), info.Timestamp}
		}
		if err == nil && len(out) != len(tps) {
			err = fmt.Errorf("%d of %d partitions answered", len(out), len(tps))
		}
		switch code(err) {
		case kafka.ErrNoError:
			if err == nil {
				return out, nil
			}
		case kafka.ErrNotLeaderForPartition, kafka.ErrLeaderNotAvailable, kafka.ErrFencedLeaderEpoch, kafka.ErrUnknownLeaderEpoch, kafka.ErrOffsetNotAvailable:
			// A new topic's leaders are known before they lead, and an election leaves old ones named.
			if pause(ctx, 0) {
				continue
			}
		}
		return nil, c.adminErr("offsets could not be read", where, err)
	}
}

func intern(names map[string]*string, topic string) *string {
	if names[topic] == nil {
		names[topic] = &topic
	}
	return names[topic]
}

// OffsetsForTime gives, for every partition, the first offset whose record is at or after ms (milliseconds since 1970); the
// end where there is none.
func (c *Client) OffsetsForTime(ctx context.Context, topic string, ms int64) (map[int32]int64, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	ends, err := c.Watermarks(ctx, topic)
	if err != nil {
		return nil, err
	}
	tps := make([]TopicPartition, len(ends))
	for i, r := range ends {
		tps[i] = TopicPartition{topic, r.Partition}
	}
	at, err := c.listOffsets(ctx, tps, kafka.NewOffsetSpecForTimestamp(ms), kafka.IsolationLevelReadUncommitted)
	if err != nil {
		return nil, err
	}
	out := make(map[int32]int64, len(ends))
	for _, r := range ends {
		if o := at[TopicPartition{topic, r.Partition}]; o >= 0 {
			out[r.Partition] = o
		} else {
			out[r.Partition] = r.To
		}
	}
	return out, nil
}

// Times are the time of the first record that has one and the latest time of any record, over these partitions of topic, ms since
// 1970; -1 where no record has a time. Brokers older than Kafka 3.0 do not know the latest.
func (c *Client) Times(ctx context.Context, topic string, partitions []int32) (first, latest int64, err error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	tps := make([]TopicPartition, len(partitions))
	for i, p := range partitions {
		tps[i] = TopicPartition{topic, p}
	}
	first, latest = -1, -1
	at, err := c.find(ctx, tps, kafka.NewOffsetSpecForTimestamp(0), kafka.IsolationLevelReadUncommitted)
	if err != nil {
		return first, latest, err
	}
	for _, f := range at {
		if f.time >= 0 && (first < 0 || f.time < first) {
			first = f.time
		}
	}
	if at, err = c.find(ctx, tps, kafka.MaxTimestampOffsetSpec, kafka.IsolationLevelReadUncommitted); err != nil {
		return first, latest, err
	}
	for _, f := range at {
		latest = max(latest, f.time)
	}
	return first, latest, nil
}

// Committed gives the group's committed offsets of topics; a partition without a commit is absent. It waits for offsets that
// an open transaction holds back.
func (c *Client) Committed(ctx context.Context, group string, topics []string) (map[TopicPartition]int64, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	var ask []kafka.TopicPartition
	for _, t := range topics {
		n, err := c.Partitions(ctx, t)
		if err != nil {
			return nil, c.lacks(err, "topic", t, "READ")
		}
		for p := range n {
			ask = append(ask, kafka.TopicPartition{Topic: &t, Partition: int32(p)})
		}
	}
	k, err := c.asker(group)
	if err != nil {
		return nil, err
	}
	defer c.retire(k, nil)
	return c.committed(ctx, k, group, ask)
}

// asker is a consumer that asks for a group's offsets, or sets them, and never joins it.
func (c *Client) asker(group string) (*kafka.Consumer, error) {
	return c.consumer(map[string]any{"group.id": group}, "500", nil)
}

// committedTry is how long one question may take, as it does not heed a context.
const committedTry = time.Second

// committed asks by k, which is a consumer of the group and reads committed records, so that offsets of open transactions are waited for.
//
// Not by an admin client, as librdkafka 2.11 is: where the broker that is asked coordinates the group no longer, one of a client without
// a group dies of SIGSEGV (rd_kafka_cgrp_coord_dead, called by rd_kafka_handle_OffsetFetch), and one of a consumer asks the same broker
// again for ever. A consumer looks for its coordinator itself.
func (c *Client) committed(ctx context.Context, k *kafka.Consumer, group string, ask []kafka.TopicPartition) (map[TopicPartition]int64, error) {
	where := "group " + group
	if len(ask) == 0 {
		return map[TopicPartition]int64{}, nil
	}
	for {
		got, err := k.Committed(ask, int(committedTry.Milliseconds()))
		out := map[TopicPartition]int64{}
		for _, tp := range got {
			if tp.Error != nil {
				err = tp.Error
			} else if tp.Offset >= 0 {
				out[TopicPartition{*tp.Topic, tp.Partition}] = int64(tp.Offset)
			}
		}
		if err == nil {
			return out, nil
		}
		switch code(err) {
		case kafka.ErrGroupIDNotFound: // a group that nobody has joined or committed for has no offsets
			return map[TopicPartition]int64{}, nil
		case kafka.ErrUnstableOffsetCommit, kafka.ErrCoordinatorLoadInProgress, kafka.ErrCoordinatorNotAvailable, kafka.ErrNotCoordinator, kafka.ErrWaitCoord:
		default:
			if !Unanswered(err) {
				return nil, c.lacks(c.adminErr("committed offsets could not be read", where, err), "group", group, "READ")
			}
		}
		if !pause(ctx, 0) {
			return nil, c.lacks(c.adminErr("committed offsets could not be read", where, err), "group", group, "READ")
		}
	}
}

// CommitInitial commits offsets for a group that has no members. Where it has some, the broker refuses and their offsets stand:
// false, nil.
func (c *Client) CommitInitial(ctx context.Context, group string, offsets map[TopicPartition]int64) (ok bool, err error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	names := map[string]*string{}
	var set []kafka.TopicPartition
	for tp, o := range offsets {
		set = append(set, kafka.TopicPartition{Topic: intern(names, tp.Topic), Partition: tp.Partition, Offset: kafka.Offset(o)})
	}
	if len(set) == 0 {
		return true, nil
	}
	for {
		r, err := c.alterOffsets(ctx, group, set)
		if err == nil {
			for _, tp := range r.ConsumerGroupsTopicPartitions[0].Partitions {
				if tp.Error != nil && code(tp.Error) != kafka.ErrNoError {
					err = tp.Error
				}
			}
		}
		switch code(err) {
		case kafka.ErrNoError:
			if err == nil {
				return true, nil
			}
		case kafka.ErrUnknownMemberID, kafka.ErrIllegalGeneration, kafka.ErrRebalanceInProgress, kafka.ErrNonEmptyGroup, kafka.ErrGroupSubscribedToTopic,
			kafka.ErrFencedInstanceID, kafka.ErrFencedMemberEpoch, kafka.ErrStaleMemberEpoch:
			return false, nil
		case kafka.ErrCoordinatorLoadInProgress, kafka.ErrCoordinatorNotAvailable, kafka.ErrNotCoordinator:
			if pause(ctx, 0) {
				continue
			}
		}
		return false, c.lacks(c.adminErr("the first offsets could not be committed", "group "+group, err), "group", group, "READ")
	}
}

// alterOffsets asks by a client of its own each time: librdkafka's keep who coordinated the group when they asked first.
func (c *Client) alterOffsets(ctx context.Context, group string, set []kafka.TopicPartition) (r kafka.AlterConsumerGroupOffsetsResult, err error) {
	k, err := c.asker(group)
	if err != nil {
		return r, err
	}
	defer c.retire(k, nil)
	admin, err := kafka.NewAdminClientFromConsumer(k) // needs no end of its own
	if err != nil {
		return r, err
	}
	return admin.AlterConsumerGroupOffsets(ctx, []kafka.ConsumerGroupTopicPartitions{{Group: group, Partitions: set}})
}

func sortTPs(tps []TopicPartition) {
	slices.SortFunc(tps, func(a, b TopicPartition) int {
		if a.Topic != b.Topic {
			if a.Topic < b.Topic {
				return -1
			}
			return 1
		}
		return int(a.Partition) - int(b.Partition)
	})
}
