//go:build gpu

package driver

import (
	"fmt"
	"slices"
)

// Code is the driver's result of a call; 0 is success. Numbers and names are those of cuda.h and never change.
type Code int

// What callers tell apart.
const (
	OutOfMemory    Code = 2
	NoDevice       Code = 100
	InvalidDevice  Code = 101
	UnsupportedPTX Code = 222
	NotFound       Code = 500
	LaunchFailed   Code = 719
	GridTooLarge   Code = 720
	Unknown        Code = 999
)

// String is name and number, as in "CUDA_ERROR_NO_DEVICE, CUDA error 100".
func (c Code) String() string {
	if m, ok := meanings[c]; ok {
		return fmt.Sprintf("%s, CUDA error %d", m.name, int(c))
	}
	return fmt.Sprintf("CUDA error %d", int(c))
}

// Name is cuda.h's name for the code; it is empty for a code that is newer than this list.
func (c Code) Name() string { return meanings[c].name }

// Hint says what the user can do about it.
func (c Code) Hint() string {
	if m := meanings[c]; m.hint != "" {
		return m.hint
	}
	return "NVIDIA's list of CUresult explains the number; report it if Lapwing seems at fault"
}

// Sticky reports whether the context is lost: every later call of this process returns the same code.
func (c Code) Sticky() bool { return slices.Contains(sticky, c) }

// CUDA documents these as leaving the process in an inconsistent state; 999 is added because a card that left the bus answers it.
var sticky = []Code{214, 220, 226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 999}

var meanings = map[Code]struct{ name, hint string }{
	0:   {"CUDA_SUCCESS", ""},
	1:   {"CUDA_ERROR_INVALID_VALUE", "this is a fault of Lapwing: please report it with this line"},
	2:   {"CUDA_ERROR_OUT_OF_MEMORY", "another process may hold the memory (nvidia-smi shows which); or take smaller batches or pieces"},
	3:   {"CUDA_ERROR_NOT_INITIALIZED", "the driver was called before it was opened: please report it"},
	4:   {"CUDA_ERROR_DEINITIALIZED", ""},
	5:   {"CUDA_ERROR_PROFILER_DISABLED", ""},
	6:   {"CUDA_ERROR_PROFILER_NOT_INITIALIZED", ""},
	7:   {"CUDA_ERROR_PROFILER_ALREADY_STARTED", ""},
	8:   {"CUDA_ERROR_PROFILER_ALREADY_STOPPED", ""},
	34:  {"CUDA_ERROR_STUB_LIBRARY", "a stub library stands in place of the driver: take its folder out of LD_LIBRARY_PATH"},
	46:  {"CUDA_ERROR_DEVICE_UNAVAILABLE", "another process holds the device exclusively (nvidia-smi -q -d COMPUTE), or it is being reset"},
	100: {"CUDA_ERROR_NO_DEVICE", "no GPU is visible: run nvidia-smi, look at CUDA_VISIBLE_DEVICES, start a container with --gpus all; or use the CPU with --engine cpu"},
	101: {"CUDA_ERROR_INVALID_DEVICE", "lapwing doctor lists the devices; an index counts those that CUDA_VISIBLE_DEVICES leaves"},
	102: {"CUDA_ERROR_DEVICE_NOT_LICENSED", ""},
	200: {"CUDA_ERROR_INVALID_IMAGE", "the embedded kernels are damaged: install the binary again"},
	201: {"CUDA_ERROR_INVALID_CONTEXT", "this is a fault of Lapwing: please report it with this line"},
	202: {"CUDA_ERROR_CONTEXT_ALREADY_CURRENT", ""},
	205: {"CUDA_ERROR_MAP_FAILED", ""},
	206: {"CUDA_ERROR_UNMAP_FAILED", ""},
	207: {"CUDA_ERROR_ARRAY_IS_MAPPED", ""},
	208: {"CUDA_ERROR_ALREADY_MAPPED", ""},
	209: {"CUDA_ERROR_NO_BINARY_FOR_GPU", "the GPU is older than compute capability 7.5 (T4): use the CPU with --engine cpu"},
	210: {"CUDA_ERROR_ALREADY_ACQUIRED", ""},
	211: {"CUDA_ERROR_NOT_MAPPED", ""},
	212: {"CUDA_ERROR_NOT_MAPPED_AS_ARRAY", ""},
	213: {"CUDA_ERROR_NOT_MAPPED_AS_POINTER", ""},
	214: {"CUDA_ERROR_ECC_UNCORRECTABLE", "the memory of the card failed (nvidia-smi -q -d ECC): reset or replace it"},
	215: {"CUDA_ERROR_UNSUPPORTED_LIMIT", ""},
	216: {"CUDA_ERROR_CONTEXT_ALREADY_IN_USE", ""},
	217: {"CUDA_ERROR_PEER_ACCESS_UNSUPPORTED", ""},
	218: {"CUDA_ERROR_INVALID_PTX", "the driver cannot compile the embedded kernels: install driver 520 or newer, or use the CPU with --engine cpu"},
	219: {"CUDA_ERROR_INVALID_GRAPHICS_CONTEXT", ""},
	220: {"CUDA_ERROR_NVLINK_UNCORRECTABLE", "an NVLink failed (nvidia-smi nvlink -s): reset or replace the card"},
	221: {"CUDA_ERROR_JIT_COMPILER_NOT_FOUND", "the driver was installed without its PTX compiler (libnvidia-ptxjitcompiler.so.1); in a container set NVIDIA_DRIVER_CAPABILITIES=compute,utility"},
	222: {"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the driver is too old for the embedded kernels: install driver 520 or newer, or use the CPU with --engine cpu"},
	223: {"CUDA_ERROR_JIT_COMPILATION_DISABLED", "CUDA_DISABLE_PTX_JIT is set: unset it, the kernels are compiled when they are loaded"},
	224: {"CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY", ""},
	225: {"CUDA_ERROR_UNSUPPORTED_DEVSIDE_SYNC", ""},
	226: {"CUDA_ERROR_CONTAINED", "the card contained an error of its memory: start the process again"},
	300: {"CUDA_ERROR_INVALID_SOURCE", ""},
	301: {"CUDA_ERROR_FILE_NOT_FOUND", ""},
	302: {"CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND", ""},
	303: {"CUDA_ERROR_SHARED_OBJECT_INIT_FAILED", ""},
	304: {"CUDA_ERROR_OPERATING_SYSTEM", ""},
	400: {"CUDA_ERROR_INVALID_HANDLE", ""},
	401: {"CUDA_ERROR_ILLEGAL_STATE", "this is a fault of Lapwing: please report it with this line"},
	500: {"CUDA_ERROR_NOT_FOUND", "the driver is too old for this call: install driver 520 or newer, or use the CPU with --engine cpu"},
	600: {"CUDA_ERROR_NOT_READY", ""},
	700: {"CUDA_ERROR_ILLEGAL_ADDRESS", "a fault of Lapwing or of the card: start again, and report it if it repeats"},
	701: {"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "the kernel wants more registers or shared memory than the device has: please report the device"},
	702: {"CUDA_ERROR_LAUNCH_TIMEOUT", "a display uses this GPU and ended the kernel: use another GPU"},
	703: {"CUDA_ERROR_LAUNCH_INCOMPATIBLE_TEXTURING", ""},
	704: {"CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED", ""},
	705: {"CUDA_ERROR_PEER_ACCESS_NOT_ENABLED", ""},
	708: {"CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE", ""},
	709: {"CUDA_ERROR_CONTEXT_IS_DESTROYED", ""},
	710: {"CUDA_ERROR_ASSERT", "a check inside a kernel failed: please report it with this line"},
	711: {"CUDA_ERROR_TOO_MANY_PEERS", ""},
	712: {"CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", ""},
	713: {"CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", ""},
	714: {"CUDA_ERROR_HARDWARE_STACK_ERROR", "a fault of Lapwing or of the card: start again, and report it if it repeats"},
	715: {"CUDA_ERROR_ILLEGAL_INSTRUCTION", "a fault of Lapwing or of the card: start again, and report it if it repeats"},
	716: {"CUDA_ERROR_MISALIGNED_ADDRESS", "a fault of Lapwing or of the card: start again, and report it if it repeats"},
	717: {"CUDA_ERROR_INVALID_ADDRESS_SPACE", "a fault of Lapwing or of the card: start again, and report it if it repeats"},
	718: {"CUDA_ERROR_INVALID_PC", "a fault of Lapwing or of the card: start again, and report it if it repeats"},
	719: {"CUDA_ERROR_LAUNCH_FAILED", "the device failed inside a kernel: start the process again; dmesg names the cause after Xid"},
	720: {"CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", "fewer blocks fit on the device than were asked for: another process or a MIG slice may have taken them"},
	800: {"CUDA_ERROR_NOT_PERMITTED", "the account may not use the device: see the permissions of /dev/nvidia*"},
	801: {"CUDA_ERROR_NOT_SUPPORTED", "the device or its MIG slice lacks this: use the CPU with --engine cpu"},
	802: {"CUDA_ERROR_SYSTEM_NOT_READY", "the fabric manager is not ready (systemctl status nvidia-fabricmanager): wait, or start it"},
	803: {"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "the driver's library and its kernel module differ in version: reboot after an update"},
	804: {"CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", "CUDA's compatibility package does not serve this card: use the libcuda.so.1 of the installed driver"},
	805: {"CUDA_ERROR_MPS_CONNECTION_FAILED", "nvidia-cuda-mps-control cannot be reached: start it, or unset CUDA_MPS_PIPE_DIRECTORY"},
	806: {"CUDA_ERROR_MPS_RPC_FAILURE", ""},
	807: {"CUDA_ERROR_MPS_SERVER_NOT_READY", "nvidia-cuda-mps-control is not ready: wait, or start it"},
	808: {"CUDA_ERROR_MPS_MAX_CLIENTS_REACHED", ""},
	809: {"CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED", ""},
	810: {"CUDA_ERROR_MPS_CLIENT_TERMINATED", ""},
	900: {"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", ""},
	901: {"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", ""},
	902: {"CUDA_ERROR_STREAM_CAPTURE_MERGE", ""},
	903: {"CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", ""},
	904: {"CUDA_ERROR_STREAM_CAPTURE_UNJOINED", ""},
	905: {"CUDA_ERROR_STREAM_CAPTURE_ISOLATION", ""},
	906: {"CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", ""},
	907: {"CUDA_ERROR_CAPTURED_EVENT", ""},
	908: {"CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", ""},
	909: {"CUDA_ERROR_TIMEOUT", ""},
	910: {"CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE", ""},
	911: {"CUDA_ERROR_EXTERNAL_DEVICE", ""},
	912: {"CUDA_ERROR_INVALID_CLUSTER_SIZE", ""},
	913: {"CUDA_ERROR_FUNCTION_NOT_LOADED", ""},
	914: {"CUDA_ERROR_INVALID_RESOURCE_TYPE", ""},
	915: {"CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION", ""},
	999: {"CUDA_ERROR_UNKNOWN", "the device may have left the bus: see dmesg for Xid; start the process again, then the machine"},
}
