//go:build gpu

package cuda

// #if !__has_include(<cuda.h>)
// #error "cuda.h is missing: build with `make gpu`, which fetches the headers and sets CGO_CFLAGS, or install the package nvidia-cuda-runtime-cu11==11.8.89 and add its include folder to CGO_CFLAGS"
// #endif
// #include <cuda.h>
//
// enum { MOST_ARGUMENTS = 32 };
//
// // Each argument lies in eight bytes; the driver reads as many of them as the kernel's parameter has.
// static int lapwing_launch(CUfunction f, unsigned grid, unsigned block, unsigned shared, CUstream stream, int cooperative, int n, unsigned long long *values) {
// 	void *args[MOST_ARGUMENTS];
// 	for (int i = 0; i < n; i++)
// 		args[i] = &values[i];
// 	if (cooperative)
// 		return cuLaunchCooperativeKernel(f, grid, 1, 1, block, 1, 1, shared, stream, args);
// 	return cuLaunchKernel(f, grid, 1, 1, block, 1, 1, shared, stream, args, 0);
// }
// static int lapwing_shared(CUfunction f, int bytes) {
// 	return cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes);
// }
// static int lapwing_pin(void **p, size_t bytes) { return cuMemAllocHost(p, bytes); }
// static int lapwing_unpin(void *p) { return cuMemFreeHost(p); }
import "C"

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cuda/driver"
)

// session is the device as its own goroutine sees it. It must not outlive the call that it was given to.
type session struct {
	d       *Device
	dev     cu.Device
	context cu.CUContext
	request *request // whom the work is for; nil = for itself

	streams   []cu.Stream
	modules   map[*module]cu.Module
	functions map[functionName]cu.Function
	shared    map[cu.Function]int // opted in to, above what every block may have
	buffers   map[*buffer]bool
	pins      map[*pinned]bool
	raw       map[*rawRows]bool // that hold memory
	slots     [2]slot           // of the scorers, one after another
}

// module is a source of kernels.
type module struct {
	name  string // score
	image string // PTX
}

type functionName struct {
	module *module
	name   string
}

// call does a driver call under the eye of the watchdog. what completes "cannot …".
func (s *session) call(what string, f func() error) error {
	s.d.calling.Store(&call{what, time.Now()})
	err := f()
	s.d.calling.Store(nil)
	if err == nil {
		// A call that came back after all, but too late: its caller has gone, and has said that the device is lost.
		return s.d.Lost()
	}
	e := newError(err, what, s.d.info.Title())
	if e.lost {
		s.d.lose(e)
	}
	return e
}

// guard runs f unless the caller of the request has gone; then memory of its own may be in other use.
func (s *session) guard(f func()) error {
	if s.request == nil {
		f()
		return nil
	}
	s.request.mu.Lock()
	defer s.request.mu.Unlock()
	if s.request.state == withdrawn {
		if err := s.d.Lost(); err != nil {
			return err
		}
		return errClosed
	}
	f()
	return nil
}

func (s *session) open(index int) error {
	dev, info, err := describe(index)
	s.d.info = info
	if err != nil {
		return err
	}
	s.dev = dev
	if err := s.call("make a context", func() (err error) { s.context, err = dev.RetainPrimaryCtx(); return }); err != nil {
		return err
	}
	if err := s.call("take the context", func() error { return cu.SetCurrentContext(s.context) }); err != nil {
		dev.ReleasePrimaryCtx()
		return err
	}
	err = s.call("ask for free memory", func() (err error) { s.d.info.Free, _, err = cu.MemInfo(); return })
	if err != nil {
		s.close()
	}
	return err
}

// close releases what was taken, in the reverse order. Of a lost device the driver takes nothing back but the context: then
// its errors say nothing new.
func (s *session) close() error {
	for b := range s.buffers {
		s.free(b)
	}
	for p := range s.pins {
		s.unpin(p)
	}
	for i := range s.streams {
		s.call("end a stream", func() error { return s.streams[i].Destroy() })
	}
	for _, m := range s.modules {
		s.call("unload kernels", m.Unload)
	}
	err := s.call("release the context", s.dev.ReleasePrimaryCtx)
	if s.d.Lost() != nil {
		return nil
	}
	return err
}

// freeMemory is how many bytes of the device are free.
func (s *session) freeMemory() (free int64, err error) {
	err = s.call("ask for free memory", func() (err error) { free, _, err = cu.MemInfo(); return })
	return free, err
}

// stream is the i-th queue of the device, made when it is first asked for. Work of different streams overlaps.
func (s *session) stream(i int) (cu.Stream, error) {
	for len(s.streams) <= i {
		var st cu.Stream
		if err := s.call("make a stream", func() (err error) { st, err = cu.MakeStream(cu.NonBlocking); return }); err != nil {
			return st, err
		}
		s.streams = append(s.streams, st)
	}
	return s.streams[i], nil
}

// synchronize waits for everything.
func (s *session) synchronize() error { return s.call("finish what it was given", cu.Synchronize) }

// wait waits for a stream.
func (s *session) wait(st cu.Stream) error { return s.call("finish what it was given", st.Synchronize) }

// function finds a kernel; its module is compiled for the device when it is first asked for.
func (s *session) function(m *module, name string) (cu.Function, error) {
	key := functionName{m, name}
	if fn, ok := s.functions[key]; ok {
		return fn, nil
	}
	if _, ok := s.modules[m]; !ok {
		if err := s.load(m); err != nil {
			return cu.Function{}, err
		}
	}
	var fn cu.Function
	if err := s.call("find the kernel "+name, func() (err error) { fn, err = s.modules[m].Function(name); return }); err != nil {
		return fn, err
	}
	s.functions[key] = fn
	return fn, nil
}

// load gives PTX to the driver's compiler.
func (s *session) load(m *module) error {
	log := &cu.JITErrorLogBuffer{Buffer: make([]byte, 4096)}
	var loaded cu.Module
	compile := func() error {
		return s.call("compile the kernels of "+m.name, func() (err error) { loaded, err = cu.LoadDataEx(m.image, log); return })
	}
	err := compile()
	if errors.Is(err, kernels.ErrOutOfMemory) && s.dropRaw() {
		err = compile()
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		text, _, _ := bytes.Cut(log.Buffer, []byte{0})
		e.Detail = string(bytes.TrimSpace(text))
		if e.Code == driver.UnsupportedPTX {
			v, newest := ptxVersion(m.image), newestPTX(s.d.info.Driver)
			e.Detail = fmt.Sprintf("the kernels are PTX %d.%d, the driver (CUDA %s) takes %d.%d at most", v/10, v%10, s.d.info.DriverVersion(), newest/10, newest%10)
		}
		return e
	}
	s.modules[m] = loaded
	return nil
}

// launchShape is how many blocks of how many threads run.
type launchShape struct {
	grid, block int
	shared      int  // bytes of dynamic shared memory a block
	cooperative bool // the blocks may wait for each other
	stream      cu.Stream
}

// sharedForAll is what a block may have without opting in.
const sharedForAll = 48 << 10

// launch starts a kernel and does not wait. args are *buffer, cu.DevicePtr and numbers.
func (s *session) launch(fn cu.Function, shape launchShape, args ...any) error {
	values := make([]C.ulonglong, len(args)+1)
	if len(args) > C.MOST_ARGUMENTS {
		return fmt.Errorf("cuda: %d arguments of a kernel; at most %d are passed on", len(args), C.MOST_ARGUMENTS)
	}
	for i, a := range args {
		v, err := word(a)
		if err != nil {
			return err
		}
		values[i] = C.ulonglong(v)
	}
	// cu.Function and cu.Stream are structs of one handle each, and do not export it.
	f, st := *(*C.CUfunction)(unsafe.Pointer(&fn)), *(*C.CUstream)(unsafe.Pointer(&shape.stream))
	if shape.shared > sharedForAll && shape.shared > s.shared[fn] {
		if err := s.call(fmt.Sprintf("give a block %d bytes of shared memory", shape.shared), func() error { return errorOf(int(C.lapwing_shared(f, C.int(shape.shared)))) }); err != nil {
			return err
		}
		s.shared[fn] = shape.shared
	}
	cooperative := C.int(0)
	if shape.cooperative {
		cooperative = 1
	}
	return s.call("launch a kernel", func() error {
		return errorOf(int(C.lapwing_launch(f, C.uint(shape.grid), C.uint(shape.block), C.uint(shape.shared), st, cooperative, C.int(len(args)), &values[0])))
	})
}

// word is an argument in the eight bytes that the driver is shown.
func word(a any) (uint64, error) {
	switch a := a.(type) {
	case *buffer:
		return uint64(a.ptr), nil
	case cu.DevicePtr:
		return uint64(a), nil
	case int32:
		return uint64(uint32(a)), nil
	case uint32:
		return uint64(a), nil
	case int64:
		return uint64(a), nil
	case uint64:
		return a, nil
	case float32:
		return uint64(math.Float32bits(a)), nil
	case float64:
		return math.Float64bits(a), nil
	}
	return 0, fmt.Errorf("cuda: an argument of a kernel is a %T", a)
}

// buffer is device memory. Its zero value holds none.
type buffer struct {
	ptr  cu.DevicePtr
	size int64
}

// roomy rounds a size up to an eighth of its power of two, so that sizes that creep up do not grow a buffer each time.
func roomy(n int64) int64 {
	step := int64(256)
	for step*16 <= n {
		step *= 2
	}
	return (n + step - 1) / step * step
}

// alloc makes a buffer hold at least so many bytes. What was in it is gone where it grows; otherwise nothing happens. Where memory is
// short, raw rows that wait for a trainer give theirs.
func (s *session) alloc(b *buffer, bytes int64) error {
	if b.size >= bytes {
		return nil
	}
	s.free(b)
	err := s.take(b, bytes)
	if errors.Is(err, kernels.ErrOutOfMemory) && s.dropRaw() {
		err = s.take(b, bytes)
	}
	return err
}

// take allocates for a buffer that has nothing.
func (s *session) take(b *buffer, bytes int64) error {
	try := func(n int64) error {
		err := s.call("allocate "+mebibytes(n), func() (err error) { b.ptr, err = cu.MemAlloc(n); return })
		if err == nil {
			b.size = n
			s.d.held.Add(n)
			s.buffers[b] = true
		}
		return err
	}
	room := roomy(bytes)
	err := try(room)
	if errors.Is(err, kernels.ErrOutOfMemory) && room > bytes {
		err = try(bytes)
	}
	return err
}

func mebibytes(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// free gives a buffer back.
func (s *session) free(b *buffer) {
	if b.size == 0 {
		return
	}
	s.call("free memory", func() error { return cu.MemFree(b.ptr) })
	delete(s.buffers, b)
	s.d.held.Add(-b.size)
	*b = buffer{}
}

// freeDiscarded frees the programs whose scorers are gone.
func (s *session) freeDiscarded() {
	s.d.mu.Lock()
	gone := s.d.discarded
	s.d.discarded = nil
	s.d.mu.Unlock()
	for _, r := range gone {
		s.free(&r.steps)
		s.free(&r.constants)
	}
}

// pinned is host memory that the device copies from and to by itself. It belongs to the device, never to a caller.
type pinned struct{ bytes []byte }

func (s *session) pin(p *pinned, bytes int) error {
	if len(p.bytes) >= bytes {
		return nil
	}
	s.unpin(p)
	n := int(roomy(int64(bytes)))
	var at unsafe.Pointer
	if err := s.call("pin "+mebibytes(int64(n))+" of host memory", func() error { return errorOf(int(C.lapwing_pin(&at, C.size_t(n)))) }); err != nil {
		return err
	}
	p.bytes = unsafe.Slice((*byte)(at), n)
	s.pins[p] = true
	return nil
}

func (s *session) unpin(p *pinned) {
	if len(p.bytes) == 0 {
		return
	}
	s.call("unpin host memory", func() error { return errorOf(int(C.lapwing_unpin(unsafe.Pointer(&p.bytes[0])))) })
	delete(s.pins, p)
	p.bytes = nil
}

// floats are the first n words of pinned memory.
func (p *pinned) floats(n int) []float32 {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&p.bytes[0])), n)
}

// words are what device memory is made of.
type words interface {
	~float32 | ~int32 | ~uint32
}

const wordSize = 4

// upload copies to word at of a buffer, and returns once the memory may be used again.
func upload[T words](s *session, to *buffer, at int, from []T) error {
	if len(from) == 0 {
		return nil
	}
	return s.call("copy to it", func() error {
		return cu.MemcpyHtoD(to.ptr+cu.DevicePtr(at*wordSize), unsafe.Pointer(&from[0]), int64(len(from)*wordSize))
	})
}

// download copies from word at of a buffer once all work before is done. It reads memory of the device's own only: where
// the copy hangs, to is written whenever it comes back.
func download[T words](s *session, to []T, from *buffer, at int) error {
	if len(to) == 0 {
		return nil
	}
	return s.call("copy from it", func() error {
		return cu.MemcpyDtoH(unsafe.Pointer(&to[0]), from.ptr+cu.DevicePtr(at*wordSize), int64(len(to)*wordSize))
	})
}

// uploadAsync queues a copy of n words from pinned memory.
func (s *session) uploadAsync(to cu.DevicePtr, from *pinned, n int, st cu.Stream) error {
	return s.call("copy to it", func() error {
		return cu.MemcpyHtoDAsync(to, unsafe.Pointer(&from.bytes[0]), int64(n*wordSize), st)
	})
}

// downloadAsync queues a copy of n words, from word at of a buffer to word to of pinned memory.
func (s *session) downloadAsync(p *pinned, to int, from *buffer, at, n int, st cu.Stream) error {
	return s.call("copy from it", func() error {
		return cu.MemcpyDtoHAsync(unsafe.Pointer(&p.bytes[to*wordSize]), from.ptr+cu.DevicePtr(at*wordSize), int64(n*wordSize), st)
	})
}
