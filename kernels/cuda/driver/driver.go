//go:build gpu

// Package driver binds the CUDA driver when the program runs instead of when it is linked, so that one binary starts on
// machines with and without a GPU. Every function of the driver that the program references is defined here, as a jump
// through a table (symbols.h) that is filled from libcuda.so.1.
package driver

// #cgo CFLAGS: -O2
// #cgo LDFLAGS: -L${SRCDIR}/link -Wl,--as-needed -ldl -lpthread
// int lapwing_driver_open(void);
// const char *lapwing_driver_reason(void);
import "C"

import "fmt"

// Error says why there is no driver to call.
type Error struct {
	Code   Code
	Reason string // what the loader or the driver answered
}

func (e *Error) Error() string {
	return fmt.Sprintf("no CUDA driver to use: %s (%s); %s", e.Reason, e.Code, e.Code.Hint())
}

// Open opens the driver, once a process, and returns nil or an *Error that says why there is none. What is called without a
// driver returns the same code.
func Open() error {
	if code := Code(C.lapwing_driver_open()); code != 0 {
		return &Error{Code: code, Reason: C.GoString(C.lapwing_driver_reason())}
	}
	return nil
}
