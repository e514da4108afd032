package fleet_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lapwing-stream/lapwing/bench/fleet"
)

func at(s int64) time.Time { return time.Unix(s, 0).UTC() }

func TestJudge(t *testing.T) {
	episodes := []fleet.Episode{
		{Car: "a", Kind: fleet.Misfire, Onset: at(100), End: at(200)},
		{Car: "b", Kind: fleet.Misfire, Onset: at(100), End: at(200)},
		{Car: "a", Kind: fleet.StuckSensor, Onset: at(1000), End: at(1100)},
	}
	for _, c := range []struct {
		name   string
		eps    []fleet.Episode
		alerts []fleet.Alert
		want   fleet.Verdict
	}{
		{"nothing at all", nil, nil, fleet.Verdict{Precision: 1, Recall: 1, First: []int{}}},
		{"silence", episodes, nil, fleet.Verdict{Episodes: 3, Precision: 1, First: []int{-1, -1, -1}}},
		{"onset and grace count", episodes, []fleet.Alert{{"a", at(100)}, {"b", at(260)}},
			fleet.Verdict{Alerts: 2, True: 2, Episodes: 3, Found: 2, Precision: 1, Recall: 2. / 3, First: []int{0, 1, -1}}},
		{"a second early and a second late do not", episodes, []fleet.Alert{{"a", at(99)}, {"b", at(261)}},
			fleet.Verdict{Alerts: 2, Episodes: 3, First: []int{-1, -1, -1}}},
		{"another car", episodes, []fleet.Alert{{"c", at(150)}}, fleet.Verdict{Alerts: 1, Episodes: 3, First: []int{-1, -1, -1}}},
		{"the earliest counts, in any order", episodes, []fleet.Alert{{"a", at(180)}, {"a", at(130)}, {"a", at(1050)}, {"b", at(170)}},
			fleet.Verdict{Alerts: 4, True: 4, Episodes: 3, Found: 3, Precision: 1, Recall: 1, Detection: 50 * time.Second, First: []int{1, 3, 2}}},
	} {
		if diff := cmp.Diff(c.want, fleet.Judge(c.eps, c.alerts)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestEpisodeJSON(t *testing.T) {
	e := fleet.Episode{Car: "car17", Kind: fleet.SlowPuncture, Features: []string{"tire_pressure_2_1"}, Onset: at(1567606196), End: at(1567607096)}
	text := `{"car":"car17","kind":"slow_puncture","features":["tire_pressure_2_1"],"onset":1567606196,"end":1567607096}`
	data, err := json.Marshal(e)
	if err != nil || string(data) != text {
		t.Errorf("%s, %v; want %s", data, err, text)
	}
	var back fleet.Episode
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e, back); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string]string{
		`{"car":"","kind":"misfire","onset":1,"end":2}`:  "no car",
		`{"car":"a","kind":"rust","onset":1,"end":2}`:    `kind "rust" is unknown`,
		`{"car":"a","kind":"misfire","onset":2,"end":2}`: "end 2 is not after onset 2",
		`{"car":1}`: "expected an object",
		`[]`:        "expected an object",
	} {
		if err := json.Unmarshal([]byte(text), new(fleet.Episode)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v; want one with %q", text, err, want)
		}
	}
}

// FuzzEpisode: what is accepted is written back as something that reads the same.
func FuzzEpisode(f *testing.F) {
	f.Add([]byte(`{"car":"car17","kind":"slow_puncture","features":["tire_pressure_2_1"],"onset":1567606196,"end":1567607096}`))
	f.Add([]byte(`{"car":"a","kind":"stuck-sensor","features":null,"onset":-1,"end":9223372036854775807}`))
	f.Add([]byte(`{"car":"a","kind":"misfire","onset":1e3,"end":2}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var e fleet.Episode
		if err := e.UnmarshalJSON(data); err != nil {
			return
		}
		text, err := e.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var back fleet.Episode
		if err := back.UnmarshalJSON(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if diff := cmp.Diff(e, back); diff != "" {
			t.Fatal(diff)
		}
	})
}
