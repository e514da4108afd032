package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/cpu"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/server"
)

// machine is what doctor wants to know of the machine that it runs on; 0 = not known. The fields are filled in by
// readMachine, so that the findings can be tested with machines that are not at hand.
type machine struct {
	now          time.Time
	synchronised *bool         // the clock, by the kernel; nil = it does not say
	clockError   time.Duration // the kernel's bound on the clock's error

	memory      int64 // bytes that this process may use: the container's limit, or the machine's memory
	memoryLimit bool  // memory is a container's limit
	disk        int64 // free bytes where temporary files go
	diskPath    string
	diskMemory  bool    // that is no disk but memory: tmpfs
	files       uint64  // open files that this process may have
	cpus        int     // that Go uses
	quota       float64 // CPUs that the container may use; 0 = no limit

	level string // instruction set that the CPU has
	gpu   string // driver of a GPU; "" = none
}

// cpuLevel names the widest instruction set of the CPU that Lapwing's kernels know of.
func cpuLevel() string {
	switch {
	case cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL:
		return "AVX-512"
	case cpu.X86.HasAVX2 && cpu.X86.HasFMA:
		return "AVX2 and FMA"
	case cpu.ARM64.HasASIMD:
		return "NEON"
	}
	return ""
}

// gpuDriver is the version of the NVIDIA driver, where one is loaded.
func gpuDriver() string {
	text, err := os.ReadFile("/proc/driver/nvidia/version")
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.Join(strings.Fields(line), " ")
}

// spillDir is train.spill_dir.
func readMachine(spillDir string) machine {
	m := machine{now: time.Now(), cpus: runtime.GOMAXPROCS(0), level: cpuLevel(), gpu: gpuDriver(), diskPath: cmp.Or(spillDir, os.TempDir())}
	m.readSystem()
	return m
}

// cgroupFile reads a limit of this process's control group (version 2) or of one above it: the tightest counts.
func cgroupFile(name string, parse func(string) (float64, bool)) (tightest float64, found bool) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	path := "/"
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			path = rest
		}
	}
	const root = "/sys/fs/cgroup"
	for dir := filepath.Join(root, path); strings.HasPrefix(dir, root); dir = filepath.Dir(dir) {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			if v, ok := parse(strings.TrimSpace(string(text))); ok && (!found || v < tightest) {
				tightest, found = v, true
			}
		}
	}
	return tightest, found
}

// parseLimit reads memory.max: bytes, or max.
func parseLimit(text string) (float64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return float64(n), err == nil && n > 0
}

// parseQuota reads cpu.max: microseconds of processor time in each period, or max.
func parseQuota(text string) (float64, bool) {
	quota, period, ok := strings.Cut(text, " ")
	q, errQ := strconv.ParseFloat(quota, 64)
	p, errP := strconv.ParseFloat(period, 64)
	return q / p, ok && errQ == nil && errP == nil && q > 0 && p > 0
}

const (
	// beside max_memory, which holds rows, a training needs this much for the Kafka client, weights and the rest.
	trainBeside = 200 << 20
	leastFiles  = 1024
	worstClock  = 10 * time.Second
	leastDisk   = 256 << 20
)

// findings says what of the machine matters to a configuration.
// refused is why the engine that was asked for could not be had; e stands in for it.
func (m *machine) findings(c *Config, e kernels.Engine, refused error) []server.Finding {
	var out []server.Finding
	say := func(area string, s server.Severity, where, next, format string, args ...any) {
		out = append(out, server.Finding{Area: area, Severity: s, What: fmt.Sprintf(format, args...), Where: where, Next: next})
	}
	// TLS certificates and event times compare with the clock.
	switch {
	case m.now.Year() < 2025:
		say("clock", server.Failure, m.now.UTC().Format(time.RFC3339), "set the clock", "this machine's clock is in the past: certificates would not be valid yet")
	case m.synchronised == nil:
		say("clock", server.Fine, m.now.UTC().Format(time.RFC3339), "", "whether it is synchronised is not known here")
	case !*m.synchronised:
		say("clock", server.Note, m.now.UTC().Format(time.RFC3339), "timedatectl set-ntp true", "the kernel does not call the clock synchronised; in a container the host may see to it")
	case m.clockError > worstClock:
		say("clock", server.Warning, m.now.UTC().Format(time.RFC3339), "timedatectl set-ntp true", "the clock may be off by %v", m.clockError.Round(time.Second))
	default:
		say("clock", server.Fine, m.now.UTC().Format(time.RFC3339), "", "synchronised")
	}

	limit, need := "the machine's memory", int64(c.Train.MaxMemory)+trainBeside
	if m.memoryLimit {
		limit = "the container's limit"
	}
	switch {
	case m.memory == 0:
		say("memory", server.Note, "", "", "how much memory there is could not be read")
	case need > m.memory:
		fits := max(m.memory-trainBeside, m.memory/4)
		say("memory", server.Warning, "train.max_memory", fmt.Sprintf("train: {max_memory: %s}", Size(fits>>20<<20)),
			"a training may hold %s, with what it needs beside it more than %s, %s", gibibytes(int64(c.Train.MaxMemory)), limit, gibibytes(m.memory))
	default:
		say("memory", server.Fine, "", "", "%s, %s; a training takes up to %s", limit, gibibytes(m.memory), gibibytes(need))
	}
	if m.disk > 0 {
		s, next := server.Fine, ""
		if m.disk < leastDisk {
			s, next = server.Warning, "free some, or name another folder with train.spill_dir"
		}
		kept := ""
		if m.diskMemory && s == server.Fine {
			s, next = server.Note, "name a folder on a disk with train.spill_dir, if a history may be larger than train.max_memory"
			kept = " in memory (tmpfs)"
		}
		say("disk", s, m.diskPath, next, "%s free%s for rows beyond train.max_memory; serve needs none", gibibytes(m.disk), kept)
	}
	if m.files > 0 && m.files < leastFiles {
		say("files", server.Warning, "", fmt.Sprintf("ulimit -n %d", leastFiles*4), "this process may open %d files; every broker takes a few", m.files)
	}

	m.sayEngine(say, e)
	if m.quota > 0 && float64(m.cpus) > m.quota+1 {
		say("cpu", server.Note, "", fmt.Sprintf("GOMAXPROCS=%d", max(int(m.quota), 1)), "the container may use %.1f CPUs, the program starts %d threads", m.quota, m.cpus)
	}
	switch f, ok := gpuFinding(e, refused); {
	case ok:
		out = append(out, f)
	case m.gpu != "":
		say("gpu", server.Note, "", "lapwing-gpu, which make gpu builds, computes on it", "%s; this build computes on the CPU", m.gpu)
	default:
		say("gpu", server.Fine, "", "", "no NVIDIA driver here; the CPU computes")
	}
	if refused != nil && out[len(out)-1].Severity != server.Failure {
		f := explain(refused)
		say("engine", server.Failure, f.where, f.next, "%s", f.what)
	}
	return out
}

// sayEngine is the line of the CPU. The portable code gives the same scores; that it is slow is worth a note, with why.
func (m *machine) sayEngine(say func(area string, s server.Severity, where, next, what string, args ...any), e kernels.Engine) {
	switch {
	case e.Name() != bestEngine().Name(): // chosen by name, for what it defines and not for speed
		say("cpu", server.Fine, "", "", "%d threads; engine %s", m.cpus, engineLine(e))
	case e.Level() != portable:
		say("cpu", server.Fine, "", "", "%d threads, %s; engine %s", m.cpus, m.level, engineLine(e))
	case m.level == "":
		say("cpu", server.Note, "", "", "%d threads; this CPU has none of AVX-512, AVX2 with FMA and NEON: the portable code computes, with the same scores, many times slower (engine %s)", m.cpus, engineLine(e))
	default:
		say("cpu", server.Note, "", "", "%d threads; this CPU has %s, but this build has no code for it: the portable code computes, with the same scores, many times slower (engine %s)", m.cpus, m.level, engineLine(e))
	}
}

// portable is the level of an engine that uses no instruction set in particular.
const portable = "portable"

// portFinding says whether the HTTP listener would find its address free. What holds it may well be the very serve that
// is looked at: then it is no fault.
func portFinding(ctx context.Context, address string) server.Finding {
	f := server.Finding{Area: "http", Severity: server.Fine, Where: address}
	if address == "none" || address == "" {
		f.What, f.Where = "no listener is configured: /metrics and /readyz are not there", ""
		f.Severity = server.Note
		return f
	}
	l, err := net.Listen("tcp", address)
	if err != nil && serves(ctx, address) {
		f.Severity, f.What = server.Note, "a running serve answers here"
		return f
	}
	if err != nil {
		f.Severity, f.What = server.Failure, "the address cannot be listened on: "+err.Error()
		f.Next = "stop what uses it (perhaps a serve that is running already), or choose another with --http HOST:PORT"
		return f
	}
	l.Close()
	f.What = "free for /healthz, /readyz and /metrics"
	return f
}

// serves tells whether a server of ours answers at an address.
func serves(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", nil)
	if err != nil {
		return false
	}
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		return false
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, 100))
	return err == nil && strings.Contains(string(body), `"live":true`)
}

// gibibytes prints a size for people.
func gibibytes(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
