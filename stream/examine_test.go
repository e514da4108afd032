package stream

import (
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// A broker that cannot be asked everything still says what it is and what it allows.
func TestExamine(t *testing.T) {
	b, err := Embed(EmbeddedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx := t.Context()
	c, err := Connect(ctx, Options{Properties: map[string]string{"bootstrap.servers": b.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.CreateTopic(ctx, TopicSpec{Name: "cars", Partitions: 3, Config: map[string]string{"cleanup.policy": "compact"}}); err != nil {
		t.Fatal(err)
	}
	version, err := c.BrokerVersion(ctx)
	if err != nil || !strings.Contains(version, "metadata.version") {
		t.Errorf("BrokerVersion = %q, %v; the embedded broker is no release of Kafka, but names its features", version, err)
	}
	cluster, err := c.Cluster(ctx)
	if id, _ := c.ClusterID(ctx); err != nil || cluster.ID != id || cluster.Brokers != 1 || !cluster.Rights.Allows("CREATE") {
		t.Errorf("Cluster = %+v, %v", cluster, err)
	}
	topic, err := c.Describe(ctx, "cars")
	if err != nil || topic.Partitions != 3 || topic.Replicas < 1 || topic.InSync < 1 || len(topic.Leaderless) != 0 ||
		topic.Config["cleanup.policy"] != "compact" || !topic.Rights.Allows("READ") {
		t.Errorf("Describe = %+v, %v", topic, err)
	}
	if _, err := c.Describe(ctx, "car"); !errors.Is(err, ErrNoTopic) || !strings.Contains(err.Error(), "did you mean cars?") {
		t.Errorf("a missing topic: %v", err)
	}
	if r, err := c.GroupRights(ctx, "lapwing.cars.scores"); err != nil || !r.Allows("READ") {
		t.Errorf("GroupRights = %v, %v", r, err)
	}
	for _, release := range []struct {
		is   *kversion.Versions
		want string
	}{{kversion.V3_9_0(), "Kafka 3.9"}, {kversion.V2_8_0(), "Kafka 2.8"}, {kversion.V0_10_0(), "Kafka 0.10.0"}} {
		answer := kmsg.NewPtrApiVersionsResponse()
		release.is.EachMaxKeyVersion(func(k, v int16) {
			answer.ApiKeys = append(answer.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: k, MaxVersion: v})
		})
		if got := versionText(answer); got != release.want {
			t.Errorf("the requests of %s are taken for %s", release.want, got)
		}
	}
	if got := (Rights{"DESCRIBE": true}); got.Allows("WRITE") || !got.Allows("DESCRIBE") {
		t.Errorf("%v allows what it does not", got)
	}
}
