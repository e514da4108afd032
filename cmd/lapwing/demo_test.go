//go:build e2e

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"
)

// built builds lapwing once, as a user has it: without the race detector.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "lapwing-e2e-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "lapwing")
	tags := "" // those of the tests: gpu makes it the build for GPUs
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-tags" {
				tags = s.Value
			}
		}
	}
	out, err := exec.Command("go", "build", "-tags", tags, "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

func lapwing(t *testing.T) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// The summary is what the demo promises. Three seeds, since one may be lucky.
func checkSummary(t *testing.T, line string) {
	t.Helper()
	var s demoSummary
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		t.Fatalf("the last line is no summary: %v\n%s", err, line)
	}
	t.Log(line)
	if s.RecordsIn < demoLive || s.RecordsOut != s.RecordsIn || s.RecordsScored != s.RecordsIn {
		t.Errorf("%d records in, %d scored, %d out; want the same, and at least %d", s.RecordsIn, s.RecordsScored, s.RecordsOut, demoLive)
	}
	if s.Dropped != 0 || s.Doubled != 0 || s.OutOfOrder != 0 {
		t.Errorf("%d dropped, %d doubled, %d out of order", s.Dropped, s.Doubled, s.OutOfOrder)
	}
	if s.Swaps != 1 || len(s.ByVersion) != 2 {
		t.Errorf("%d swaps, versions %v; want one swap from 1 to 2", s.Swaps, s.ByVersion)
	}
	for _, v := range []string{"1", "2"} {
		if s.ByVersion[v] < s.RecordsIn/10 {
			t.Errorf("version %s scored %d of %d records; want at least a tenth", v, s.ByVersion[v], s.RecordsIn)
		}
	}
	if s.Episodes < 20 || s.Kinds < 4 {
		t.Errorf("%d episodes of %d kinds; want at least 20 of 4", s.Episodes, s.Kinds)
	}
	if s.Precision < .8 || s.Recall < .8 {
		t.Errorf("precision %.2f, recall %.2f; want both at least .8", s.Precision, s.Recall)
	}
	if s.Hidden < .5 {
		t.Errorf("in %.2f of the found episodes every field was inside its range; want at least half: the faults are a caricature", s.Hidden)
	}
	if s.RateKept < .9 {
		t.Errorf("while the second model was trained traffic was scored at %.2f of its rate; want at least .9", s.RateKept)
	}
}

func TestDemoInATerminal(t *testing.T) {
	for seed, size := range map[int][2]int{1: {80, 24}, 2: {120, 40}} {
		t.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(t *testing.T) {
			width, height := size[0], size[1]
			s := openDemo(t, width, height, []string{"LAPWING_LOG_LEVEL=warn"}, "--json", "--seed", fmt.Sprint(seed))
			began := time.Now()
			frames, last, changed := 0, "", began
			var longest time.Duration
			s.frames(func(final bool) bool {
				_, rows := s.lines()
				for _, l := range rows {
					if cells(l) > width {
						t.Errorf("%d cells: %q", cells(l), l)
					}
				}
				shown := strings.Join(rows, "\n")
				if strings.Count(shown, "lapwing demo") > 1 && !final {
					t.Errorf("a left-over frame:\n%s", shown)
				}
				if frames == 0 {
					if d := time.Since(began); d > time.Second {
						t.Errorf("the first line came after %v", d)
					}
				}
				if shown != last {
					longest = max(longest, time.Since(changed))
					last, changed = shown, time.Now()
				}
				frames++
				return !t.Failed()
			})
			if err := s.cmd.Wait(); err != nil {
				t.Errorf("the demo ended with %v\n%s", err, last)
			}
			if longest > 2*time.Second {
				t.Errorf("nothing changed for %v", longest)
			}
			if s.hidden || !strings.Contains(s.raw.String(), showCursor) {
				t.Error("the cursor stays hidden")
			}
			above, rows := s.lines()
			lines := append(above, rows...)
			for len(lines) > 0 && lines[len(lines)-1] == "" {
				lines = lines[:len(lines)-1]
			}
			// the JSON is wider than the terminal and wraps; the screen above it is what stays
			text := strings.Join(lines, "\n")
			start := strings.Index(text, `{"seed":`)
			if start < 0 {
				t.Fatalf("no summary:\n%s", text)
			}
			checkSummary(t, strings.ReplaceAll(text[start:], "\n", ""))
			screen := strings.Split(strings.TrimSpace(text[:start]), "\n")
			if len(screen) > 24 {
				t.Errorf("the last screen has %d lines:\n%s", len(screen), strings.Join(screen, "\n"))
			}
			for _, want := range []string{"cars/1", "cars/2", "found", "missed", "lapwing broker", "lapwing load", "lapwing train"} {
				if !strings.Contains(strings.Join(screen, "\n"), want) {
					t.Errorf("the last screen does not name %q:\n%s", want, strings.Join(screen, "\n"))
				}
			}
			t.Logf("%d frames, the longest stood %v\n%s", frames, longest, strings.Join(screen, "\n"))
		})
	}
}

// Piped, it prints plain lines; the JSON is alone on stdout.
func TestDemoPiped(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), lapwing(t), "demo", "--json", "--seed", "3", "--keep", filepath.Join(t.TempDir(), "kept"))
	cmd.Dir = t.TempDir()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, errOut.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	checkSummary(t, lines[len(lines)-1])
	for _, s := range []string{out.String(), errOut.String()} {
		if strings.Contains(s, "\x1b") {
			t.Errorf("escape sequences in a pipe: %q", s)
		}
	}
	if !regexp.MustCompile(`first alert: car\d+: \w+ reads`).MatchString(errOut.String()) {
		t.Errorf("no first alert in words:\n%s", errOut.String())
	}
}

// NO_COLOR takes the colour, TERM=dumb also the redrawing; Ctrl-C leaves the terminal as it was.
func TestDemoTerminalKinds(t *testing.T) {
	colour := regexp.MustCompile("\x1b\\[[1-9][0-9;]*m")
	for _, tc := range []struct {
		name, env       string
		colours, redraw bool
	}{
		{"usual", "COLORTERM=truecolor", true, true},
		{"no colour", "NO_COLOR=1", false, true},
		{"dumb", "TERM=dumb", false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openDemo(t, 80, 24, []string{tc.env})
			raw := make(chan string, 1)
			seen := make(chan struct{})
			go func() { // until the process has closed the terminal
				var b bytes.Buffer
				r := bufio.NewReader(s.pty)
				var once sync.Once
				for {
					c, err := r.ReadByte()
					if err != nil {
						break
					}
					b.WriteByte(c)
					if b.Len() > 1500 || !tc.redraw && bytes.Count(b.Bytes(), []byte("\n")) > 3 {
						once.Do(func() { close(seen) })
					}
				}
				raw <- b.String()
			}()
			<-seen
			s.pty.Write([]byte{3})
			text := <-raw
			s.cmd.Wait()
			if code := s.cmd.ProcessState.ExitCode(); code != exitInterrupted {
				t.Errorf("exit status %d, want %d", code, exitInterrupted)
			}
			if got := colour.MatchString(text); got != tc.colours {
				t.Errorf("colours: %v, want %v", got, tc.colours)
			}
			if got := strings.Contains(text, hideCursor); got != tc.redraw {
				t.Errorf("redraws: %v, want %v", got, tc.redraw)
			}
			if i := strings.LastIndex(text, hideCursor); i > strings.LastIndex(text, showCursor) {
				t.Error("the cursor stays hidden after Ctrl-C")
			}
			if i := strings.LastIndex(text, "\x1b[0m"); tc.colours && i < strings.LastIndex(text, "\x1b[3") {
				t.Error("colours are not ended after Ctrl-C")
			}
		})
	}
}

func openDemo(t *testing.T, width, height int, environ []string, args ...string) *screen {
	t.Helper()
	return openProgram(t, lapwing(t), width, height, environ, append([]string{"demo"}, args...)...)
}
