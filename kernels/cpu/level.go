package cpu

import (
	"fmt"
	"strings"

	"github.com/lapwing-stream/lapwing/kernels"
)

// level is an instruction set. Numbers are those of score.h.
type level int

const (
	portableLevel level = iota
	avx2Level
	avx512Level
	neonLevel
)

var levelNames = [...]string{"portable", "avx2", "avx512", "neon"}

func (l level) String() string { return levelNames[l] }

// levels are those that this processor has and this build has code for, the best first; "portable" is always there.
// It is asked once, at start: a processor does not change.
var levels = append(simdLevels(), portableLevel)

// Levels names the levels at which this machine can compute, the best first. The last is "portable".
func Levels() []string {
	var names []string
	for _, l := range levels {
		names = append(names, l.String())
	}
	return names
}

// New returns the engine at the best level.
func New() kernels.Engine { return engine{levels[0]} }

// NewAt returns the engine at a level of Levels: for tests and measurements.
func NewAt(name string) (kernels.Engine, error) {
	for _, l := range levels {
		if l.String() == name {
			return engine{l}, nil
		}
	}
	return nil, fmt.Errorf("engine cpu has no level %q on this machine; there are %s", name, strings.Join(Levels(), ", "))
}
