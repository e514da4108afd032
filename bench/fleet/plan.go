package fleet

import (
	"fmt"
	"slices"
	"time"
)

// plan says which car has which fault when: what Stretches fix in advance, and what PerCarHour throws for
// as the fleet goes on.
type plan struct {
	o     Options
	start int64
	cars  []carPlan
	rate  float64 // chance of an onset at a record of a sound car
	clean int64   // seconds without thrown episodes
	gap   int64
}

type carPlan struct {
	name    string
	ahead   []fault // planned, by onset
	now     *fault
	soundAt int64  // from which second on a new fault may begin
	dice    stream // throws of PerCarHour
	thrown  int
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

func newPlan(o Options, cars []car) (plan, error) {
	p := plan{
		o: o, start: o.Start.Unix(), cars: make([]carPlan, len(cars)),
		rate:  o.Faults.PerCarHour * o.Interval.Hours(),
		clean: seconds(o.Faults.CleanFor), gap: seconds(o.Faults.Gap),
	}
	for i := range cars {
		p.cars[i].name = cars[i].name
		p.cars[i].dice = newStream(o.Seed, streamPlan, i)
	}
	deal := dealer{kinds: o.Faults.Kinds}
	dice := newStream(o.Seed, streamPlan, len(cars))
	number := 0
	for i, s := range o.Faults.Stretches {
		for k := range s.Episodes {
			length := p.length(&dice)
			// Onsets are spread over what is left when the longest episode still has to end.
			slot := float64(s.Over-o.Faults.Longest) / float64(s.Episodes) / float64(time.Second)
			onset := seconds(s.After) + int64(mul(slot, float64(k)+dice.uniform(0, 1)))
			kind := deal.next(&dice)
			first := dice.whole(len(cars))
			placed := false
			for n := 0; n < len(cars) && !placed; n++ {
				at := (first + n) % len(cars)
				placed = p.place(at, cars[at].phase, kind, onset, length, newStream(o.Seed, streamFault, number))
			}
			if !placed {
				return plan{}, fmt.Errorf("fleet stretch %d: no car is free for episode %d of %d; plan fewer, or give more cars or time", i+1, k+1, s.Episodes)
			}
			number++
		}
	}
	return p, nil
}

// length draws how long an episode lasts, in seconds.
func (p *plan) length(dice *stream) int64 {
	return int64(dice.uniform(p.o.Faults.Shortest.Seconds(), p.o.Faults.Longest.Seconds()))
}

// onGrid is the first time at or after at that a car of that phase reports.
func (p *plan) onGrid(at, phase int64) int64 {
	step := seconds(p.o.Interval)
	return phase + (max(at-phase, 0)+step-1)/step*step
}

// place puts an episode into a car's plan unless another of its, with the gap, is in the way.
func (p *plan) place(i int, phase int64, kind Kind, onset, length int64, dice stream) bool {
	onset = p.onGrid(onset, phase)
	end := p.onGrid(onset+length, phase)
	c := &p.cars[i]
	for j := range c.ahead {
		if onset < c.ahead[j].end+p.gap && c.ahead[j].onset < end+p.gap {
			return false
		}
	}
	at, _ := slices.BinarySearchFunc(c.ahead, onset, func(f fault, t int64) int { return int(f.onset - t) })
	c.ahead = slices.Insert(c.ahead, at, newFault(kind, onset, end, dice))
	return true
}

// visit moves car i's plan to the record at second at, and returns the episode that begins with it, if any.
func (p *plan) visit(i int, at, phase int64) []Episode {
	c := &p.cars[i]
	if c.now != nil && at >= c.now.end {
		c.soundAt = c.now.end + p.gap
		c.now = nil
	}
	if p.rate > 0 {
		// Thrown whether or not it can be used, so that a planned episode shifts no other.
		hit := c.dice.chance(p.rate)
		if hit && c.now == nil && at >= p.clean && at >= c.soundAt {
			p.throw(i, at, phase)
		}
	}
	if c.now == nil && len(c.ahead) > 0 && at >= c.ahead[0].onset {
		f := c.ahead[0]
		c.ahead = c.ahead[1:]
		c.now = &f
		return []Episode{f.episode(c.name, p.start)}
	}
	return nil
}

// throw lets a fault begin now unless a planned one is too near. Kinds take turns, beginning with
// another one in each car, which keeps them even over the fleet as well as over one car's life.
func (p *plan) throw(i int, at, phase int64) {
	c := &p.cars[i]
	kinds := p.o.Faults.Kinds
	dice := newStream(p.o.Seed, streamFault, 1<<30|i<<8|c.thrown&0xff)
	kind := kinds[(i+c.thrown)%len(kinds)]
	if p.place(i, phase, kind, at, p.length(&dice), dice) {
		c.thrown++
	}
}

// active is the fault that car i is under, or nil.
func (p *plan) active(i int) *fault { return p.cars[i].now }

// dealer hands out kinds in shuffled rounds, so that after each round every kind came equally often.
type dealer struct {
	kinds []Kind
	left  []Kind
}

func (d *dealer) next(dice *stream) Kind {
	if len(d.left) == 0 {
		d.left = slices.Clone(d.kinds)
	}
	i := dice.whole(len(d.left))
	k := d.left[i]
	d.left = slices.Delete(d.left, i, i+1)
	return k
}
