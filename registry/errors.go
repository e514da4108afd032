package registry

import (
	"errors"
	"fmt"
	"strings"
)

// ErrOvertaken: while this model was being published, another publisher's version appeared. Nothing was written.
var ErrOvertaken = errors.New("another publisher was faster")

// OvertakenError says who was faster.
type OvertakenError struct{ By Manifest }

func (e *OvertakenError) Error() string {
	return fmt.Sprintf("model %v was published by %s at the same moment; nothing was written", e.By, e.By.By)
}
func (e *OvertakenError) Unwrap() error { return ErrOvertaken }

// Hint says what to do next.
func (e *OvertakenError) Hint() string {
	return "compare the two, then publish yours as the next version: lapwing models import FILE --model " + e.By.Name
}

// NotFoundError names what there is instead.
type NotFoundError struct {
	Ref      Ref
	Names    []string // models in the topic, if the name is unknown
	Versions []int
	Aliases  []string
}

func (e *NotFoundError) Error() string {
	if e.Versions == nil && e.Aliases == nil {
		if len(e.Names) == 0 {
			return fmt.Sprintf("there is no model %s: the model topic holds none yet", e.Ref.Name)
		}
		return fmt.Sprintf("there is no model %s; there are: %s", e.Ref.Name, strings.Join(e.Names, ", "))
	}
	if e.Ref.Alias != "" {
		return fmt.Sprintf("model %s has no alias %s; it has versions %s and aliases %s", e.Ref.Name, e.Ref.Alias, spell(e.Versions), orNone(e.Aliases))
	}
	return fmt.Sprintf("model %s has no version %d; it has %s", e.Ref.Name, e.Ref.Version, spell(e.Versions))
}

// Hint says what to do next.
func (e *NotFoundError) Hint() string {
	if e.Versions == nil && e.Aliases == nil {
		return "train one: lapwing train --topic TOPIC --model " + e.Ref.Name
	}
	return "lapwing models show " + e.Ref.Name
}

// ConflictError: the alias was moved by someone else since it was looked at.
type ConflictError struct {
	Name, Alias string
	Asked       int64
	Now         Alias
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("alias %s@%s is at generation %d, not %d: %s moved it to version %d meanwhile",
		e.Name, e.Alias, e.Now.Generation, e.Asked, e.Now.Who, e.Now.Version)
}

// Hint says what to do next.
func (e *ConflictError) Hint() string {
	return "look again (lapwing models show " + e.Name + ") and repeat the move if you still want it"
}

// DigestError: parts and manifest do not belong together, or a byte was changed.
type DigestError struct {
	Manifest Manifest
	Got      string
	Size     int
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("model %v is damaged: its %d bytes have digest %s, its manifest says %s", e.Manifest, e.Size, e.Got[:8], e.Manifest.Digest[:8])
}

// Hint says what to do next.
func (e *DigestError) Hint() string {
	return "roll back to a good version (lapwing models rollback " + e.Manifest.Name + ") or train again"
}

func spell(versions []int) string {
	if len(versions) == 0 {
		return "none"
	}
	var b strings.Builder
	for i := 0; i < len(versions); i++ {
		j := i
		for j+1 < len(versions) && versions[j+1] == versions[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		if j > i+1 {
			fmt.Fprintf(&b, "%d to %d", versions[i], versions[j])
		} else {
			j = i
			fmt.Fprintf(&b, "%d", versions[i])
		}
		i = j
	}
	return b.String()
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
