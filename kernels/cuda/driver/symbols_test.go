//go:build gpu

package driver

import (
	"bytes"
	"debug/elf"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write symbols.h")

// also are names that gorgonia.org/cu references with the headers of CUDA 12 in place of those with 11.8, and what kernels/cuda
// may call while it grows: what gorgonia.org/cu lacks.
var also = []string{"cuGraphAddKernelNode", "cuGraphAddKernelNode_v2", "cuStreamWaitValue32", "cuStreamWaitValue32_v2", "cuStreamWriteValue32", "cuStreamWriteValue32_v2",
	"cuDeviceGetPCIBusId", "cuDeviceGetUuid_v2", "cuFuncGetAttribute", "cuFuncSetAttribute", "cuGetErrorName", "cuGetErrorString", "cuGraphExecDestroy",
	"cuGraphInstantiateWithFlags", "cuGraphLaunch", "cuLaunchCooperativeKernel", "cuLaunchKernelEx", "cuMemAllocHost_v2", "cuMemHostAlloc", "cuMemFreeHost",
	"cuMemHostRegister_v2", "cuMemHostUnregister", "cuStreamBeginCapture_v2", "cuStreamEndCapture"}

// TestSymbolList holds symbols.h to what the linker asks for: the driver functions that the compiled packages reference and
// nobody but this package defines.
func TestSymbolList(t *testing.T) {
	want := slices.Clone(also)
	for _, pkg := range []string{"gorgonia.org/cu", "github.com/lapwing-stream/lapwing/kernels/cuda"} {
		want = append(want, undefined(t, pkg)...)
	}
	slices.Sort(want)
	want = slices.DeleteFunc(slices.Compact(want), func(s string) bool { return s == "cuInit" }) // driver.c has its own
	var text strings.Builder
	fmt.Fprintln(&text, "// What gorgonia.org/cu and kernels/cuda reference of libcuda: go test -tags gpu ./kernels/cuda/driver -run SymbolList -update writes it.")
	for _, name := range want {
		fmt.Fprintf(&text, "X(%s)\n", name)
	}
	if *update {
		if err := os.WriteFile("symbols.h", []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("symbols.h")
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != text.String() {
		t.Errorf("symbols.h is not what is referenced; run this test with -update. It has %d lines, %d names are wanted", bytes.Count(have, []byte("\n")), len(want))
	}
}

// undefined are the names of driver functions that the package's objects reference, read from its archive in the build cache.
func undefined(t *testing.T, pkg string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-tags", "gpu", "-export", "-f", "{{.Export}}", pkg)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", pkg, err, stderr.String())
	}
	archive, err := os.ReadFile(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	driverName := regexp.MustCompile(`^cu[A-Z]`)
	var names, own []string // own: gorgonia.org/cu has a few functions in C that are named like the driver's
	eachMember(t, archive, func(member []byte) {
		if !bytes.HasPrefix(member, []byte(elf.ELFMAG)) {
			return // the compiler's own members
		}
		object, err := elf.NewFile(bytes.NewReader(member))
		if err != nil {
			t.Fatal(err)
		}
		symbols, err := object.Symbols()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range symbols {
			switch {
			case !driverName.MatchString(s.Name):
			case s.Section == elf.SHN_UNDEF:
				names = append(names, s.Name)
			default:
				own = append(own, s.Name)
			}
		}
	})
	names = slices.DeleteFunc(names, func(s string) bool { return slices.Contains(own, s) })
	if pkg == "gorgonia.org/cu" && len(names) < 100 {
		t.Fatalf("%s references only %v", pkg, names)
	}
	return names
}

// eachMember walks an archive of ar: a magic line, then headers of 60 bytes whose size field says how much follows.
func eachMember(t *testing.T, archive []byte, do func([]byte)) {
	t.Helper()
	rest, ok := bytes.CutPrefix(archive, []byte("!<arch>\n"))
	if !ok {
		t.Fatal("not an archive")
	}
	for len(rest) >= 60 {
		size, err := strconv.Atoi(strings.TrimSpace(string(rest[48:58])))
		if err != nil || size > len(rest)-60 {
			t.Fatal("damaged archive", err)
		}
		do(rest[60 : 60+size])
		rest = rest[min(len(rest), 60+size+size&1):]
	}
}
