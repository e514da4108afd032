package events

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// Fingerprint says what a record looks like that is not JSON or CSV: "looks like Confluent Avro, schema id 17; not
// supported yet". It gives the empty string where the record may well be JSON or CSV.
func Fingerprint(value []byte) string {
	_, what := fingerprint(value)
	return what
}

// fingerprint also gives the reason code. It looks only at the first bytes, since it runs on every rejected record.
func fingerprint(b []byte) (reason, what string) {
	switch {
	case len(b) >= 5 && b[0] == 0:
		id := binary.BigEndian.Uint32(b[1:5])
		if id > 0 && id < 1<<24 {
			// Registries number schemas from 1 upwards, so real ids are small. The header says nothing about the payload's
			// kind, but JSON Schema leaves an object behind it, which can be told.
			if len(b) > 5 && b[5] == '{' {
				return ReasonAvro, fmt.Sprintf("looks like Confluent JSON Schema framing, schema id %d; not supported yet: produce plain JSON", id)
			}
			return ReasonAvro, fmt.Sprintf("looks like Confluent Avro, schema id %d; not supported yet", id)
		}
		return ReasonBinary, "looks like binary data (it begins with a NUL byte); not supported"
	case bytes.HasPrefix(b, []byte("Obj\x01")):
		return ReasonAvroFile, "looks like an Avro object container file; not supported yet"
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
		return ReasonGzip, "looks like gzip inside the record; use Kafka's own compression (compression.type) and send plain JSON"
	case bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return ReasonZstd, "looks like zstd inside the record; use Kafka's own compression (compression.type) and send plain JSON"
	case bytes.HasPrefix(b, []byte{0xff, 0xfe}) || bytes.HasPrefix(b, []byte{0xfe, 0xff}) ||
		len(b) >= 4 && b[0] != 0 && b[1] == 0 && b[2] != 0 && b[3] == 0:
		return ReasonUTF16, "looks like UTF-16; convert to UTF-8"
	case bytes.HasPrefix(b, []byte("PAR1")):
		return ReasonBinary, "looks like a Parquet file; not supported"
	}
	head := bytes.TrimLeft(b[:min(len(b), 64)], " \t\r\n")
	if len(head) > 1 && head[0] == '<' && (head[1] == '?' || head[1] == '!' || head[1]|0x20 >= 'a' && head[1]|0x20 <= 'z') {
		return ReasonXML, "looks like XML; not supported"
	}
	if protobufLike(b) {
		return ReasonBinary, "looks like Protobuf or another binary form; not supported yet"
	}
	return "", ""
}

// protobufLike: an eighth of the first bytes, and at least two, are control bytes or no UTF-8, in something that does
// not begin like JSON.
func protobufLike(b []byte) bool {
	head := b[:min(len(b), 64)]
	if len(head) == 0 || head[0] == '{' || head[0] == '[' || head[0] == '"' {
		return false
	}
	bad := 0
	for i := 0; i < len(head); {
		r, n := utf8.DecodeRune(head[i:])
		if r == utf8.RuneError && n == 1 && len(head)-i >= utf8.UTFMax || r < 0x20 && r != '\t' && r != '\n' && r != '\r' {
			bad++
		}
		i += n
	}
	return bad >= 2 && 8*bad >= len(head)
}

// rejection explains why the record cannot be read: first by what it looks like, then by position.
func (d *Decoder) rejection(value []byte) Result {
	r := Result{Outcome: Rejected, Reason: ReasonNotJSON}
	if d.fail == ReasonEmpty {
		r.Reason, r.Detail = ReasonEmpty, "the value has no content (a delete would be null, not empty)"
		return r
	}
	if d.csv != nil {
		r.Reason, r.Detail = d.fail, d.csv.detail
		// A NUL inside a row is a fault of the row; one in front is a binary header.
		if code, what := fingerprint(value); code != "" && (d.fail != ReasonNUL || value[0] == 0) {
			r.Reason, r.Detail = code, what
		}
		return r
	}
	if code, what := fingerprint(value); code != "" {
		r.Reason, r.Detail = code, what
		return r
	}
	switch d.fail {
	case failObject:
		r.Reason = ReasonNotObject
		r.Detail = fmt.Sprintf("the record is %s, not a JSON object", kindName(value[d.failAt]))
	case failDeep:
		r.Reason = ReasonTooDeep
		r.Detail = fmt.Sprintf("byte %d: nested deeper than %d levels", d.failAt+1, MaxDepth)
	case failEnd:
		r.Detail = fmt.Sprintf("byte %d: %s", d.failAt+1, failEnd)
	default:
		r.Detail = fmt.Sprintf("byte %d: %s; found %s", d.failAt+1, d.fail, excerpt(value, d.failAt))
		if rest := value[min(d.failAt, len(value)):]; bytes.HasPrefix(rest, []byte("NaN")) || bytes.HasPrefix(rest, []byte("Infinity")) {
			r.Detail = fmt.Sprintf("byte %d: JSON has no NaN and no Infinity; write null for a missing value", d.failAt+1)
		}
	}
	return r
}

func kindName(c byte) string {
	switch c {
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "true or false"
	case 'n':
		return "the word null"
	}
	return "a number"
}

// excerpt shows what stands at b[i:], briefly and in quotes.
func excerpt(b []byte, i int) string {
	if i >= len(b) {
		return "the end"
	}
	s := b[i:]
	if len(s) > 12 {
		s = s[:12]
	}
	return fmt.Sprintf("%q", s)
}
