//go:build !race

package stream

const poisoned = false
