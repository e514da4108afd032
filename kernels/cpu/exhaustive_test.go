//go:build e2e && cgo && (amd64 || arm64)

package cpu

import "testing"

// TestFunctionsExhaustive walks over every float32 there is: 4,294,967,296 of them.
func TestFunctionsExhaustive(t *testing.T) {
	for i := range functions {
		t.Run(functions[i].name, func(t *testing.T) { functions[i].walkAll(t, 1) })
	}
}
