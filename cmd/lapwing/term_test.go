package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
)

// screen is a process in a pseudo-terminal, seen through a terminal emulator.
type screen struct {
	t      *testing.T
	cmd    *exec.Cmd
	pty    *os.File
	vt     *vt.Emulator
	hidden bool
	raw    bytes.Buffer // everything that was written
}

// openScreen starts the test binary as a program in a terminal of that size. Environment entries win over the
// usual ones.
func openScreen(t *testing.T, width, height int, environ []string, args ...string) *screen {
	t.Helper()
	return openProgram(t, os.Args[0], width, height, environ, args...)
}

func openProgram(t *testing.T, program string, width, height int, environ []string, args ...string) *screen {
	t.Helper()
	s := &screen{t: t, vt: vt.NewEmulator(width, height)}
	s.vt.SetCallbacks(vt.Callbacks{CursorVisibility: func(visible bool) { s.hidden = !visible }})
	s.cmd = exec.Command(program, args...)
	s.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TERM=xterm-256color"}, environ...)
	s.cmd.Dir = t.TempDir()
	f, err := pty.StartWithSize(s.cmd, &pty.Winsize{Rows: uint16(height), Cols: uint16(width)})
	if err != nil {
		t.Fatal(err)
	}
	s.pty = f
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		f.Close()
	})
	return s
}

// frames feeds what the process writes to the emulator and calls check after each whole frame of a live block,
// and with final after the process has closed the terminal. check returns false to read no further.
func (s *screen) frames(check func(final bool) bool) {
	s.t.Helper()
	buf := make([]byte, 4096)
	var pending []byte
	for {
		n, err := s.pty.Read(buf)
		pending = append(pending, buf[:n]...)
		s.raw.Write(buf[:n])
		for {
			i := bytes.Index(pending, []byte(wrapOn))
			if i < 0 {
				break
			}
			i += len(wrapOn)
			s.vt.Write(pending[:i])
			pending = pending[i:]
			if !check(false) {
				return
			}
		}
		if err != nil { // EIO: the other side is closed
			s.vt.Write(pending)
			check(true)
			return
		}
	}
}

// lines are the screen's rows without trailing spaces, and what scrolled off above them.
func (s *screen) lines() (above, rows []string) {
	for y := range s.vt.ScrollbackLen() {
		var line strings.Builder
		for x := 0; x < s.vt.Width(); x++ {
			if c := s.vt.ScrollbackCellAt(x, y); c != nil {
				line.WriteString(c.Content)
			}
		}
		above = append(above, strings.TrimRight(line.String(), " "))
	}
	for _, l := range strings.Split(s.vt.String(), "\n") {
		rows = append(rows, strings.TrimRight(ansi.Strip(l), " \r"))
	}
	return above, rows
}

// liveProgram is what a subprocess of the tests does: it draws blocks of all sizes until it is interrupted.
func liveProgram(how string) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	t := newTerminal(os.Stdout, os.Getenv)
	defer t.restore()
	stderr := t.beside(os.Stderr)
	live := t.startLive()
	if live == nil {
		fmt.Fprintln(t, "plain")
	}
	width, height := t.size()
	for k := 0; ctx.Err() == nil && k < 400; k++ {
		var lines []string
		for i := range 1 + k%(height+4) { // also more than fit
			line := fmt.Sprintf("<row %d> ", i)
			switch i % 4 {
			case 1:
				line += t.paint(red, strings.Repeat("wide ", width/3))
			case 2:
				line += t.paint(green, strings.Repeat("幅広い", width/4))
			case 3:
				line += strings.Repeat("x", max(width-cells(line), 0)) // exactly as wide
			}
			lines = append(lines, line)
		}
		live.draw(lines)
		if k%3 == 0 {
			fmt.Fprintf(stderr, "log line %d\n", k)
		}
		if how == "panic" && k == 50 {
			panic("on purpose")
		}
		if how == "interrupt" && k == 300 {
			fmt.Fprintln(t, "ready")
			<-ctx.Done()
		}
	}
	live.close()
}

func TestLiveBlockInATerminal(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {120, 40}, {40, 10}, {20, 3}} {
		for _, how := range []string{"end", "interrupt", "panic"} {
			t.Run(fmt.Sprintf("%dx%d %s", size[0], size[1], how), func(t *testing.T) {
				width, height := size[0], size[1]
				s := openScreen(t, width, height, []string{"LAPWING_TEST_LIVE=" + how})
				frames, interrupted := 0, false
				s.frames(func(final bool) bool {
					above, rows := s.lines()
					if len(rows) > height {
						t.Fatalf("%d rows on a screen of %d", len(rows), height)
					}
					seen := map[string]int{}
					for _, l := range rows {
						if cells(l) > width {
							t.Fatalf("%d cells: %q", cells(l), l)
						}
						if i := strings.Index(l, "<row "); i >= 0 {
							seen[l[i:strings.Index(l, ">")]]++
							if i > 0 {
								t.Fatalf("a row does not begin at the left: %q", l)
							}
						} else if l != "" && !strings.HasPrefix(l, "log line") && l != "ready" && !final {
							t.Fatalf("left over or wrapped: %q in\n%s", l, strings.Join(rows, "\n"))
						}
					}
					for row, n := range seen {
						if n != 1 {
							t.Fatalf("%s> stands %d times in\n%s", row, n, strings.Join(rows, "\n"))
						}
					}
					for _, l := range above {
						if strings.Contains(l, "<row") && !final {
							t.Fatalf("a row of the block scrolled away: %q", l)
						}
					}
					if !final {
						frames++
						// The last one is written by end, with the cursor shown again.
						if how == "interrupt" && !interrupted && strings.Contains(s.raw.String(), "ready") {
							interrupted = true
							s.pty.Write([]byte{3}) // Ctrl-C
						}
					}
					return true
				})
				if frames < 40 {
					t.Errorf("only %d frames", frames)
				}
				if s.hidden {
					t.Error("the cursor stays hidden")
				}
				raw := s.raw.String()
				if i := strings.LastIndex(raw, showCursor); i < 0 || strings.Contains(raw[i:], hideCursor) {
					t.Error("the cursor was not shown again")
				}
				if i := strings.LastIndex(raw, "\x1b["); !strings.HasSuffix(raw[:i+len(showCursor)], showCursor) || !strings.Contains(raw, plainText+wrapOn+showCursor) {
					t.Errorf("colours, wrapping and cursor are not restored last: %q", raw[max(0, len(raw)-80):])
				}
				if how == "panic" && !strings.Contains(raw, "on purpose") {
					t.Error("the panic is not told")
				}
			})
		}
	}
}

func TestNoColourAndDumbTerminals(t *testing.T) {
	for _, c := range []struct {
		name    string
		environ string
		want    func(raw string) error
	}{
		{"NO_COLOR", "NO_COLOR=1", func(raw string) error {
			if strings.Contains(raw, "\x1b[31m") || strings.Contains(raw, "\x1b[32m") {
				return errors.New("coloured")
			}
			if !strings.Contains(raw, hideCursor) {
				return errors.New("not redrawn in place")
			}
			return nil
		}},
		{"TERM=dumb", "TERM=dumb", func(raw string) error {
			if strings.Contains(raw, "\x1b") {
				return errors.New("escape sequences")
			}
			if !strings.HasPrefix(raw, "plain") {
				return errors.New("no plain lines")
			}
			return nil
		}},
		{"TERM unset", "TERM=", func(raw string) error {
			if strings.Contains(raw, "\x1b") {
				return errors.New("escape sequences")
			}
			return nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openScreen(t, 80, 24, []string{"LAPWING_TEST_LIVE=end", c.environ})
			s.frames(func(bool) bool { return true })
			if err := c.want(s.raw.String()); err != nil {
				t.Errorf("%v: %.300q", err, s.raw.String())
			}
		})
	}
}

func TestResizeLeavesNothingOver(t *testing.T) {
	s := openScreen(t, 100, 30, []string{"LAPWING_TEST_LIVE=end"})
	n := 0
	s.frames(func(final bool) bool {
		n++
		if n == 30 {
			// Wider: nothing reflows. (What a narrower terminal does to lines on it is its own affair.)
			pty.Setsize(s.pty, &pty.Winsize{Rows: 36, Cols: 132})
			s.vt.Resize(132, 36)
		}
		_, rows := s.lines()
		for _, l := range rows {
			if strings.Count(l, "<row ") > 1 {
				t.Fatalf("two rows in one line: %q", l)
			}
		}
		return true
	})
}

// An interrupted command says so in one line, with the exit code of an interruption.
func TestInterruptedProcess(t *testing.T) {
	cmd := exec.Command(os.Args[0], "broker", "--listen", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "LAPWING_TEST_MAIN=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 4096)
	n, err := out.Read(first) // the broker says where it is once it is there
	if err != nil || !strings.Contains(string(first[:n]), "127.0.0.1:") {
		t.Fatalf("%q, %v", first[:n], err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { io.Copy(io.Discard, out); done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil || stderr.Len() > 0 {
			t.Errorf("%v, stderr %q", err, &stderr)
		}
	case <-time.After(30 * time.Second):
		cmd.Process.Kill()
		t.Fatal("the broker does not end on SIGTERM")
	}
}

func TestPipedOutputIsPlain(t *testing.T) {
	var b bytes.Buffer
	term := newTerminal(&b, func(string) string { return "xterm" })
	if term.isTerminal() || term.paint(red, "x") != "x" || term.startLive() != nil {
		t.Error("a buffer is taken for a terminal")
	}
	var none *liveBlock
	none.draw([]string{"x"})
	none.clear()
	none.close()
	if b.Len() != 0 {
		t.Errorf("%q", &b)
	}
}

func TestCleanText(t *testing.T) {
	for in, want := range map[string]string{
		"car-17":                  "car-17",
		"\x1b[31mred\x1b]0;t\x07": "·[31mred·]0;t·",
		"a\nb\tc\r":               "a b c ",
		"right\u202eleft":         "right·left",
		"\x9b2J":                  "\ufffd2J",
		"\u009b2J":                "·2J",
		"Zoë 幅":                   "Zoë 幅",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
	if got := truncate("幅広い", 4); cells(got) > 4 {
		t.Errorf("%q has %d cells", got, cells(got))
	}
	if got := truncate("abc", 3); got != "abc" {
		t.Errorf("%q", got)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("plain")
	f.Add("\x1b[2J\x9b\u009d\u2066\xff")
	f.Fuzz(func(t *testing.T, s string) {
		if c := clean(s); strings.ContainsAny(c, "\x1b\x07\r\n\b\u009b\u202e") {
			t.Errorf("clean(%q) = %q", s, c)
		}
	})
}
