//go:build gpu

package driver

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestOpen_Case7_02: without a driver the reason names the library that was looked for, the code and what to do; with one there is no
// error. The test runs itself without LD_LIBRARY_PATH, so that an emulated driver does not answer.
func TestOpen_Case7_02(t *testing.T) {
	if os.Getenv("LAPWING_TEST_OPEN") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestOpen_Case7_02$", "-test.v")
		for _, v := range os.Environ() {
			if !strings.HasPrefix(v, "LD_LIBRARY_PATH=") {
				cmd.Env = append(cmd.Env, v)
			}
		}
		cmd.Env = append(cmd.Env, "LAPWING_TEST_OPEN=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	err := Open()
	if err == nil {
		return // a machine with a GPU
	}
	var e *Error
	if !errors.As(err, &e) || e.Code != NoDevice && e.Code.Hint() == "" {
		t.Fatalf("%T %v", err, err)
	}
	for _, want := range []string{"libcuda.so.1", "CUDA_ERROR_", "CUDA error " + strconv.Itoa(int(e.Code)), "; "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

// TestCodes_Case7_02: each code has a name and a hint; names and numbers are cuda.h's.
func TestCodes_Case7_02(t *testing.T) {
	for code, m := range meanings {
		if m.name == "" || code.Hint() == "" || !strings.Contains(code.String(), m.name) || !strings.Contains(code.String(), strconv.Itoa(int(code))) {
			t.Errorf("%d: %q %q", int(code), code, code.Hint())
		}
	}
	for _, code := range sticky {
		if meanings[code].hint == "" {
			t.Errorf("%s ends the use of the device and has no hint", code)
		}
	}
	if c := Code(12345); c.Name() != "" || !strings.Contains(c.String(), "12345") || c.Hint() == "" || c.Sticky() {
		t.Errorf("an unknown code: %q %q", c, c.Hint())
	}
	header, err := os.ReadFile("../../../build/cuda/nvidia/cuda_runtime/include/cuda.h")
	if err != nil {
		t.Skip("SKIPPED-CUDA: no headers of CUDA here; make build/cuda/.ready fetches them")
	}
	listed := regexp.MustCompile(`(?m)^\s+(CUDA_SUCCESS|CUDA_ERROR_\w+)\s*= (\d+)`).FindAllSubmatch(header, -1)
	if len(listed) < 90 {
		t.Fatalf("cuda.h lists %d codes", len(listed))
	}
	for _, m := range listed {
		n, err := strconv.Atoi(string(m[2]))
		if err != nil || Code(n).Name() != string(m[1]) {
			t.Errorf("%s is %d in cuda.h; here %d is %q", m[1], n, n, Code(n).Name())
		}
	}
}
