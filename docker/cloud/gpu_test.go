//go:build e2e && gpu

package cloud

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// What only a GPU can do to a training: it trains, is lost in the middle, does not return from a call. The machine ends exactly once.
func TestRunOnceOnAGPU(t *testing.T) {
	if out, err := exec.Command(place.program, "version").CombinedOutput(); err != nil || !strings.Contains(string(out), "Emulated") {
		t.Skip("SKIPPED-EMULATOR: no emulated driver in LD_LIBRARY_PATH: make test-gpu-emulated has one")
	}
	tests := []struct {
		name   string
		fake   string
		args   []string
		train  []string
		ending string
		code   int
		said   string
	}{
		{name: "gpu", train: []string{"--topic", "cars", "--model", "gpu"}, ending: "published"},
		{name: "gpu-lost", fake: "lost_after=60", train: endless("gpu-lost"), ending: "failed", code: 1, said: "CUDA_ERROR_LAUNCH_FAILED"},
		{name: "gpu-hangs", fake: "hang_after=60", args: []string{"--limit", "12s", "--grace", "1s"}, train: endless("gpu-hangs"), ending: "limit", code: 124},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, "")
			m.environ = []string{"CUDA_FAKE=" + tt.fake}
			file := m.write("lapwing.yaml", config(place.brokers), 0o600)
			args := append(append([]string{"--cloud", "aws", "--config", file}, tt.args...), "--")
			o := m.run(func(int, *os.Process) {}, append(append(args, tt.train...), "--engine", "cuda")...)
			if len(o.shutdowns) != 1 || o.Ending != tt.ending || o.Code != tt.code || !strings.Contains(o.Said, tt.said) {
				t.Errorf("%+v, want ending %s, code %d, said … %q\n%s", o, tt.ending, tt.code, tt.said, o.log)
			}
			if n := published(t, tt.name); (n > 0) != (tt.ending == "published") {
				t.Errorf("%d versions of the model are in Kafka", n)
			}
			if tt.ending != "published" {
				return
			}
			out, err := exec.Command(place.program, "models", "show", tt.name, "--brokers", place.brokers).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "cuda/sm_75") {
				t.Errorf("no GPU trained the model: %v\n%s", err, out)
			}
		})
	}
}
