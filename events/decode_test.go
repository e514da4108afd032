package events

import (
	"fmt"
	"math"
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

// carRecord is a record like those of the car sensor set, 18 numeric fields in about 290 bytes of values.
func carRecord(i int) []byte {
	v := []any{39.395103, 34.53991, 123.317406, 0.82654595, 246.12367, 0.6586535, 24.934872, 2493.487, 0.034893095,
		32, 31, 34, 34, 0.5295712, 0.9600553, 0.88389874, 0.043890715, 2000}
	s := "{"
	for k, n := range carFields {
		if k > 0 {
			s += ","
		}
		if f, ok := v[k].(float64); ok {
			s += fmt.Sprintf("%q:%v", n, float32(f+float64(i)/7))
		} else {
			s += fmt.Sprintf("%q:%v", n, v[k])
		}
	}
	return []byte(s + "}")
}

func TestDecodeCarRecord(t *testing.T) {
	d := mustCompile(t, numbers(carFields...))
	row := make([]float32, d.Columns())
	rec := carRecord(0)
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

func BenchmarkDecodeJSON18(b *testing.B) {
	d := mustCompile(b, numbers(carFields...))
	row := make([]float32, d.Columns())
	recs := make([][]byte, 256)
	total := 0
	for i := range recs {
		recs[i] = carRecord(i)
		total += len(recs[i])
	}
	b.SetBytes(int64(total / len(recs)))
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		if r := d.Decode(recs[i&255], row); r.Outcome != OK {
			b.Fatal(r)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
