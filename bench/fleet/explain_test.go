package fleet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/bench/fleet"
	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/server"
	"github.com/lapwing-stream/lapwing/stream"
	"github.com/lapwing-stream/lapwing/trainer"
)

// groups are the sensors that one relation binds (docs/fleet.md). A fault breaks the relation, and no arithmetic on a
// record can tell which of those that then disagree is at fault: if the air flow sticks, speed and throttle look as
// wrong as it does.
var groups = [][]string{
	{"coolant_temp", "intake_air_temp"},                                                                           // engine heat and outside temperature
	{"speed", "throttle_pos", "intake_air_flow_speed", "engine_vibration_amplitude"},                              // power
	{"battery_percentage", "battery_voltage", "current_draw"},                                                     // charge
	{"tire_pressure_1_1", "tire_pressure_1_2", "tire_pressure_2_1", "tire_pressure_2_2", "control_unit_firmware"}, // filling, by type of car
	{"accelerometer_1_1_value", "accelerometer_1_2_value", "accelerometer_2_1_value", "accelerometer_2_2_value"},  // road
}

func groupOf(t testing.TB, feature string) int {
	for i, g := range groups {
		if slices.Contains(g, feature) {
			return i
		}
	}
	t.Fatalf("%q is in no group", feature)
	return 0
}

// explained is what a score record says.
type explained struct {
	Anomaly bool
	Top     []struct {
		Feature         string
		Value, Expected *float64
		Usual           []float64
		Share           float64
	}
}

// TestTheFaultySensorsGroupIsNamedFirst: detectors learn a sound fleet from a topic, and the code of serve explains what
// it then sees. In at least nine of ten alerts for a fault the first field named is of the group that the fault
// disturbs, with its value, what was expected and its usual range. Contributions are parts: none is negative, and
// they add up to the score.
func TestTheFaultySensorsGroupIsNamedFirst(t *testing.T) {
	if raceDetector {
		// As in TestFaultsAreFoundButNoCaricature.
		out, err := exec.Command("go", "test", "-count=1", "-v", "-run", "^"+t.Name()+"$", ".").CombinedOutput()
		t.Logf("%s", out)
		if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
			t.Errorf("without the race detector: %v", err)
		}
		return
	}
	s := script{history: 60_000, lead: 5_000, live: 120_000, episodes: 40}
	f, err := fleet.New(s.options(1))
	if err != nil {
		t.Fatal(err)
	}
	var history, live []stream.Record
	var episodes []fleet.Episode
	for i := range s.history + s.live {
		r, began := f.Next()
		episodes = append(episodes, began...)
		rec := stream.Record{Topic: "cars", Partition: int32(i % 4), Key: []byte(r.Key), Value: bytes.Clone(r.Value), Time: r.Time.UnixMilli()}
		if i < s.history {
			history = append(history, rec)
		} else {
			live = append(live, rec)
		}
	}
	for _, tt := range []struct {
		name  string
		least int // alerts
		set   func(*trainer.Options)
	}{
		{"default", 30, func(*trainer.Options) {}},
		{"autoencoder alone", 30, func(o *trainer.Options) { o.Detector, o.Trim = trainer.DetectorAutoencoder, 0 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			explain(t, trainOn(t, history, tt.set), live, episodes, tt.least)
		})
	}
}

// explain alarms on live records as serve does, and looks at what the alerts say of the episodes; at least so many are
// needed to tell.
func explain(t *testing.T, data []byte, live []stream.Record, episodes []fleet.Episode, least int) {
	m, err := model.Decode(data)
	if err != nil {
		t.Fatal(err)
	}

	type state struct {
		above, below int
		up           bool
	}
	cars := map[string]*state{}
	var alerts, sensor, group, complete int
	wrong := map[string]int{}
	var alarming []byte // values of alerts
	score(t, data, live, func(r *stream.Record, e *explained) {
		c := cars[string(r.Key)]
		if c == nil {
			c = &state{}
			cars[string(r.Key)] = c
		}
		if !e.Anomaly {
			c.above, c.below = 0, c.below+1
			if c.below >= clearAfter {
				c.up = false
			}
			return
		}
		c.above, c.below = c.above+1, 0
		if c.above < raiseAfter || c.up {
			return
		}
		c.up = true
		at := time.UnixMilli(r.Time)
		i := slices.IndexFunc(episodes, func(e fleet.Episode) bool {
			return e.Car == string(r.Key) && !at.Before(e.Onset) && !at.After(e.End.Add(fleet.Grace))
		})
		if i < 0 {
			return // a false alert has no faulty sensor
		}
		alerts++
		alarming = append(append(alarming, r.Value...), '\n')
		first := e.Top[0]
		if slices.Contains(episodes[i].Features, first.Feature) {
			sensor++
		}
		if groupOf(t, first.Feature) == groupOf(t, episodes[i].Features[0]) {
			group++
		} else {
			wrong[string(episodes[i].Kind)+" "+episodes[i].Features[0]+": "+first.Feature]++
		}
		if first.Value != nil && first.Expected != nil && len(first.Usual) == 2 && first.Usual[0] < first.Usual[1] {
			complete++
		}
	})
	t.Logf("%d alerts for a fault: the first field is one of the fault's in %d, of its group in %d; others: %v", alerts, sensor, group, wrong)
	if alerts < least {
		t.Errorf("%d alerts for %d episodes: too few to tell", alerts, len(episodes))
	}
	if 10*group < 9*alerts {
		t.Errorf("the faulty sensor's group is first in %d of %d alerts; want 90 %%", group, alerts)
	}
	if complete != alerts {
		t.Errorf("value, expected and usual range stand in %d of %d alerts", complete, alerts)
	}
	addUp(t, m, bytes.Split(bytes.TrimSpace(alarming), []byte("\n")))
}

// trainOn puts records into a topic and gives the file of the model that training publishes.
func trainOn(t testing.TB, history []stream.Record, set func(*trainer.Options)) []byte {
	t.Helper()
	ctx := t.Context()
	broker, err := stream.Embed(stream.EmbeddedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Close() })
	client, err := stream.Connect(ctx, stream.Options{Properties: map[string]string{"bootstrap.servers": broker.Addr()}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if _, err := client.CreateTopic(ctx, stream.TopicSpec{Name: "cars", Partitions: 4, AnyTime: true, Config: map[string]string{"retention.ms": "-1"}}); err != nil {
		t.Fatal(err)
	}
	p, err := client.Producer(ctx, stream.ProducerOptions{Linger: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for part := range slices.Chunk(history, 1000) {
		if err := p.Produce(ctx, part); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
	o := trainer.Defaults()
	o.Topic, o.Model, o.Key, o.Time, o.Threads = "cars", "cars", "car", "time", 2
	set(&o)
	reg := registry.Open(client, registry.Options{Log: slog.New(slog.DiscardHandler)})
	r, err := trainer.Run(ctx, trainer.Deps{Client: client, Registry: reg, Engine: cpu.New(), Log: slog.New(slog.DiscardHandler)}, o)
	if err != nil {
		t.Fatal(err)
	}
	return r.Data
}

// score gives every record with what serve's code says of it.
func score(t testing.TB, data []byte, records []stream.Record, each func(*stream.Record, *explained)) {
	t.Helper()
	i, k := 0, 0
	next := func() (events.Entry, error) {
		if i == len(records) {
			return events.Entry{}, io.EOF
		}
		r := &records[i]
		i++
		return events.Entry{Value: r.Value, Key: r.Key, Time: r.Time, Line: i}, nil
	}
	_, err := server.ScoreBounded(context.Background(), server.BoundedOptions{Data: data, Engine: cpu.New()}, next, func(s *server.Scored) error {
		var e explained
		if err := json.Unmarshal(s.JSON, &e); err != nil {
			t.Fatalf("%s: %v (%s)", s.JSON, err, s.Detail)
		}
		each(&records[k], &e)
		k++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// addUp holds the model's contributions to the values to their definition.
func addUp(t testing.TB, m *model.Model, values [][]byte) {
	t.Helper()
	decoder, err := events.Compile(m.Spec)
	if err != nil {
		t.Fatal(err)
	}
	scorer, err := cpu.New().Scorer(m.Program)
	if err != nil {
		t.Fatal(err)
	}
	width := m.Program.Width
	row, scores, contributions := make([]float32, width), make([]float32, 1), make([]float32, width)
	for _, v := range values {
		if r := decoder.Decode(v, row); r.Reason != "" {
			t.Fatalf("%s: %s", v, r.Reason)
		}
		if err := scorer.Score(row, kernels.Output{Score: scores, Contributions: contributions}); err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for _, c := range contributions {
			if c < 0 {
				t.Errorf("contribution %v in %v", c, contributions)
			}
			sum += float64(c)
		}
		if want := float64(scores[0]); math.Abs(sum-want) > 1e-5*want {
			t.Errorf("contributions add up to %v, the score is %v", sum, want)
		}
	}
}
