//go:build e2e

package faults

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// plant writes an input of 100 records in each partition and what a scorer with three faults would make of it: in partition 0 a
// record has no score, in 1 one has two, in 2 two stand the wrong way round. Record 50 of partition 0 is a dead letter, as it may be.
func plant(t *testing.T, b *bed, of topics) {
	t.Helper()
	at := func(n int) time.Time { return time.UnixMilli(1_795_000_000_000 + int64(n)) }
	score := func(p int32, n int) *kgo.Record {
		return &kgo.Record{Topic: of.scores, Partition: p, Key: fmt.Appendf(nil, "k%d", n), Timestamp: at(n),
			Value: fmt.Appendf(nil, `{"partition":%d,"offset":%d,"model":%q,"version":1}`, p, n, model)}
	}
	var records []*kgo.Record
	for p := range int32(3) {
		for n := range 100 {
			records = append(records, &kgo.Record{Topic: of.in, Partition: p, Key: fmt.Appendf(nil, "k%d", n), Timestamp: at(n), Value: []byte("x")})
			switch {
			case p == 0 && n == 30: // dropped
			case p == 0 && n == 50:
				records = append(records, &kgo.Record{Topic: of.dead, Partition: p, Key: fmt.Appendf(nil, "k%d", n), Timestamp: at(n), Value: []byte("x"), Headers: []kgo.RecordHeader{
					{Key: "lapwing.partition", Value: []byte("0")}, {Key: "lapwing.offset", Value: []byte("50")}, {Key: "lapwing.topic", Value: []byte(of.in)}}})
			case p == 1 && n == 30:
				records = append(records, score(p, n), score(p, n))
			case p == 2 && n == 30:
				records = append(records, score(p, n+1), score(p, n))
			case p == 2 && n == 31:
			default:
				records = append(records, score(p, n))
			}
		}
	}
	c, err := kgo.NewClient(kgo.SeedBrokers(b.cluster.Brokers()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	// A transaction that was aborted is nothing that a reader may see.
	c, err = kgo.NewClient(kgo.SeedBrokers(b.cluster.Brokers()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("planted"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := c.ProduceSync(t.Context(), score(0, 5), score(0, 6)).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := c.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
}
