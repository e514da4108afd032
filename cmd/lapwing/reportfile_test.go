package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A report that is not finished leaves what was there, and nothing beside it.
func TestReportFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "bench.json")
	holds := func(want ...string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != len(want) {
			t.Fatalf("%d files, want %d", len(entries), len(want))
		}
		for _, w := range want {
			if data, err := os.ReadFile(name); err != nil || string(data) != w {
				t.Fatalf("%q, %v; want %q", data, err, w)
			}
		}
	}
	open := func() *reportFile {
		t.Helper()
		var r reportFile
		if err := r.open(name); err != nil {
			t.Fatal(err)
		}
		return &r
	}
	open().discard()
	holds()
	for _, text := range []string{"first", "again"} {
		r := open()
		if err := r.finish([]byte(text)); err != nil {
			t.Fatal(err)
		}
		r.discard()
		holds(text)
	}
	open().discard()
	holds("again")
	var none reportFile
	if none.open(filepath.Join(dir, "nowhere", "x.json")) == nil {
		t.Error("a folder that is not there is no error")
	}
	none.discard()
	// What is no regular file is never replaced. A pipe of the test's own: as root a fault here would take a device away.
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDWR, 0) // both ways, so that opening waits for nobody
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var through reportFile
	if err := through.open(pipe); err != nil || through.temp {
		t.Fatalf("%v, temporary file: %v: a pipe was to be replaced", err, through.temp)
	}
	if err := through.finish([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(pipe); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Fatalf("the pipe was replaced: %v, %v", info, err)
	}
}
