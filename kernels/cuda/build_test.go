package cuda_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestBuilds_Case7_12: without the tag nothing of CUDA is compiled; with it and no headers, what is said is what to install,
// before a compiler says it in its own way.
func TestBuilds_Case7_12(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "../../cmd/lapwing").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name := range strings.Lines(string(out)) {
		if name = strings.TrimSpace(name); strings.HasPrefix(name, "gorgonia.org/cu") || strings.HasSuffix(name, "/kernels/cuda/driver") {
			t.Errorf("the build for CPUs compiles %s", name)
		}
	}
	out, err = exec.CommandContext(t.Context(), "make", "-C", "../..", "gpu", "CUDA_INCLUDE=/nowhere").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no cuda.h in /nowhere") || !strings.Contains(string(out), "install the headers of CUDA") || strings.Contains(string(out), "fatal error") {
		t.Errorf("make gpu without headers: %v\n%s", err, out)
	}
}
