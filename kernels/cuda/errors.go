//go:build gpu

package cuda

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cuda/driver"
)

// ErrLost is what every error of a device that cannot be used any more is: after it only a restart of the process helps.
var ErrLost = errors.New("the GPU is lost to this process")

// Error is what a driver call came to.
type Error struct {
	Code   driver.Code // 0 = none: the call did not return, or came to wrong numbers
	What   string      // what was tried: "allocate 256 MiB"
	Device string      // "GPU 0 (Tesla T4)"; "" = before there was one
	Detail string      // what else is known: the compiler's log; "" = nothing
	Next   string      // what to do
	lost   bool
}

func (e *Error) Error() string {
	s := "cannot " + e.What
	if e.Device != "" {
		s += " on " + e.Device
	}
	if e.Code != 0 {
		s += ": " + e.Code.String()
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Hint says what to do next.
func (e *Error) Hint() string { return e.Next }

// Is tells ErrLost and kernels.ErrOutOfMemory apart.
func (e *Error) Is(target error) bool {
	return target == ErrLost && e.lost || target == kernels.ErrOutOfMemory && e.Code == driver.OutOfMemory
}

const restart = "restart the process; if it comes again, look into dmesg for Xid messages and at nvidia-smi: the card or its driver is at fault"

// codeOf is the CUresult in an error of gorgonia.org/cu, whose type is not exported, or of ours.
func codeOf(err error) driver.Code {
	for ; err != nil; err = unwrap(err) {
		if v := reflect.ValueOf(err); v.Kind() == reflect.Int {
			return driver.Code(v.Int())
		}
	}
	return driver.Unknown
}

// unwrap knows the two ways in which errors are wrapped: that package still has the older one.
func unwrap(err error) error {
	if c, ok := err.(interface{ Cause() error }); ok {
		return c.Cause()
	}
	return errors.Unwrap(err)
}

// result is a CUresult from our own calls.
type result driver.Code

func (r result) Error() string { return driver.Code(r).String() }

// errorOf is a result as an error, nil where it is none.
func errorOf(code int) error {
	if code == 0 {
		return nil
	}
	return result(code)
}

// newError words an error of a driver call.
func newError(err error, what, device string) *Error {
	code := codeOf(err)
	return &Error{Code: code, What: what, Device: device, Next: code.Hint(), lost: code.Sticky()}
}

// hung words a call that has not returned.
func hung(what, device string, after time.Duration) *Error {
	return &Error{What: what, Device: device, Detail: fmt.Sprintf("the driver has not returned for %v", after.Round(time.Millisecond)), Next: restart, lost: true}
}
