package events

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/lapwing-stream/lapwing/model"
)

// carFields are the 18 numeric fields of the car sensor set.
var carFields = []string{"coolant_temp", "intake_air_temp", "intake_air_flow_speed", "battery_percentage",
	"battery_voltage", "current_draw", "speed", "engine_vibration_amplitude", "throttle_pos", "tire_pressure_1_1",
	"tire_pressure_1_2", "tire_pressure_2_1", "tire_pressure_2_2", "accelerometer_1_1_value",
	"accelerometer_1_2_value", "accelerometer_2_1_value", "accelerometer_2_2_value", "control_unit_firmware"}

func numbers(names ...string) model.Spec {
	s := model.Spec{Format: "json"}
	for _, n := range names {
		s.Fields = append(s.Fields, model.Field{Name: n, Type: model.Number})
	}
	return s
}

func mustCompile(t testing.TB, s model.Spec) *Decoder {
	t.Helper()
	d, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// carRecord is a record like those of the car sensor set: 18 numeric fields, about 520 bytes with its long names and
// 320 with short ones.
func carRecord(names []string, i int) []byte {
	v := []any{39.395103, 34.53991, 123.317406, 0.82654595, 246.12367, 0.6586535, 24.934872, 2493.487, 0.034893095,
		32, 31, 34, 34, 0.5295712, 0.9600553, 0.88389874, 0.043890715, 2000}
	var b bytes.Buffer
	for k, n := range names {
		b.WriteByte("{,"[min(k, 1)])
		if f, ok := v[k].(float64); ok {
			fmt.Fprintf(&b, "%q:%v", n, float32(f+float64(i)/7))
		} else {
			fmt.Fprintf(&b, "%q:%v", n, v[k])
		}
	}
	b.WriteByte('}')
	return b.Bytes()
}

func TestDecodeCarRecord(t *testing.T) {
	d := mustCompile(t, numbers(carFields...))
	row := make([]float32, d.Columns())
	rec := carRecord(carFields, 0)
	t.Logf("%d bytes", len(rec))
	r := d.Decode(rec, row)
	if r.Outcome != OK {
		t.Fatalf("%+v", r)
	}
	if row[0] != 39.395103 || row[17] != 2000 || row[8] != 0.034893095 {
		t.Fatalf("%v", row)
	}
	if n := testing.AllocsPerRun(100, func() { d.Decode(rec, row) }); n != 0 {
		t.Fatalf("%v allocations for an OK record", n)
	}
	if math.IsNaN(float64(row[3])) {
		t.Fatal("missing")
	}
}

// normalRecord is 18 numbers with four decimal places and either sign, about 290 bytes.
func normalRecord(names []string, rng *rand.Rand) []byte {
	var b bytes.Buffer
	for k, n := range names {
		fmt.Fprintf(&b, "%c%q:%.4f", "{,"[min(k, 1)], n, rng.NormFloat64())
	}
	b.WriteByte('}')
	return b.Bytes()
}

func BenchmarkDecodeJSON18(b *testing.B) {
	short, sensors := make([]string, len(carFields)), make([]string, len(carFields))
	for i := range short {
		short[i] = fmt.Sprintf("s%d", i+1)
		sensors[i] = fmt.Sprintf("sensor_%02d", i)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, tt := range []struct {
		name   string
		names  []string
		record func(i int) []byte
	}{
		{"cars", carFields, func(i int) []byte { return carRecord(carFields, i) }},
		{"short", short, func(i int) []byte { return carRecord(short, i) }},
		{"normal", sensors, func(int) []byte { return normalRecord(sensors, rng) }},
		{"spaced", sensors, func(int) []byte {
			return bytes.ReplaceAll(bytes.ReplaceAll(normalRecord(sensors, rng), []byte(","), []byte(", ")), []byte(":"), []byte(": "))
		}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			d := mustCompile(b, numbers(tt.names...))
			row := make([]float32, d.Columns())
			recs := make([][]byte, 8192) // so many that the branch predictor cannot know them by heart
			total := 0
			for i := range recs {
				recs[i] = tt.record(i)
				total += len(recs[i])
			}
			b.SetBytes(int64(total / len(recs)))
			b.ReportAllocs()
			cpu := cpuSeconds()
			b.ResetTimer()
			for i := 0; i < b.N; i++ {
				if r := d.Decode(recs[i%len(recs)], row); r.Outcome != OK {
					b.Fatal(r)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
			// On a shared machine the wall clock counts others' work too.
			b.ReportMetric(float64(b.N)/(cpuSeconds()-cpu), "records/cpu-s")
		})
	}
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
