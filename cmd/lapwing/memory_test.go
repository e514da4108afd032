package main

import (
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A default that does not fit the container is lowered, and said; what was asked for stays, with a warning.
func TestMemoryOfAContainer_Case8_07(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name          string
		machine       machine
		asked         int64
		explicit      bool
		granted, heap int64
		said          string
	}{
		{"large machine", machine{memory: 8 << 30}, 1 << 30, false, 1 << 30, 1<<30 + goBeside, ""},
		{"not known", machine{}, 1 << 30, false, 1 << 30, 1<<30 + goBeside, ""},
		{"512 MiB container", machine{memory: 512 * mib, memoryLimit: true}, 1 << 30, false, 312 * mib, 312*mib + goBeside,
			"this container may use 512MiB of memory: max_memory is 312MiB in place of 1GiB, and rows beyond it go to a file"},
		{"small machine", machine{memory: 1000*mib + 5}, 1 << 30, false, 800 * mib, 800*mib + goBeside,
			"this machine has 1000MiB of memory: max_memory is 800MiB in place of 1GiB, and rows beyond it go to a file"},
		{"asked for and fits", machine{memory: 512 * mib, memoryLimit: true}, 128 * mib, true, 128 * mib, 128*mib + goBeside, ""},
		{"asked for and does not fit", machine{memory: 512 * mib, memoryLimit: true}, 512 * mib, true, 512 * mib, 512*mib + goBeside,
			"this container may use 512MiB of memory, less than max_memory of 512MiB and 200MiB beside it: the system may end this process; --max-memory 312MiB would fit"},
		{"tiny container", machine{memory: 128 * mib, memoryLimit: true}, 1 << 30, false, 32 * mib, 32*mib + goBeside,
			"this container may use 128MiB of memory: max_memory is 32MiB in place of 1GiB, and rows beyond it go to a file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			granted, heap, said := c.machine.fitMemory(c.asked, c.explicit)
			if granted != c.granted || heap != c.heap || said != c.said {
				t.Errorf("%d, heap %d, %q", granted, heap, said)
			}
		})
	}
	for _, c := range []struct{ memory, heap int64 }{{512 * mib, 312 * mib}, {256 * mib, 128 * mib}} {
		m := machine{memory: c.memory, memoryLimit: true}
		if heap := m.serveHeap(); heap != c.heap {
			t.Errorf("serve in %d bytes: a heap of %d", c.memory, heap)
		}
	}
	if heap := (&machine{memory: 512 * mib}).serveHeap(); heap != math.MaxInt64 {
		t.Errorf("serve without a container's limit: a heap of %d", heap)
	}
}

// The spill file meets a limit: training ends with the folder and the room it wants, nothing is published and nothing stays behind.
func TestTrainWithAFullDisk_Case8_09(t *testing.T) {
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 60000 --topic cars")
	folder := t.TempDir()
	// ulimit counts in blocks of 512 bytes or of 1,024, as the shell has it: 1 MiB or 2, of the 4 that do not fit.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -f 2048; exec "$0" "$@"`, os.Args[0], "train", "--topic", "cars", "--model", "cars", "--brokers", b.broker,
		"--max-memory", "1400kB", "--spill-dir", folder)
	cmd.Env = append(os.Environ(), "LAPWING_TEST_MAIN=1")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exitFailed {
		t.Fatalf("%v\n%s", err, out)
	}
	b.has(string(out), "rows beyond max_memory could not be kept in a file: file too large", "folder "+folder, "up to 4.12 MiB of free space", "train.spill_dir (--spill-dir)", "raise max_memory")
	if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if models := b.ok("models list"); strings.Contains(models, "cars") {
		t.Errorf("published:\n%s", models)
	}
	// A folder that is not there is no reason to begin with less.
	if _, stderr := b.fails("train --topic cars --model cars --max-memory 1400kB --spill-dir " + folder + "/none"); !strings.Contains(stderr, "no such file or directory") ||
		!strings.Contains(stderr, "folder "+folder+"/none") {
		t.Error(stderr)
	}
}
