package stream

import "strconv"

// SizeLimits are what this client sends and takes at most, bytes, as its properties say, or by default.
type SizeLimits struct {
	Record int64 // message.max.bytes: a record to be written
	Batch  int64 // batch.size, or message.max.bytes where that is less: records that are written together
	Answer int64 // receive.message.max.bytes: what a broker may answer at once
}

// SizeLimits gives them.
func (c *Client) SizeLimits() SizeLimits {
	of := func(property string, usual int64) int64 {
		if n, err := strconv.ParseInt(c.o.Properties[property], 10, 64); err == nil {
			return n
		}
		return usual
	}
	l := SizeLimits{Record: of("message.max.bytes", largestRecord), Answer: of("receive.message.max.bytes", 100_000_000)}
	l.Batch = min(l.Record, of("batch.size", 1_000_000))
	return l
}
