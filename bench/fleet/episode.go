package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Episode is the label of one fault: what was wrong with which car, from its onset to its repair.
type Episode struct {
	Car      string
	Kind     Kind
	Features []string  // the fields that the fault disturbs, most concerned first
	Onset    time.Time // of the first record under the fault
	End      time.Time // the repair: the first record at or after it is sound
}

// episodeJSON has times as the records have them: epoch seconds.
type episodeJSON struct {
	Car      string   `json:"car"`
	Kind     Kind     `json:"kind"`
	Features []string `json:"features"`
	Onset    int64    `json:"onset"`
	End      int64    `json:"end"`
}

// MarshalJSON writes one flat object with times in epoch seconds:
// {"car":"car17","kind":"slow_puncture","features":["tire_pressure_2_1"],"onset":1567606196,"end":1567607096}.
func (e Episode) MarshalJSON() ([]byte, error) {
	return json.Marshal(episodeJSON{e.Car, e.Kind, e.Features, e.Onset.Unix(), e.End.Unix()})
}

// UnmarshalJSON reads what MarshalJSON writes, and refuses an episode without a car, of an unknown kind,
// or that ends before it begins.
func (e *Episode) UnmarshalJSON(data []byte) error {
	var j episodeJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("fleet episode: %w; expected an object with car, kind, features, onset, end", err)
	}
	var errs []error
	if j.Car == "" {
		errs = append(errs, errors.New("fleet episode: no car; expected its name in field car"))
	}
	kind, err := ParseKind(string(j.Kind))
	if err != nil {
		errs = append(errs, err)
	}
	if j.End <= j.Onset {
		errs = append(errs, fmt.Errorf("fleet episode: end %d is not after onset %d; expected epoch seconds", j.End, j.Onset))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	*e = Episode{j.Car, kind, j.Features, time.Unix(j.Onset, 0).UTC(), time.Unix(j.End, 0).UTC()}
	return nil
}
