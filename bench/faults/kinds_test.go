//go:build e2e

package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lapwing-stream/lapwing/bench/process"
)

// kind is a kind of fault. Its do strikes, does the harm and takes it back; when it returns, everything that was killed has been
// started again.
type kind struct {
	name   string
	times  int  // in a round
	mayEnd bool // scorers may give up, with a line that says why, and are started again
	open   bool // injected only with -open: one of those that have struck fewer than twenty times (docs/faults.md)
	do     func(context.Context, *bed) error
}

// The bounces of Kafka's transactions_test, hard and clean, of brokers and of clients, are among them; order is checked always, and
// the group's metadata always goes with the offsets, so of its sixteen cases those four are left.
var kinds = []kind{
	{name: "scorer killed", times: 3, do: scorerKilled},
	{name: "scorer killed, back after its session", times: 1, do: scorerKilledForLong},
	{name: "scorer frozen for less than its session", times: 2, do: func(ctx context.Context, b *bed) error { return scorerFrozen(ctx, b, session/4) }},
	{name: "scorer frozen past session and transaction", open: true, times: 1, do: func(ctx context.Context, b *bed) error { return scorerFrozen(ctx, b, session+3*time.Second) }},
	{name: "scorer starved", open: true, times: 1, do: scorerStarved},
	{name: "scorers bounced clean", times: 1, do: scorersBounced},
	{name: "all scorers killed", times: 1, do: scorersKilled},
	{name: "two scorers, one transactional id", open: true, times: 1, mayEnd: true, do: sameName},
	{name: "trainer killed", times: 1, do: trainerKilled},
	{name: "trainer frozen", times: 1, do: trainerFrozen},
	{name: "two trainers at once", times: 1, do: trainersRace},
	{name: "broker killed", open: true, times: 1, do: brokerKilled},
	{name: "broker frozen", open: true, times: 1, do: brokerFrozen},
	{name: "broker and scorer killed together", open: true, times: 1, do: bothKilled},
	{name: "brokers bounced clean", open: true, times: 1, do: brokersBounced},
	{name: "cluster killed", open: true, times: 1, do: clusterKilled},
	{name: "leaders moved", times: 3, do: leadersMoved},
	{name: "coordinators moved", times: 2, do: coordinatorsMoved},
	{name: "coordinator isolated", open: true, times: 1, do: coordinatorIsolated},
	{name: "network cut", times: 2, do: networkCut},
	{name: "network slow", open: true, times: 1, do: networkSlow},
	{name: "network half-open, answers lost", open: true, times: 1, do: func(ctx context.Context, b *bed) error { return halfOpen(ctx, b, "downstream") }},
	{name: "network half-open, requests lost", open: true, times: 1, do: func(ctx context.Context, b *bed) error { return halfOpen(ctx, b, "upstream") }},
	{name: "partition added", open: true, times: 1, do: partitionAdded},
	{name: "disk of a broker full", open: true, times: 1, do: diskFull},
	{name: "records deleted before they are read", open: true, times: 1, do: truncated},
	{name: "certificate expired", open: true, times: 1, do: certificateExpired},
	{name: "poison records", times: 2, do: poisoned},
	{name: "input transaction aborted", times: 2, do: inputAborted},
}

func scorerKilled(ctx context.Context, b *bed) error {
	i := b.anyScorer()
	if err := b.strike(ctx, "SIGKILL of scorer %d, started again at once", i); err != nil {
		return err
	}
	b.scorers[i].Kill()
	return b.serve(i)
}

func scorerKilledForLong(ctx context.Context, b *bed) error {
	i := b.anyScorer()
	if err := b.strike(ctx, "SIGKILL of scorer %d, started again when its session is over", i); err != nil {
		return err
	}
	b.scorers[i].Kill()
	if err := wait(ctx, session+2*time.Second); err != nil {
		return err
	}
	return b.serve(i)
}

func scorerFrozen(ctx context.Context, b *bed, d time.Duration) error {
	i := b.anyScorer()
	if err := b.strike(ctx, "SIGSTOP of scorer %d for %v", i, d); err != nil {
		return err
	}
	if err := signal(b.scorers[i], syscall.SIGSTOP); err != nil {
		return err
	}
	return errors.Join(wait(ctx, d), signal(b.scorers[i], syscall.SIGCONT))
}

// scorerStarved: a scorer gets so little processor time that it scores slower than records come, and may miss its session.
func scorerStarved(ctx context.Context, b *bed) error {
	i := b.anyScorer()
	if err := b.strike(ctx, "scorer %d runs for some milliseconds in a second", i); err != nil {
		return err
	}
	var err error
	for until := time.Now().Add(session + 2*time.Second); err == nil && time.Now().Before(until); {
		err = errors.Join(signal(b.scorers[i], syscall.SIGSTOP), wait(ctx, time.Duration(200+b.rng.IntN(1500))*time.Millisecond),
			signal(b.scorers[i], syscall.SIGCONT), wait(ctx, time.Duration(10+b.rng.IntN(40))*time.Millisecond))
	}
	return err
}

// scorersBounced is a rolling restart as an orchestrator makes it: the next goes when the one before is back.
func scorersBounced(ctx context.Context, b *bed) error {
	if err := b.gathered(ctx); err != nil {
		return err
	}
	if err := b.strike(ctx, "SIGTERM of each scorer in turn"); err != nil {
		return err
	}
	for i := range b.scorers {
		if err := b.scorers[i].Stop(); err != nil {
			return fmt.Errorf("scorer %d did not end well: %w\n%s", i, err, b.scorers[i].Said())
		}
		if err := b.serve(i); err != nil {
			return err
		}
		b.source.write(ctx, 400, b.source.reading)
		if err := b.scored(ctx); err != nil {
			return err
		}
	}
	return nil
}

// scored returns when every record that is written now has its result: every partition is read.
func (b *bed) scored(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	return b.source.upTo(ctx)
}

func scorersKilled(ctx context.Context, b *bed) error {
	if err := b.strike(ctx, "SIGKILL of every scorer"); err != nil {
		return err
	}
	for _, s := range b.scorers {
		s.Kill()
	}
	for i := range b.scorers {
		if err := b.serve(i); err != nil {
			return err
		}
	}
	return nil
}

// sameName: a second process with a scorer's name, and so with its transactional id. One of them has to give way or be fenced.
func sameName(ctx context.Context, b *bed) error {
	i := b.anyScorer()
	if err := b.strike(ctx, "a second scorer %d with the first one's transactional id", i); err != nil {
		return err
	}
	first := b.scorers[i]
	if err := b.serve(i); err != nil {
		return err
	}
	second := b.scorers[i]
	for range 10 {
		b.source.write(ctx, 200, b.source.reading)
		if err := wait(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
	first.Kill()
	for _, p := range []interface {
		Ended() error
		Said() string
	}{first, second} {
		if ended := p.Ended(); ended != nil && !strings.Contains(p.Said(), "instance") && !strings.Contains(ended.Error(), "killed") {
			return fmt.Errorf("a scorer gave way without a word of why: %w", ended)
		}
	}
	return nil
}

func trainerKilled(ctx context.Context, b *bed) error {
	p, err := b.train(b.rng.IntN(1000))
	if err != nil {
		return err
	}
	if err := wait(ctx, time.Duration(b.rng.IntN(900))*time.Millisecond); err != nil {
		return err
	}
	if err := b.strike(ctx, "SIGKILL of the trainer"); err != nil {
		return err
	}
	p.Kill()
	return nil
}

func trainerFrozen(ctx context.Context, b *bed) error {
	p, err := b.train(b.rng.IntN(1000))
	if err != nil {
		return err
	}
	if err := wait(ctx, time.Duration(b.rng.IntN(900))*time.Millisecond); err != nil {
		return err
	}
	if err := b.strike(ctx, "SIGSTOP of the trainer for 3s"); err != nil {
		return err
	}
	if err := signal(p, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	if err := wait(ctx, 3*time.Second); err != nil {
		return err
	}
	if err := signal(p, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	if err := p.Wait(); err != nil {
		return err
	}
	b.trained.Add(1)
	return nil
}

func trainersRace(ctx context.Context, b *bed) error {
	seed := b.rng.IntN(1000)
	one, err := b.train(seed)
	if err != nil {
		return err
	}
	two, err := b.train(seed + 1)
	if err != nil {
		return err
	}
	if err := b.strike(ctx, "two trainers publish at once"); err != nil {
		return err
	}
	// Both may publish, one after the other; one that finds its version taken says so and keeps its model in a file.
	published := 0
	for _, p := range []*process.Process{one, two} {
		switch err := p.Wait(); {
		case err == nil:
			published++
		case !strings.Contains(p.Said(), "at the same moment; nothing was written"):
			return err
		}
	}
	if published == 0 {
		return errors.New("neither of two trainers published")
	}
	b.trained.Add(int32(published))
	return nil
}

func brokerKilled(ctx context.Context, b *bed) error {
	i := b.anyBroker()
	if err := b.strike(ctx, "SIGKILL of broker %d", i+1); err != nil {
		return err
	}
	b.cluster.Node(i).Kill()
	if err := wait(ctx, time.Duration(b.rng.IntN(5000))*time.Millisecond); err != nil { // before or after its leaders have moved
		return err
	}
	return b.restart(ctx, i)
}

func brokerFrozen(ctx context.Context, b *bed) error {
	i, d := b.anyBroker(), time.Duration(1000+b.rng.IntN(5000))*time.Millisecond
	if err := b.strike(ctx, "SIGSTOP of broker %d for %v", i+1, d); err != nil {
		return err
	}
	if err := signal(b.cluster.Node(i), syscall.SIGSTOP); err != nil {
		return err
	}
	if err := errors.Join(wait(ctx, d), signal(b.cluster.Node(i), syscall.SIGCONT)); err != nil {
		return err
	}
	return b.whole(ctx)
}

func bothKilled(ctx context.Context, b *bed) error {
	i, s := b.anyBroker(), b.anyScorer()
	if err := b.strike(ctx, "SIGKILL of broker %d and scorer %d", i+1, s); err != nil {
		return err
	}
	b.cluster.Node(i).Kill()
	b.scorers[s].Kill()
	if err := b.serve(s); err != nil {
		return err
	}
	if err := wait(ctx, time.Duration(b.rng.IntN(5000))*time.Millisecond); err != nil {
		return err
	}
	return b.restart(ctx, i)
}

func brokersBounced(ctx context.Context, b *bed) error {
	for i := range 3 {
		if err := b.strike(ctx, "SIGTERM of broker %d, one after another", i+1); err != nil {
			return err
		}
		b.cluster.Node(i).Stop()
		if err := b.restart(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func clusterKilled(ctx context.Context, b *bed) error {
	if err := b.strike(ctx, "SIGKILL of all three brokers"); err != nil {
		return err
	}
	for i := range 3 {
		b.cluster.Node(i).Kill()
	}
	return b.restart(ctx, 0, 1, 2)
}

// lead makes another broker lead each of these partitions: their replicas are turned by one place, and the first is elected.
func (b *bed) lead(ctx context.Context, names ...string) error {
	md, err := b.metadata(ctx, names...)
	if err != nil {
		return err
	}
	move := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	elect := kmsg.NewPtrElectLeadersRequest()
	move.TimeoutMillis, elect.TimeoutMillis = 15_000, 15_000
	want := map[string]int32{}
	for _, t := range md.Topics {
		mt := kmsg.NewAlterPartitionAssignmentsRequestTopic()
		mt.Topic = *t.Topic
		et := kmsg.NewElectLeadersRequestTopic()
		et.Topic = *t.Topic
		for _, p := range t.Partitions {
			others := slices.DeleteFunc(slices.Clone(p.Replicas), func(r int32) bool { return r == p.Leader })
			b.rng.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
			mp := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
			mp.Partition, mp.Replicas = p.Partition, append(others, p.Leader)
			want[lane(*t.Topic, p.Partition)] = mp.Replicas[0]
			mt.Partitions = append(mt.Partitions, mp)
			et.Partitions = append(et.Partitions, p.Partition)
		}
		move.Topics, elect.Topics = append(move.Topics, mt), append(elect.Topics, et)
	}
	if _, err := move.RequestWith(ctx, b.client); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return until(ctx, "leaders have moved", func() (bool, error) {
		if _, err := elect.RequestWith(ctx, b.client); err != nil {
			return false, err
		}
		md, err := b.metadata(ctx, names...)
		if err != nil {
			return false, err
		}
		for _, t := range md.Topics {
			for _, p := range t.Partitions {
				if p.Leader != want[lane(*t.Topic, p.Partition)] {
					return false, fmt.Errorf("%s/%d is led by %d", *t.Topic, p.Partition, p.Leader)
				}
			}
		}
		return true, nil
	})
}

func leadersMoved(ctx context.Context, b *bed) error {
	if err := b.strike(ctx, "all partitions of input and output get another leader"); err != nil {
		return err
	}
	return b.lead(ctx, b.of.in, b.of.scores, b.of.dead)
}

func coordinatorsMoved(ctx context.Context, b *bed) error {
	if err := b.strike(ctx, "groups and transactions get another coordinator"); err != nil {
		return err
	}
	return b.lead(ctx, "__consumer_offsets", "__transaction_state")
}

// coordinator is the broker, from 0, that keeps the scorers' group.
func (b *bed) coordinator(ctx context.Context) (int, error) {
	r := kmsg.NewPtrFindCoordinatorRequest()
	r.CoordinatorKey = "lapwing." + b.of.scores
	r.CoordinatorKeys = []string{r.CoordinatorKey}
	answer, err := r.RequestWith(ctx, b.client)
	if err != nil {
		return 0, err
	}
	if len(answer.Coordinators) > 0 {
		return int(answer.Coordinators[0].NodeID) - 1, nil
	}
	return int(answer.NodeID) - 1, nil
}

func coordinatorIsolated(ctx context.Context, b *bed) error {
	i, err := b.coordinator(ctx)
	if err != nil || i < 0 {
		return fmt.Errorf("no coordinator: %w", err)
	}
	d := time.Duration(1000+b.rng.IntN(5000)) * time.Millisecond
	if err := b.strike(ctx, "broker %d, the group's coordinator, cannot be reached for %v", i+1, d); err != nil {
		return err
	}
	mend := b.network.cut(i)
	return errors.Join(wait(ctx, d), mend())
}

func networkCut(ctx context.Context, b *bed) error {
	d := time.Duration(100+b.rng.IntN(4000)) * time.Millisecond
	if err := b.strike(ctx, "no broker can be reached for %v", d); err != nil {
		return err
	}
	mend := b.network.cut(0, 1, 2)
	return errors.Join(wait(ctx, d), mend())
}

func networkSlow(ctx context.Context, b *bed) error {
	if err := b.strike(ctx, "each answer takes 300ms more, and 256 kB/s go through, for 4s"); err != nil {
		return err
	}
	late, err := b.network.spoil("latency", "downstream", `{"latency":300}`, 0, 1, 2)
	if err != nil {
		return err
	}
	narrow, err := b.network.spoil("bandwidth", "upstream", `{"rate":256}`, 0, 1, 2)
	if err != nil {
		return err
	}
	return errors.Join(wait(ctx, 4*time.Second), late(), narrow())
}

// halfOpen: connections stay, and what goes one way is lost without a word. Where answers are lost, the broker does what it is asked.
func halfOpen(ctx context.Context, b *bed, direction string) error {
	i, d := b.anyBroker(), time.Duration(1000+b.rng.IntN(6000))*time.Millisecond
	if err := b.strike(ctx, "broker %d, %s: nothing arrives for %v", i+1, direction, d); err != nil {
		return err
	}
	mend, err := b.network.spoil("timeout", direction, `{"timeout":0}`, i)
	if err != nil {
		return err
	}
	return errors.Join(wait(ctx, d), mend())
}

func partitionAdded(ctx context.Context, b *bed) error {
	if err := b.strike(ctx, "partition %d is added", b.partitions); err != nil {
		return err
	}
	r := kmsg.NewPtrCreatePartitionsRequest()
	r.TimeoutMillis = 15_000
	c := kmsg.NewCreatePartitionsRequestTopic()
	c.Topic, c.Count = b.of.in, int32(b.partitions+1)
	r.Topics = append(r.Topics, c)
	answer, err := r.RequestWith(ctx, b.client)
	if err != nil {
		return err
	}
	if code := answer.Topics[0].ErrorCode; code != 0 {
		return fmt.Errorf("the partition was not added: error code %d", code)
	}
	b.partitions++
	limit, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := until(limit, "the source knows the partition", func() (bool, error) {
		b.source.client.ForceMetadataRefresh()
		return b.source.tryPartition(limit, int32(b.partitions-1))
	}); err != nil {
		return err
	}
	// Outputs are widened by the scorers; the partition is read once they have learned of it.
	limit, cancel = context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	return until(limit, "the outputs have the partition", func() (bool, error) {
		md, err := b.metadata(ctx, b.of.scores, b.of.dead)
		if err != nil {
			return false, err
		}
		return len(md.Topics[0].Partitions) == b.partitions && len(md.Topics[1].Partitions) == b.partitions, nil
	})
}

func poisoned(ctx context.Context, b *bed) error {
	if err := b.strike(ctx, "300 records that cannot be scored, among others"); err != nil {
		return err
	}
	for range 10 {
		b.source.write(ctx, 30, b.source.poison)
		b.source.write(ctx, 50, b.source.reading)
	}
	return nil
}

// inputAborted: another producer's transaction in the input, which is taken back.
func inputAborted(ctx context.Context, b *bed) error {
	if err := b.strike(ctx, "300 records of the input are taken back by their producer"); err != nil {
		return err
	}
	c, err := kgo.NewClient(kgo.SeedBrokers(b.cluster.Brokers()...), kgo.TransactionalID("aborts"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.BeginTransaction(); err != nil {
		return err
	}
	var records []*kgo.Record
	for n := range 300 {
		records = append(records, &kgo.Record{Topic: b.of.in, Partition: int32(n % b.partitions), Key: []byte("aborted"), Value: []byte(`{"car":"car-0","speed":50,"rpm":2000,"temp":80}`)})
	}
	if err := c.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return err
	}
	b.source.write(ctx, 300, b.source.reading) // waits behind them for readers of committed records
	if err := wait(ctx, 200*time.Millisecond); err != nil {
		return err
	}
	return c.EndTransaction(ctx, kgo.TryAbort)
}

// schedule is the order of a round's faults.
func schedule(rng *rand.Rand, of []kind) (out []kind) {
	for _, k := range of {
		for range k.times {
			out = append(out, k)
		}
	}
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}
