package fleet

import (
	"math"
	"strconv"
)

// The 18 numbers of a record, in the order of the car sensor schema.
const (
	coolantTemp = iota
	intakeAirTemp
	intakeAirFlow
	batteryPercentage
	batteryVoltage
	currentDraw
	speed
	engineVibration
	throttlePos
	tire11 // front left
	tire12 // front right
	tire21 // back left
	tire22 // back right
	accel11
	accel12
	accel21
	accel22
	firmware
	fields
)

// reading holds one value a field.
type reading [fields]float64

// field says how a value is written: decimals is the resolution of the sensor, and lo..hi what it can show.
type field struct {
	name     string
	decimals int
	lo, hi   float64
}

// Names, units and whole numbers are those of cardata-v1.avsc; resolutions are of the order of those in
// SAE J1979 (mass air flow 0.01 g/s) or finer, since the schema has floats where that standard has bytes.
// The file shows a pack voltage of 205 to 260, which its schema calls mV; the numbers are kept.
var schema = [fields]field{
	coolantTemp:       {"coolant_temp", 1, -40, 215},
	intakeAirTemp:     {"intake_air_temp", 1, -40, 215},
	intakeAirFlow:     {"intake_air_flow_speed", 2, 0, 655.35},
	batteryPercentage: {"battery_percentage", 4, 0, 1},
	batteryVoltage:    {"battery_voltage", 2, 0, 600},
	currentDraw:       {"current_draw", 2, 0, 200},
	speed:             {"speed", 2, 0, 80},
	engineVibration:   {"engine_vibration_amplitude", 1, 0, 20000},
	throttlePos:       {"throttle_pos", 4, 0, 1},
	tire11:            {"tire_pressure_1_1", 0, 0, 60},
	tire12:            {"tire_pressure_1_2", 0, 0, 60},
	tire21:            {"tire_pressure_2_1", 0, 0, 60},
	tire22:            {"tire_pressure_2_2", 0, 0, 60},
	accel11:           {"accelerometer_1_1_value", 4, 0, 20},
	accel12:           {"accelerometer_1_2_value", 4, 0, 20},
	accel21:           {"accelerometer_2_1_value", 4, 0, 20},
	accel22:           {"accelerometer_2_2_value", 4, 0, 20},
	firmware:          {"control_unit_firmware", 0, 0, 1e6},
}

// appendRecord writes a record as one flat JSON object with the header's names in the file's order.
func appendRecord(dst []byte, at int64, car string, r *reading) []byte {
	dst = append(dst, `{"time":`...)
	dst = strconv.AppendInt(dst, at, 10)
	dst = append(dst, `,"car":"`...)
	dst = append(dst, car...)
	dst = append(dst, '"')
	for i := range schema {
		f := &schema[i]
		dst = append(dst, prefixes[i]...)
		dst = appendFixed(dst, clamp(r[i], f.lo, f.hi), f.decimals)
	}
	return append(dst, '}')
}

// prefixes are `,"name":` for each field.
var prefixes = func() (p [fields]string) {
	for i, f := range schema {
		p[i] = `,"` + f.name + `":`
	}
	return p
}()

var powers = [...]float64{1, 10, 100, 1000, 10000}

// appendFixed writes x rounded to decimals places, all of them: what a sensor of that resolution sends, and
// several times faster than the shortest form of a float.
func appendFixed(dst []byte, x float64, decimals int) []byte {
	n := int64(math.Round(x * powers[decimals]))
	if decimals == 0 {
		return strconv.AppendInt(dst, n, 10)
	}
	if n < 0 {
		dst = append(dst, '-')
		n = -n
	}
	unit := int64(powers[decimals])
	dst = strconv.AppendInt(dst, n/unit, 10)
	dst = append(dst, '.')
	rest := n % unit
	for unit /= 10; unit > 0; unit /= 10 {
		dst = append(dst, byte('0'+rest/unit%10))
	}
	return dst
}
