package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lapwing-stream/lapwing/stream"
)

// open gives a registry on an embedded broker, reached over TCP as any other, or with LAPWING_TEST_BROKERS=HOST:PORT on a real
// Kafka, whose topics then have names of their own.
func open(t *testing.T) (*Registry, *stream.Client) {
	t.Helper()
	addr := os.Getenv("LAPWING_TEST_BROKERS")
	if addr == "" {
		t.Parallel() // each test waits for its own broker most of the time; on one they would fence each other's transactional ids
		broker, err := stream.Embed(stream.EmbeddedOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { broker.Close() })
		addr = broker.Addr()
	}
	second := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	return openAt(t, addr, func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		second = second.Add(time.Second)
		return second
	})
}

func openAt(t *testing.T, addr string, now func() time.Time) (*Registry, *stream.Client) {
	t.Helper()
	c, err := stream.Connect(t.Context(), stream.Options{Properties: map[string]string{"bootstrap.servers": addr}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return Open(c, Options{Topic: fmt.Sprintf("models-%d", time.Now().UnixNano()), Log: slog.New(slog.DiscardHandler), Now: now}), c
}

func publish(t *testing.T, r *Registry, name string, data []byte, alias string) Manifest {
	t.Helper()
	m, err := r.Publish(t.Context(), Publication{Name: name, Data: data, Alias: alias, By: "tester"})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// write puts raw records into the model topic, as another program would.
func write(t *testing.T, r *Registry, c *stream.Client, records ...stream.Record) {
	t.Helper()
	p, err := c.Producer(t.Context(), stream.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(t.Context())
	for i := range records {
		records[i].Topic = r.Topic()
	}
	if err := p.Produce(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestPublishListGet(t *testing.T) {
	r, _ := open(t)
	small, large := []byte("small"), bytes.Repeat([]byte("0123456789abcdef"), 100_000) // 1.6 MB: four parts
	if m := publish(t, r, "cars", small, Live); m.Version != 1 || m.Parts != 1 {
		t.Fatalf("first manifest: %+v", m)
	}
	if m := publish(t, r, "cars", large, Live); m.Version != 2 || m.Parts != 4 || m.Bytes != 1_600_000 {
		t.Fatalf("second manifest: %+v", m)
	}
	publish(t, r, "pumps", small, "")

	for ref, want := range map[string][]byte{"cars": large, "cars@live": large, "cars/1": small, "cars/2": large, "pumps/1": small} {
		parsed, err := ParseRef(ref)
		if err != nil {
			t.Fatal(err)
		}
		m, data, err := r.Get(t.Context(), parsed)
		if err != nil || !bytes.Equal(data, want) || m.Digest != digestOf(want) {
			t.Errorf("Get(%s) = %d bytes of %v, %v; want %d bytes", ref, len(data), m, err, len(want))
		}
	}
	list, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		for _, v := range e.Versions {
			got = append(got, v.String()+v.Fault)
		}
		for alias, a := range e.Aliases {
			got = append(got, fmt.Sprintf("%s@%s=%d gen %d previous %v", e.Name, alias, a.Version, a.Generation, a.Previous))
		}
	}
	want := []string{"cars/1", "cars/2", "cars@live=2 gen 2 previous [1]", "pumps/1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Case 6.15: asking for what is not there never gives something else.
func TestNotFoundNamesWhatThereIs_Case6_15(t *testing.T) {
	r, _ := open(t)
	if err := r.EnsureTopic(t.Context()); err != nil {
		t.Fatal(err)
	}
	check := func(ref, want string) {
		t.Helper()
		parsed, err := ParseRef(ref)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = r.Get(t.Context(), parsed)
		var absent *NotFoundError
		if !errors.As(err, &absent) || !strings.Contains(err.Error(), want) || absent.Hint() == "" {
			t.Errorf("Get(%s): %v; want %q", ref, err, want)
		}
	}
	check("cars", "holds none yet")
	for range 4 {
		publish(t, r, "cars", []byte("x"), Live)
	}
	check("car", "there are: cars")
	check("cars/9", "has no version 9; it has 1 to 4")
	check("cars@canary", "no alias canary; it has versions 1 to 4 and aliases live")
}

func TestMoveAndRollBack_Case6_16(t *testing.T) {
	r, _ := open(t)
	for i := range 5 {
		publish(t, r, "cars", fmt.Appendf(nil, "model %d", i+1), Live)
	}
	a, err := r.Move(t.Context(), "cars", Live, 3, 5, "ann", "5 alarms too much")
	if err != nil || a.Version != 3 || a.Generation != 6 {
		t.Fatalf("move: %+v, %v", a, err)
	}
	var conflict *ConflictError
	if _, err = r.Move(t.Context(), "cars", Live, 4, 5, "bob", ""); !errors.As(err, &conflict) || conflict.Now.Generation != 6 {
		t.Fatalf("a move on an old generation: %v; want a conflict that names generation 6", err)
	}
	if _, err = r.Move(t.Context(), "cars", Live, 17, AnyGeneration, "bob", ""); err == nil {
		t.Fatal("moved to a version that does not exist")
	}
	// a gate that refuses version 6 publishes it without the alias: 3 stays live
	publish(t, r, "cars", []byte("model 6"), "")
	if m, _, err := r.Get(t.Context(), Ref{Name: "cars", Alias: Live}); err != nil || m.Version != 3 {
		t.Fatalf("live is %v, %v; want 3", m, err)
	}
	// back: 3 replaced 5, which replaced 4; 5 is deleted meanwhile and so skipped
	if err := r.Delete(t.Context(), "cars", 5); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{4, 3, 2, 1} {
		if a, err = r.Rollback(t.Context(), "cars", Live, "ann", "again"); err != nil || a.Version != want {
			t.Fatalf("rollback: %+v, %v; want version %d", a, err, want)
		}
	}
	var none *rollbackError
	if _, err = r.Rollback(t.Context(), "cars", Live, "ann", ""); !errors.As(err, &none) {
		t.Fatalf("rolling back past the first: %v", err)
	}
}

func TestDeletedNumberDoesNotReturn(t *testing.T) {
	r, _ := open(t)
	publish(t, r, "cars", []byte("1"), Live)
	publish(t, r, "cars", []byte("2"), "")
	if err := r.Delete(t.Context(), "cars", 1); err == nil || !strings.Contains(err.Error(), "cars@live") {
		t.Fatalf("deleting a live version: %v; want a refusal that names the alias", err)
	}
	if err := r.Delete(t.Context(), "cars", 2); err != nil {
		t.Fatal(err)
	}
	if m := publish(t, r, "cars", []byte("3"), ""); m.Version != 3 {
		t.Fatalf("after deleting 2 the next version is %d, want 3", m.Version)
	}
}

// A refusal has the command that makes it possible, and deletes nothing of what was asked with it.
func TestDeleteNamesTheWayOut(t *testing.T) {
	r, _ := open(t)
	refused := func(hint string, versions ...int) {
		t.Helper()
		err := r.Delete(t.Context(), "cars", versions...)
		var hinted interface{ Hint() string }
		if !errors.As(err, &hinted) || !strings.HasSuffix(hinted.Hint(), hint) {
			t.Fatalf("deleting %v: %v, %+v; want a hint that ends with %q", versions, err, hinted, hint)
		}
	}
	publish(t, r, "cars", []byte("1"), Live)
	refused("lapwing train --topic TOPIC --model cars", 1)
	publish(t, r, "cars", []byte("2"), "")
	refused("lapwing models move cars@live 2", 1)
	refused("lapwing train --topic TOPIC --model cars", 2, 1)
	publish(t, r, "cars", bytes.Repeat([]byte("3"), 2*partSize+1), Live)
	refused("lapwing models rollback cars@live (to version 1)", 3)
	refused("lapwing models move cars@live 2", 1, 3)
	if _, err := r.Move(t.Context(), "cars", "canary", 2, 0, "ann", ""); err != nil {
		t.Fatal(err)
	}
	refused("lapwing models move cars@canary 3", 1, 2)
	if list, err := r.List(t.Context()); err != nil || len(list[0].Versions) != 3 {
		t.Fatalf("after refusals: %+v, %v", list, err)
	}
	for _, move := range []string{Live, "canary"} {
		if _, err := r.Move(t.Context(), "cars", move, 1, AnyGeneration, "ann", ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Delete(t.Context(), "cars", 2, 3); err != nil {
		t.Fatal(err)
	}
	list, err := r.List(t.Context())
	if err != nil || len(list[0].Versions) != 1 || list[0].Orphans != 0 {
		t.Fatalf("%+v, %v; want version 1 alone and no part of the others", list, err)
	}
	var absent *NotFoundError
	if err := r.Delete(t.Context(), "cars", 2); !errors.As(err, &absent) {
		t.Fatalf("deleting again: %v", err)
	}
}

// Case 5.10: the trainer dies between parts. Committed here, as a mirror would show it: the digest, not the
// transaction, makes a model whole.
func TestHalfAModelIsNoModel_Case5_10(t *testing.T) {
	r, c := open(t)
	publish(t, r, "cars", []byte("one"), Live)
	half := bytes.Repeat([]byte("x"), 3*partSize)
	digest := digestOf(half)
	write(t, r, c, stream.Record{Key: []byte(partKeyOf("cars", 2, digest, 0)), Value: half[:partSize]})
	list, err := r.List(t.Context())
	if err != nil || len(list) != 1 || len(list[0].Versions) != 1 || list[0].Orphans != 1 {
		t.Fatalf("list: %+v, %v; want one version and one orphan part", list, err)
	}
	if m := publish(t, r, "cars", []byte("two"), Live); m.Version != 2 {
		t.Fatalf("next version is %d, want 2 at once", m.Version)
	}
	if list, err = r.List(t.Context()); err != nil || list[0].Orphans != 0 {
		t.Fatalf("list: %+v, %v; want the orphan cleared by the publisher", list, err)
	}
}

func TestFaultyTopicContents(t *testing.T) {
	good := []byte("good")
	manifest := func(change func(*Manifest)) []byte {
		m := Manifest{Format: 1, Digest: digestOf(good), Bytes: int64(len(good)), Parts: 1, By: "x"}
		if change != nil {
			change(&m)
		}
		return encode(m)
	}
	part := stream.Record{Key: []byte(partKeyOf("cars", 2, digestOf(good), 0)), Value: good}
	for name, tc := range map[string]struct {
		records []stream.Record
		want    string // in the error of Get cars/2
	}{
		"garbage":       {[]stream.Record{{Key: []byte("cars/2"), Value: []byte("\x00\xffnot json")}}, "its manifest is not JSON"},
		"newer format":  {[]stream.Record{part, {Key: []byte("cars/2"), Value: manifest(func(m *Manifest) { m.Format = 2 })}}, "format 2 and this Lapwing reads 1: update lapwing"},
		"no parts":      {[]stream.Record{{Key: []byte("cars/2"), Value: manifest(nil)}}, "part 0 of 1 is not in the topic"},
		"truncated":     {[]stream.Record{{Key: part.Key, Value: good[:2]}, {Key: []byte("cars/2"), Value: manifest(nil)}}, "its 1 parts hold 2 bytes, its manifest says 4"},
		"changed byte":  {[]stream.Record{{Key: part.Key, Value: []byte("gooD")}, {Key: []byte("cars/2"), Value: manifest(nil)}}, "is damaged"},
		"endless parts": {[]stream.Record{{Key: []byte("cars/2"), Value: manifest(func(m *Manifest) { m.Parts = 1 << 30 })}}, "makes no sense"},
	} {
		t.Run(name, func(t *testing.T) {
			r, c := open(t)
			publish(t, r, "cars", []byte("one"), Live)
			write(t, r, c, append(tc.records,
				stream.Record{Key: []byte("someone else's"), Value: []byte("record")},
				stream.Record{Key: []byte("cars#guard"), Value: []byte("of a newer Lapwing")})...)
			if os.Getenv("LAPWING_TEST_BROKERS") == "" { // Apache Kafka refuses it in a compacted topic
				write(t, r, c, stream.Record{Value: []byte("no key")})
			}
			_, _, err := r.Get(t.Context(), Ref{Name: "cars", Version: 2})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Get cars/2: %v; want %q", err, tc.want)
			}
			if m, data, err := r.Get(t.Context(), Ref{Name: "cars", Alias: Live}); err != nil || m.Version != 1 || string(data) != "one" {
				t.Errorf("the good one: %v %q %v", m, data, err)
			}
		})
	}
}

// A mirror copies the records of an aborted transaction as ordinary ones: the later manifest counts.
func TestMirroredAbort(t *testing.T) {
	r, c := open(t)
	if err := r.EnsureTopic(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{"aborted", "committed"} {
		d := digestOf([]byte(data))
		write(t, r, c,
			stream.Record{Key: []byte(partKeyOf("cars", 1, d, 0)), Value: []byte(data)},
			stream.Record{Key: []byte("cars/1"), Value: encode(Manifest{Format: 1, Digest: d, Bytes: int64(len(data)), Parts: 1})},
			stream.Record{Key: []byte("cars@live"), Value: encode(Alias{Version: 1, Generation: 1})})
	}
	if _, data, err := r.Get(t.Context(), Ref{Name: "cars", Alias: Live}); err != nil || string(data) != "committed" {
		t.Fatalf("%q, %v; want the later one", data, err)
	}
}

// Case 6.18: publishers of one name at once. Each either gets a number of its own or writes nothing and says
// who was faster; another name is not disturbed.
func TestPublishersAtOnce_Case6_18(t *testing.T) {
	r, _ := open(t)
	if err := r.EnsureTopic(t.Context()); err != nil {
		t.Fatal(err)
	}
	type result struct {
		m   Manifest
		err error
	}
	results := make([]result, 4)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			name := "cars"
			if i == 3 {
				name = "pumps"
			}
			m, err := r.Publish(t.Context(), Publication{Name: name, Data: fmt.Appendf(nil, "model %d", i), Alias: Live, By: fmt.Sprint("trainer ", i)})
			results[i] = result{m, err}
		})
	}
	wg.Wait()
	published := map[int]bool{}
	for i, res := range results[:3] {
		switch {
		case res.err == nil:
			if published[res.m.Version] {
				t.Errorf("version %d was given twice", res.m.Version)
			}
			published[res.m.Version] = true
			if _, data, err := r.Get(t.Context(), Ref{Name: "cars", Version: res.m.Version}); err != nil || string(data) != fmt.Sprint("model ", i) {
				t.Errorf("cars/%d holds %q, %v; trainer %d was told that it is its own", res.m.Version, data, err, i)
			}
		case errors.Is(res.err, ErrOvertaken) || errors.Is(res.err, stream.ErrFenced):
			t.Logf("trainer %d: %v", i, res.err)
		default:
			t.Errorf("trainer %d: %v", i, res.err)
		}
	}
	if len(published) == 0 {
		t.Error("nobody published")
	}
	if results[3].err != nil || results[3].m.Version != 1 {
		t.Errorf("the other name: %+v", results[3])
	}
}

func TestEnsureTopicRefusesWrongSettings(t *testing.T) {
	r, c := open(t)
	if _, err := c.CreateTopic(t.Context(), stream.TopicSpec{Name: r.Topic(), Partitions: 3}); err != nil {
		t.Fatal(err)
	}
	if err := r.EnsureTopic(t.Context()); err == nil || !strings.Contains(err.Error(), "3 partitions") {
		t.Errorf("three partitions: %v", err)
	}
	other := r.Topic() + "-other"
	if _, err := c.CreateTopic(t.Context(), stream.TopicSpec{Name: other, Partitions: 1, Config: map[string]string{"cleanup.policy": "delete"}}); err != nil {
		t.Fatal(err)
	}
	r = Open(c, Options{Topic: other})
	err := r.EnsureTopic(t.Context())
	var hinted interface{ Hint() string }
	if err == nil || !errors.As(err, &hinted) || !strings.Contains(hinted.Hint(), "--add-config cleanup.policy=compact") {
		t.Errorf("retention by time: %v; want the exact command", err)
	}
}

func TestParseRef(t *testing.T) {
	for in, want := range map[string]Ref{
		"cars": {Name: "cars", Alias: "live"}, "cars/7": {Name: "cars", Version: 7}, "cars@canary": {Name: "cars", Alias: "canary"},
		"a.b_c-9": {Name: "a.b_c-9", Alias: "live"},
		"":        {}, "Cars": {}, "cars/": {}, "cars/0": {}, "cars/-1": {}, "cars/x": {}, "cars@": {}, "cars/1/2": {}, "-x": {}, strings.Repeat("x", 101): {},
	} {
		got, err := ParseRef(in)
		if got != want || (err != nil) != (want == Ref{}) {
			t.Errorf("ParseRef(%q) = %+v, %v; want %+v", in, got, err, want)
		}
		if err == nil && in != "cars" && in != "a.b_c-9" && got.String() != in {
			t.Errorf("%+v prints as %q, was %q", got, got.String(), in)
		}
	}
}

// What parses as a key spells the same key again: two spellings would be compacted apart.
func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"cars/1/0123abcd/0", "cars/1", "cars@live", "cars#head", "cars/01", "cars/1/0123abcd/-1", "#head", "a@b@c"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		k := parseKey(raw)
		var again string
		switch k.kind {
		case unknownKey:
			return
		case partKey:
			again = partKeyOf(k.name, k.version, k.digest8, k.part)
		case manifestKey:
			again = manifestKeyOf(k.name, k.version)
		case aliasKey:
			again = aliasKeyOf(k.name, k.alias)
		case headKey:
			again = headKeyOf(k.name)
		}
		if again != string(raw) {
			t.Errorf("%q was read as %+v, which spells %q", raw, k, again)
		}
	})
}

// No record, however strange, stops a reader.
func FuzzFold(f *testing.F) {
	m, _ := json.Marshal(Manifest{Format: 1, Digest: digestOf(nil), Bytes: 1, Parts: 1})
	f.Add([]byte("cars/1"), m)
	f.Add([]byte("cars@live"), []byte(`{"version":1}`))
	f.Add([]byte("cars#head"), []byte(`{"last_version":-5}`))
	f.Fuzz(func(t *testing.T, k, v []byte) {
		x := newIndex(slog.New(slog.DiscardHandler))
		for range 2 {
			x.fold(stream.Record{Key: k, Value: v})
		}
		for name, e := range x.models {
			for _, m := range e.manifests {
				if _, err := e.whole(m); err == nil && m.Parts > len(e.parts) {
					t.Error("whole without its parts")
				}
			}
			e.orphans(name)
			_, _, _ = x.resolve(Ref{Name: name, Alias: Live})
		}
		x.fold(stream.Record{Key: k})
	})
}

func wait(t *testing.T, f *Follower) Change {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := f.Next(ctx)
	if err != nil {
		t.Fatalf("waiting for a change: %v; state %+v", err, f.State())
	}
	return c
}

// A large model's transaction stays open for as long as a slow link needs, and never longer than a broker allows.
func TestTimeoutFor(t *testing.T) {
	for bytes, want := range map[int]time.Duration{0: 20 * time.Second, 50 << 20: 70 * time.Second, maxBytes: 15 * time.Minute} {
		if got := timeoutFor(bytes); got != want {
			t.Errorf("%d bytes: %v, want %v", bytes, got, want)
		}
	}
}
