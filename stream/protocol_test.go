package stream

import (
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// What is in force: the lower of what both sides speak, on the broker under test and on brokers that are older or set otherwise.
func TestTransactionProtocol(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	p, err := c.TransactionProtocol(ctxOf(t))
	if err != nil || p.Brokers != 2 || p.InForce() != 1 || p.Unverified != "" ||
		!strings.HasPrefix(p.String(), "transaction protocol v1 is in force: the brokers have transaction.version 2, librdkafka 2.") ||
		!strings.HasSuffix(p.String(), " speaks v1; they verify that a record's transaction is open") {
		t.Errorf("%v (%+v), %v", p, p, err)
	}

	old, k := fake(t)
	k.ControlKey(int16(kmsg.ApiVersions), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		if req.GetVersion() > 3 { // as a broker that does not know the question's version
			answer := kmsg.NewPtrApiVersionsResponse()
			answer.ErrorCode = kerr.UnsupportedVersion.Code
			return answer, nil, true
		}
		answer := req.ResponseKind().(*kmsg.ApiVersionsResponse)
		for key := range int16(70) {
			one := kmsg.ApiVersionsResponseApiKey{ApiKey: key, MaxVersion: kmsg.RequestForKey(key).MaxVersion()}
			if key == kmsg.AddPartitionsToTxn.Int16() {
				one.MaxVersion = 3
			}
			answer.ApiKeys = append(answer.ApiKeys, one)
		}
		return answer, nil, true
	})
	if p, err := old.TransactionProtocol(ctxOf(t)); err != nil || p.Brokers != 0 || p.InForce() != 1 ||
		!strings.Contains(p.String(), "the brokers do not name one") || !strings.HasSuffix(p.String(), "is open: they are older than Kafka 3.6") {
		t.Errorf("an old broker: %v (%+v), %v", p, p, err)
	}

	off, _ := fake(t, kfake.BrokerConfigs(map[string]string{Verification: "false"}))
	if p, err := off.TransactionProtocol(ctxOf(t)); err != nil || p.Brokers != 2 || p.Unverified != Verification+" is false" {
		t.Errorf("with verification off: %v (%+v), %v", p, p, err)
	}
	if p := (TransactionProtocol{Brokers: 2, Client: 2}); p.InForce() != 2 {
		t.Errorf("two sides that speak v2: %v", p)
	}
}

// A request that ends a transaction, sent twice because its connection broke, may reach the coordinator when the next transaction is
// open. The next one has an epoch of its own then, so the late request is refused, and nothing of the next is seen before its commit.
func TestLateEndOfTransaction(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	in, out := topic(t, c, 1), topic(t, c, 1)
	m := join(t, c, GroupOptions{Topics: []string{in}, Group: name("g")})
	m.untilAssigned(1)
	var epochs, ends atomic.Int64
	var late atomic.Pointer[kmsg.EndTxnRequest]
	k.ControlKey(int16(kmsg.InitProducerID), func(kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		epochs.Add(1)
		return nil, nil, false
	})
	k.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		if ends.Add(1) == 3 {
			late.Store(req.(*kmsg.EndTxnRequest))
			return nil, errors.New("the connection breaks"), true
		}
		return nil, nil, false
	})
	s, err := c.ExactlyOnce(ctxOf(t), m.g, ExactlyOnceOptions{ID: name("tx")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(ctxOf(t))
	begin := func() {
		t.Helper()
		if err := errors.Join(s.Begin(ctxOf(t)), s.Produce(ctxOf(t), records(out, 0, 0, 5))); err != nil {
			t.Fatal(err)
		}
	}
	commit := func() {
		t.Helper()
		if err := s.Commit(ctxOf(t), Offsets{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 { // of the third, the connection breaks
		begin()
		if n := epochs.Load(); n != 1 {
			t.Fatalf("%d epochs, though no connection broke", n)
		}
		commit()
	}
	if n := ends.Load(); n != 4 || late.Load() == nil {
		t.Fatalf("the end of three transactions was asked for %d times, want 4", n)
	}
	ctx := ctxOf(t)
	for tr := s.(*exactlyOnce).t.(*Transactor); tr.p.breaks.Load() == tr.breaks; runtime.Gosched() { // long since, but on a busy machine
		if ctx.Err() != nil {
			t.Fatal("nobody heard of the connection")
		}
	}
	begin()
	if n := epochs.Load(); n != 2 {
		t.Errorf("%d epochs after a connection broke, want 2", n)
	}
	if err := s.(*exactlyOnce).t.Flush(ctxOf(t)); err != nil { // the transaction is open at the coordinator
		t.Fatal(err)
	}
	franz, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers()), kgo.MaxVersions(kversion.V2_7_0()))
	if err != nil {
		t.Fatal(err)
	}
	defer franz.Close()
	q := *late.Load()
	answer, err := q.RequestWith(ctxOf(t), franz)
	if err != nil || answer.ErrorCode == 0 {
		t.Errorf("the late end: %v, %+v; it must be refused", err, answer)
	}
	if got, _ := readHistory(t, c, out); len(got) != 15 {
		t.Errorf("%d records are seen while the fourth transaction is open, want 15", len(got))
	}
	commit()
	if got, _ := readHistory(t, c, out); len(got) != 20 {
		t.Errorf("%d records in the end, want 20", len(got))
	}
}
