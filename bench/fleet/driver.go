package fleet

// driver moves a car through trips: rests with the engine idling, city streets with stops, country roads
// and motorways. A trip is a series of modes; a mode is a series of legs with one aimed speed each.
type driver struct {
	mode     int
	modeLeft int // seconds
	legLeft  int // seconds
	aim      float64
	speed    float64 // m/s
	accel    float64 // m/s²
}

const (
	resting = iota
	city
	country
	motorway
	modes
)

// style is how a mode is driven: durations in seconds, speeds in m/s (city up to 54, country up to 94,
// motorway up to 133 km/h).
type style struct {
	minMode, maxMode float64
	minLeg, maxLeg   float64
	minAim, maxAim   float64
	stop             float64 // share of legs that are stops
	next             [modes]float64
}

var styles = [modes]style{
	resting:  {60, 240, 60, 240, 0, 0, 1, [modes]float64{city: 1}},
	city:     {240, 720, 12, 50, 5, 15, 0.3, [modes]float64{resting: 0.25, city: 0.1, country: 0.4, motorway: 0.25}},
	country:  {240, 720, 30, 120, 15, 26, 0.06, [modes]float64{city: 0.5, country: 0.2, motorway: 0.3}},
	motorway: {300, 1200, 40, 240, 25, 37, 0, [modes]float64{city: 0.4, country: 0.6}},
}

// second drives one second and tells whether a new trip begins (a rest ends).
func (d *driver) second(s *stream) (trip bool) {
	d.modeLeft--
	d.legLeft--
	if d.modeLeft <= 0 {
		was := d.mode
		d.mode = pick(&styles[d.mode].next, s.uniform(0, 1))
		st := &styles[d.mode]
		d.modeLeft = int(s.uniform(st.minMode, st.maxMode))
		d.legLeft = 0
		trip = was == resting
	}
	if d.legLeft <= 0 {
		st := &styles[d.mode]
		d.legLeft = int(s.uniform(st.minLeg, st.maxLeg))
		d.aim = s.uniform(st.minAim, st.maxAim)
		if s.chance(st.stop) {
			d.aim = 0
		}
	}
	// Comfortable driving: at most 1.8 m/s² up and 2.5 m/s² down, with the pedal moved over about 2 s.
	// The faster the car, the less is left to gain speed with.
	want := clamp(mul(0.2, d.aim-d.speed), -2.5, 1.8-mul(0.035, d.speed))
	d.accel = toward(d.accel, want, 0.5)
	d.speed += d.accel
	if d.speed < 0.05 && d.aim == 0 {
		d.speed, d.accel = 0, 0
	}
	return trip
}

func pick(share *[modes]float64, u float64) int {
	for m, p := range share {
		if u < p {
			return m
		}
		u -= p
	}
	return city
}
