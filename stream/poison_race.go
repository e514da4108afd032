//go:build race

package stream

// poisoned makes Release overwrite the bytes of records, so that one that is used after it shows.
const poisoned = true
