package fleet

import "math"

// car is the state of one car. Every second of event time it is driven (driver), climbs and descends,
// warms and cools; a reading shows that state through its sensors.
type car struct {
	name   string
	phase  int64 // seconds after the start of an interval at which the car reports
	build  build
	drive  stream // what happens to the car
	noise  stream // of its sensors
	driver driver

	slope   float64 // of the road, m/m
	cargo   float64 // mass moved over mass empty
	road    float64 // roughness, 1 = usual
	ambient float64 // °C
	power   float64 // asked of the engine, share of its largest
	heat    float64 // of the engine and its bay: power, lagged; about 0 (resting) to 1 (full load)
	roll    float64 // heat of the tyres: speed, lagged; 0 to 1
	charge  float64 // of the battery, 0 to 1
	aim     float64 // charge that the hybrid's controller steers to
}

// build is what differs from car to car and never changes: the spread of manufacturing, and the place.
type build struct {
	climate, swing float64 // mean and amplitude of the day's temperature, °C
	noon           int64   // seconds by which the car's day is shifted: the fleet is spread over the globe
	firmware       float64
	gain           [fields]float64 // of each sensor, about 1
	offset         [fields]float64 // of each sensor, in its unit
	mass           float64         // relative to the type's
	fill           float64         // pressure that the tyres were filled to over the type's, psi
}

// Constants of the car: a mid-size hybrid. Mass, drag and rolling resistance are those of a saloon
// (1.5 t; c_w·A/2·rho = 0.28·2.2·1.2/2 = 0.37; c_r = 0.011), power is that of its engine.
const (
	massKg      = 1500.0
	dragNs2m2   = 0.37
	rollNewton  = 160.0
	gravity     = 9.81
	fullPowerKW = 75.0
)

// init places a car in the middle of its life: lags and charge start where they would be, not at zero,
// and then an hour is driven before the first record.
func (c *car) init(seed uint64, index int, at int64) {
	b := newStream(seed, streamBuild, index)
	c.drive = newStream(seed, streamDrive, index)
	c.noise = newStream(seed, streamSensor, index)
	c.build = build{
		climate:  b.uniform(10, 27),
		swing:    b.uniform(2, 4),
		noon:     int64(b.whole(86400)),
		firmware: 1000,
		mass:     b.uniform(0.97, 1.03),
	}
	c.build.fill = b.uniform(-3.4, -1)
	if b.chance(0.5) {
		c.build.firmware = 2000
		c.build.fill += 4.4
	}
	for i := range c.build.gain {
		c.build.gain[i] = 1 + mul(spread[i].gain, b.normal())
		c.build.offset[i] = mul(spread[i].offset, b.normal())
	}
	c.cargo = 1.15
	c.road = 1
	c.heat, c.roll = 0.3, 0.3
	c.charge = b.uniform(0.45, 0.85)
	c.aim = c.charge
	c.driver.mode = b.whole(modes)
	const warmUp = 3600
	c.advance(warmUp, at)
}

// spread is the deviation between cars of a sensor's gain and offset, and the deviation of its noise.
var spread = [fields]struct{ gain, offset, noise float64 }{
	coolantTemp:       {0, 0.15, 0.25},
	intakeAirTemp:     {0, 0.15, 0.25},
	intakeAirFlow:     {0.004, 0.1, 0.6},
	batteryPercentage: {0, 0.002, 0.004},
	batteryVoltage:    {0, 0.2, 0.4},
	currentDraw:       {0.003, 0.1, 0.3},
	speed:             {0.002, 0, 0.12},
	engineVibration:   {0.004, 10, 30},
	throttlePos:       {0, 0.002, 0.004},
	tire11:            {0, 0.08, 0.25},
	tire12:            {0, 0.08, 0.25},
	tire21:            {0, 0.08, 0.25},
	tire22:            {0, 0.08, 0.25},
	accel11:           {0.01, 0.003, 0.012},
	accel12:           {0.01, 0.003, 0.012},
	accel21:           {0.01, 0.003, 0.012},
	accel22:           {0.01, 0.003, 0.012},
}

// advance moves the car on by whole seconds, ending at the epoch second at.
func (c *car) advance(seconds, at int64) {
	c.ambient = c.build.climate + mul(c.build.swing, daySine(at+c.build.noon))
	for range seconds {
		c.second()
	}
}

// daySine is a sine over the day made of two parabolas, within 0.06 of the real one.
func daySine(at int64) float64 {
	x := float64(((at%86400)+86400)%86400)/43200 - 1
	return mul(mul(4, x), 1-math.Abs(x))
}

func (c *car) second() {
	d := &c.drive
	if c.driver.second(d) { // a new trip
		c.cargo = d.uniform(1, 1.3)
		c.aim = d.uniform(0.35, 0.92)
	}
	v, a := c.driver.speed, c.driver.accel

	// One draw serves both slow walks: its halves are independent.
	u := d.pcg.Uint64()
	left := float64(int64(u>>32)-1<<31) / (1 << 31)
	right := float64(int64(u&0xffffffff)-1<<31) / (1 << 31)
	c.slope = toward(c.slope, mul(0.14, left), 1.0/40)
	c.road = toward(c.road, 1+mul(0.4, right), 1.0/30)

	mass := mul(mul(massKg, c.build.mass), c.cargo)
	force := mul(mass, a+mul(gravity, c.slope)) + rollNewton + mul(dragNs2m2, mul(v, v))
	raw := mul(force, v) / (1000 * fullPowerKW)
	// max(0, raw) with its corner rounded: an engine idles, and takes over gently from braking.
	const corner = 0.04
	asked := (raw + math.Sqrt(mul(raw, raw)+corner*corner)) / 2
	// What is asked beyond half of the power is granted less and less: a driver gives way on a hill.
	c.power = asked / math.Sqrt(1+mul(3, mul(asked, asked)))

	c.heat = toward(c.heat, min(1, mul(3, c.power)), 1.0/120)
	c.roll = toward(c.roll, v/40, 1.0/400)
	c.charge = clamp(toward(c.charge, c.aim, 1.0/1200)-mul(0.0006, c.power-0.1), 0.2, 0.98)
}

// read shows the state through the sensors, without a fault. It draws the same count of numbers each time.
func (c *car) read() reading {
	v, p, h := c.driver.speed, c.power, c.heat
	pitch := mul(0.012, c.driver.accel)
	warm := c.ambient - 20
	var r reading

	// The thermostat holds about 84 °C; load and a warm day push it up.
	r[coolantTemp] = 84 + mul(20, h) + mul(0.25, warm)
	// The bay heats the air; head wind cools it.
	r[intakeAirTemp] = c.ambient + 4 + mul(12, h) - mul(0.08, v)
	r[intakeAirFlow] = 3 + mul(150, p) + mul(0.9, v)
	r[throttlePos] = 0.04 + mul(0.9, p) + mul(0.005, v)
	r[engineVibration] = 250 + mul(90, v) + mul(2000, p)
	// Electronics, air conditioning, the fan of a hot engine, and the motor's share of the work.
	r[currentDraw] = 12 + mul(0.6, warm) + mul(16, h) + mul(24, p)
	r[batteryPercentage] = c.charge
	r[batteryVoltage] = 198 + mul(55, c.charge) - mul(0.2, r[currentDraw]-20)
	r[speed] = v
	tire := 31.5 + c.build.fill + mul(0.17, warm) + mul(1.5, c.roll)
	shake := 0.08 + mul(c.road, 0.06+mul(0.014, v))
	for i := range 4 {
		r[tire11+i] = tire
		r[accel11+i] = shake
	}
	r[accel11] -= pitch
	r[accel12] -= pitch
	r[accel21] += pitch
	r[accel22] += pitch
	r[firmware] = c.build.firmware

	for i := range firmware {
		r[i] = mul(r[i], c.build.gain[i]) + c.build.offset[i] + mul(spread[i].noise, c.noise.normal())
	}
	return r
}
