//go:build race

package cpu_test

// The race detector makes sync.Pool drop frames at random.
const raceEnabled = true
