package server

import (
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/lapwing-stream/lapwing/model"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden compares got with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, diff)
	}
}

func TestScoreRecordGolden(t *testing.T) {
	base := ScoreRecord{
		Model: "cars", Version: 7, Topic: "cars", Partition: 3, Offset: 1234, Key: []byte("car-17"),
		Time: 1795615200000, TimeOK: true, Score: 1.83, Percentile: 99.97, Digits: 2, Anomaly: true, WithTop: true,
		Top: []Share{
			{"coolant_temp", Value{Kind: NumberValue, Number: 118.2}, Value{Kind: NumberValue, Number: 91.4}, .61, nil},
			{"gear", Value{Kind: TextValue, Text: "r"}, Value{Kind: TextValue, Text: "d"}, .2, nil},
			{"doors_shut", Value{Kind: BooleanValue, Number: 0}, Value{Kind: BooleanValue, Number: .97}, 1. / 3, nil},
		},
	}
	with := func(f func(*ScoreRecord)) ScoreRecord { r := base; f(&r); return r }
	cases := []ScoreRecord{
		base,
		with(func(r *ScoreRecord) { r.Anomaly, r.WithTop, r.Score, r.Percentile = false, false, .25, 50 }),
		with(func(r *ScoreRecord) { r.Key, r.TimeOK, r.WithTop = nil, false, false }),
		with(func(r *ScoreRecord) { r.Key, r.WithTop = []byte{0xff, 0, 1}, false }),
		with(func(r *ScoreRecord) { r.Key, r.WithTop, r.Status = []byte{}, false, StatusPartial }),
		with(func(r *ScoreRecord) { r.Key, r.Top = []byte("a\"b\\c\n\u2028é\x01"), nil }),
		with(func(r *ScoreRecord) {
			r.Status, r.Score = StatusNotFinite, float32(math.Inf(1))
			r.Top = []Share{{Feature: "x", Share: 1}}
		}),
		with(func(r *ScoreRecord) { r.Time, r.WithTop, r.Score = math.MaxInt64, false, 1e-9 }),
		with(func(r *ScoreRecord) { r.Time, r.WithTop, r.Score = -1, false, math.MaxFloat32 }),
	}
	var b []byte
	for i := range cases {
		b = append(cases[i].AppendJSON(b), '\n')
	}
	golden(t, "scores.jsonl", string(b))
}

func TestAlertRecordGolden(t *testing.T) {
	base := AlertRecord{
		ID: "cars/cars/3/1230", State: AlertRaised, Reason: ReasonAnomaly, Since: 1795615190000, SinceOK: true,
		Time: 1795615200000, TimeOK: true, Score: 1.83, Threshold: 1.25, Version: 7,
		Top:   []Share{{"coolant_temp", Value{Kind: NumberValue, Number: 118.2}, Value{Kind: NumberValue, Number: 91.4}, .61, &model.Range{80.5, 99}}},
		Topic: "cars", Partition: 3, Offset: 1234,
	}
	with := func(f func(*AlertRecord)) AlertRecord { r := base; f(&r); return r }
	cases := []AlertRecord{
		base,
		with(func(r *AlertRecord) { r.State, r.Offset = AlertRepeated, 2000 }),
		with(func(r *AlertRecord) { r.State, r.Reason, r.Score, r.Top = AlertCleared, ReasonNormal, .4, nil }),
		with(func(r *AlertRecord) { r.Score, r.TimeOK, r.SinceOK = float32(math.NaN()), false, false }),
	}
	var b []byte
	for i := range cases {
		b = append(cases[i].AppendJSON(b), '\n')
	}
	golden(t, "alerts.jsonl", string(b))
}

// FuzzScoreRecord holds the encoder to encoding/json: whatever the fields hold, the text is valid and reads back.
func FuzzScoreRecord(f *testing.F) {
	f.Add("cars", "cars", []byte("car-17"), int64(1795615200000), float32(1.83), 99.97, uint8(2), "coolant_temp", float32(1), .5, "d")
	f.Add("", "\xff", []byte{0xff}, int64(math.MinInt64), float32(math.Inf(-1)), math.NaN(), uint8(200), "\x00\u2028\U0001f600", float32(math.NaN()), math.Inf(1), "\x7f\"\\/<>&")
	f.Fuzz(func(t *testing.T, name, topic string, key []byte, ms int64, score float32, percentile float64, digits uint8, feature string, value float32, share float64, text string) {
		r := ScoreRecord{
			Model: name, Version: int(digits), Topic: topic, Partition: int32(digits), Offset: ms, Key: key,
			Time: ms, TimeOK: digits%2 == 0, Score: score, Percentile: percentile, Digits: int(digits % 8),
			Anomaly: digits%3 == 0, Status: ScoreStatus(digits % 3), WithTop: true,
			Top: []Share{
				{feature, Value{Kind: NumberValue, Number: value}, Value{Kind: TextValue, Text: text}, share, &model.Range{value, 1}},
				{text, Value{Kind: BooleanValue, Number: value}, Value{}, share, nil},
			},
		}
		got := r.AppendJSON(nil)
		var back struct {
			Model, Topic, Time, Status string
			Key                        *string
			KeyB64                     []byte `json:"key_b64"`
			Offset                     int64
			Score                      *float32
			Top                        []struct {
				Feature  string
				Value    any
				Expected any
				Share    *float64
			}
		}
		dec := json.NewDecoder(strings.NewReader(string(got)))
		dec.UseNumber()
		if err := dec.Decode(&back); err != nil {
			t.Fatalf("not valid JSON: %v\n%s", err, got)
		}
		if !utf8.Valid(got) {
			t.Fatalf("not UTF-8: %q", got)
		}
		if back.Model != strings.ToValidUTF8(eachInvalid(name), "\uFFFD") || back.Offset != ms {
			t.Errorf("model %q offset %d read back as %q, %d", name, ms, back.Model, back.Offset)
		}
		switch {
		case key == nil && (back.Key != nil || back.KeyB64 != nil),
			key != nil && utf8.Valid(key) && (back.Key == nil || *back.Key != string(key)),
			key != nil && !utf8.Valid(key) && string(back.KeyB64) != string(key):
			t.Errorf("key %q read back as %v, %q", key, back.Key, back.KeyB64)
		}
		finite := !math.IsNaN(float64(score)) && !math.IsInf(float64(score), 0) && r.Status != StatusNotFinite
		if finite != (back.Score != nil) || finite && *back.Score != score {
			t.Errorf("score %v read back as %v", score, back.Score)
		}
		if len(back.Top) != 2 || back.Top[0].Expected != strings.ToValidUTF8(eachInvalid(text), "\uFFFD") {
			t.Errorf("top read back as %v", back.Top)
		}
		a := AlertRecord{ID: text, State: AlertRaised, Reason: ReasonAnomaly, Since: ms, SinceOK: true, Time: ms, TimeOK: true,
			Score: score, Threshold: percentile, Top: r.Top, Topic: topic, Offset: ms}
		if got := a.AppendJSON(nil); !json.Valid(got) {
			t.Errorf("alert is not valid JSON: %s", got)
		}
	})
}

// eachInvalid makes every invalid byte its own replacement, as encoding/json does; strings.ToValidUTF8 alone joins runs.
func eachInvalid(s string) string {
	return string([]rune(s))
}

func BenchmarkScoreRecord(b *testing.B) {
	r := ScoreRecord{Model: "cars", Version: 7, Topic: "cars", Partition: 3, Offset: 1234567, Key: []byte("car-17"),
		Time: 1795615200000, TimeOK: true, Score: 1.8312345, Percentile: 99.97, Digits: 2}
	buf := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		buf = r.AppendJSON(buf[:0])
	}
}
