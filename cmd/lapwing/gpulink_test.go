//go:build gpu

package main

import (
	"debug/elf"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestGPULinksNothingOfCUDA reads what the loader would: the program starts on machines without CUDA, so it may neither ask for
// a library of it, nor leave one of its functions to be found in whatever is loaded, nor look into folders of its own.
func TestGPULinksNothingOfCUDA(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lapwing-gpu")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "gpu", "-trimpath", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	needed, err := program.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	if len(needed) == 0 {
		t.Error("the program needs no library at all: the test looks at the wrong thing")
	}
	for _, name := range needed {
		if regexp.MustCompile(`(?i)^lib(cu|nv)`).MatchString(name) {
			t.Errorf("the program needs %s to start", name)
		}
	}
	symbols, err := program.ImportedSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if regexp.MustCompile(`^(cu[A-Z]|cuda[A-Z]|nv(rtc|ml)[A-Z])`).MatchString(s.Name) {
			t.Errorf("the program leaves %s to the loader", s.Name)
		}
	}
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		if folders, err := program.DynString(tag); err != nil || len(folders) > 0 {
			t.Errorf("%v: the loader looks into %q (%v)", tag, folders, err)
		}
	}
}
