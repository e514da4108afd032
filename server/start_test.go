package server

import (
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A copy that starts while a broker of its cluster is away, here the group's coordinator, waits for it: only what would be wrong again
// ends it.
func TestStartWaitsForABroker(t *testing.T) {
	b, k := fakeBed(t)
	var asked atomic.Int32
	k.ControlKey(int16(kmsg.DescribeGroups), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		if asked.Add(1) > 3 {
			return nil, nil, false
		}
		answer := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
		for _, name := range req.(*kmsg.DescribeGroupsRequest).Groups {
			one := kmsg.NewDescribeGroupsResponseGroup()
			one.Group, one.ErrorCode = name, kerr.RequestTimedOut.Code
			answer.Groups = append(answer.Groups, one)
		}
		return answer, nil, true
	})
	b.topic("cars", 2)
	b.produce(b.events("cars", 2, 0, 20)...)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	b.serve(Options{Streams: []StreamOptions{{Model: "cars", Topics: []string{"cars"}}}}).settled(20)
	if n := asked.Load(); n <= 3 {
		t.Errorf("the group was asked for %d times", n)
	}
}
