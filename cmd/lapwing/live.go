package main

import (
	"fmt"
	"strings"
)

// liveBlock is a few lines at the foot of the screen that are redrawn in place. It is never wider or higher
// than the terminal, and what is printed meanwhile scrolls by above it.
//
// The cursor rests in the first column of the line below the block, so one line of the screen stays free.
type liveBlock struct {
	t     *terminal
	lines []string // as asked for
	drawn []int    // cells of each line on the screen
	width int      // of the terminal when they were drawn
}

const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	// While the block is drawn the terminal must not wrap: a character whose width it sees otherwise than
	// we do would push everything one line down.
	wrapOff   = "\x1b[?7l"
	wrapOn    = "\x1b[?7h"
	plainText = "\x1b[0m"
	eraseLine = "\x1b[K"
	eraseDown = "\x1b[J"
)

// startLive puts an empty live block on the screen; the caller ends it with close. It is nil, and all of its
// methods do nothing, where the terminal cannot redraw: the caller prints plain lines instead.
func (t *terminal) startLive() *liveBlock {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.redraw || t.live != nil {
		return nil
	}
	t.live = &liveBlock{t: t}
	fmt.Fprint(t.out, hideCursor)
	return t.live
}

// draw replaces the block's lines. Lines beyond the terminal's height are left out from the bottom, so the
// most telling ones stand first.
func (b *liveBlock) draw(lines []string) {
	if b == nil {
		return
	}
	b.t.mu.Lock()
	defer b.t.mu.Unlock()
	if b.t.live != b {
		return // restored meanwhile
	}
	b.lines = append(b.lines[:0], lines...)
	var s strings.Builder
	b.rewind(&s)
	b.paint(&s)
	b.t.out.Write([]byte(s.String()))
}

// close leaves the last drawn lines on the screen and gives the terminal back.
func (b *liveBlock) close() {
	if b == nil {
		return
	}
	b.t.mu.Lock()
	defer b.t.mu.Unlock()
	if b.t.live == b {
		b.end()
	}
}

// clear wipes the block off the screen and gives the terminal back.
func (b *liveBlock) clear() {
	if b == nil {
		return
	}
	b.t.mu.Lock()
	defer b.t.mu.Unlock()
	if b.t.live != b {
		return
	}
	var s strings.Builder
	b.rewind(&s)
	s.WriteString(eraseDown)
	b.t.out.Write([]byte(s.String()))
	b.end()
}

// end is close with the lock held.
func (b *liveBlock) end() {
	b.t.live = nil
	// The line below the block may hold the ^C that the terminal echoed.
	fmt.Fprint(b.t.out, "\r"+eraseLine+plainText+wrapOn+showCursor)
}

// above prints whole lines where the block begins and draws the block below them. The lock is held.
func (b *liveBlock) above(text string) error {
	var s strings.Builder
	b.rewind(&s)
	s.WriteString(eraseDown)
	text = strings.TrimRight(text, "\n")
	s.WriteString(strings.ReplaceAll(text, "\n", plainText+"\r\n"))
	s.WriteString(plainText + "\r\n")
	b.drawn = b.drawn[:0]
	b.paint(&s)
	_, err := b.t.out.Write([]byte(s.String()))
	return err
}

// rewind moves the cursor to the block's first line. A terminal that was made narrower has wrapped the lines
// that stood on it, so each may take several rows now.
func (b *liveBlock) rewind(s *strings.Builder) {
	width, height := b.t.size()
	rows := 0
	for _, n := range b.drawn {
		rows++
		if width < b.width && n > width {
			rows += (n - 1) / width
		}
	}
	s.WriteString("\r")
	if rows = min(rows, height-1); rows > 0 {
		fmt.Fprintf(s, "\x1b[%dA", rows)
	}
}

// paint draws the lines from the cursor on.
func (b *liveBlock) paint(s *strings.Builder) {
	width, height := b.t.size()
	lines := b.lines
	if len(lines) > height-1 {
		lines = lines[:max(height-1, 0)]
	}
	s.WriteString(wrapOff)
	b.drawn, b.width = b.drawn[:0], width
	for _, l := range lines {
		l = truncate(l, width)
		b.drawn = append(b.drawn, cells(l))
		s.WriteString(l)
		s.WriteString(plainText)
		if b.drawn[len(b.drawn)-1] < width { // in the last column an erase would take the last character
			s.WriteString(eraseLine)
		}
		s.WriteString("\r\n")
	}
	s.WriteString(eraseDown + wrapOn)
}

// bar draws a progress bar of so many cells; share is 0 to 1.
func (t *terminal) bar(share float64, width int) string {
	share = min(max(share, 0), 1)
	eighths := int(share*float64(width*8) + .5)
	full, part := eighths/8, eighths%8
	s := strings.Repeat("█", full)
	if part > 0 {
		s += string([]rune(" ▏▎▍▌▋▊▉")[part])
	}
	return t.paint(green, s) + t.paint(faint, strings.Repeat("·", max(width-cells(s), 0)))
}
