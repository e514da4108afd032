package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// architectures are those of the GPUs that clouds rent out: T4, A100, A10G, L4, H100, B200.
var architectures = []int{75, 80, 86, 89, 90, 100}

// newest is the last architecture that each release of CUDA knows of these; a driver of that release has that assembler.
var newest = map[int]int{11: 90, 13: 100}

// resources are what a kernel takes of an SM, as one ptxas assembles it for one architecture.
type resources struct {
	kernel       string
	architecture int
	registers    int // a thread
	shared       int // bytes, static
	spilled      int // bytes a thread, stored and loaded again
	local        int // bytes a thread of local memory, for whatever reason
	ptxas        string
}

var (
	release   = regexp.MustCompile(`release (\d+)\.(\d+)`)
	compiling = regexp.MustCompile(`Compiling entry function '(\w+)' for 'sm_(\d+)`)
	frame     = regexp.MustCompile(`(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads`)
	used      = regexp.MustCompile(`Used (\d+) registers`)
	static    = regexp.MustCompile(`(\d+)(?:\+\d+)? bytes smem`)
)

// assembleAll runs each ptxas for each architecture it knows, as many at once as slots allow.
func assembleAll(t tools, name, ptx string, slots chan struct{}) ([]resources, error) {
	folder, err := os.MkdirTemp("", "ptx")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	source := filepath.Join(folder, name)
	if err := os.WriteFile(source, []byte(ptx), 0o600); err != nil {
		return nil, err
	}
	var (
		all    []resources
		faults []error
		lock   sync.Mutex
		wait   sync.WaitGroup
	)
	for _, path := range t.ptxas {
		out, err := exec.Command(path, "--version").Output()
		m := release.FindStringSubmatch(string(out))
		if err != nil || m == nil {
			return nil, errors.Join(err, fmt.Errorf("%s does not say which release it is", path))
		}
		major, _ := strconv.Atoi(m[1])
		for _, a := range architectures {
			if a > newest[major] {
				continue
			}
			wait.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				found, err := assemble(path, m[1]+"."+m[2], a, source)
				if err == nil && len(found) != len(entry.FindAllString(ptx, -1)) {
					err = fmt.Errorf("ptxas %s.%s tells of %d kernels of %s, which has others", m[1], m[2], len(found), name)
				}
				lock.Lock()
				defer lock.Unlock()
				all = append(all, found...)
				faults = append(faults, err)
			})
		}
	}
	wait.Wait()
	return all, errors.Join(faults...)
}

func assemble(ptxas, release string, architecture int, source string) ([]resources, error) {
	cmd := exec.Command(ptxas, "-v", "-arch=sm_"+strconv.Itoa(architecture), source, "-o", fmt.Sprintf("%s.%s.%d.cubin", source, release, architecture))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("ptxas %s refuses %s for sm_%d: %w\n%s", release, filepath.Base(source), architecture, err, out)
	}
	return parse(string(out), release), nil
}

// parse reads what ptxas -v says, kernel by kernel.
func parse(text, ptxas string) []resources {
	var all []resources
	number := func(s string) int { n, _ := strconv.Atoi(s); return n }
	for line := range strings.Lines(text) {
		if m := compiling.FindStringSubmatch(line); m != nil {
			all = append(all, resources{kernel: m[1], architecture: number(m[2]), ptxas: ptxas})
		}
		if len(all) == 0 {
			continue
		}
		r := &all[len(all)-1]
		if m := frame.FindStringSubmatch(line); m != nil {
			r.local, r.spilled = max(r.local, number(m[1])), max(r.spilled, number(m[2])+number(m[3]))
		}
		if m := used.FindStringSubmatch(line); m != nil {
			r.registers = number(m[1])
		}
		if m := static.FindStringSubmatch(line); m != nil {
			r.shared = number(m[1])
		}
	}
	return all
}

// listing is resources.txt, which the emulated driver reads for what a launch needs of an SM.
func listing(all []resources) string {
	slices.SortFunc(all, func(a, b resources) int {
		return cmp.Or(cmp.Compare(a.kernel, b.kernel), cmp.Compare(a.architecture, b.architecture), cmp.Compare(a.ptxas, b.ptxas))
	})
	var b strings.Builder
	b.WriteString("# Written by make ptx: kernel, architecture, registers a thread, bytes of static shared memory, bytes spilled a thread, release of ptxas\n")
	for _, r := range all {
		fmt.Fprintf(&b, "%s sm_%d %d %d %d %s\n", r.kernel, r.architecture, r.registers, r.shared, r.spilled, r.ptxas)
	}
	return b.String()
}

// spills names the kernels whose values do not fit registers: each access is then one of device memory.
func spills(all []resources) error {
	var faults []error
	for _, r := range all {
		switch {
		case r.spilled > 0:
			faults = append(faults, fmt.Errorf("%s spills %d bytes a thread on sm_%d (ptxas %s, %d registers): keep fewer values alive, see KEEP_HERE in target.cuh", r.kernel, r.spilled, r.architecture, r.ptxas, r.registers))
		case r.local > 0:
			faults = append(faults, fmt.Errorf("%s has %d bytes a thread in local memory on sm_%d (ptxas %s): an array is indexed by what is not known when it is compiled", r.kernel, r.local, r.architecture, r.ptxas))
		}
	}
	return errors.Join(faults...)
}
