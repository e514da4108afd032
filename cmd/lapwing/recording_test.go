//go:build e2e

package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"html"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/ultraviolet"
	"github.com/charmbracelet/x/ansi"
)

// The picture in the README is the demo itself: frames of its pseudo-terminal, as one SVG without scripts. Distinct
// lines are defined once and used by the frames, which stand below each other and are shifted through the window.
const (
	recordWidth, recordHeight = 92, 24
	recordEvery               = 700 * time.Millisecond
	cellWidth, lineHeight     = 8.0, 18
	recordLimit               = 200_000
)

type recordedFrame struct {
	at    time.Duration
	lines []string // each as SVG text, without its position
}

// TestRecording draws docs/demo.svg where LAPWING_TEST_RECORD names the file, and else compares the words of the
// one that is there with a fresh run: an old picture is a wrong page.
func TestRecording(t *testing.T) {
	s := openDemo(t, recordWidth, recordHeight, []string{"LAPWING_LOG_LEVEL=warn"})
	began := time.Now()
	var frames []recordedFrame
	s.frames(func(final bool) bool {
		at := time.Since(began)
		if len(frames) == 0 || at-frames[len(frames)-1].at >= recordEvery || final {
			lines := s.styledLines()
			if len(frames) == 0 || !slices.Equal(lines, frames[len(frames)-1].lines) {
				frames = append(frames, recordedFrame{at, lines})
			}
		}
		return true
	})
	if err := s.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	picture := drawRecording(frames)
	if path := os.Getenv("LAPWING_TEST_RECORD"); path != "" {
		if len(picture) > recordLimit {
			t.Fatalf("the picture has %d bytes, at most %d are wanted", len(picture), recordLimit)
		}
		if err := os.WriteFile(path, picture, 0o644); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d frames, %d bytes", path, len(frames), len(picture))
		return
	}
	kept, err := os.ReadFile("../../docs/demo.svg")
	if err != nil {
		t.Fatal(err)
	}
	if len(kept) > recordLimit {
		t.Errorf("docs/demo.svg has %d bytes, at most %d are wanted", len(kept), recordLimit)
	}
	was, is := lastWords(t, kept), lastWords(t, picture)
	if !slices.Equal(was, is) {
		t.Errorf("docs/demo.svg is old; make recording draws it anew.\nit says  %q\nthe demo %q", was, is)
	}
}

var (
	numbers = regexp.MustCompile(`[0-9][0-9.,]*`)
	fields  = regexp.MustCompile(`[a-z]+_[a-z0-9_]+|\b(speed|car#)\b`) // which sensor came first may differ
)

// lastWords are the distinct words of the last frame, numbers and names of fields masked.
func lastWords(t *testing.T, picture []byte) []string {
	t.Helper()
	texts := map[string]string{}
	var last []string
	d := xml.NewDecoder(bytes.NewReader(picture))
	id, inLast := "", false
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			for _, a := range e.Attr {
				switch {
				case e.Name.Local == "text" && a.Name.Local == "id":
					id = a.Value
				case e.Name.Local == "g" && a.Name.Local == "id":
					inLast = a.Value == "last"
				case e.Name.Local == "use" && a.Name.Local == "href" && inLast:
					last = append(last, strings.TrimPrefix(a.Value, "#"))
				}
			}
		case xml.CharData:
			texts[id] += string(e)
		case xml.EndElement:
			if e.Name.Local == "text" {
				id = ""
			}
		}
	}
	var words []string
	for _, id := range last {
		masked := fields.ReplaceAllString(numbers.ReplaceAllString(texts[id], "#"), "@")
		words = append(words, strings.Fields(strings.Map(func(r rune) rune {
			if r < ' ' || strings.ContainsRune("-()", r) {
				return ' '
			}
			return r
		}, masked))...)
	}
	slices.Sort(words)
	return slices.Compact(words)
}

// styledLines are the screen's rows as SVG text.
func (s *screen) styledLines() []string {
	lines := make([]string, s.vt.Height())
	for y := range lines {
		var b strings.Builder
		class, run := "", ""
		flush := func() {
			if run == "" {
				return
			}
			if class == "" {
				b.WriteString(html.EscapeString(run))
			} else {
				fmt.Fprintf(&b, `<tspan class="%s">%s</tspan>`, class, html.EscapeString(run))
			}
			run = ""
		}
		for x := 0; x < s.vt.Width(); x++ {
			c := s.vt.CellAt(x, y)
			text, of := " ", ""
			if c != nil && c.Content != "" {
				text, of = c.Content, classOf(c.Style)
			}
			if of != class {
				flush()
				class = of
			}
			run += text
		}
		run = strings.TrimRight(run, " ")
		flush()
		lines[y] = strings.TrimRight(b.String(), " ")
	}
	return lines
}

func classOf(s uv.Style) string {
	var names []string
	if s.Attrs&uv.AttrBold != 0 {
		names = append(names, "b")
	}
	if s.Attrs&uv.AttrFaint != 0 {
		names = append(names, "d")
	}
	if c, ok := s.Fg.(ansi.BasicColor); ok {
		names = append(names, fmt.Sprintf("c%d", c))
	}
	return strings.Join(names, " ")
}

func drawRecording(frames []recordedFrame) []byte {
	ids := map[string]int{}
	var order []string
	for _, f := range frames {
		for _, l := range f.lines {
			if _, known := ids[l]; !known && l != "" {
				ids[l] = len(order)
				order = append(order, l)
			}
		}
	}
	const margin = 12
	width, height := int(recordWidth*cellWidth)+2*margin, recordHeight*lineHeight+2*margin
	end := frames[len(frames)-1].at + 8*time.Second // the last screen stays a while
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="A run of lapwing demo in a terminal">
<style>
svg{--bg:#fbfbfa;--fg:#24292f;--d:#7b828a;--c1:#c4342d;--c2:#1a7f37;--c3:#9a6700;--c4:#0a58ca;--c6:#0b7285}
@media (prefers-color-scheme:dark){svg{--bg:#14181d;--fg:#d6dce3;--d:#7d8792;--c1:#ff7b72;--c2:#56d364;--c3:#e3b341;--c4:#79b8ff;--c6:#56d4dd}}
rect{fill:var(--bg);stroke:var(--d);stroke-opacity:.3}
text{font:13.3px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:var(--fg);white-space:pre}
.b{font-weight:700}.d{fill:var(--d)}.c1{fill:var(--c1)}.c2{fill:var(--c2)}.c3{fill:var(--c3)}.c4{fill:var(--c4)}.c6{fill:var(--c6)}
#film{animation:film %.1fs step-end infinite}
@keyframes film{`, width, height, width, height, end.Seconds())
	for i, f := range frames {
		fmt.Fprintf(&b, "%.2f%%{transform:translateY(%dpx)}", 100*f.at.Seconds()/end.Seconds(), -i*height)
	}
	fmt.Fprintf(&b, "100%%{transform:translateY(%dpx)}}\n", -(len(frames)-1)*height)
	b.WriteString("@media (prefers-reduced-motion:reduce){#film{animation:none;transform:translateY(" + fmt.Sprint(-(len(frames)-1)*height) + "px)}}\n</style>\n<defs>\n")
	for i, l := range order {
		fmt.Fprintf(&b, "<text id=\"l%d\" xml:space=\"preserve\">%s</text>\n", i, l)
	}
	fmt.Fprintf(&b, "</defs>\n<rect x=\".5\" y=\".5\" width=\"%d\" height=\"%d\" rx=\"8\"/>\n<g id=\"film\">\n", width-1, height-1)
	for i, f := range frames {
		id := ""
		if i == len(frames)-1 {
			id = ` id="last"`
		}
		fmt.Fprintf(&b, "<g%s>", id)
		for y, l := range f.lines {
			if l != "" {
				fmt.Fprintf(&b, `<use href="#l%d" x="%d" y="%d"/>`, ids[l], margin, i*height+margin+(y+1)*lineHeight-5)
			}
		}
		b.WriteString("</g>\n")
	}
	b.WriteString("</g>\n</svg>\n")
	return b.Bytes()
}
