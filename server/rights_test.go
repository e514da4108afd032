package server

import (
	"strings"
	"sync/atomic"
	"testing"

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
