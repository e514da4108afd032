//go:build gpu

package cuda

import (
	"errors"
	"fmt"
	"reflect"
	"time"
)

// ErrLost is what every error of a device that cannot be used any more is: after it only a restart of the process helps.
var ErrLost = errors.New("the GPU is lost to this process")

// ErrOutOfMemory is what an error is that may pass: another process may give memory back.
var ErrOutOfMemory = errors.New("the GPU has too little free memory")

// Error is what a driver call came to.
type Error struct {
	Code   int    // CUresult; 0 = none: the call did not return
	Name   string // CUDA_ERROR_OUT_OF_MEMORY
	What   string // what was tried: "allocate 256 MiB"
	Device string // "GPU 0 (Tesla T4)"; "" = before there was one
	Detail string // what else is known: the compiler's log; "" = nothing
	Next   string // what to do
	lost   bool
}

func (e *Error) Error() string {
	s := "cannot " + e.What
	if e.Device != "" {
		s += " on " + e.Device
	}
	if e.Code != 0 {
		s += fmt.Sprintf(": %s (CUDA error %d)", e.Name, e.Code)
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Hint says what to do next.
func (e *Error) Hint() string { return e.Next }

// Is tells ErrLost and ErrOutOfMemory apart.
func (e *Error) Is(target error) bool {
	return target == ErrLost && e.lost || target == ErrOutOfMemory && e.Code == outOfMemory
}

// Codes of cuda.h that are spoken of below.
const (
	outOfMemory     = 2
	noDevice        = 100
	invalidDevice   = 101
	noBinary        = 209
	eccError        = 214
	invalidPTX      = 218
	noJIT           = 221
	unsupportedPTX  = 222
	noResources     = 701
	launchFailed    = 719
	driverMismatch  = 803
	unknownFailure  = 999
	systemNotReady  = 802
	deviceDenied    = 46
	contextGone     = 709
	illegalAddress  = 700
	launchTimeout   = 702
	cooperativeSize = 720
)

const restart = "restart the process; if it comes again, look into dmesg for Xid messages and at nvidia-smi: the card or its driver is at fault"

// faultNames gives the driver's own names: cuGetErrorName is not there where the driver is not.
var faultNames = map[int]string{
	1: "CUDA_ERROR_INVALID_VALUE", outOfMemory: "CUDA_ERROR_OUT_OF_MEMORY", 3: "CUDA_ERROR_NOT_INITIALIZED", 4: "CUDA_ERROR_DEINITIALIZED",
	deviceDenied: "CUDA_ERROR_DEVICE_UNAVAILABLE", noDevice: "CUDA_ERROR_NO_DEVICE", invalidDevice: "CUDA_ERROR_INVALID_DEVICE",
	200: "CUDA_ERROR_INVALID_IMAGE", 201: "CUDA_ERROR_INVALID_CONTEXT", noBinary: "CUDA_ERROR_NO_BINARY_FOR_GPU",
	eccError: "CUDA_ERROR_ECC_UNCORRECTABLE", invalidPTX: "CUDA_ERROR_INVALID_PTX", noJIT: "CUDA_ERROR_JIT_COMPILER_NOT_FOUND",
	unsupportedPTX: "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", 223: "CUDA_ERROR_JIT_COMPILATION_DISABLED", 304: "CUDA_ERROR_OPERATING_SYSTEM",
	400: "CUDA_ERROR_INVALID_HANDLE", 500: "CUDA_ERROR_NOT_FOUND", 600: "CUDA_ERROR_NOT_READY", illegalAddress: "CUDA_ERROR_ILLEGAL_ADDRESS",
	noResources: "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", launchTimeout: "CUDA_ERROR_LAUNCH_TIMEOUT", contextGone: "CUDA_ERROR_CONTEXT_IS_DESTROYED",
	710: "CUDA_ERROR_ASSERT", 714: "CUDA_ERROR_HARDWARE_STACK_ERROR", 715: "CUDA_ERROR_ILLEGAL_INSTRUCTION", 716: "CUDA_ERROR_MISALIGNED_ADDRESS",
	717: "CUDA_ERROR_INVALID_ADDRESS_SPACE", 718: "CUDA_ERROR_INVALID_PC", launchFailed: "CUDA_ERROR_LAUNCH_FAILED",
	cooperativeSize: "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", 800: "CUDA_ERROR_NOT_PERMITTED", 801: "CUDA_ERROR_NOT_SUPPORTED",
	systemNotReady: "CUDA_ERROR_SYSTEM_NOT_READY", driverMismatch: "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
	804: "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", unknownFailure: "CUDA_ERROR_UNKNOWN",
}

// faultHints say what a person can do.
var faultHints = map[int]string{
	outOfMemory:     "free memory on the GPU (nvidia-smi shows what holds it), use another with --gpu N, or compute on the CPU with --engine cpu",
	noDevice:        "look at nvidia-smi and at CUDA_VISIBLE_DEVICES, which may hide every GPU; in a container, start it with --gpus all; or compute on the CPU with --engine cpu",
	invalidDevice:   "take a number that lapwing doctor lists: --gpu counts the GPUs that CUDA_VISIBLE_DEVICES leaves visible, from 0",
	deviceDenied:    "another process holds the GPU alone (nvidia-smi -q -d COMPUTE shows its compute mode): end that, or take another with --gpu N",
	noBinary:        "this build needs a GPU of compute capability 7.5 (T4) or later; compute on the CPU with --engine cpu",
	eccError:        restart,
	invalidPTX:      "this is a fault of the build or of the driver: update the driver, or compute on the CPU with --engine cpu, and report it",
	noJIT:           "the driver's compiler, libnvidia-ptxjitcompiler.so.1, is missing: install the whole driver; a container needs NVIDIA_DRIVER_CAPABILITIES=compute,utility",
	unsupportedPTX:  "install NVIDIA driver 520 or later; until then compute on the CPU with --engine cpu",
	driverMismatch:  "the loaded kernel module and libcuda.so.1 are of different versions: reboot after a driver update",
	systemNotReady:  "the fabric manager of the machine is not running: systemctl start nvidia-fabricmanager",
	noResources:     "this is a fault of the build: compute on the CPU with --engine cpu, and report it",
	cooperativeSize: "this is a fault of the build: compute on the CPU with --engine cpu, and report it",
}

// sticky tells the errors after which the driver fails every later call of the process.
func sticky(code int) bool {
	switch code {
	case 4, eccError, illegalAddress, launchTimeout, contextGone, 710, 714, 715, 716, 717, 718, launchFailed, unknownFailure:
		return true
	}
	return false
}

// codeOf is the CUresult in an error of gorgonia.org/cu, whose type is not exported, or of ours.
func codeOf(err error) int {
	for ; err != nil; err = unwrap(err) {
		if v := reflect.ValueOf(err); v.Kind() == reflect.Int {
			return int(v.Int())
		}
	}
	return unknownFailure
}

// unwrap knows the two ways in which errors are wrapped: that package still has the older one.
func unwrap(err error) error {
	if c, ok := err.(interface{ Cause() error }); ok {
		return c.Cause()
	}
	return errors.Unwrap(err)
}

// result is a CUresult from our own calls.
type result int

func (r result) Error() string { return faultNames[int(r)] }

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
	e := &Error{Code: code, Name: faultNames[code], What: what, Device: device, Next: faultHints[code], lost: sticky(code)}
	if e.Name == "" {
		e.Name = "CUDA_ERROR"
	}
	if e.Next == "" {
		e.Next = restart
	}
	return e
}

// hung words a call that has not returned.
func hung(what, device string, after time.Duration) *Error {
	return &Error{What: what, Device: device, Detail: fmt.Sprintf("the driver has not returned for %v", after.Round(time.Millisecond)), Next: restart, lost: true}
}
