package server

import "slices"

// What a slot keeps of the versions it loaded last. Moving an alias back, which is what rolling back and comparing two versions
// do, then decodes and compiles nothing: that would take milliseconds of a processor that records wait for, and leave hundreds of
// kilobytes to the collector. Larger models are loaded again: a server's memory is for those that serve.
const (
	loadedMost  = 2       // versions, the live one among them
	loadedBytes = 8 << 20 // of their files together
)

// loaded holds models by digest, which says all of a file that was read from the topic. The longest unused go first. It is for
// one goroutine. The zero value is empty.
type loaded struct{ models []*liveModel }

func (l *loaded) find(digest string) *liveModel {
	i := slices.IndexFunc(l.models, func(m *liveModel) bool { return m.manifest.Digest == digest })
	if i < 0 {
		return nil
	}
	m := l.models[i]
	l.models = append(slices.Delete(l.models, i, i+1), m)
	return m
}

func (l *loaded) add(m *liveModel) {
	l.drop(m.manifest.Digest)
	if m.bytes > loadedBytes {
		return
	}
	l.models = append(l.models, m)
	bytes := 0
	for _, m := range l.models {
		bytes += m.bytes
	}
	for len(l.models) > loadedMost || bytes > loadedBytes {
		bytes -= l.models[0].bytes
		l.models = slices.Delete(l.models, 0, 1)
	}
}

func (l *loaded) drop(digest string) {
	l.models = slices.DeleteFunc(l.models, func(m *liveModel) bool { return m.manifest.Digest == digest })
}
