package registry

import "slices"

// What a follower keeps of the versions it loaded last, so that moving an alias back, which is what rolling back and comparing two
// versions do, costs no second read of the topic. Larger models are read again: a server's memory is for those that serve.
const (
	keptBytes = 8 << 20
	keptEach  = 2 // versions for each followed reference
)

// kept holds models whose digest was checked. The longest unused go first. The zero value keeps nothing.
type kept struct {
	most   int // versions
	models []keptModel
	bytes  int
}

// keptModel is known by the offsets of its parts too: parts written anew are read anew, and found out if they are damaged.
type keptModel struct {
	digest string
	at     []location
	data   []byte
}

func (k *kept) find(m Manifest, at []location) ([]byte, bool) {
	for i, it := range k.models {
		if it.digest == m.Digest && slices.Equal(it.at, at) {
			k.models = append(slices.Delete(k.models, i, i+1), it)
			return it.data, true
		}
	}
	return nil, false
}

func (k *kept) add(m Manifest, at []location, data []byte) {
	if _, ok := k.find(m, at); ok || len(data) > keptBytes {
		return
	}
	k.models = append(k.models, keptModel{m.Digest, at, data})
	k.bytes += len(data)
	for len(k.models) > k.most || k.bytes > keptBytes {
		k.bytes -= len(k.models[0].data)
		k.models = slices.Delete(k.models, 0, 1)
	}
}

func (k *kept) forget() { k.models, k.bytes = nil, 0 }
