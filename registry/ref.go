// Package registry is the model topic: publish, follow, alias, move, roll back, delete. The contract of what
// stands in the topic is docs/formats.md, "The model topic". The package never scores.
package registry

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Live is the alias that `serve` follows and `train` moves unless told otherwise.
const Live = "live"

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,99}$`)

// ValidName says whether name can be a model's name, and if not, why.
func ValidName(name string) error {
	if nameForm.MatchString(name) {
		return nil
	}
	return fmt.Errorf("model name %q is not valid: use 1 to 100 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit", name)
}

// Ref means one model: a numbered version, or whatever version an alias means. Exactly one of Version and
// Alias is set.
type Ref struct {
	Name    string
	Version int    // >= 1, or 0
	Alias   string // or ""
}

// ParseRef reads NAME (its live alias), NAME/VERSION or NAME@ALIAS.
func ParseRef(s string) (Ref, error) {
	if name, alias, ok := strings.Cut(s, "@"); ok {
		if err := ValidName(name); err != nil {
			return Ref{}, err
		}
		if !nameForm.MatchString(alias) {
			return Ref{}, fmt.Errorf("alias %q of model %q is not valid: use live, canary, shadow or another word of a-z, 0-9, '.', '_', '-'", alias, name)
		}
		return Ref{Name: name, Alias: alias}, nil
	}
	name, number, pinned := strings.Cut(s, "/")
	if err := ValidName(name); err != nil {
		return Ref{}, err
	}
	if !pinned {
		return Ref{Name: name, Alias: Live}, nil
	}
	v, err := strconv.Atoi(number)
	if err != nil || v < 1 {
		return Ref{}, fmt.Errorf("version %q of model %q is not a number from 1: write %s/1, or %s@live for what the alias means", number, name, name, name)
	}
	return Ref{Name: name, Version: v}, nil
}

func (r Ref) String() string {
	if r.Version > 0 {
		return r.Name + "/" + strconv.Itoa(r.Version)
	}
	return r.Name + "@" + r.Alias
}

// key is a record key of the model topic, taken apart.
type key struct {
	kind    keyKind
	name    string
	version int
	digest8 string
	part    int
	alias   string
}

type keyKind uint8

const (
	unknownKey keyKind = iota // another program's record, or a '#' key of a newer Lapwing
	partKey
	manifestKey
	aliasKey
	headKey
)

func partKeyOf(name string, version int, digest string, part int) string {
	return fmt.Sprintf("%s/%d/%s/%d", name, version, digest[:8], part)
}
func manifestKeyOf(name string, version int) string { return fmt.Sprintf("%s/%d", name, version) }
func aliasKeyOf(name, alias string) string          { return name + "@" + alias }
func headKeyOf(name string) string                  { return name + "#head" }

// parseKey never fails: what it cannot read is an unknownKey, which readers count and pass over.
func parseKey(raw []byte) key {
	s := string(raw)
	if name, rest, ok := strings.Cut(s, "#"); ok {
		if rest == "head" && nameForm.MatchString(name) {
			return key{kind: headKey, name: name}
		}
		return key{}
	}
	if name, alias, ok := strings.Cut(s, "@"); ok {
		if nameForm.MatchString(name) && nameForm.MatchString(alias) {
			return key{kind: aliasKey, name: name, alias: alias}
		}
		return key{}
	}
	parts := strings.Split(s, "/")
	if len(parts) != 2 && len(parts) != 4 || !nameForm.MatchString(parts[0]) {
		return key{}
	}
	version, ok := canonicalInt(parts[1])
	if !ok || version < 1 {
		return key{}
	}
	if len(parts) == 2 {
		return key{kind: manifestKey, name: parts[0], version: version}
	}
	part, ok := canonicalInt(parts[3])
	if !ok || len(parts[2]) != 8 || strings.Trim(parts[2], "0123456789abcdef") != "" {
		return key{}
	}
	return key{kind: partKey, name: parts[0], version: version, digest8: parts[2], part: part}
}

// canonicalInt refuses +1, 01 and the like: two spellings of one key would be compacted apart.
func canonicalInt(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 0 && strconv.Itoa(n) == s
}
