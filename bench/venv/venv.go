// Package venv keeps private Python environments of what Lapwing is measured next to, installed by package name, and
// talks to programs in them.
package venv

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Env is one environment.
type Env struct {
	Home string    // its folder
	Base string    // Python that makes it, a program; default python3
	Log  io.Writer // what is being installed, a line each; default none
}

// Python is the interpreter of the environment.
func (e Env) Python() string { return filepath.Join(e.Home, "bin", "python") }

// Has tells whether a list of packages was installed, by its name and content.
func (e Env) Has(name string, required []byte) bool {
	mark, err := os.ReadFile(e.mark(name))
	return err == nil && string(mark) == digest(required)
}

func (e Env) mark(name string) string { return filepath.Join(e.Home, name+".ready") }

func digest(required []byte) string { return fmt.Sprintf("%x\n", sha256.Sum256(required)) }

// Install adds a list of packages, as pip reads it, unless it is there already. What tells people how much it is.
func (e Env) Install(ctx context.Context, name string, required []byte, what string) error {
	if e.Has(name, required) {
		return nil
	}
	if e.Base == "" {
		e.Base = "python3"
	}
	if e.Log == nil {
		e.Log = io.Discard
	}
	fmt.Fprintf(e.Log, "installing peers into %s, once: %s\n", e.Home, what)
	started := time.Now()
	if _, err := os.Stat(e.Python()); err != nil {
		if err := os.MkdirAll(filepath.Dir(e.Home), 0o755); err != nil {
			return err
		}
		if err := Command(ctx, e.Base, "-m", "venv", e.Home); err != nil {
			if errors.Is(err, exec.ErrNotFound) {
				return fmt.Errorf("%w: install Python 3.10 or newer with venv (Debian: python3 and python3-venv)", err)
			}
			return err
		}
	}
	list := filepath.Join(e.Home, name)
	if err := os.WriteFile(list, required, 0o644); err != nil {
		return err
	}
	if err := Command(ctx, e.Python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", list); err != nil {
		return err
	}
	fmt.Fprintf(e.Log, "installed in %.0f s\n", time.Since(started).Seconds())
	return os.WriteFile(e.mark(name), []byte(digest(required)), 0o644)
}

// Command runs a program to its end. Its error has the last line that the program said.
func Command(ctx context.Context, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	var said lastWords
	c.Stdout, c.Stderr = &said, &said
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(append([]string{filepath.Base(name)}, args[:min(len(args), 3)]...), " "), err, said.line())
	}
	return nil
}

// lastWords keeps the end of what a process says.
type lastWords struct {
	sync.Mutex
	text []byte
}

func (w *lastWords) Write(b []byte) (int, error) {
	w.Lock()
	defer w.Unlock()
	w.text = append(w.text, b...)
	w.text = w.text[max(0, len(w.text)-4096):]
	return len(b), nil
}

// line is the last line that says something.
func (w *lastWords) line() string {
	w.Lock()
	defer w.Unlock()
	lines := bytes.Split(bytes.TrimSpace(w.text), []byte("\n"))
	last := string(bytes.TrimSpace(lines[len(lines)-1]))
	if last == "" {
		return "it said nothing"
	}
	return last
}
