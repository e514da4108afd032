package fleet

import "time"

// fault is one episode inside the simulation, in seconds from the fleet's start.
type fault struct {
	kind       Kind
	field      int     // the sensor or tyre concerned; unused by kinds that fix their own
	sign       float64 // of a drift, ±1
	onset, end int64
	ramp       int64  // seconds from onset to full strength
	dice       stream // of what flickers
	held       float64
	holding    bool
}

// Sensors that can stick: fast ones, since a slow one that sticks is right for minutes.
var canStick = []int{speed, throttlePos, intakeAirFlow, engineVibration}

// Sensors that can drift, and how far they go at full strength: in the field's unit, or as a share of
// the value. Every one stays inside the range of a sound fleet for most of the way.
var canDrift = []struct {
	field         int
	offset, share float64
	up            bool // never down
}{
	{coolantTemp, 14, 0, false},
	{intakeAirTemp, 13, 0, false},
	{intakeAirFlow, 12, 0.5, true}, // downwards it would end at zero, which no running engine shows
	{batteryVoltage, 16, 0, false},
}

func newFault(kind Kind, onset, end int64, dice stream) fault {
	f := fault{kind: kind, onset: onset, end: end, dice: dice}
	f.ramp = int64(mul(float64(end-onset), f.dice.uniform(0.3, 0.5)))
	f.sign = 1
	if f.dice.chance(0.5) {
		f.sign = -1
	}
	switch kind {
	case SlowPuncture:
		f.field = tire11 + f.dice.whole(4)
	case StuckSensor:
		f.field = canStick[f.dice.whole(len(canStick))]
	case DriftingSensor:
		f.field = f.dice.whole(len(canDrift))
		if canDrift[f.field].up {
			f.sign = 1
		}
	}
	return f
}

// features are the fields that the fault disturbs, the most concerned first.
func (f *fault) features() []string {
	var at []int
	switch f.kind {
	case CoolantLeak:
		at = []int{coolantTemp}
	case Misfire:
		at = []int{engineVibration, throttlePos}
	case FailingBattery:
		at = []int{batteryVoltage, currentDraw}
	case DriftingSensor:
		at = []int{canDrift[f.field].field}
	default:
		at = []int{f.field}
	}
	names := make([]string, len(at))
	for i, j := range at {
		names[i] = schema[j].name
	}
	return names
}

// apply changes a sound reading into the one under the fault. Strength grows from 0 at the onset to 1.
func (f *fault) apply(r *reading, c *car, at int64) {
	s := min(1, float64(at-f.onset+1)/float64(max(f.ramp, 1)))
	switch f.kind {
	case CoolantLeak:
		// Less coolant carries less heat: the more of it, the hotter.
		r[coolantTemp] += mul(s, 9+mul(9, c.heat))
	case SlowPuncture:
		r[f.field] -= mul(6, s)
	case Misfire:
		// Each missed stroke is a blow; how many fall into a reading varies.
		blows := mul(s, f.dice.uniform(0.7, 1.3))
		r[engineVibration] += mul(blows, 900+mul(0.4, r[engineVibration]))
		r[throttlePos] += mul(s, 0.04+mul(0.2, c.power))
	case FailingBattery:
		// Inner resistance has grown, and a weak cell takes current.
		r[batteryVoltage] -= mul(s, 8+mul(0.25, r[currentDraw]))
		r[currentDraw] += mul(s, 5)
	case StuckSensor:
		if !f.holding {
			f.holding, f.held = true, r[f.field]
		}
		r[f.field] = f.held
	case DriftingSensor:
		d := canDrift[f.field]
		r[d.field] += mul(mul(f.sign, s), d.offset+mul(d.share, r[d.field]))
	}
}

func (f *fault) episode(car string, start int64) Episode {
	at := func(s int64) time.Time { return time.Unix(start+s, 0).UTC() }
	return Episode{Car: car, Kind: f.kind, Features: f.features(), Onset: at(f.onset), End: at(f.end)}
}
