package faults

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// place is where a record stands in the input.
type place struct {
	partition int32
	offset    int64
}

// entry is what an output must carry over from its input record.
type entry struct {
	key  string
	time int64 // Kafka timestamp, ms
	null bool  // a tombstone: it has no output
}

// output is a record of the scores or the dead letters topic, and the input record that it says it is about.
type output struct {
	topic     string
	partition int32
	offset    int64
	about     place
	entry
}

// tally counts what became of records.
type tally struct {
	in, scored, dead, tombstones, gone, lost, doubled, reordered, foreign int
}

func (t tally) wrong() int { return t.lost + t.doubled + t.reordered + t.foreign }

// ledger compares input and output record for record. It is told of records in the order in which a reader of committed
// records sees them in each partition, and may be told in pieces: an output that comes again much later is still doubled.
type ledger struct {
	in   map[place]entry
	out  map[place]bool
	last map[string]int64 // highest input offset that a partition of an output topic has reached

	low  map[int32]int64 // of the input: what lies below was deleted
	gone map[place]bool  // deleted, and without a result

	open     []place // of the input, since the last close
	now      tally   // since the last close
	findings []string
}

func newLedger() *ledger {
	return &ledger{in: map[place]entry{}, out: map[place]bool{}, last: map[string]int64{}, low: map[int32]int64{}, gone: map[place]bool{}}
}

func (l *ledger) find(format string, args ...any) {
	if len(l.findings) < 50 {
		l.findings = append(l.findings, fmt.Sprintf(format, args...))
	}
}

func (l *ledger) read(at place, e entry) {
	// Deleted records are remembered, and may be read again all the same: a broker writes down where its log begins once a minute, and one
	// that is killed before gives them back.
	if _, again := l.in[at]; again {
		return
	}
	l.in[at] = e
	l.open = append(l.open, at)
	l.now.in++
}

func (l *ledger) wrote(o output, dead bool) {
	where := fmt.Sprintf("%s/%d/%d", o.topic, o.partition, o.offset)
	in, known := l.in[o.about]
	switch {
	case !known:
		l.now.foreign++
		l.find("%s is about %d/%d, which is no record of the input", where, o.about.partition, o.about.offset)
		return
	case in.null, o.partition != o.about.partition, o.key != in.key, o.time != in.time:
		l.now.foreign++
		l.find("%s says it is about %d/%d but differs from it: %+v, the input %+v", where, o.about.partition, o.about.offset, o.entry, in)
		return
	case l.gone[o.about]:
		l.now.foreign++
		l.find("%s is about %d/%d, which was deleted and had no result for long", where, o.about.partition, o.about.offset)
		return
	case l.out[o.about]:
		l.now.doubled++
		l.find("%s: %d/%d has an output already", where, o.about.partition, o.about.offset)
		return
	}
	l.out[o.about] = true
	if dead {
		l.now.dead++
	} else {
		l.now.scored++
	}
	lane := fmt.Sprintf("%s/%d", o.topic, o.partition)
	last, begun := l.last[lane]
	if begun && o.about.offset < last {
		l.now.reordered++
		l.find("%s: %d/%d stands behind offset %d", where, o.about.partition, o.about.offset, last)
	}
	l.last[lane] = max(last, o.about.offset)
}

// deleted: the records of a partition of the input below an offset were deleted, and may be without a result. The ledger has been
// told of them.
func (l *ledger) deleted(partition int32, below int64) {
	l.low[partition] = max(l.low[partition], below)
}

// remember gives another ledger the deleted records, which can be read no more.
func (l *ledger) remember(other *ledger) {
	for at, e := range l.in {
		if at.offset < l.low[at.partition] {
			other.read(at, e)
		}
	}
	for p, low := range l.low {
		other.deleted(p, low)
	}
}

// close ends a period at whose end every record must have its output.
func (l *ledger) close() tally {
	for _, at := range l.open {
		switch {
		case l.in[at].null:
			l.now.tombstones++
		case !l.out[at] && at.offset < l.low[at.partition]:
			l.now.gone++
			l.gone[at] = true
		case !l.out[at]:
			l.now.lost++
			l.find("%d/%d is lost", at.partition, at.offset)
		}
	}
	t := l.now
	l.now, l.open = tally{}, nil
	return t
}

// The judge is judged: each way in which a scorer could fail is planted and must be reported as what it is, once.
func TestLedger(t *testing.T) {
	honest := func() (out []output) {
		for offset := range int64(20) {
			for p := range int32(2) {
				if offset == 7 { // a tombstone
					continue
				}
				topic := "scores"
				if offset == 5 {
					topic = "dlq"
				}
				out = append(out, output{topic: topic, partition: p, offset: int64(len(out)), about: place{p, offset}, entry: entry{key: fmt.Sprint("k", offset), time: 1000 + offset}})
			}
		}
		return out
	}
	for _, c := range []struct {
		name  string
		plant func([]output) []output
		want  tally
		says  string
	}{
		{"nothing", func(o []output) []output { return o }, tally{scored: 36, dead: 2}, ""},
		{"dropped", func(o []output) []output { return slices.Delete(o, 8, 9) }, tally{scored: 35, dead: 2, lost: 1}, "0/4 is lost"},
		{"doubled", func(o []output) []output { return slices.Insert(o, 9, o[8]) }, tally{scored: 36, dead: 2, doubled: 1}, "0/4 has an output already"},
		{"doubled much later", func(o []output) []output { return append(o, o[2]) }, tally{scored: 36, dead: 2, doubled: 1}, "0/1 has an output already"},
		{"scored and a dead letter", func(o []output) []output { d := o[8]; d.topic = "dlq"; return append(o, d) }, tally{scored: 36, dead: 2, doubled: 1}, "has an output already"},
		{"swapped", func(o []output) []output { o[2], o[4] = o[4], o[2]; return o }, tally{scored: 36, dead: 2, reordered: 1}, "0/1 stands behind offset 2"},
		{"of no record", func(o []output) []output { o[8].about.offset = 99; return o }, tally{scored: 35, dead: 2, lost: 1, foreign: 1}, "no record of the input"},
		{"of a tombstone", func(o []output) []output {
			return append(o, output{topic: "scores", about: place{0, 7}, entry: entry{key: "k7", time: 1007}})
		}, tally{scored: 36, dead: 2, foreign: 1}, "differs"},
		{"another partition", func(o []output) []output { o[8].partition = 1; return o }, tally{scored: 35, dead: 2, lost: 1, foreign: 1}, "differs"},
		{"another key", func(o []output) []output { o[8].key = "x"; return o }, tally{scored: 35, dead: 2, lost: 1, foreign: 1}, "differs"},
		{"another time", func(o []output) []output { o[8].time++; return o }, tally{scored: 35, dead: 2, lost: 1, foreign: 1}, "differs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLedger()
			for p := range int32(2) {
				for offset := range int64(20) {
					l.read(place{p, offset}, entry{key: fmt.Sprint("k", offset), time: 1000 + offset, null: offset == 7})
				}
			}
			for _, o := range c.plant(honest()) {
				l.wrote(o, o.topic == "dlq")
			}
			c.want.in, c.want.tombstones = 40, 2
			got := l.close()
			if said := strings.Join(l.findings, "\n"); got != c.want || !strings.Contains(said, c.says) || got.wrong() != len(l.findings) {
				t.Errorf("%+v, want %+v; says %q", got, c.want, said)
			}
			if again := l.close(); again != (tally{}) {
				t.Errorf("the next period begins with %+v", again)
			}
		})
	}
}

// A deleted record needs no result, may have one, and must not get one after it counted as gone.
func TestLedgerOfDeletedRecords(t *testing.T) {
	l := newLedger()
	for offset := range int64(6) {
		l.read(place{0, offset}, entry{key: "k"})
	}
	wrote := func(offset int64) {
		l.wrote(output{topic: "scores", about: place{0, offset}, entry: entry{key: "k"}}, false)
	}
	wrote(0)
	wrote(5)
	l.deleted(0, 4)
	if got, want := l.close(), (tally{in: 6, scored: 2, gone: 3, lost: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	wrote(3)
	if got, want := l.close(), (tally{foreign: 1}); got != want {
		t.Errorf("afterwards %+v, want %+v", got, want)
	}
	whole := newLedger()
	l.remember(whole)
	for offset := int64(3); offset < 6; offset++ { // the last of the deleted has come back
		whole.read(place{0, offset}, entry{key: "k"})
	}
	for _, offset := range []int64{0, 4, 5} {
		whole.wrote(output{topic: "scores", about: place{0, offset}, entry: entry{key: "k"}}, false)
	}
	if got, want := whole.close(), (tally{in: 6, scored: 3, gone: 3}); got != want {
		t.Errorf("read again %+v, want %+v", got, want)
	}
}
