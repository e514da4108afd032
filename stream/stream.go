// Package stream is Kafka as Lapwing needs it: a bounded read of history, a live consumer group, producers
// with and without transactions, topic set-up, and an embedded broker. It knows bytes and offsets, never payloads.
//
// Everything that moves records moves batches (DESIGN decision 11): a Batch belongs to its receiver until Release.
package stream

// Record is one Kafka record. Key and Value are nil where Kafka has null.
type Record struct {
	Topic     string
	Partition int32 // when producing, -1 lets the client choose by key (murmur2, as Java's producer does)
	Offset    int64
	Key       []byte
	Value     []byte
	Time      int64 // Kafka timestamp, milliseconds since 1970; -1 = none
	Headers   []Header
}

// Header is one record header.
type Header struct {
	Key   string
	Value []byte
}

// TopicPartition names one partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// Event is what Reader.Next hands out: *Batch, *Assigned, *Revoked or *Lost.
type Event interface{ event() }

// Batch is records in offset order for each partition. It belongs to the caller until Release.
type Batch struct {
	Records []Record
	AtEnd   bool     // Tail only: every partition has been read to its end as of now
	arenas  []*arena // where the records' bytes are
	release func()   // returns buffers and the in-flight slot
}

// Assigned: these partitions are ours from now on. Nothing is fetched from them before the following Next;
// until then the caller may call Group.SeekTo.
type Assigned struct{ Partitions []Position }

// Position is where an assigned partition will be read from.
type Position struct {
	TopicPartition
	Offset    int64 // first offset to be read
	Committed int64 // the group's committed offset; -1 = none
	Low, High int64 // log start offset and high watermark at assignment
	Lost      int64 // offsets between Committed and Low that retention deleted
	Recreated bool  // Committed was above High: the topic was likely recreated; Offset is Low
}

// Revoked: the caller drains, commits and drops state for these, then calls Next, which acknowledges.
type Revoked struct{ Partitions []TopicPartition }

// Lost: these are another member's already; their offsets must not be committed.
type Lost struct {
	Partitions []TopicPartition
	Rewound    int // the number that Group.Rewind gave, where that is the reason: they come back; 0 otherwise
}

func (*Batch) event()    {}
func (*Assigned) event() {}
func (*Revoked) event()  {}
func (*Lost) event()     {}

// Release gives the batch back; its records, and their bytes, must not be used afterwards.
func (b *Batch) Release() {
	if b.release != nil {
		r := b.release
		b.release = nil
		r()
	}
}
