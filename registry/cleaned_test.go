package registry

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/lapwing-stream/lapwing/stream"
)

var versions = flag.Int("versions", 20, "how many versions TestFollowWhileTheTopicIsCompacted publishes, a multiple of 10")

// cleanedTopic gives a registry whose topic is compacted within seconds, and what returns once it was, which costs a real broker
// another record now and then: it never cleans the segment that is being written.
func cleanedTopic(t *testing.T) (r *Registry, c *stream.Client, cleaned func()) {
	t.Helper()
	addr := os.Getenv("LAPWING_TEST_BROKERS")
	var fake *kfake.Cluster
	if addr == "" {
		t.Parallel()
		var err error
		if fake, err = kfake.NewCluster(kfake.NumBrokers(1)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(fake.Close)
		addr = fake.ListenAddrs()[0]
	}
	r, c = openAt(t, addr, time.Now) // segments are rolled and cleaned by their records' time
	config := map[string]string{"cleanup.policy": "compact", "segment.bytes": "1048576", "segment.ms": "500", "min.cleanable.dirty.ratio": "0.001",
		"max.compaction.lag.ms": "500", "delete.retention.ms": "100", "retention.ms": "-1"}
	if _, err := c.CreateTopic(t.Context(), stream.TopicSpec{Name: r.Topic(), Partitions: 1, Config: config}); err != nil {
		t.Fatal(err)
	}
	return r, c, func() {
		t.Helper()
		if fake != nil {
			fake.Compact()
		}
		// The cleaner is through when no record is left that was written over, but for those of the last second.
		mark := end(t, r, c)
		tick := time.NewTicker(600 * time.Millisecond)
		defer tick.Stop()
		for range 50 {
			if fake == nil {
				write(t, r, c, stream.Record{Key: []byte("cars#filler"), Value: []byte("for another segment"), Time: time.Now().UnixMilli()})
				<-tick.C
			}
			seen, left := map[string]int64{}, 0
			each(t, r, c, func(rec stream.Record) {
				if at, ok := seen[string(rec.Key)]; ok && at < mark {
					left++
				}
				seen[string(rec.Key)] = rec.Offset
			})
			if left == 0 || fake != nil && left < 10 {
				return
			}
		}
		t.Fatalf("the broker does not compact %s", r.Topic())
	}
}

func end(t *testing.T, r *Registry, c *stream.Client) int64 {
	t.Helper()
	marks, err := c.Watermarks(t.Context(), r.Topic())
	if err != nil {
		t.Fatal(err)
	}
	return marks[0].To
}

func each(t *testing.T, r *Registry, c *stream.Client, do func(stream.Record)) (n int) {
	t.Helper()
	marks, err := c.Watermarks(t.Context(), r.Topic())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.EachRecord(t.Context(), r.Topic(), marks, func(rec stream.Record) error { n++; do(rec); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// made is version v of the model: one part, or several.
func made(v int) []byte {
	if v%7 == 0 {
		return bytes.Repeat(fmt.Appendf(nil, "version %05d.", v), 100_000)
	}
	return fmt.Appendf(nil, "version %d", v)
}

// Versions are published, moved and deleted while the broker compacts the topic under those who follow it and read it anew.
func TestFollowWhileTheTopicIsCompacted(t *testing.T) {
	versions := *versions
	r, c, cleaned := cleanedTopic(t)
	live := Ref{Name: "cars", Alias: Live}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	arrives := func(f *Follower, version int) {
		t.Helper()
		for {
			change := wait(t, f)
			if change.Err != nil || change.Gone || !bytes.Equal(change.Data, made(change.Manifest.Version)) {
				t.Fatalf("on the way to version %d: %+v", version, change.Err)
			}
			if change.Manifest.Version == version {
				return
			}
		}
	}
	began := time.Now()
	old := r.Follow(ctx, live)
	for v := 1; v <= versions; v++ {
		if m := publish(t, r, "cars", made(v), Live); m.Version != v {
			t.Fatalf("version %d became %d", v, m.Version)
		}
		arrives(old, v)
		if v%10 == 0 {
			if err := r.Delete(t.Context(), "cars", v-9, v-8, v-7, v-6); err != nil { // tombstones
				t.Fatal(err)
			}
			if a, err := r.Rollback(t.Context(), "cars", Live, "ann", ""); err != nil || a.Version != v-1 {
				t.Fatalf("back from %d: %+v, %v", v, a, err)
			}
			arrives(old, v-1)
			if _, err := r.Move(t.Context(), "cars", Live, v, AnyGeneration, "ann", ""); err != nil {
				t.Fatal(err)
			}
			arrives(old, v)
		}
	}
	t.Logf("%d versions were published in %v", versions, time.Since(began))
	cleaned()
	left := each(t, r, c, func(stream.Record) {})
	t.Logf("%d records over %d offsets", left, end(t, r, c))
	began = time.Now()
	arrives(r.Follow(ctx, live), versions)
	t.Logf("followed from nothing in %v", time.Since(began))
	list, err := r.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Orphans != 0 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, v := range list[0].Versions {
		if _, data, err := r.Get(t.Context(), Ref{Name: "cars", Version: v.Version}); err != nil || v.Fault != "" || (v.Version-1)%10 < 4 || !bytes.Equal(data, made(v.Version)) {
			t.Errorf("version %d: %s, %v", v.Version, v.Fault, err)
		}
	}
	if n := len(list[0].Versions); n != versions*6/10 {
		t.Errorf("%d versions, want %d", n, versions*6/10)
	}
	// The newest goes, its tombstone too, and its number does not return.
	if _, err := r.Rollback(t.Context(), "cars", Live, "ann", ""); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), "cars", versions); err != nil {
		t.Fatal(err)
	}
	cleaned()
	if m := publish(t, r, "cars", made(versions+1), Live); m.Version != versions+1 {
		t.Errorf("after deleting %d the next version is %d", versions, m.Version)
	}
	arrives(old, versions+1)
}

// A model of many parts, none of which can be compressed, passes brokers that take a megabyte at once; publishing the next one, rolling
// back and following read past it.
func TestLargeModel(t *testing.T) {
	r, c := open(t)
	large := make([]byte, 50<<20)
	rng := rand.NewChaCha8([32]byte{9})
	rng.Read(large)
	began := time.Now()
	if m := publish(t, r, "cars", large, Live); m.Parts != 100 {
		t.Fatalf("%d parts", m.Parts)
	}
	t.Logf("published in %v", time.Since(began))
	began = time.Now()
	f := r.Follow(t.Context(), Ref{Name: "cars", Alias: Live})
	if change := wait(t, f); change.Err != nil || !bytes.Equal(change.Data, large) {
		t.Fatalf("%+v", change.Err)
	}
	t.Logf("followed from nothing in %v", time.Since(began))
	publish(t, r, "cars", []byte("small"), Live)
	if change := wait(t, f); string(change.Data) != "small" {
		t.Fatalf("%+v", change.Err)
	}
	if _, err := r.Rollback(t.Context(), "cars", Live, "ann", ""); err != nil {
		t.Fatal(err)
	}
	if change := wait(t, f); change.Err != nil || !bytes.Equal(change.Data, large) {
		t.Fatalf("%+v", change.Err)
	}
	if err := r.Delete(t.Context(), "cars", 2); err != nil {
		t.Fatal(err)
	}
	if n := each(t, r, c, func(stream.Record) {}); n < 105 {
		t.Errorf("%d records", n)
	}
}
