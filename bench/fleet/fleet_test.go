package fleet_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lapwing-stream/lapwing/bench/fleet"
)

var update = flag.Bool("update", false, "rewrite golden files")

// faulty is a small fleet with both kinds of schedule.
func faulty(seed uint64) fleet.Options {
	return fleet.Options{
		Seed: seed, Cars: 12, Interval: 5 * time.Second,
		Faults: fleet.Faults{
			PerCarHour: 0.5, CleanFor: time.Hour, Gap: 10 * time.Minute,
			Stretches: []fleet.Stretch{{After: 30 * time.Minute, Over: 4 * time.Hour, Episodes: 12}},
		},
	}
}

func mustNew(t testing.TB, o fleet.Options) *fleet.Fleet {
	t.Helper()
	f, err := fleet.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run go test ./bench/fleet -update", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs; look, then run with -update (-want +got):\n%s", path, diff)
	}
}

// TestSameSeedSameBytes pins the first records as text and many more as a digest: a change of either means
// that every published figure about the fleet has to be measured again. The digest holds on any machine.
func TestSameSeedSameBytes(t *testing.T) {
	var text bytes.Buffer
	sum := sha256.New()
	f := mustNew(t, faulty(1))
	episodes := 0
	for i := range 40_000 {
		r, began := f.Next()
		fmt.Fprintf(sum, "%s %d %s\n", r.Key, r.Time.Unix(), r.Value)
		if i < 6 {
			fmt.Fprintf(&text, "%s\n", r.Value)
		}
		for _, e := range began {
			line, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			sum.Write(line)
			if episodes++; episodes <= 6 {
				fmt.Fprintf(&text, "%s\n", line)
			}
		}
	}
	fmt.Fprintf(&text, "%d episodes\nsha256 of 40,000 records and their episodes: %x\n", episodes, sum.Sum(nil))
	golden(t, "seed1.golden", text.Bytes())
}

func TestOtherSeedOtherBytes(t *testing.T) {
	a, _ := mustNew(t, fleet.Options{Seed: 1}).Next()
	b, _ := mustNew(t, fleet.Options{Seed: 2}).Next()
	if bytes.Equal(a.Value, b.Value) {
		t.Errorf("seeds 1 and 2 begin with the same record %s", a.Value)
	}
}

// TestZoneOfStartDoesNotMatter: the same instant in another zone is the same start.
func TestZoneOfStartDoesNotMatter(t *testing.T) {
	o := faulty(3)
	o.Start = fleet.DefaultStart
	a := mustNew(t, o)
	o.Start = fleet.DefaultStart.In(time.FixedZone("far", 13*3600)).Add(300 * time.Millisecond)
	b := mustNew(t, o)
	for range 500 {
		x, _ := a.Next()
		y, _ := b.Next()
		if !bytes.Equal(x.Value, y.Value) || !x.Time.Equal(y.Time) {
			t.Fatalf("%s\n%s", x.Value, y.Value)
		}
	}
}

// TestFaultsTouchNothingElse: outside episodes the records are those of the fleet without faults, and inside
// them only the fields that the label names differ.
func TestFaultsTouchNothingElse(t *testing.T) {
	o := faulty(5)
	sick := mustNew(t, o)
	o.Faults = fleet.Faults{}
	sound := mustNew(t, o)
	now := map[string]fleet.Episode{}
	seen := map[fleet.Kind]int{}
	for range 60_000 {
		a, began := sick.Next()
		b, none := sound.Next()
		if none != nil {
			t.Fatalf("a fleet without faults has episode %v", none)
		}
		for _, e := range began {
			if e.Car != a.Key || !e.Onset.Equal(a.Time) {
				t.Fatalf("record of %s at %s hands out episode %+v", a.Key, a.Time, e)
			}
			now[e.Car] = e
			seen[e.Kind]++
		}
		if bytes.Equal(a.Value, b.Value) {
			continue
		}
		e, ok := now[a.Key]
		if !ok || a.Time.Before(e.Onset) || !a.Time.Before(e.End) {
			t.Fatalf("outside its episodes (last %+v) the record differs:\n%s\n%s", e, a.Value, b.Value)
		}
		x, y := fieldsOf(a.Value), fieldsOf(b.Value)
		for i := range x {
			name, _, _ := strings.Cut(x[i], ":")
			if x[i] != y[i] && !slices.Contains(e.Features, strings.Trim(name, `"`)) {
				t.Fatalf("%s concerns %v, yet %s became %s", e.Kind, e.Features, y[i], x[i])
			}
		}
	}
	for _, k := range fleet.Kinds() {
		if seen[k] == 0 {
			t.Errorf("no %s in %v", k, seen)
		}
	}
}

func fieldsOf(value []byte) []string {
	return strings.Split(strings.Trim(string(value), "{}"), ",")
}

// TestRecordIsTheCarSensorRow: names, order, whole numbers and ranges are those of the schema and the file.
func TestRecordIsTheCarSensorRow(t *testing.T) {
	f := mustNew(t, faulty(7))
	last := time.Time{}
	want := append([]string{"time", "car"}, fleet.Features()...)
	if len(want) != 20 {
		t.Fatalf("%d features; want 18", len(want)-2)
	}
	cars := map[string]bool{}
	firmwares := map[float64]bool{}
	for range 20_000 {
		r, _ := f.Next()
		if r.Time.Before(last) {
			t.Fatalf("time goes back from %s to %s", last, r.Time)
		}
		last = r.Time
		var names []string
		for _, part := range fieldsOf(r.Value) {
			name, _, _ := strings.Cut(part, ":")
			names = append(names, strings.Trim(name, `"`))
		}
		if !slices.Equal(names, want) {
			t.Fatalf("fields %v; want %v", names, want)
		}
		var m map[string]any
		if err := json.Unmarshal(r.Value, &m); err != nil {
			t.Fatalf("%v: %s", err, r.Value)
		}
		if m["car"] != r.Key || m["time"] != float64(r.Time.Unix()) {
			t.Fatalf("key %s, time %d: %s", r.Key, r.Time.Unix(), r.Value)
		}
		cars[r.Key] = true
		firmwares[m["control_unit_firmware"].(float64)] = true
		for name, limits := range map[string][2]float64{
			"coolant_temp": {60, 130}, "intake_air_temp": {0, 60}, "intake_air_flow_speed": {1, 200},
			"battery_percentage": {0, 1}, "battery_voltage": {180, 275}, "current_draw": {0, 60}, "speed": {0, 45},
			"engine_vibration_amplitude": {0, 8000}, "throttle_pos": {0, 1}, "tire_pressure_1_1": {18, 42},
			"accelerometer_2_2_value": {0, 1.2},
		} {
			if x := m[name].(float64); x < limits[0] || x > limits[1] {
				t.Errorf("%s is %v, outside %v: %s", name, x, limits, r.Value)
			}
		}
		for _, name := range []string{"tire_pressure_1_1", "tire_pressure_1_2", "tire_pressure_2_1", "tire_pressure_2_2", "control_unit_firmware"} {
			if x := m[name].(float64); x != math.Trunc(x) {
				t.Errorf("%s is %v; the schema has an int", name, x)
			}
		}
	}
	if len(cars) != 12 || len(firmwares) != 2 {
		t.Errorf("%d cars, firmwares %v; want 12 and 2", len(cars), firmwares)
	}
}

// TestFieldNamesAreThoseOfTheFile compares with the real set's header and schema.
func TestFieldNamesAreThoseOfTheFile(t *testing.T) {
	dir := os.Getenv("LAPWING_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	dir = filepath.Join(dir, "car-sensors")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("SKIPPED-DATA: field names of the car sensor set (no folder %s)", dir)
	}
	csv, err := os.ReadFile(filepath.Join(dir, "car-sensor-data.csv"))
	if err != nil {
		t.Fatal(err)
	}
	header, _, _ := strings.Cut(string(csv), "\n")
	if got := "time,car," + strings.Join(fleet.Features(), ","); got != strings.TrimSpace(header) {
		t.Errorf("fields\n%s\nwant\n%s", got, header)
	}
	avsc, err := os.ReadFile(filepath.Join(dir, "cardata-v1.avsc"))
	if err != nil {
		t.Fatal(err)
	}
	var schema struct{ Fields []struct{ Name string } }
	if err := json.Unmarshal(avsc, &schema); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range schema.Fields {
		if f.Name != "time" && f.Name != "car" {
			names = append(names, f.Name)
		}
	}
	if !slices.Equal(names, fleet.Features()) {
		t.Errorf("features %v; schema %v", fleet.Features(), names)
	}
}

// TestRecordsAreTheCallersToKeep: appending to one does not reach into the next.
func TestRecordsAreTheCallersToKeep(t *testing.T) {
	f, g := mustNew(t, fleet.Options{}), mustNew(t, fleet.Options{})
	var kept [][]byte
	for range 1000 {
		r, _ := f.Next()
		kept = append(kept, r.Value)
		_ = append(r.Value, "overwritten"...)
	}
	for i, v := range kept {
		r, _ := g.Next()
		if !bytes.Equal(v, r.Value) {
			t.Fatalf("record %d changed to %s", i, v)
		}
	}
}

// TestBodyFollows measures what the page says: relations hold tightly, and across fields.
func TestBodyFollows(t *testing.T) {
	p := play(t, fleet.Options{Seed: 9}, 60_000)
	at := func(name string) []float64 {
		j := slices.Index(fleet.Features(), name)
		var x []float64
		for i := j; i < len(p.values); i += width {
			x = append(x, float64(p.values[i]))
		}
		return x
	}
	for _, c := range []struct {
		a, b    string
		atLeast float64 // of |correlation|
		sign    float64
	}{
		{"speed", "engine_vibration_amplitude", .9, 1},
		{"throttle_pos", "intake_air_flow_speed", .9, 1},
		{"battery_percentage", "battery_voltage", .9, 1},
		{"coolant_temp", "current_draw", .7, 1},
		{"coolant_temp", "intake_air_temp", .4, 1},
		{"tire_pressure_1_1", "tire_pressure_2_2", .95, 1},
		{"accelerometer_1_1_value", "accelerometer_2_1_value", .9, 1},
		{"speed", "accelerometer_1_2_value", .9, 1},
	} {
		if r := correlation(at(c.a), at(c.b)); c.sign*r < c.atLeast {
			t.Errorf("%s and %s: correlation %.2f; want at least %.2f", c.a, c.b, c.sign*r, c.atLeast)
		}
	}
}

func correlation(x, y []float64) float64 {
	n := float64(len(x))
	var sx, sy, sxx, syy, sxy float64
	for i := range x {
		sx, sy = sx+x[i], sy+y[i]
		sxx, syy, sxy = sxx+x[i]*x[i], syy+y[i]*y[i], sxy+x[i]*y[i]
	}
	return (sxy - sx*sy/n) / math.Sqrt((sxx-sx*sx/n)*(syy-sy*sy/n))
}

func TestValidateReportsEveryFault(t *testing.T) {
	err := fleet.Options{
		Cars: -1, Interval: 1500 * time.Millisecond, Start: time.Date(1901, 1, 1, 0, 0, 0, 0, time.UTC),
		Faults: fleet.Faults{
			Kinds: []fleet.Kind{"flat_tyre", fleet.Misfire, fleet.Misfire}, PerCarHour: math.NaN(), CleanFor: -1,
			Shortest: time.Second, Longest: 25 * time.Hour, Gap: -time.Second,
			Stretches: []fleet.Stretch{{After: -time.Hour}, {Over: 100 * time.Hour, Episodes: 1e6}},
		},
	}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	golden(t, "validate.golden", []byte(err.Error()+"\n"))
	for _, o := range []fleet.Options{{}, faulty(1), {Cars: 1, Interval: time.Second}, {Faults: fleet.Faults{Shortest: time.Hour}}} {
		if err := o.Validate(); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestNewNamesTheStretchThatFindsNoCar(t *testing.T) {
	o := fleet.Options{Cars: 1}
	s := fleet.Stretch{Over: 80 * time.Minute, Episodes: 1}
	o.Faults.Stretches = []fleet.Stretch{s, s, s}
	_, err := fleet.New(o)
	if err == nil || !strings.Contains(err.Error(), "stretch") || !strings.Contains(err.Error(), "no car is free") {
		t.Errorf("error %v", err)
	}
}

func TestSpan(t *testing.T) {
	o := fleet.Options{Cars: 10, Interval: 5 * time.Second}
	for n, want := range map[int]time.Duration{0: 0, 1: 5 * time.Second, 10: 5 * time.Second, 11: 10 * time.Second, 100: 50 * time.Second} {
		if got := o.Span(n); got != want {
			t.Errorf("%d records span %s; want %s", n, got, want)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	f := mustNew(b, fleet.Options{})
	for b.Loop() {
		f.Next()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
