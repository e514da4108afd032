// Package fleet simulates a fleet of cars as a source of records with known faults.
//
// A Fleet is endless and deterministic: the same Options give the same bytes on every machine, whatever the
// time zone. Its records have the fields of the car sensor set (18 numbers, "car" and "time") and nothing
// that tells a fault; what was wrong with which car and when comes beside the records, as Episodes, and
// belongs in a topic of its own. The page docs/fleet.md has the model in words.
package fleet

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Options say what a fleet is. The zero value of a field means its default.
type Options struct {
	Seed     uint64        // of everything that is random; 0 is a seed like any other; default 0
	Cars     int           // 1 to 100,000 cars; default 100
	Interval time.Duration // event time between two records of a car, whole seconds, 1s to 10m; default 10s
	Start    time.Time     // event time of the first record, cut to seconds; default 2019-09-04T14:09:56Z, as the car sensor file
	Faults   Faults        // default none
}

// Faults say which episodes of fault the fleet goes through. Both ways of asking for them, a rate and
// planned stretches, may be combined; a car has at most one fault at a time.
type Faults struct {
	Kinds      []Kind        // what may happen; default all of Kinds()
	PerCarHour float64       // expected episodes a car and hour of event time, 0 to 2; default 0
	CleanFor   time.Duration // event time after Start in which PerCarHour starts no episode; default 0s
	Stretches  []Stretch     // planned episodes; default none
	Shortest   time.Duration // of an episode, event time, at least 1m; default 10m
	Longest    time.Duration // of an episode, event time, at most 24h; default 20m
	Gap        time.Duration // event time that a repaired car stays sound, at least 0s; default 30m
}

// Stretch plans Episodes episodes, evenly spread, that begin and end between After and After + Over.
type Stretch struct {
	After    time.Duration // event time after Options.Start
	Over     time.Duration // event time, at least twice Faults.Longest
	Episodes int           // at least 1
}

// DefaultStart is the time of the first row of the car sensor set.
var DefaultStart = time.Unix(1567606196, 0).UTC()

// WithDefaults returns the options with every zero field replaced by its default.
func (o Options) WithDefaults() Options {
	if o.Cars == 0 {
		o.Cars = 100
	}
	if o.Interval == 0 {
		o.Interval = 10 * time.Second
	}
	if o.Start.IsZero() {
		o.Start = DefaultStart
	}
	o.Start = o.Start.Truncate(time.Second).UTC()
	f := &o.Faults
	if len(f.Kinds) == 0 {
		f.Kinds = Kinds()
	}
	if f.Shortest == 0 {
		f.Shortest = 10 * time.Minute
	}
	if f.Longest == 0 {
		f.Longest = max(20*time.Minute, f.Shortest)
	}
	if f.Gap == 0 {
		f.Gap = 30 * time.Minute
	}
	return o
}

// Validate reports every fault of the options at once; zero fields stand for their defaults.
func (o Options) Validate() error {
	o = o.WithDefaults()
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Cars < 1 || o.Cars > 100_000 {
		bad("fleet cars: %d is not in 1..100000; give a number in that range", o.Cars)
	}
	if o.Interval < time.Second || o.Interval > 10*time.Minute || o.Interval%time.Second != 0 {
		bad("fleet interval: %s is not a whole number of seconds in 1s..10m; try 10s", o.Interval)
	}
	// Ten digits of seconds, as in the file; the year also keeps time arithmetic far from overflow.
	if y := o.Start.Year(); y < 1970 || y > 2200 {
		bad("fleet start: year %d is not in 1970..2200; give a time in that range", y)
	}
	f := o.Faults
	for i, k := range f.Kinds {
		if _, err := ParseKind(string(k)); err != nil {
			errs = append(errs, err)
		} else if slices.Contains(f.Kinds[:i], k) {
			bad("fleet faults: kind %q is named twice; name it once", k)
		}
	}
	// The comparison is written so that NaN fails.
	if !(f.PerCarHour >= 0 && f.PerCarHour <= 2) {
		bad("fleet fault rate: %v episodes a car and hour is not in 0..2; try 0.05", f.PerCarHour)
	}
	if f.CleanFor < 0 {
		bad("fleet clean time: %s is negative; give 0s or more", f.CleanFor)
	}
	if f.Shortest < time.Minute {
		bad("fleet shortest fault: %s is below 1m; faults develop over minutes", f.Shortest)
	}
	if f.Longest < f.Shortest || f.Longest > 24*time.Hour {
		bad("fleet longest fault: %s is not between the shortest (%s) and 24h; give a duration in that range", f.Longest, f.Shortest)
	}
	if f.Gap < 0 {
		bad("fleet fault gap: %s is negative; give 0s or more", f.Gap)
	}
	for i, s := range f.Stretches {
		at := fmt.Sprintf("fleet stretch %d", i+1)
		if s.After < 0 {
			bad("%s: begins at %s, before the start; give 0s or more", at, s.After)
		}
		if s.Episodes < 1 {
			bad("%s: %d episodes; plan at least one", at, s.Episodes)
		}
		if s.Over < 2*f.Longest {
			bad("%s: %s is too short for episodes of up to %s; give at least twice that", at, s.Over, f.Longest)
		}
		// Each car can hold one episode at a time with its gap; half of that leaves room to place them.
		if room := float64(o.Cars) * float64(s.Over) / float64(f.Longest+f.Gap) / 2; s.Over > 0 && float64(s.Episodes) > max(room, 1) {
			bad("%s: %d episodes do not fit %d cars in %s; at most %d, or more cars or time", at, s.Episodes, o.Cars, s.Over, int(max(room, 1)))
		}
	}
	return errors.Join(errs...)
}

// Span is the event time that the first n records of the fleet cover, rounded up to whole intervals.
func (o Options) Span(n int) time.Duration {
	o = o.WithDefaults()
	return time.Duration((n+o.Cars-1)/o.Cars) * o.Interval
}

// Record is one reading of one car.
type Record struct {
	Key   string    // the car
	Value []byte    // one JSON object; the caller's to keep
	Time  time.Time // the "time" field: whole seconds
}

// Fleet makes records. It is for one goroutine.
type Fleet struct {
	cars    []car
	next    int   // index in cars of the next record's
	elapsed int64 // seconds from start of the running interval
	start   int64 // epoch seconds
	step    int64 // Interval in seconds
	plan    plan
	slab    []byte
}

// New builds a fleet. It fails on options that Validate refuses, and on stretches that overlap so much that
// no car is free.
func New(o Options) (*Fleet, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.WithDefaults()
	f := &Fleet{start: o.Start.Unix(), step: int64(o.Interval / time.Second)}
	f.cars = make([]car, o.Cars)
	for i := range f.cars {
		// Phases rise with the index, so that going through the cars is going forward in time.
		phase := int64(i) * f.step / int64(o.Cars)
		f.cars[i].init(o.Seed, i, f.start+phase)
		f.cars[i].name = "car" + strconv.Itoa(i+1)
		f.cars[i].phase = phase
	}
	var err error
	f.plan, err = newPlan(o, f.cars)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Next makes the next record, in order of event time, and the episodes that begin with it (nearly always
// none). An episode's end is planned at its onset, so each is handed out once, complete.
func (f *Fleet) Next() (Record, []Episode) {
	i := f.next
	c := &f.cars[i]
	at := f.elapsed + c.phase
	c.advance(f.step, f.start+at)
	began := f.plan.visit(i, at, c.phase)

	const largest = 640 // bytes of a record at the very most
	if cap(f.slab)-len(f.slab) < largest {
		// One allocation for about a hundred records. Slices are cut from it with their capacity
		// limited, so that a caller who appends to one does not write into the next.
		f.slab = make([]byte, 0, 64<<10)
	}
	from := len(f.slab)
	r := c.read()
	if e := f.plan.active(i); e != nil {
		e.apply(&r, c, at)
	}
	f.slab = appendRecord(f.slab, f.start+at, c.name, &r)
	rec := Record{Key: c.name, Value: f.slab[from:len(f.slab):len(f.slab)], Time: time.Unix(f.start+at, 0).UTC()}

	if f.next++; f.next == len(f.cars) {
		f.next = 0
		f.elapsed += f.step
	}
	return rec, began
}
