//go:build e2e && cgo && (amd64 || arm64)

package cpu

import "testing"

// TestFunctionsExhaustive walks over every float32 there is: 4,294,967,296 of them. elu and gelu are made of tanh and
// exp, and log is asked for 1 and above only.
func TestFunctionsExhaustive(t *testing.T) {
	for i := range functions {
		switch functions[i].number {
		case fnTanh, fnSigmoid, fnExp:
			t.Run(functions[i].name, func(t *testing.T) { functions[i].walkAll(t, 1) })
		}
	}
}
