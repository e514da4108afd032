package registry

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

// Case 6.17: the follower reads to the end before it decides; versions on the way do not show.
func TestFollowDecidesAtTheEnd_Case6_17(t *testing.T) {
	r, _ := open(t)
	for i := range 5 {
		publish(t, r, "cars", fmt.Appendf(nil, "model %d", i+1), Live)
	}
	if _, err := r.Move(t.Context(), "cars", Live, 3, AnyGeneration, "ann", ""); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	live, pinned := Ref{Name: "cars", Alias: Live}, Ref{Name: "cars", Version: 2}
	f := r.Follow(ctx, live, pinned)
	got := map[Ref]string{}
	for range 2 {
		c := wait(t, f)
		got[c.Ref] = string(c.Data)
	}
	if got[live] != "model 3" || got[pinned] != "model 2" {
		t.Fatalf("first changes: %v", got)
	}

	// each change once; a move that changes no version is no change
	if _, err := r.Move(t.Context(), "cars", Live, 3, AnyGeneration, "ann", "same"); err != nil {
		t.Fatal(err)
	}
	publish(t, r, "pumps", []byte("other name"), Live)
	publish(t, r, "cars", []byte("model 6"), Live)
	if c := wait(t, f); string(c.Data) != "model 6" || c.Manifest.Version != 6 || c.Alias.Version != 6 {
		t.Fatalf("next change: version %d, %q, %v", c.Manifest.Version, c.Data, c.Err)
	}
	if _, err := r.Rollback(t.Context(), "cars", Live, "ann", ""); err != nil {
		t.Fatal(err)
	}
	if c := wait(t, f); c.Manifest.Version != 3 || c.Overtaken() {
		t.Fatalf("after the rollback: %+v", c)
	}
	if err := r.Delete(t.Context(), "cars", 2); err != nil {
		t.Fatal(err)
	}
	if c := wait(t, f); c.Ref != pinned || !c.Gone {
		t.Fatalf("after deleting the pinned version: %+v", c)
	}
	cancel()
	if _, err := f.Next(t.Context()); !errors.Is(err, context.Canceled) {
		t.Fatalf("after the end: %v", err)
	}
}

func TestFollowCoalescesAndDropsOvertakenLoads(t *testing.T) {
	r, _ := open(t)
	publish(t, r, "cars", []byte("model 1"), Live)
	f := r.Follow(t.Context(), Ref{Name: "cars", Alias: Live})
	first := wait(t, f)
	for i := 2; i <= 4; i++ {
		publish(t, r, "cars", fmt.Appendf(nil, "model %d", i), Live)
	}
	var c Change
	for c.Manifest.Version != 4 {
		c = wait(t, f)
	}
	if !first.Overtaken() || c.Overtaken() {
		t.Fatalf("overtaken: first %v, newest %v; want true, false", first.Overtaken(), c.Overtaken())
	}
}

// A topic that is not there yet is waited for, and the state says so.
func TestFollowWaitsForTheTopic_Case4_13(t *testing.T) {
	r, _ := open(t)
	ref := Ref{Name: "cars", Alias: Live}
	f := r.Follow(t.Context(), ref)
	until(t, "the problem is stated", func() bool { return f.State().Problem != "" })
	if err := r.EnsureTopic(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "the missing model is stated", func() bool {
		s := f.State()
		return s.CaughtUp && s.Problem == "" && len(s.Missing) == 1 && s.Missing[0] == ref
	})
	publish(t, r, "cars", []byte("one"), Live)
	if c := wait(t, f); string(c.Data) != "one" {
		t.Fatalf("%+v", c)
	}
	if s := f.State(); len(s.Missing) != 0 {
		t.Fatalf("state: %+v", s)
	}
}

// Case 1.15: the topic is deleted and made again under a running follower.
func TestFollowRecreatedTopic_Case1_15(t *testing.T) {
	r, c := open(t)
	for i := range 3 {
		publish(t, r, "cars", fmt.Appendf(nil, "model %d", i+1), Live)
	}
	f := r.Follow(t.Context(), Ref{Name: "cars", Alias: Live})
	if c := wait(t, f); c.Manifest.Version != 3 {
		t.Fatalf("%+v", c)
	}
	if err := c.DeleteTopic(t.Context(), r.Topic()); err != nil {
		t.Fatal(err)
	}
	publish(t, r, "cars", []byte("made again"), Live)
	for {
		if c := wait(t, f); string(c.Data) == "made again" && c.Manifest.Version == 1 {
			return
		}
	}
}

// A damaged version is reported as such, once, and a good one after it as usual.
func TestFollowDamagedVersion(t *testing.T) {
	r, c := open(t)
	publish(t, r, "cars", []byte("one"), Live)
	f := r.Follow(t.Context(), Ref{Name: "cars", Alias: Live})
	wait(t, f)
	d := digestOf([]byte("what it should be"))
	write(t, r, c,
		stream.Record{Key: []byte(partKeyOf("cars", 2, d, 0)), Value: []byte("what it should bE")},
		stream.Record{Key: []byte("cars/2"), Value: encode(Manifest{Format: 1, Digest: d, Bytes: 17, Parts: 1})},
		stream.Record{Key: []byte("cars@live"), Value: encode(Alias{Version: 2, Generation: 2, Previous: []int{1}})})
	change := wait(t, f)
	var damaged *DigestError
	if !errors.As(change.Err, &damaged) || change.Data != nil {
		t.Fatalf("%+v; want a damaged model", change)
	}
	publish(t, r, "cars", []byte("three"), Live)
	if change = wait(t, f); string(change.Data) != "three" || change.Manifest.Version != 3 {
		t.Fatalf("%+v", change)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("did not happen in 20 s: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
