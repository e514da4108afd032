package registry

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

// Bounds on what a manifest may claim, so that a hostile or broken one cannot make a reader allocate:
// protobuf, and so ONNX, ends at 2 GiB.
const (
	partSize  = 512 << 10
	maxBytes  = 2 << 30
	maxParts  = maxBytes / partSize
	logLength = 20 // entries kept in Alias.Previous and Alias.History
)

// LargestRecord is what the model topic must take, bytes: a part with its key, and what a batch adds.
const LargestRecord = partSize + 1<<10

// Manifest is what the topic says of one version.
type Manifest struct {
	Name    string `json:"-"`
	Version int    `json:"-"`

	Format  int       `json:"format"`
	Digest  string    `json:"digest"` // sha256 of the ONNX bytes, hex
	Bytes   int64     `json:"bytes"`
	Parts   int       `json:"parts"`
	Created time.Time `json:"created"`
	Parent  string    `json:"parent,omitempty"` // digest of the model it was derived from
	By      string    `json:"by"`
}

func (m Manifest) String() string { return Ref{Name: m.Name, Version: m.Version}.String() }

// Alias is a name for a version, moved by compare-and-set on Generation.
type Alias struct {
	Version    int       `json:"version"`
	Share      float64   `json:"share"` // of the traffic, for canary; 1 otherwise
	Generation int64     `json:"generation"`
	Who        string    `json:"who"`
	When       time.Time `json:"when"`
	Why        string    `json:"why,omitempty"`
	Previous   []int     `json:"previous"` // what rolling back goes to, newest last, at most 20
	History    []Move    `json:"history"`  // the last 20 moves: a log, decides nothing
}

// Move is one entry of an alias's history.
type Move struct {
	From int       `json:"from"`
	To   int       `json:"to"`
	Who  string    `json:"who"`
	When time.Time `json:"when"`
	Why  string    `json:"why,omitempty"`
}

type head struct {
	LastVersion int `json:"last_version"`
}

// index is the model topic folded up to some offset. It holds where parts stand, not their bytes: a follower
// of large models must not keep every version in memory.
type index struct {
	models  map[string]*entry
	strange int   // records that are not ours or cannot be read
	next    int64 // first offset not folded yet
	log     *slog.Logger
}

type entry struct {
	manifests map[int]Manifest
	broken    map[int]string // manifests that cannot be used, and why
	aliases   map[string]Alias
	head      int
	parts     map[partID]location
}

type partID struct {
	version int
	digest8 string
	part    int
}

type location struct {
	offset int64
	size   int
}

func newIndex(log *slog.Logger) *index {
	return &index{models: map[string]*entry{}, log: log}
}

func (x *index) entry(name string) *entry {
	e := x.models[name]
	if e == nil {
		e = &entry{manifests: map[int]Manifest{}, broken: map[int]string{}, aliases: map[string]Alias{}, parts: map[partID]location{}}
		x.models[name] = e
	}
	return e
}

// fold takes in one record. It must be called in offset order.
func (x *index) fold(r stream.Record) {
	x.next = r.Offset + 1
	k := parseKey(r.Key)
	if k.kind == unknownKey {
		x.oddity(r, "its key is not one of Lapwing's")
		return
	}
	if r.Value == nil {
		x.bury(k)
		return
	}
	e := x.entry(k.name)
	switch k.kind {
	case partKey:
		e.parts[partID{k.version, k.digest8, k.part}] = location{r.Offset, len(r.Value)}
	case manifestKey:
		x.foldManifest(e, k, r)
	case aliasKey:
		var a Alias
		if err := json.Unmarshal(r.Value, &a); err != nil || a.Version < 1 {
			x.oddity(r, fmt.Sprintf("the alias cannot be read (%v)", err))
			return
		}
		e.aliases[k.alias] = a
	case headKey:
		var h head
		if err := json.Unmarshal(r.Value, &h); err != nil || h.LastVersion < 0 {
			x.oddity(r, fmt.Sprintf("the head cannot be read (%v)", err))
			return
		}
		// a head never goes back: an older one mirrored late must not let a number return
		e.head = max(e.head, h.LastVersion)
	}
}

func (x *index) foldManifest(e *entry, k key, r stream.Record) {
	var m Manifest
	err := json.Unmarshal(r.Value, &m)
	why := ""
	switch {
	case err != nil:
		why = fmt.Sprintf("its manifest is not JSON: %v", err)
	case m.Format > 1:
		why = fmt.Sprintf("its manifest has format %d and this Lapwing reads 1: update lapwing", m.Format)
	case m.Format < 1 || len(m.Digest) != 64 || m.Bytes < 1 || m.Bytes > maxBytes || m.Parts < 1 || m.Parts > maxParts:
		why = fmt.Sprintf("its manifest makes no sense (format %d, %d bytes, %d parts, digest of %d characters)", m.Format, m.Bytes, m.Parts, len(m.Digest))
	}
	if why != "" {
		e.broken[k.version] = why
		delete(e.manifests, k.version)
		x.oddity(r, why)
		return
	}
	delete(e.broken, k.version)
	m.Name, m.Version = k.name, k.version
	if old, ok := e.manifests[k.version]; ok && old.Digest != m.Digest {
		// mirrors copy records of aborted transactions, so a number can be seen twice: the later one counts
		x.log.Warn("a later manifest replaces an earlier one with the same number",
			"model", m.String(), "offset", r.Offset, "digest", m.Digest[:8], "was", old.Digest[:8])
	}
	e.manifests[k.version] = m
	e.head = max(e.head, k.version)
}

func (x *index) bury(k key) {
	e := x.models[k.name]
	if e == nil {
		return
	}
	switch k.kind {
	case partKey:
		delete(e.parts, partID{k.version, k.digest8, k.part})
	case manifestKey:
		delete(e.manifests, k.version)
		delete(e.broken, k.version)
	case aliasKey:
		delete(e.aliases, k.alias)
	}
}

func (x *index) oddity(r stream.Record, why string) {
	x.strange++
	if x.strange <= 3 {
		x.log.Warn("passed over a record of the model topic", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "why", why)
	}
}

// whole says where the parts of m stand, or why it cannot be loaded.
func (e *entry) whole(m Manifest) ([]location, error) {
	at := make([]location, m.Parts)
	var size int64
	for i := range at {
		l, ok := e.parts[partID{m.Version, m.Digest[:8], i}]
		if !ok {
			return nil, fmt.Errorf("model %v is not whole: part %d of %d is not in the topic", m, i, m.Parts)
		}
		at[i], size = l, size+int64(l.size)
	}
	if size != m.Bytes {
		return nil, fmt.Errorf("model %v is not whole: its %d parts hold %d bytes, its manifest says %d", m, m.Parts, size, m.Bytes)
	}
	return at, nil
}

// resolve gives the manifest that ref means now.
func (x *index) resolve(ref Ref) (Manifest, Alias, error) {
	e := x.models[ref.Name]
	if e == nil || len(e.manifests)+len(e.broken) == 0 {
		return Manifest{}, Alias{}, &NotFoundError{Ref: ref, Names: x.names()}
	}
	version, alias := ref.Version, Alias{}
	if version == 0 {
		var ok bool
		if alias, ok = e.aliases[ref.Alias]; !ok {
			return Manifest{}, Alias{}, &NotFoundError{Ref: ref, Versions: e.versions(), Aliases: e.aliasNames()}
		}
		version = alias.Version
	}
	m, ok := e.manifests[version]
	if !ok {
		if why, bad := e.broken[version]; bad {
			return Manifest{}, alias, fmt.Errorf("model %s/%d cannot be used: %s", ref.Name, version, why)
		}
		return Manifest{}, alias, &NotFoundError{Ref: Ref{Name: ref.Name, Version: version}, Versions: e.versions(), Aliases: e.aliasNames()}
	}
	return m, alias, nil
}

func (x *index) names() []string {
	var names []string
	for name, e := range x.models {
		if len(e.manifests) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (e *entry) versions() []int      { return slices.Sorted(maps.Keys(e.manifests)) }
func (e *entry) aliasNames() []string { return slices.Sorted(maps.Keys(e.aliases)) }

// orphans are part keys that no manifest claims: what a publisher that died half-way left behind.
func (e *entry) orphans(name string) []string {
	var keys []string
	for id := range e.parts {
		if m, ok := e.manifests[id.version]; !ok || m.Digest[:8] != id.digest8 || id.part >= m.Parts {
			keys = append(keys, fmt.Sprintf("%s/%d/%s/%d", name, id.version, id.digest8, id.part))
		}
	}
	slices.Sort(keys)
	return keys
}
