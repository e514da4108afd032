package registry

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/lapwing-stream/lapwing/stream"
)

// pair publishes two versions and gives what moves the alias live from one to the other, without waiting for what the mover reads.
func pair(t *testing.T, r *Registry, c *stream.Client, transactional bool) (move func(version int)) {
	t.Helper()
	publish(t, r, "cars", []byte("model 1"), Live)
	publish(t, r, "cars", []byte("model 2"), Live)
	record := func(version int) []stream.Record {
		return []stream.Record{{Topic: r.Topic(), Key: []byte("cars@live"), Value: encode(Alias{Version: version, Share: 1})}}
	}
	if transactional {
		tx, err := c.Transactor(t.Context(), "mover", 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(tx.Close)
		return func(version int) {
			if err := tx.Begin(); err != nil {
				t.Error(err)
			}
			if err := tx.Produce(t.Context(), record(version)); err != nil {
				t.Error(err)
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	p, err := c.Producer(t.Context(), stream.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(context.WithoutCancel(t.Context())) })
	return func(version int) {
		if err := p.Produce(t.Context(), record(version)); err != nil {
			t.Error(err)
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// Each of many moves takes effect, and a version that was live a moment ago is not read again.
func TestFollowMovesBackAndForth(t *testing.T) {
	for _, transactional := range []bool{false, true} {
		t.Run(fmt.Sprintf("transactional %v", transactional), func(t *testing.T) {
			r, c := open(t)
			move := pair(t, r, c, transactional)
			f := r.Follow(t.Context(), Ref{Name: "cars", Alias: Live})
			var bytes [3]*byte
			for i := range 50 {
				version := 2 - i%2
				if i > 0 {
					move(version)
				}
				change := wait(t, f)
				if want := fmt.Sprintf("model %d", version); change.Err != nil || change.Manifest.Version != version || string(change.Data) != want {
					t.Fatalf("move %d: version %d, %q, %v; want %q", i, change.Manifest.Version, change.Data, change.Err, want)
				}
				at := unsafe.SliceData(change.Data)
				if bytes[version] == nil {
					bytes[version] = at
				} else if bytes[version] != at {
					t.Fatalf("move %d: version %d was read again", i, version)
				}
			}
		})
	}
}

// A topic to which somebody writes all the time has no quiet end; moves take effect nevertheless.
func TestFollowIsNotStarvedByATrickle(t *testing.T) {
	for _, transactional := range []bool{false, true} {
		t.Run(fmt.Sprintf("transactional %v", transactional), func(t *testing.T) {
			r, c := open(t)
			move := pair(t, r, c, transactional)
			f := r.Follow(t.Context(), Ref{Name: "cars", Alias: Live})
			wait(t, f)
			var trickle sync.WaitGroup
			ctx, over := context.WithCancel(t.Context())
			trickle.Go(func() {
				defer over()
				tick := time.NewTicker(50 * time.Millisecond)
				defer tick.Stop()
				for i := range 40 {
					<-tick.C
					move(1 + i%2)
				}
			})
			applied := 0
			for {
				if _, err := f.Next(ctx); err != nil {
					break
				}
				applied++
			}
			trickle.Wait()
			if applied == 0 {
				t.Fatal("none of 40 moves took effect before the last")
			}
			t.Logf("%d of 40 moves took effect", applied)
		})
	}
}

// What is kept is bounded in number and bytes, and known by digest and offsets.
func TestKeptModels(t *testing.T) {
	k := kept{most: 2}
	m := func(d string) Manifest { return Manifest{Digest: d} }
	at := func(o int64) []location { return []location{{o, 1}} }
	holds := func(want ...string) {
		t.Helper()
		var got []string
		size := 0
		for _, it := range k.models {
			got, size = append(got, it.digest), size+len(it.data)
		}
		if !slices.Equal(got, want) || size != k.bytes {
			t.Fatalf("kept %v, %d bytes counted as %d; want %v", got, size, k.bytes, want)
		}
	}
	k.add(m("a"), at(1), []byte("a"))
	k.add(m("b"), at(2), []byte("b"))
	if data, ok := k.find(m("a"), at(1)); !ok || string(data) != "a" {
		t.Fatalf("%q, %v", data, ok)
	}
	if _, ok := k.find(m("a"), at(3)); ok {
		t.Fatal("parts at other offsets were taken for the same")
	}
	if _, ok := k.find(m("c"), at(1)); ok {
		t.Fatal("another digest was taken for the same")
	}
	k.add(m("c"), at(3), []byte("c"))
	holds("a", "c")
	k.add(m("d"), at(4), make([]byte, keptBytes+1))
	holds("a", "c")
	k.add(m("e"), at(5), make([]byte, keptBytes))
	holds("e")
	k.add(m("e"), at(5), make([]byte, keptBytes))
	holds("e")
	k.forget()
	holds()
}
