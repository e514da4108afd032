//go:build gpu

package cuda

import (
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
)

// Rows that lie on the device score as rows that are sent there do, to the bit, however often, by every kernel; and the memory goes
// back, which the emulated driver looks at when the device is closed.
func TestResidentRowsScoreAsOthers(t *testing.T) {
	e := engine(t, open(t, Options{}))
	for name, p := range map[string]*kernels.Program{"constants in shared memory": detector(t), "constants elsewhere": dense(128, 64, 16, 64), "all elsewhere": dense(900, 700, 900)} {
		t.Run(name, func(t *testing.T) {
			rows := rowsOf(p, 777)
			want := unwritten(777)
			if err := newScorer(t, e, p).Score(rows, kernels.Output{Score: want}); err != nil {
				t.Fatal(err)
			}
			r, err := e.Resident(p, rows)
			if err != nil {
				t.Fatal(err)
			}
			for i := range rows {
				rows[i] = 0 // the device has its own
			}
			for _, times := range []int{1, 3} {
				if took, err := r.Score(times); err != nil || took <= 0 {
					t.Fatalf("%v, %v", took, err)
				}
				got, err := r.Scores()
				if err != nil {
					t.Fatal(err)
				}
				for i := range want {
					if got[i] != want[i] {
						t.Fatalf("row %d scores %v, %v where it was sent", i, got[i], want[i])
					}
				}
			}
			with := e.DeviceStatus()
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if gone := with.Held - e.DeviceStatus().Held; gone < int64(4*len(rows)) || with.Held > with.Memory || with.Busy <= 0 {
				t.Errorf("%d bytes came back of %d rows; %+v", gone, 777, with)
			}
		})
	}
	if _, err := e.Resident(detector(t), make([]float32, 17)); err == nil {
		t.Error("17 values are taken for rows of 18")
	}
}

// The limits are of a device that is there: figures above nothing, and the memory goes back.
func TestLimits(t *testing.T) {
	d := open(t, Options{})
	e := engine(t, d)
	if took, err := e.CopyTime(1<<20, 2); err != nil || took <= 0 {
		t.Errorf("copies: %v, %v", took, err)
	}
	for _, waiting := range []bool{false, true} {
		if took, err := e.LaunchTime(3, waiting); err != nil || took <= 0 {
			t.Errorf("launches, waiting %v: %v, %v", waiting, took, err)
		}
	}
	// Of their data sheets: T4 4.07 T multiply-adds/s at 1,590 MHz and 320 GB/s, A100 9.75 T and 1,555 GB/s, L4 15.1 T at 2,040 MHz.
	for _, c := range []struct {
		info       Info
		adds, wide float64
	}{
		{Info{Major: 7, Minor: 5, SMs: 40, Clock: 1590000, MemoryClock: 5001000, BusWidth: 256}, 4.07e12, 320e9},
		{Info{Major: 8, Minor: 0, SMs: 108, Clock: 1410000, MemoryClock: 1215000, BusWidth: 5120}, 9.75e12, 1555e9},
		{Info{Major: 8, Minor: 9, SMs: 58, Clock: 2040000, MemoryClock: 6251000, BusWidth: 192}, 15.1e12, 300e9},
		{Info{Major: 9, SMs: 132}, 0, 0},
	} {
		if got := c.info.MultiplyAdds(); got < c.adds*.99 || got > c.adds*1.01 {
			t.Errorf("%+v: %.3g multiply-adds/s, not %.3g", c.info, got, c.adds)
		}
		if got := c.info.Bandwidth(); got < c.wide*.99 || got > c.wide*1.01 {
			t.Errorf("%+v: %.3g bytes/s, not %.3g", c.info, got, c.wide)
		}
	}
}
