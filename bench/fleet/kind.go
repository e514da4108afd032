package fleet

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is a kind of fault.
type Kind string

// The faults of the fleet.
const (
	CoolantLeak    Kind = "coolant_leak"
	SlowPuncture   Kind = "slow_puncture"
	Misfire        Kind = "misfire"
	FailingBattery Kind = "failing_battery"
	StuckSensor    Kind = "stuck_sensor"
	DriftingSensor Kind = "drifting_sensor"
)

// Kinds lists every kind, in a fixed order.
func Kinds() []Kind {
	return []Kind{CoolantLeak, SlowPuncture, Misfire, FailingBattery, StuckSensor, DriftingSensor}
}

// ParseKind accepts the name of a kind, with - or _ between its words.
func ParseKind(s string) (Kind, error) {
	k := Kind(strings.ReplaceAll(s, "-", "_"))
	if slices.Contains(Kinds(), k) {
		return k, nil
	}
	names := make([]string, 0, len(Kinds()))
	for _, k := range Kinds() {
		names = append(names, string(k))
	}
	return "", fmt.Errorf("fleet fault kind %q is unknown; use one of %s", s, strings.Join(names, ", "))
}

// Describe is one sentence on what a kind of fault does to a car's record.
func Describe(k Kind) string {
	switch k {
	case CoolantLeak:
		return "The coolant runs hotter than load and outside temperature explain."
	case SlowPuncture:
		return "One tyre loses pressure that the other three keep."
	case Misfire:
		return "The engine shakes more than speed and power explain, and the throttle is opened further for the same air flow."
	case FailingBattery:
		return "The battery's voltage sags below what its charge and the current explain, while more current is drawn."
	case StuckSensor:
		return "One sensor repeats its last value while the rest of the car goes on."
	case DriftingSensor:
		return "One sensor slowly departs from the value that the others imply."
	}
	return ""
}
