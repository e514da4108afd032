package events

import "encoding/binary"

// A layout is what one decoder has learned of how an object is written. Producers write record after record the same
// way, so what stands between two values (comma, blanks, quoted key, colon, blanks) is expected to be what stood there
// last time, and is compared in one go; only where it is something else is it scanned and looked up. Since it was
// checked when it was learned, bytes that are equal to it need no other check.
type layout struct {
	slots   []slot           // the first two are fixed: before the first key, and a key that was not learned
	known   map[string]int32 // by lead
	strange int              // slots of keys that nobody wants
}

// A slot is one key with what stands around it, and what to do with its value.
type slot struct {
	lead string // from the bracket or comma before the key to the value: `,"speed":`
	len  int
	// The last leadWindow bytes of lead; a shorter lead leaves its mask's first bytes zero. That the window ends where
	// the value begins keeps the load within the record, whatever follows.
	word, mask [leadWindow / 8]uint64
	whole      bool // lead fits into the window

	kind  slotKind
	field int32 // of slotNumber
	col   int32
	child int32 // index in node.children; -1 = nobody wants the value
	next  int32 // the slot expected after this one
}

type slotKind uint8

const (
	slotSkip   slotKind = iota // checked and passed over
	slotNumber                 // a number for one field and nothing else: the common case
	slotValue                  // anything else that the spec wants
)

const (
	slotStart   = 0 // its next is the first key; it stands nowhere, so as an expectation it means none
	slotUnknown = 1 // a key that could not be learned

	leadWindow  = 32
	maxLead     = 256     // bytes; a longer one is not learned
	maxStrange  = 64      // keys that nobody wants: names made up anew in each record must not fill the memory
	leadsOfEach = 4       // ways of writing that are kept of a wanted key
	nowhere     = 1 << 40 // len of what never stands in a record
)

func newLayout() layout {
	return layout{slots: []slot{{len: nowhere}, {len: nowhere}}, known: map[string]int32{}}
}

// clone copies what was learned: a decoder learns for itself.
func (l *layout) clone() layout {
	c := layout{slots: append([]slot(nil), l.slots...), known: make(map[string]int32, len(l.known)), strange: l.strange}
	for k, v := range l.known {
		c.known[k] = v
	}
	return c
}

// stands tells whether s is what stands at b[i:j], where j = i + s.len is within b. A lead ends before the value, so b[j]
// must not be blank: else it is one with more blanks.
func (s *slot) stands(b []byte, i, j int) bool {
	if !s.whole || j < leadWindow {
		return string(b[i:j]) == s.lead
	}
	w := (*[leadWindow]byte)(b[j-leadWindow : j])
	return (binary.LittleEndian.Uint64(w[0:])^s.word[0])&s.mask[0]|
		(binary.LittleEndian.Uint64(w[8:])^s.word[1])&s.mask[1]|
		(binary.LittleEndian.Uint64(w[16:])^s.word[2])&s.mask[2]|
		(binary.LittleEndian.Uint64(w[24:])^s.word[3])&s.mask[3] == 0
}

// learn gives the slot of a lead, a new one where there is room; child is the one that its key names, or -1.
func (l *layout) learn(n *node, lead []byte, child int32) int32 {
	if at, ok := l.known[string(lead)]; ok {
		return at
	}
	s := slot{len: nowhere, child: child, kind: slotSkip}
	if child >= 0 {
		c := &n.children[child]
		s.kind = slotValue
		if c.number {
			s.kind, s.field, s.col = slotNumber, c.field, c.col
		}
	}
	full := len(l.slots)-l.strange >= leadsOfEach*len(n.children)+2
	if child < 0 {
		full = l.strange >= maxStrange
	}
	if full || len(lead) > maxLead {
		s.next = l.slots[slotUnknown].next
		l.slots[slotUnknown] = s
		return slotUnknown
	}
	s.lead, s.len = string(lead), len(lead)
	if s.whole = s.len <= leadWindow; s.whole {
		var word, mask [leadWindow]byte
		copy(word[leadWindow-s.len:], lead)
		for i := leadWindow - s.len; i < leadWindow; i++ {
			mask[i] = 0xff
		}
		for k := range s.word {
			s.word[k] = binary.LittleEndian.Uint64(word[8*k:])
			s.mask[k] = binary.LittleEndian.Uint64(mask[8*k:])
		}
	}
	at := int32(len(l.slots))
	l.slots = append(l.slots, s)
	l.known[s.lead] = at
	if child < 0 {
		l.strange++
	}
	return at
}
