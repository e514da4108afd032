package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
	"github.com/lapwing-stream/lapwing/trainer"
)

// Exit codes. 3 is fixed by the model topic's contract: another trainer published first.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2 // mistyped command, flag or setting: nothing was tried
	exitOvertaken   = 3
	exitInterrupted = 130
)

// fault is an error as a user reads it: three lines at most.
type fault struct {
	what  string // what happened
	where string // file:line, topic/partition/offset/field, address; "" where what says it
	next  string // what to do about it
	caret int    // column of where to point at, from 1; 0 = none
	code  int    // exit code; 0 = exitFailed
	cause error
}

func (f *fault) Error() string {
	s := f.what
	if f.where != "" {
		s += ": " + f.where
	}
	if f.next != "" {
		s += "; next: " + f.next
	}
	return s
}

func (f *fault) Unwrap() error { return f.cause }

// usage is a fault of the command line: exit code 2.
func usage(what, where, next string) error {
	return &fault{what: what, where: where, next: next, code: exitUsage}
}

// mistypedError is what a room refuses before anything was tried: exit code 2, as for a flag that is no flag.
type mistypedError struct{ error }

func (e mistypedError) Unwrap() error { return e.error }

func mistyped(err error) error {
	if err == nil {
		return nil
	}
	return mistypedError{err}
}

// parseRef reads NAME, NAME/VERSION or NAME@ALIAS from the command line.
func parseRef(text string) (registry.Ref, error) {
	ref, err := registry.ParseRef(text)
	return ref, mistyped(err)
}

// faults are several at once, under one heading.
type faults struct {
	what string // "lapwing.yaml: 3 faults"
	list []error
	next string
	code int
}

func (f *faults) Error() string {
	var lines []string
	for _, e := range f.list {
		lines = append(lines, e.Error())
	}
	return f.what + ": " + strings.Join(lines, "; ")
}

func (f *faults) Unwrap() []error { return f.list }

// hinter is how a room's error says what to do next, apart from what happened.
type hinter interface{ Hint() string }

// placer is how a room's error says where it happened, apart from what happened.
type placer interface{ Where() string }

// explain turns any error into the lines a user reads. Rooms either implement hinter and placer, or write
// up to three lines (what, where, next), or one sentence whose advice follows "; next: ".
func explain(err error) *fault {
	out := &fault{cause: err}
	text := err.Error()
	// The outermost error that knows how to be read decides: what wraps it says during what it happened.
	for e := err; e != nil; e = errors.Unwrap(e) {
		during, _, _ := strings.Cut(text, e.Error())
		switch e := e.(type) {
		case *fault:
			return e
		case *stream.Error:
			return &fault{what: during + e.What, where: e.Where, next: e.Next, cause: err}
		case *registry.NotFoundError:
			if n := nearest(e.Ref.Name, e.Names); n != "" {
				return &fault{what: text, next: "did you mean " + n + "?", cause: err}
			}
			if len(e.Names) > 0 {
				return &fault{what: text, next: "lapwing models list tells more of them", cause: err}
			}
		case *trainer.InputError:
			return &fault{what: during + e.What, where: e.Place, next: e.Next, cause: err}
		}
		if h, ok := e.(hinter); ok {
			out.next = h.Hint()
			if p, ok := e.(placer); ok {
				out.where = p.Where()
			}
			if c, ok := e.(interface{ Caret() int }); ok {
				out.caret = c.Caret()
			}
			break
		}
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) == 3 && out.next == "" { // what, where, next
		out.next = strings.TrimPrefix(strings.TrimSpace(lines[2]), "next: ")
		lines = lines[:2]
	}
	var rest []string
	for _, l := range lines[1:] {
		l = strings.TrimSpace(l)
		if after, ok := strings.CutPrefix(l, "next: "); ok {
			out.next = after
		} else if l != "" {
			rest = append(rest, l)
		}
	}
	out.what = strings.TrimSpace(lines[0])
	if before, after, ok := strings.Cut(out.what, "; next: "); ok {
		out.what, out.next = before, after
	}
	// A hint that the sentence already ends with is not said twice.
	if out.next != "" {
		for _, sep := range []string{"; ", ": ", ". ", " — ", ", "} {
			if before, ok := strings.CutSuffix(out.what, sep+out.next); ok {
				out.what = before
				break
			}
		}
	}
	if out.where != "" {
		if after, ok := strings.CutPrefix(out.what, out.where+": "); ok {
			out.what = after
		} else if before, ok := strings.CutSuffix(out.what, ": "+out.where); ok {
			out.what = before
		}
	}
	if len(rest) > 0 {
		where := strings.Join(rest, "; ")
		if out.where != "" {
			where = out.where + ": " + where
		}
		out.where = where
	}
	if out.where == "" {
		if m := leadingPlace.FindStringSubmatch(out.what); m != nil {
			out.where, out.what = m[1], m[2]
		}
	}
	if out.next == "" {
		if m := closingAdvice.FindStringSubmatch(out.what); m != nil {
			out.what, out.next = m[1], m[2]
		}
	}
	if out.where == "" {
		out.what, out.where = splitLong(out.what)
	}
	return out
}

// A room's one-line error often begins with its place (FILE:LINE, topic T) and ends with advice after a joint.
var (
	leadingPlace  = regexp.MustCompile(`^(\S+:\d+|topic \S+?(?:, partition \d+)?(?:, offset \d+)?): (.+)$`)
	closingAdvice = regexp.MustCompile(`^(.+?)(?:; |: )((?:add|check|choose|correct|create|give|name|raise|remove|rename|set|train|try|update|use|write) .+|did you mean .+\?)$`)
)

// longLine is where a one-line error is worth breaking in two, in characters.
const longLine = 100

// splitLong breaks a long sentence at the first joint that leaves both parts readable.
func splitLong(s string) (what, where string) {
	if len(s) <= longLine {
		return s, ""
	}
	for _, sep := range []string{"; ", ": ", " ("} {
		for at := 20; at < len(s)-10; {
			i := strings.Index(s[at:], sep)
			if i < 0 {
				break
			}
			at += i
			if at > longLine {
				break
			}
			if at >= 30 {
				rest := s[at+len(sep):]
				if sep == " (" {
					rest = "(" + rest
				}
				return s[:at], rest
			}
			at += len(sep)
		}
	}
	return s, ""
}

// printError writes err as at most three lines; several faults at once take a line each between the first
// and the last, since one run should name them all.
func printError(w io.Writer, err error) {
	if err == nil {
		return
	}
	var several *faults
	if !errors.As(err, &several) {
		if list := joined(err); len(list) > 0 {
			several = &faults{what: fmt.Sprintf("%d things are wrong", len(list)), list: list}
		}
	}
	if several != nil {
		if len(several.list) == 1 {
			f := *explain(several.list[0])
			if f.next == "" {
				f.next = several.next
			}
			printFault(w, &f)
			return
		}
		fmt.Fprintf(w, "lapwing: %s\n", clean(several.what))
		for _, e := range several.list {
			f := explain(e)
			line := f.what
			if f.where != "" {
				line = f.where + ": " + line
			}
			if f.next != "" {
				line += "; " + f.next
			}
			fmt.Fprintf(w, "  %s\n", clean(line))
		}
		if several.next != "" {
			fmt.Fprintf(w, "  next: %s\n", clean(several.next))
		}
		return
	}
	printFault(w, explain(err))
}

// joined gives the members of what errors.Join made, nil for any other error. A wrapper of several causes is
// one error: only a join reads as its members' lines.
func joined(err error) []error {
	var f *fault
	if errors.As(err, &f) {
		return nil
	}
	whole := err.Error()
	for err != nil {
		if !strings.HasSuffix(whole, err.Error()) {
			return nil // the causes of an error that has words of its own
		}
		if m, ok := err.(interface{ Unwrap() []error }); ok {
			list := m.Unwrap()
			if err.Error() == errors.Join(list...).Error() {
				return list
			}
			return nil
		}
		err = errors.Unwrap(err)
	}
	return nil
}

func printFault(w io.Writer, f *fault) {
	fmt.Fprintf(w, "lapwing: %s\n", clean(f.what))
	if f.where != "" {
		fmt.Fprintf(w, "  %s\n", clean(f.where))
		if f.caret > 0 && clean(f.where) == f.where {
			fmt.Fprintf(w, "  %s^\n", strings.Repeat(" ", f.caret-1))
		}
	}
	if f.next != "" {
		fmt.Fprintf(w, "  next: %s\n", clean(f.next))
	}
}

// exitCode is the process's answer to what run returned.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	var f *fault
	if errors.As(err, &f) && f.code != 0 {
		return f.code
	}
	var several *faults
	if errors.As(err, &several) && several.code != 0 {
		return several.code
	}
	var typed mistypedError
	if errors.As(err, &typed) {
		return exitUsage
	}
	if errors.Is(err, registry.ErrOvertaken) {
		return exitOvertaken
	}
	if errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	return exitFailed
}
