package server

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestOutputsWithoutTheRight: the broker lets this client neither create topics nor widen them. The stream waits, is not
// ready, says which command somebody else has to type, and goes on by itself after that.
func TestOutputsWithoutTheRight(t *testing.T) {
	t.Parallel()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SleepOutOfOrder())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	b := bedAt(t, broker.ListenAddrs()[0])
	b.topic("cars", 2)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	b.produce(b.events("cars", 2, 0, 100)...)

	var denied atomic.Bool
	denied.Store(true)
	broker.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if !denied.Load() {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
		for _, t := range req.(*kmsg.CreateTopicsRequest).Topics {
			one := kmsg.NewCreateTopicsResponseTopic()
			one.Topic, one.ErrorCode = t.Topic, kerr.TopicAuthorizationFailed.Code
			resp.Topics = append(resp.Topics, one)
		}
		return resp, nil, true
	})
	broker.ControlKey(int16(kmsg.CreatePartitions), func(req kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if !denied.Load() || req.(*kmsg.CreatePartitionsRequest).Topics[0].Topic == "cars" {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
		for _, t := range req.(*kmsg.CreatePartitionsRequest).Topics {
			one := kmsg.NewCreatePartitionsResponseTopic()
			one.Topic, one.ErrorCode = t.Topic, kerr.TopicAuthorizationFailed.Code
			resp.Topics = append(resp.Topics, one)
		}
		return resp, nil, true
	})
	says := func(s *serving, text string) func() bool {
		return func() bool {
			code, body := s.get("/readyz")
			return code == 503 && strings.Contains(body, text)
		}
	}

	s := b.serve(oneStream("cars"))
	await(t, "the command that creates the output", says(s, "--create --topic cars.scores --partitions 2 --config cleanup.policy=delete"))
	denied.Store(false)
	s.settled(100)

	denied.Store(true)
	if err := b.client.AddPartitions(t.Context(), "cars", 3); err != nil {
		t.Fatal(err)
	}
	b.produce(event("cars", 2, 1, 1, 1))
	await(t, "the command that widens the output", says(s, "--alter --topic cars.scores --partitions 3"))
	denied.Store(false)
	s.settled(101)
	s.stop()
	if d := b.audit([]string{"cars"}, "cars.scores", "cars.dlq"); len(d) > 0 {
		t.Errorf("%d records came more than once", len(d))
	}
}

// TestStartWithoutTransactions: by default serve needs them, and says what is missing and how to do without: what is promised is
// never less than what was asked for. With at_least_once the same broker serves.
func TestStartWithoutTransactions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		deny func(*kfake.Cluster)
		want []string
	}{
		{"no right", func(k *kfake.Cluster) {
			k.ControlKey(int16(kmsg.InitProducerID), func(req kmsg.Request) (kmsg.Response, error, bool) {
				k.KeepControl()
				if req.(*kmsg.InitProducerIDRequest).TransactionalID == nil {
					return nil, nil, false
				}
				resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
				resp.ErrorCode = kerr.TransactionalIDAuthorizationFailed.Code
				return resp, nil, true
			})
		}, []string{"this client may not WRITE transactional-id lapwing.cars.scores-*", "--operation write --transactional-id lapwing.cars.scores- --resource-pattern-type prefixed; or serve with --delivery at_least_once"}},
		{"no log", func(k *kfake.Cluster) {
			k.ControlKey(int16(kmsg.FindCoordinator), func(req kmsg.Request) (kmsg.Response, error, bool) {
				k.KeepControl()
				if q := req.(*kmsg.FindCoordinatorRequest); q.CoordinatorType != 1 {
					return nil, nil, false
				}
				resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
				resp.ErrorCode = kerr.CoordinatorNotAvailable.Code
				return resp, nil, true
			})
		}, []string{"the brokers have no transaction log", "transaction.state.log.replication.factor", "; or serve with --delivery at_least_once"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, broker := fakeBed(t)
			b.topic("cars", 2)
			b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
			b.produce(b.events("cars", 2, 0, 10)...)
			c.deny(broker)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := b.server(oneStream("cars")).Run(ctx)
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Fatalf("got %v; want %q", err, want)
				}
			}
			b.delivery = AtLeastOnce
			s := b.serve(oneStream("cars"))
			s.settled(10)
			s.stop()
		})
	}
}
