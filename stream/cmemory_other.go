//go:build !linux

package stream

// FewArenas is for glibc; other C libraries do without.
func FewArenas() {}

func giveBack() {}
