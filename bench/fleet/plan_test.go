package fleet_test

import (
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/bench/fleet"
)

func episodesOf(t testing.TB, o fleet.Options, records int) []fleet.Episode {
	t.Helper()
	f := mustNew(t, o)
	var all []fleet.Episode
	for range records {
		_, began := f.Next()
		all = append(all, began...)
	}
	return all
}

// apart fails unless each car has one episode at a time, with the gap between them and sensible lengths.
func apart(t *testing.T, o fleet.Options, all []fleet.Episode) {
	t.Helper()
	o = o.WithDefaults()
	last := map[string]fleet.Episode{}
	for _, e := range all {
		length := e.End.Sub(e.Onset)
		if length < o.Faults.Shortest || length > o.Faults.Longest+o.Interval {
			t.Errorf("%+v lasts %s; want %s to %s", e, length, o.Faults.Shortest, o.Faults.Longest)
		}
		if before, ok := last[e.Car]; ok && e.Onset.Before(before.End.Add(o.Faults.Gap)) {
			t.Errorf("%s: %s begins %s after the end of %s; the gap is %s", e.Car, e.Kind, e.Onset.Sub(before.End), before.Kind, o.Faults.Gap)
		}
		last[e.Car] = e
	}
}

// even fails unless the kinds' counts differ by at most slack.
func even(t *testing.T, all []fleet.Episode, kinds []fleet.Kind, slack int) {
	t.Helper()
	count := map[fleet.Kind]int{}
	for _, e := range all {
		count[e.Kind]++
	}
	least, most := len(all), 0
	for _, k := range kinds {
		least, most = min(least, count[k]), max(most, count[k])
	}
	if most-least > slack {
		t.Errorf("kinds %v are uneven by %d; want at most %d", count, most-least, slack)
	}
}

func TestStretchesAreKept(t *testing.T) {
	for seed := range uint64(5) {
		o := fleet.Options{Seed: seed, Cars: 20}
		from, over := 2*time.Hour, 3*time.Hour
		o.Faults.Stretches = []fleet.Stretch{{After: from, Over: over, Episodes: 26}}
		all := episodesOf(t, o, 20*360*6)
		if len(all) != 26 {
			t.Errorf("seed %d: %d episodes; want 26", seed, len(all))
		}
		apart(t, o, all)
		even(t, all, fleet.Kinds(), 1)
		for _, e := range all {
			// Onset and end are moved up to the car's next record.
			if e.Onset.Before(fleet.DefaultStart.Add(from)) || e.End.After(fleet.DefaultStart.Add(from+over+20*time.Second)) {
				t.Errorf("seed %d: %+v is outside its stretch", seed, e)
			}
		}
		half := 0
		for _, e := range all {
			if e.Onset.Before(fleet.DefaultStart.Add(from + (over-20*time.Minute)/2)) {
				half++
			}
		}
		if half < 11 || half > 15 {
			t.Errorf("seed %d: %d of 26 episodes begin in the first half of the stretch", seed, half)
		}
	}
}

func TestRateIsKept(t *testing.T) {
	o := fleet.Options{Seed: 1, Cars: 50, Interval: 30 * time.Second}
	o.Faults.PerCarHour, o.Faults.CleanFor = 0.2, 5*time.Hour
	const hours = 35
	all := episodesOf(t, o, 50*hours*120)
	apart(t, o, all)
	even(t, all, fleet.Kinds(), 20)
	for _, e := range all {
		if e.Onset.Before(fleet.DefaultStart.Add(5 * time.Hour)) {
			t.Errorf("%+v is in the clean time", e)
		}
	}
	// 30 hours of 50 cars; an episode of 15 minutes and its gap of 30 keep new ones out, so that one comes
	// each 1/0.2 + 0.75 hours: 260 in the mean, with a deviation below 16.
	if len(all) < 200 || len(all) > 320 {
		t.Errorf("%d episodes; want about 260", len(all))
	}
}

func TestBothSchedulesTogether(t *testing.T) {
	for seed := range uint64(5) {
		o := faulty(seed)
		apart(t, o, episodesOf(t, o, 12*720*6))
	}
}

func TestKindsCanBeChosen(t *testing.T) {
	o := faulty(1)
	o.Faults.Kinds = []fleet.Kind{fleet.SlowPuncture, fleet.Misfire}
	all := episodesOf(t, o, 40_000)
	if len(all) == 0 {
		t.Fatal("no episodes")
	}
	for _, e := range all {
		if e.Kind != fleet.SlowPuncture && e.Kind != fleet.Misfire {
			t.Errorf("%+v was not asked for", e)
		}
	}
}

func TestEveryKindHasNameAndSentence(t *testing.T) {
	for _, k := range fleet.Kinds() {
		if got, err := fleet.ParseKind(string(k)); got != k || err != nil {
			t.Errorf("%s parses as %s, %v", k, got, err)
		}
		if fleet.Describe(k) == "" {
			t.Errorf("%s has no description", k)
		}
	}
	if got, err := fleet.ParseKind("slow-puncture"); got != fleet.SlowPuncture || err != nil {
		t.Errorf("slow-puncture parses as %s, %v", got, err)
	}
	_, err := fleet.ParseKind("flat")
	if want := `fleet fault kind "flat" is unknown; use one of coolant_leak, slow_puncture, misfire, failing_battery, stuck_sensor, drifting_sensor`; err == nil || err.Error() != want {
		t.Errorf("error %v; want %s", err, want)
	}
}
