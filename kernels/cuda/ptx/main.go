// Command ptx makes what the gpu build embeds: NAME.ptx from each NAME.cu of a folder, and resources.txt, what ptxas says
// of each kernel. It refuses sources whose kernels spill or could compute other bits elsewhere. With -check it writes
// nothing and says how the folder differs from what its sources give.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// tools are what CUDA's packages bring, where `make ptx` puts them.
type tools struct {
	nvrtc  string
	ptxas  []string // from the oldest that must take the PTX to the newest
	folder string
}

func toolsIn(folder string) (tools, error) {
	t := tools{
		nvrtc:  filepath.Join(folder, "nvidia/cu13/lib/libnvrtc.so.13"),
		ptxas:  []string{filepath.Join(folder, "nvidia/cuda_nvcc/bin/ptxas"), filepath.Join(folder, "nvidia/cu13/bin/ptxas")},
		folder: folder,
	}
	for _, path := range append([]string{t.nvrtc}, t.ptxas...) {
		if _, err := os.Stat(path); err != nil {
			return t, fmt.Errorf("a compiler of CUDA is missing: %w; make ptx fetches them from PyPI", err)
		}
	}
	return t, nil
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("ptx", flag.ContinueOnError)
	flags.SetOutput(out)
	check := flags.Bool("check", false, "write nothing; say how the folder differs from what its sources give")
	from := flags.String("tools", "build/cuda", "the folder of CUDA's compilers")
	folder := flags.String("folder", "kernels/cuda", "the folder of the sources")
	if err := flags.Parse(args); err != nil {
		return err
	}
	t, err := toolsIn(*from)
	if err != nil {
		return err
	}
	files, err := build(t, *folder)
	if err != nil {
		return err
	}
	if *check {
		return compare(*folder, files)
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(*folder, f.name), []byte(f.text), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: %d bytes\n", f.name, len(f.text))
	}
	return nil
}

// file is one that is made.
type file struct{ name, text string }

// build compiles every source of the folder, looks at the PTX and assembles it for every architecture. All that is wrong
// comes back in one error.
func build(t tools, folder string) ([]file, error) {
	sources, err := filepath.Glob(filepath.Join(folder, "*.cu"))
	if err != nil {
		return nil, err
	}
	if len(sources) == 0 {
		return nil, fmt.Errorf("%s has no .cu: run this in the root of the repository, or say -folder", folder)
	}
	var (
		files  = make([]file, len(sources))
		faults = make([]error, len(sources))
		found  = make([][]resources, len(sources))
		group  errgroup.Group
	)
	// A source takes seconds of one core in NVRTC and a minute in all of ptxas.
	slots := make(chan struct{}, runtime.NumCPU())
	for i, path := range sources {
		group.Go(func() error {
			name := strings.TrimSuffix(filepath.Base(path), ".cu")
			slots <- struct{}{}
			ptx, err := compile(t, path)
			<-slots
			if err != nil {
				faults[i] = err
				return nil
			}
			files[i] = file{name + ".ptx", ptx}
			found[i], err = assembleAll(t, name+".ptx", ptx, slots)
			faults[i] = errors.Join(err, examine(name+".ptx", ptx))
			return nil
		})
	}
	_ = group.Wait() // faults has them
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	var all []resources
	for _, f := range found {
		all = append(all, f...)
	}
	return append(files, file{"resources.txt", listing(all)}), spills(all)
}

// compile makes the PTX of a source: correctly rounded, products and sums fused where the source says fmaf and nowhere else.
func compile(t tools, path string) (string, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	name := filepath.Base(path)
	options := []string{"--gpu-architecture=compute_75", "--std=c++17", "--fmad=false", "--include-path=" + filepath.Dir(path)}
	ptx, err := nvrtc(t.nvrtc, name, string(source), options)
	if err != nil {
		return "", err
	}
	// The same source with each fmaf marked: what is fused and not marked was not asked for.
	marked, err := nvrtc(t.nvrtc, name, marks+string(source), options)
	if err != nil {
		return "", err
	}
	return lowered(ptx), contracted(name, marked)
}

func compare(folder string, files []file) error {
	var faults []error
	made := map[string]bool{}
	for _, f := range files {
		made[f.name] = true
		have, err := os.ReadFile(filepath.Join(folder, f.name))
		if err == nil && !bytes.Equal(have, []byte(f.text)) {
			err = fmt.Errorf("%s is not what the sources give (%s): run make ptx", f.name, difference(string(have), f.text))
		}
		faults = append(faults, err)
	}
	have, err := filepath.Glob(filepath.Join(folder, "*.ptx"))
	for _, path := range have {
		if name := filepath.Base(path); !made[name] {
			faults = append(faults, fmt.Errorf("%s has no source: remove it", name))
		}
	}
	return errors.Join(append(faults, err)...)
}

// difference tells the first line that differs.
func difference(have, want string) string {
	h, w := strings.Split(have, "\n"), strings.Split(want, "\n")
	for i := range min(len(h), len(w)) {
		if h[i] != w[i] {
			return fmt.Sprintf("line %d has %q, not %q", i+1, h[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, not %d", len(h), len(w))
}
