// Package cuda is the engine for NVIDIA GPUs: hand-written kernels (*.cu), embedded as PTX and launched through
// gorgonia.org/cu. All of it but this file needs the build tag gpu.
//
// One goroutine, locked to its thread, owns the device: a CUDA context belongs to a thread, and goroutines move between
// them. Everybody else hands it a function and waits, see Device.
package cuda
