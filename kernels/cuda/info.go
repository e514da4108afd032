//go:build gpu

package cuda

import (
	"errors"
	"fmt"
	"strings"

	"gorgonia.org/cu"

	"github.com/lapwing-stream/lapwing/kernels/cuda/driver"
)

// Info describes a device.
type Info struct {
	Index        int    // among those that the driver shows
	Name         string // Tesla T4; a slice of a device says so: … MIG 1g.10gb
	UUID         string // GPU-…
	Major, Minor int    // compute capability
	SMs          int
	Shared       int   // bytes of shared memory that a block can ask for
	Cooperative  bool  // blocks of a launch may wait for each other
	Clock        int   // highest of the SMs, kHz; 0 = not said
	MemoryClock  int   // highest, kHz; 0 = not said
	BusWidth     int   // to the memory, bits
	Memory       int64 // bytes of the device, or of its slice
	Free         int64 // bytes, when it was opened
	Driver       int   // newest CUDA that the driver knows: 12020 is 12.2
	PTX          int   // ISA of the embedded kernels: 78 is 7.8
}

// Capability is the compute capability as compilers write it: sm_75.
func (i *Info) Capability() string { return fmt.Sprintf("sm_%d%d", i.Major, i.Minor) }

// Title names a device in errors and logs.
func (i *Info) Title() string { return fmt.Sprintf("GPU %d (%s)", i.Index, i.Name) }

// MIG tells whether the device is a slice of one.
func (i *Info) MIG() bool { return strings.Contains(i.Name, " MIG ") }

// version prints 12020 as 12.2.
func version(v int) string { return fmt.Sprintf("%d.%d", v/1000, v%1000/10) }

// DriverVersion is the newest CUDA that the driver knows.
func (i *Info) DriverVersion() string { return version(i.Driver) }

// newestPTX is the newest ISA that a driver takes. From CUDA 12.6 on they no longer count alike; in NVIDIA's table
// 12.6 has 8.5, 12.7 8.6, 12.8 8.7 and 12.9 8.8.
func newestPTX(driver int) int {
	major, minor := driver/1000, driver%1000/10
	if major == 12 && minor >= 6 {
		minor--
	}
	return (major-4)*10 + minor
}

// PTXVersions says what the kernels are and what the driver takes.
func (i *Info) PTXVersions() string {
	newest := newestPTX(i.Driver)
	return fmt.Sprintf("PTX %d.%d accepted, up to %d.%d would be", i.PTX/10, i.PTX%10, newest/10, newest%10)
}

// ptxVersion reads the ISA of a module.
func ptxVersion(image string) int {
	_, after, _ := strings.Cut(image, "\n.version ")
	var major, minor int
	fmt.Sscanf(after, "%d.%d", &major, &minor)
	return major*10 + minor
}

// Attributes of cuda.h that gorgonia.org/cu has no names for.
const (
	attributeCooperative = cu.DeviceAttribute(95)
	attributeShared      = cu.DeviceAttribute(97) // with opting in
)

// describe asks the driver about device index.
func describe(index int) (cu.Device, Info, error) {
	info := Info{Index: index, Driver: cu.Version(), PTX: ptxVersion(scorePTX)}
	if err := driver.Open(); err != nil {
		e := newError(result(driver.NoDevice), "use a GPU", "")
		if d := (*driver.Error)(nil); errors.As(err, &d) {
			e.Code, e.Detail, e.Next = d.Code, d.Reason, d.Code.Hint()
		}
		return 0, info, e
	}
	fail := func(err error, what string) (cu.Device, Info, error) {
		return 0, info, newError(err, what, fmt.Sprintf("GPU %d", index))
	}
	n, err := cu.NumDevices()
	if err != nil {
		return 0, info, newError(err, "count the GPUs", "")
	}
	if n == 0 {
		return 0, info, newError(result(driver.NoDevice), "use a GPU", "")
	}
	if index < 0 || index >= n {
		e := newError(result(driver.InvalidDevice), fmt.Sprintf("use GPU %d", index), "")
		e.Detail = fmt.Sprintf("%d visible: %s", n, strings.Join(visible(n), ", "))
		return 0, info, e
	}
	dev, err := cu.GetDevice(index)
	if err != nil {
		return fail(err, "open it")
	}
	if info.Name, err = dev.Name(); err != nil {
		return fail(err, "ask for its name")
	}
	if id, err := dev.UUID(); err == nil {
		info.UUID = "GPU-" + id.String()
	}
	if info.Memory, err = dev.TotalMem(); err != nil {
		return fail(err, "ask for its memory")
	}
	cooperative := 0
	for _, a := range []struct {
		of cu.DeviceAttribute
		to *int
	}{
		{cu.ComputeCapabilityMajor, &info.Major}, {cu.ComputeCapabilityMinor, &info.Minor}, {cu.MultiprocessorCount, &info.SMs},
		{attributeShared, &info.Shared}, {attributeCooperative, &cooperative},
	} {
		if *a.to, err = dev.Attribute(a.of); err != nil {
			return fail(err, "ask for its properties")
		}
	}
	info.Cooperative = cooperative != 0
	// Only measurements are held to these: a driver that does not say them is none to refuse.
	info.Clock, _ = dev.Attribute(cu.ClockRate)
	info.MemoryClock, _ = dev.Attribute(cu.MemoryClockRate)
	info.BusWidth, _ = dev.Attribute(cu.GlobalMemoryBusWidth)
	return dev, info, nil
}

// Visible describes every device that the driver shows, without taking one into use.
func Visible() ([]Info, error) {
	_, first, err := describe(0)
	if err != nil {
		return nil, err
	}
	all := []Info{first}
	n, err := cu.NumDevices()
	for i := 1; i < n && err == nil; i++ {
		var info Info
		if _, info, err = describe(i); err == nil {
			all = append(all, info)
		}
	}
	return all, err
}

// visible names the devices that there are.
func visible(n int) (all []string) {
	for i := range n {
		name := "unknown"
		if d, err := cu.GetDevice(i); err == nil {
			if s, err := d.Name(); err == nil {
				name = s
			}
		}
		all = append(all, fmt.Sprintf("%d %s", i, name))
	}
	return all
}
