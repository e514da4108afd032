//go:build gpu

package cuda

import (
	"context"
	"time"

	"gorgonia.org/cu"
)

// What the device can do at best, whatever a kernel does with it: what a measurement is held to.

// Cores of float32 that an SM has, from the table "Arithmetic Instructions" of the CUDA C++ Programming Guide: results a clock of
// a multiply-add. Those of capability 7.5 and 8.0 have 64, all later ones 128.
func coresOf(major, minor int) int {
	switch {
	case major < 7:
		return 0 // no GPU that the kernels run on
	case major == 7, major == 8 && minor == 0:
		return 64
	}
	return 128
}

// MultiplyAdds is how many of float32 the device does in a second by its attributes, at its highest clock; 0 = the driver does not
// say its clock.
func (i *Info) MultiplyAdds() float64 {
	return float64(i.SMs*coresOf(i.Major, i.Minor)) * float64(i.Clock) * 1e3
}

// Bandwidth is of its memory in bytes a second, by its attributes; 0 = the driver does not say.
func (i *Info) Bandwidth() float64 {
	return 2 * float64(i.MemoryClock) * 1e3 * float64(i.BusWidth) / 8 // twice a clock: the memory is of double data rate
}

// CopyTime is how long the device takes to copy so many bytes from one place of its memory to another, times times one after
// another.
func (e *Engine) CopyTime(bytes int64, times int) (took time.Duration, err error) {
	err = e.d.do(context.Background(), func(s *session) error {
		from, to := &buffer{}, &buffer{}
		defer s.free(from)
		defer s.free(to)
		for _, b := range []*buffer{from, to} {
			if err := s.alloc(b, bytes); err != nil {
				return err
			}
			if err := s.call("clear memory", func() error { return cu.MemsetD8(b.ptr, 1, bytes) }); err != nil {
				return err
			}
		}
		st, err := s.stream(0)
		if err != nil {
			return err
		}
		if err := s.synchronize(); err != nil {
			return err
		}
		began := time.Now()
		for range times {
			if err := s.call("copy within it", func() error { return cu.MemcpyDtoDAsync(to.ptr, from.ptr, bytes, st) }); err != nil {
				return err
			}
		}
		err = s.wait(st)
		took = time.Since(began)
		return err
	})
	return took, err
}

// LaunchTime is how long so many launches take of a kernel that has no row to score, of one block: one right behind another, or
// each only once the one before has ended.
func (e *Engine) LaunchTime(times int, waiting bool) (took time.Duration, err error) {
	err = e.d.do(context.Background(), func(s *session) error {
		fn, err := s.function(scoreModule, "score_constants")
		if err != nil {
			return err
		}
		st, err := s.stream(0)
		if err != nil {
			return err
		}
		none := cu.DevicePtr(0)
		shape := launchShape{grid: 1, block: 32, shared: wordSize * (32 + columnPadding), stream: st}
		began := time.Now()
		for range times {
			err := s.launch(fn, shape, none, int32(0), int32(1), int32(-1), none, int32(0), none, int32(0), none, int64(0), none, none, none, int32(0), int32(0), int32(0))
			if err == nil && waiting {
				err = s.wait(st)
			}
			if err != nil {
				return err
			}
		}
		if err := s.wait(st); err != nil {
			return err
		}
		took = time.Since(began)
		return nil
	})
	return took, err
}
