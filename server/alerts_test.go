package server

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lapwing-stream/lapwing/stream"
)

var cars0 = stream.TopicPartition{Topic: "cars", Partition: 0}

// alertBench feeds a book and writes down what it emits.
type alertBench struct {
	book    *alertBook
	emitted []string
	records []restored // what the topic would hold, in order
	offset  int64
}

func newAlertBench(rules alertRules) *alertBench {
	b := &alertBench{}
	b.book = newAlertBook(rules, func(key string, partition int32, r *AlertRecord) {
		var back alertJSON
		if err := json.Unmarshal(r.AppendJSON(nil), &back); err != nil {
			panic(err)
		}
		b.records = append(b.records, restored{key, back})
		b.emitted = append(b.emitted, fmt.Sprintf("%s %s %s id=%s since=%d time=%d at=%d", key, r.State, r.Reason, r.ID, r.Since, r.Time, r.Offset))
	})
	return b
}

var testRules = alertRules{model: "m", raiseAfter: 3, clearAfter: 4, repeatEvery: 600_000, clearSilent: 86_400_000, keys: 100}

// feed takes one letter a record: A anomalous, . normal; each is a second after the one before.
func (b *alertBench) feed(key, letters string, at int64) {
	for i, c := range letters {
		b.one(key, c == 'A', at+int64(i)*1000)
	}
}

func (b *alertBench) one(key string, anomaly bool, ms int64) {
	o := &observation{source: cars0, offset: b.offset, time: ms, timeOK: ms >= 0, score: 2, anomaly: anomaly, threshold: 1, version: 7}
	if key != "" {
		o.key = []byte(key)
	}
	b.offset++
	b.book.observe(o)
}

func (b *alertBench) want(t *testing.T, lines ...string) {
	t.Helper()
	if diff := cmp.Diff(lines, b.emitted); diff != "" {
		t.Errorf("alerts differ (-want +got):\n%s", diff)
	}
}

func TestAlertLife(t *testing.T) {
	for _, c := range []struct {
		name string
		feed func(*alertBench)
		want []string
	}{
		{"two in a row are no alert", func(b *alertBench) { b.feed("k", "AA.AA.A.A.", 0) }, nil},
		{"raised at the third, named by the first", func(b *alertBench) { b.feed("k", "..AAA", 0) },
			[]string{"m|cars|k raised anomaly id=m/cars/0/2 since=2000 time=4000 at=4"}},
		{"three normal ones do not clear, four do", func(b *alertBench) { b.feed("k", "AAA...A....", 0) }, []string{
			"m|cars|k raised anomaly id=m/cars/0/0 since=0 time=2000 at=2",
			"m|cars|k cleared normal id=m/cars/0/0 since=0 time=10000 at=10"}},
		{"keys count apart", func(b *alertBench) { b.feed("k", "AA", 0); b.feed("l", "AA", 0); b.feed("k", "A", 5000) },
			[]string{"m|cars|k raised anomaly id=m/cars/0/0 since=0 time=5000 at=4"}},
		{"without key the partition counts", func(b *alertBench) { b.feed("", "AAA", 0) },
			[]string{"m|cars|#0 raised anomaly id=m/cars/0/0 since=0 time=2000 at=2"}},
		{"repeated by event time", func(b *alertBench) {
			b.feed("k", "AAA", 0)
			b.one("k", true, 500_000)
			b.one("k", true, 601_999)
			b.one("k", true, 602_000)
			b.one("k", true, 700_000)
		}, []string{
			"m|cars|k raised anomaly id=m/cars/0/0 since=0 time=2000 at=2",
			"m|cars|k repeated anomaly id=m/cars/0/0 since=0 time=602000 at=5"}},
		{"its own silence clears first", func(b *alertBench) {
			b.feed("k", "AAA", 0)
			b.one("k", true, 2000+86_400_000)
		}, []string{
			"m|cars|k raised anomaly id=m/cars/0/0 since=0 time=2000 at=2",
			"m|cars|k cleared silent id=m/cars/0/0 since=0 time=86402000 at=2"}},
		{"silence by the others' time", func(b *alertBench) {
			b.feed("k", "AAA", 0)
			b.feed("l", strings.Repeat(".", clockWidth), 86_403_000)
		}, []string{
			"m|cars|k raised anomaly id=m/cars/0/0 since=0 time=2000 at=2",
			"m|cars|k cleared silent id=m/cars/0/0 since=0 time=86403000 at=2"}},
		{"one record from another century silences nobody", func(b *alertBench) {
			b.feed("k", "AAA", 0)
			for range 20 {
				b.one("l", false, 9_223_372_036_854)
				b.feed("l", "...", 10_000)
			}
		}, []string{"m|cars|k raised anomaly id=m/cars/0/0 since=0 time=2000 at=2"}},
		{"records without time", func(b *alertBench) {
			for range 3 {
				b.one("k", true, -1)
			}
			for range 4 {
				b.one("k", false, -1)
			}
		}, []string{
			"m|cars|k raised anomaly id=m/cars/0/0 since=-1 time=-1 at=2",
			"m|cars|k cleared normal id=m/cars/0/0 since=-1 time=-1 at=6"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newAlertBench(testRules)
			c.feed(b)
			b.want(t, c.want...)
		})
	}
}

func TestAlertEviction(t *testing.T) {
	rules := testRules
	rules.keys = 2
	b := newAlertBench(rules)
	b.feed("old", "AAA", 0)
	b.feed("two", "A", 5000)
	b.feed("three", "A", 6000) // old is the least recent
	b.feed("four", "A", 7000)  // two is dropped without a word: nothing was raised
	b.want(t,
		"m|cars|old raised anomaly id=m/cars/0/0 since=0 time=2000 at=2",
		"m|cars|old cleared evicted id=m/cars/0/0 since=0 time=2000 at=2")
	if b.book.count != 2 || len(b.book.parts[cars0].entries) != 2 {
		t.Errorf("%d entries, at most 2 are allowed", b.book.count)
	}
}

// TestAlertMemoryFollowsTrouble: keys whose records are normal leave nothing behind.
func TestAlertMemoryFollowsTrouble(t *testing.T) {
	b := newAlertBench(testRules)
	for i := range 10_000 {
		b.feed(fmt.Sprint("k", i), ".A.", int64(i))
	}
	if n := b.book.count + len(b.book.parts[cars0].entries); n != 0 {
		t.Errorf("%d entries are kept for normal keys", n)
	}
	b.book.revoke(cars0)
	if len(b.book.parts) != 0 || b.book.recent.front() != nil {
		t.Error("a revoked partition left state")
	}
}

// TestAlertRestart: whatever happens, cutting the run at any record and restoring from what was emitted by then gives
// the same alerts as no cut, as long as the counts lie within the rewind. Records between commit and cut are read
// again: they change nothing.
func TestAlertRestart(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		rules := testRules
		rules.repeatEvery = 20_000
		type event struct {
			key     string
			anomaly bool
			ms      int64
		}
		var events []event
		trouble := map[string]bool{}
		for i := range 300 {
			key := string(rune('a' + rng.IntN(3)))
			if rng.IntN(12) == 0 {
				trouble[key] = !trouble[key]
			}
			events = append(events, event{key, trouble[key] != (rng.IntN(10) == 0), int64(i) * 1000})
		}
		feed := func(b *alertBench, from, to int) {
			for i := from; i < to; i++ {
				b.offset = int64(i)
				b.one(events[i].key, events[i].anomaly, events[i].ms)
			}
		}
		whole := newAlertBench(rules)
		feed(whole, 0, len(events))
		if len(whole.emitted) < 3 {
			continue
		}

		cut := 50 + rng.IntN(200)
		committed := cut - rng.IntN(30)
		before := newAlertBench(rules)
		feed(before, 0, cut)
		topic := map[string]restored{} // compaction keeps the newest of each key
		for _, r := range before.records {
			topic[r.key] = r
		}
		var state []restored
		for _, r := range topic {
			state = append(state, r)
		}
		after := newAlertBench(rules)
		after.book.assign(cars0, int64(committed), int64(len(events)), state)
		feed(after, 0, len(events)) // the rewind reaches the start here
		got := append(before.emitted, after.emitted...)
		if diff := cmp.Diff(whole.emitted, got); diff != "" {
			t.Fatalf("seed %d, cut %d, committed %d (-whole +restarted):\n%s", seed, cut, committed, diff)
		}
	}
}

// TestAlertRecreated: positions beyond the end belong to an earlier topic and hold nothing back.
func TestAlertRecreated(t *testing.T) {
	b := newAlertBench(testRules)
	b.feed("k", "AAA", 0)
	state := b.records
	state[0].record.Source.Offset = 5000
	b = newAlertBench(testRules)
	b.book.assign(cars0, 0, 50, state)
	b.feed("k", "....", 10_000)
	b.want(t, "m|cars|k cleared normal id=m/cars/0/0 since=0 time=13000 at=3")
}

func TestParseAlertPassesOverGarbage(t *testing.T) {
	for _, v := range []string{"", "null", "{}", "[]", `{"id":1}`, `{"id":"x","source":{}}`, "\x00\x01"} {
		if _, ok := parseAlert([]byte(v)); ok {
			t.Errorf("%q passes for an alert", v)
		}
	}
}
