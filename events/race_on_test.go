//go:build race

package events

// raceDetector: the tests that read a million rows on one goroutine have nothing to race with, and take a share.
const raceDetector = true
