package main

import (
	"io"
	"os"
	"strings"
	"sync"
	"unicode"

	"github.com/charmbracelet/x/ansi"
	"golang.org/x/term"
)

// terminal is where a command's text goes. Its rules:
//   - Colour and redrawing happen only on a terminal that can (TERM is set and not dumb); NO_COLOR takes the colour.
//   - Piped, everything is plain lines.
//   - Text that came from outside passes clean or plain first: a record must not be able to steer the terminal.
//   - While a live block is on the screen, whatever else is printed goes above it.
type terminal struct {
	mu     sync.Mutex
	out    io.Writer
	file   *os.File // nil where out is no terminal
	redraw bool     // cursor movement may be used
	colour bool
	live   *liveBlock // nil: none on the screen
}

// fallback sizes, where the terminal does not say.
const (
	fallbackWidth  = 80
	fallbackHeight = 24
)

func newTerminal(out io.Writer, getenv func(string) string) *terminal {
	t := &terminal{out: out}
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return t
	}
	t.file = file
	name := getenv("TERM")
	t.redraw = name != "" && name != "dumb"
	t.colour = t.redraw && getenv("NO_COLOR") == ""
	return t
}

// isTerminal says whether somebody may be looking.
func (t *terminal) isTerminal() bool { return t.file != nil }

// size is the terminal's width and height in cells, asked anew each time since windows are resized.
func (t *terminal) size() (width, height int) {
	if t.file != nil {
		if w, h, err := term.GetSize(int(t.file.Fd())); err == nil && w > 0 && h > 0 {
			return w, h
		}
	}
	return fallbackWidth, fallbackHeight
}

// colour is an SGR sequence's parameters.
type colour string

const (
	bold   colour = "1"
	faint  colour = "2"
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
	blue   colour = "34"
	cyan   colour = "36"
)

// paint colours s where the terminal shows colours.
func (t *terminal) paint(c colour, s string) string {
	if !t.colour || s == "" {
		return s
	}
	return "\x1b[" + string(c) + "m" + s + "\x1b[0m"
}

// Write puts whole lines above the live block, or at the cursor where there is none.
func (t *terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live == nil {
		return t.out.Write(p)
	}
	return len(p), t.live.above(string(p))
}

// beside gives a writer for another stream of the same terminal (stderr), which keeps a live block whole.
// A stream that is no terminal is left alone.
func (t *terminal) beside(w io.Writer) io.Writer {
	if file, ok := w.(*os.File); ok && t.redraw && term.IsTerminal(int(file.Fd())) {
		return &besideWriter{t: t, w: w}
	}
	return w
}

type besideWriter struct {
	t *terminal
	w io.Writer
}

func (b *besideWriter) Write(p []byte) (int, error) {
	b.t.mu.Lock()
	defer b.t.mu.Unlock()
	if b.t.live == nil {
		return b.w.Write(p)
	}
	return len(p), b.t.live.above(string(p))
}

// restore takes a live block off, shows the cursor and ends colours. Safe to call at any time, also twice.
func (t *terminal) restore() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live != nil {
		t.live.end()
	}
}

// cells is the width of a line on the screen; escape sequences take none.
func cells(s string) int { return ansi.StringWidth(s) }

// truncate cuts a line to a number of cells, with an ellipsis where something was cut.
func truncate(s string, width int) string {
	if width <= 0 {
		return ""
	}
	return ansi.Truncate(s, width, "…")
}

// pad fills a line with spaces to a number of cells.
func pad(s string, width int) string {
	if n := width - cells(s); n > 0 {
		return s + strings.Repeat(" ", n)
	}
	return s
}

// padLeft puts the spaces first, for numbers.
func padLeft(s string, width int) string {
	if n := width - cells(s); n > 0 {
		return strings.Repeat(" ", n) + s
	}
	return s
}

// wrap breaks lines that are wider than the terminal at spaces; what follows is indented. Piped text stays as
// it is, for programs that read lines.
func (t *terminal) wrap(text string, indent int) string {
	if !t.isTerminal() {
		return text
	}
	width, _ := t.size()
	if width < indent+20 {
		return text
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		for cells(line) > width {
			cut := ansi.Truncate(line, width, "")
			i := strings.LastIndexByte(cut, ' ')
			if i <= indent { // one long word
				break
			}
			b.WriteString(line[:i] + "\n")
			line = strings.Repeat(" ", indent) + strings.TrimLeft(line[i:], " ")
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

// clean makes text from outside harmless on a terminal: control characters, the escape among them, and
// characters that change the direction of what follows become visible, line ends a space.
func clean(s string) string {
	harmless := true
	for _, r := range s {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == unicode.ReplacementChar {
			harmless = false
			break
		}
	}
	if harmless {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r):
			return '·'
		}
		return r
	}, s)
}
