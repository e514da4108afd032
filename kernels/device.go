package kernels

import (
	"errors"
	"time"
)

// ErrOutOfMemory is what the error of a device with too little free memory is. It may pass: another process may give some back.
var ErrOutOfMemory = errors.New("the device has too little free memory")

// DeviceStatus is what an engine with a device of its own has come to.
type DeviceStatus struct {
	Name      string `json:"name"`                // Tesla T4
	UUID      string `json:"uuid"`                // GPU-…
	Lost      string `json:"lost,omitempty"`      // why it cannot be used any more; "" = it can
	OnDevice  int64  `json:"rows_on_device"`      // rows scored there
	Beside    int64  `json:"rows_on_cpu"`         // rows scored on the processor: in batches too small to win, or after a failure
	Fallbacks int64  `json:"fallbacks"`           // batches that the processor scored since the device failed
	Splits    int64  `json:"splits"`              // times that a batch was cut in pieces for want of memory
	Corrected int64  `json:"corrected,omitempty"` // times that the device computed wrong numbers and was given its constants again

	Memory int64         `json:"memory"`      // bytes that it has
	Held   int64         `json:"memory_held"` // bytes of it that the engine holds
	Busy   time.Duration `json:"busy_ns"`     // in which the engine had it at work, or waited for it
}

// OnDevice is an engine with a device of its own.
type OnDevice interface {
	Engine
	DeviceStatus() DeviceStatus
}

// RawRows are rows that a device of its own takes as they come, before there is a Trainer that says what is made of them. They go
// there in blocks of one size, and only as long as nothing else needs the memory.
type RawRows interface {
	// Add copies a block of rows, which stay the caller's, and says which it is there, counted from 0; −1 where no more are taken.
	// Any number of goroutines may call it. After an error all that was added is gone.
	Add(rows []float32) (block int, err error)
	// Close gives the memory back, once all calls of Add have returned.
	Close() error
}
