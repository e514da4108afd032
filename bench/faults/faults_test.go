//go:build e2e

package faults

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/lapwing-stream/lapwing/bench/process"
)

var (
	seedFlag   = flag.Uint64("seed", 9, "of the first round; each next round's is one more")
	roundsFlag = flag.Int("rounds", 1, "how often the schedule of faults is run, each time in another order")
	forFlag    = flag.Duration("for", 0, "run rounds until so much time has passed, in place of -rounds")
	openFlag   = flag.Bool("open", false, "also the kinds of fault that are marked open")
	onlyFlag   = flag.String("only", "", "regular expression of the faults that are injected; empty: all")
)

// row is a line of the table: what came of one kind of fault.
type row struct {
	times, idle int
	tally
	pause time.Duration
}

// TestFaults kills, freezes and cuts off what runs between two topics of a real cluster, while records flow and versions swap. After
// each fault every record of the input must have come out once, in order, which programs that are not Lapwing's say.
func TestFaults(t *testing.T) {
	only, err := regexp.Compile(*onlyFlag)
	if err != nil {
		t.Fatal(err)
	}
	var chosen []kind
	for _, k := range kinds {
		if only.MatchString(k.name) && (*openFlag || !k.open) {
			chosen = append(chosen, k)
		}
	}
	b := newBed(t, *seedFlag)
	if err := b.learn(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Run("checker", func(t *testing.T) { plantedFaults(t, b) })
	rows := map[string]*row{}
	defer func() { t.Log(table(rows, *seedFlag)) }()
	for n := 0; n < *roundsFlag || *forFlag > 0; n++ {
		if *forFlag > 0 && time.Since(b.began) > *forFlag || t.Failed() && n > 0 {
			break
		}
		b.round(n, chosen, rows)
	}
}

// round runs every kind of fault over topics of its own.
func (b *bed) round(n int, chosen []kind, rows map[string]*row) {
	t := b.t
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seed := b.seed + uint64(n)
	b.rng = rand.New(rand.NewPCG(seed, 1))
	in := fmt.Sprintf("in-%d", n)
	b.of, b.partitions = topics{in, in + ".scores", in + ".dlq"}, 3
	b.logf("round %d, seed %d", n+1, seed)
	if err := b.create(ctx, in, b.partitions); err != nil {
		t.Fatal(err)
	}
	b.scorers = make([]*process.Process, 3)
	for i := range b.scorers {
		if err := b.serve(i); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		for _, s := range b.scorers {
			s.Kill()
		}
	}()
	var err error
	if b.source, err = startSource(ctx, b.cluster.Brokers(), b.of, int32(b.partitions), rand.New(rand.NewPCG(seed, 2))); err != nil {
		t.Fatal(err)
	}
	defer b.source.close()
	b.books, b.checker = newLedger(), newReader(b.cluster.Addr(), b.of)
	// Before the first fault, all has to flow.
	b.source.write(ctx, 300, b.source.reading)
	if _, err := b.settle(ctx); err != nil {
		t.Fatal(err)
	}
	b.logf("memory: %s", b.memory())
	var total tally
	order := schedule(b.rng, chosen)
	for i, k := range order {
		r := rows[k.name]
		if r == nil {
			r = &row{}
			rows[k.name] = r
		}
		b.source.pause()
		b.source.flow(true)
		b.extra, b.then = nil, nil
		b.swap()
		limit, done := context.WithTimeout(ctx, 3*time.Minute)
		err := k.do(limit, b)
		done()
		err = errors.Join(err, b.alive(k.mayEnd))
		for _, undo := range b.extra {
			err = errors.Join(err, undo())
		}
		got, settled := b.settle(ctx)
		pause := b.source.pause()
		if b.then != nil && settled == nil {
			settled = b.then(got)
		}
		err = errors.Join(err, settled, b.alive(k.mayEnd))
		if b.flying > 0 {
			r.times++
		} else {
			r.idle++
		}
		r.add(got)
		r.pause = max(r.pause, pause)
		total.add(got)
		b.logf("%d/%d %s: %d in, %d scored, %d dead letters, %d lost, %d doubled, %d reordered; longest wait %v, settled %v after the strike", i+1, len(order), k.name,
			got.in, got.scored, got.dead, got.lost, got.doubled, got.reordered+got.foreign, pause.Round(time.Millisecond), time.Since(b.struck).Round(100*time.Millisecond))
		if err != nil || got.wrong() > 0 {
			t.Errorf("round %d, seed %d, fault %d, %s: %v\n%s", n+1, seed, i+1, k.name, err, strings.Join(b.books.findings, "\n"))
			text, _, err := b.group(ctx)
			t.Logf("the group: %s %v", text, err)
			for i := range b.scorers {
				b.post(i)
			}
			return
		}
	}
	b.logf("memory: %s", b.memory())
	for i, s := range b.scorers {
		if err := s.Stop(); err != nil {
			t.Errorf("scorer %d did not end well: %v\n%s", i, err, s.Said())
		}
	}
	total.add(tally{in: 300, scored: 300})
	whole, again, err := console(ctx, b.jars, b.cluster.Addr(), b.of, b.books, total)
	if err != nil {
		t.Fatal(err)
	}
	if again.wrong() > 0 || again != total {
		t.Errorf("round %d, seed %d: the console consumer says %+v, kcat said %+v\n%s", n+1, seed, again, total, strings.Join(whole.findings, "\n"))
	}
	turns, err := versions(ctx, b)
	if err != nil {
		t.Error(err)
	}
	b.logf("round %d: %d faults, %+v by kcat and by the console consumer; versions that took turns in each partition:%s", n+1, len(order), again, turns)
}

// settle lets the input end, waits for all results, and has them checked.
func (b *bed) settle(ctx context.Context) (tally, error) {
	b.source.flow(false)
	limit, done := context.WithTimeout(ctx, 60*time.Second)
	err := b.source.settled(limit)
	done()
	for try := 0; ; try++ { // a broker that has just come back may refuse the first reader
		read := b.checker.into(ctx, b.books, b.partitions)
		if read == nil {
			break
		}
		if try == 4 || wait(ctx, time.Second) != nil {
			return tally{}, errors.Join(err, read)
		}
	}
	return b.books.close(), err
}

// table is what a run prints.
func table(rows map[string]*row, seed uint64) string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "fault\ttimes\trecords in\tscored\tdead letters\tlost\tdoubled\treordered\tlongest wait\t\n")
	var sum row
	line := func(name string, r *row) {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%.1fs\t\n", name, r.times, r.in, r.scored, r.dead, r.lost, r.doubled, r.reordered+r.foreign, r.pause.Seconds())
	}
	for _, k := range kinds {
		if r := rows[k.name]; r != nil {
			line(k.name, r)
			sum.times, sum.idle, sum.pause = sum.times+r.times, sum.idle+r.idle, max(sum.pause, r.pause)
			sum.add(r.tally)
		}
	}
	line("together", &sum)
	w.Flush()
	fmt.Fprintf(&out, "first seed %d; %d more faults struck when no record was in flight, and are not counted as times\n", seed, sum.idle)
	return "\n" + out.String()
}

// plantedFaults has the checker judge real topics in which one record was dropped, one doubled and two swapped on purpose.
func plantedFaults(t *testing.T, b *bed) {
	ctx := t.Context()
	of := topics{"planted", "planted.scores", "planted.dlq"}
	for _, topic := range []string{of.in, of.scores, of.dead} {
		if err := b.create(ctx, topic, 3); err != nil {
			t.Fatal(err)
		}
	}
	plant(t, b, of)
	want := tally{in: 300, scored: 298, dead: 1, lost: 1, doubled: 1, reordered: 1}
	l := newLedger()
	if err := newReader(b.cluster.Addr(), of).into(ctx, l, 3); err != nil {
		t.Fatal(err)
	}
	if got := l.close(); got != want {
		t.Errorf("by kcat %+v, want %+v\n%s", got, want, strings.Join(l.findings, "\n"))
	}
	l, got, err := console(ctx, b.jars, b.cluster.Addr(), of, newLedger(), want)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("by the console consumer %+v, want %+v\n%s", got, want, strings.Join(l.findings, "\n"))
	}
	b.logf("the checker found what was planted, by kcat and by the console consumer: %s", strings.Join(l.findings, "; "))
}

func (t *tally) add(o tally) {
	t.in, t.scored, t.dead, t.tombstones, t.gone = t.in+o.in, t.scored+o.scored, t.dead+o.dead, t.tombstones+o.tombstones, t.gone+o.gone
	t.lost, t.doubled, t.reordered, t.foreign = t.lost+o.lost, t.doubled+o.doubled, t.reordered+o.reordered, t.foreign+o.foreign
}
