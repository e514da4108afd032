package server

import (
	"encoding/base64"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/model"
)

// recordVersion is the "v" of score and alert records; a change of what a field means bumps it, a new field does
// not: readers pass over what they do not know.
const recordVersion = '1'

// ScoreStatus says how far a score can be relied upon.
type ScoreStatus uint8

const (
	StatusOK        ScoreStatus = iota // every rule applied
	StatusPartial                      // more than half of the fields were missing and were imputed
	StatusWarming                      // the key has had fewer records than its rolling features look back
	StatusNotFinite                    // a field or the score is infinite or beyond float32: score null, always an anomaly
)

var statusNames = [...]string{StatusOK: "ok", StatusPartial: "partial", StatusWarming: "warming", StatusNotFinite: "not_finite"}

func (s ScoreStatus) String() string { return statusNames[s] }

// Value is what a field held, in raw units: a number, a category or a boolean. The zero Value prints as null.
type Value struct {
	Kind   ValueKind
	Number float32
	Text   string
}

// ValueKind is the kind of a Value.
type ValueKind uint8

const (
	NoValue      ValueKind = iota // missing, or not finite
	NumberValue                   // Number
	TextValue                     // Text
	BooleanValue                  // Number is 0 or 1
)

// Share is one field's part in a score.
type Share struct {
	Feature  string
	Value    Value
	Expected Value        // what the model would have made of the row
	Share    float64      // contribution of the field's columns / score, 0 to 1; NaN prints as null
	Usual    *model.Range // of a number, in the model's history; nil where the model does not say: not printed
}

// ScoreRecord is one record of a scores topic. FORMATS, "T.scores", is its contract.
type ScoreRecord struct {
	Model      string
	Version    int
	Topic      string
	Partition  int32
	Offset     int64
	Key        []byte // nil: the record has none
	Time       int64  // event time, ms since 1970
	TimeOK     bool   // false: the record has no usable time
	Score      float32
	Percentile float64 // percent of the history that scored at or below
	Digits     int     // decimal places of Percentile
	Anomaly    bool
	Status     ScoreStatus
	Top        []Share // printed where WithTop
	WithTop    bool

	second *writtenSecond // nil: none
}

// AppendJSON appends the record as one JSON object without a line end. It is valid JSON for every value
// of every field: what JSON cannot say (NaN, an infinity, a year past 9999) becomes null.
func (r *ScoreRecord) AppendJSON(b []byte) []byte {
	return r.appendBody(r.appendHead(b))
}

// appendHead appends what the records of one model and one partition have in common.
func (r *ScoreRecord) appendHead(b []byte) []byte {
	b = append(b, `{"v":`...)
	b = append(b, recordVersion)
	b = append(b, `,"model":`...)
	b = events.AppendString(b, r.Model)
	b = append(b, `,"version":`...)
	b = strconv.AppendInt(b, int64(r.Version), 10)
	return appendSource(b, r.Topic, r.Partition)
}

// appendBody appends the rest.
func (r *ScoreRecord) appendBody(b []byte) []byte {
	b = strconv.AppendInt(b, r.Offset, 10)
	b = appendKey(b, r.Key)
	b = append(b, `,"time":`...)
	b = r.second.appendTime(b, r.Time, r.TimeOK)
	b = append(b, `,"score":`...)
	if r.Status == StatusNotFinite {
		b = append(b, `null,"percentile":null`...)
	} else {
		b = appendFloat32(b, r.Score)
		b = append(b, `,"percentile":`...)
		b = appendFixed(b, r.Percentile, r.Digits)
	}
	b = append(b, `,"anomaly":`...)
	b = strconv.AppendBool(b, r.Anomaly)
	b = append(b, `,"status":"`...)
	b = append(b, r.Status.String()...)
	b = append(b, '"')
	if r.WithTop {
		b = append(b, `,"top":`...)
		b = appendShares(b, r.Top)
	}
	return append(b, '}')
}

// AlertState is what an alert record reports.
type AlertState string

const (
	AlertRaised   AlertState = "raised"
	AlertRepeated AlertState = "repeated"
	AlertCleared  AlertState = "cleared"
)

// Reasons of alert records.
const (
	ReasonAnomaly = "anomaly" // raised, repeated: the key's records are anomalous
	ReasonNormal  = "normal"  // cleared: clear_after normal records
	ReasonSilent  = "silent"  // cleared: no record of the key for clear_silent
	ReasonEvicted = "evicted" // cleared: more than alert_keys keys wanted state
)

// AlertRecord is one record of an alerts topic. FORMATS, "T.alerts", is its contract.
type AlertRecord struct {
	ID        string
	State     AlertState
	Reason    string
	Since     int64 // event time of the first anomalous record, ms since 1970
	SinceOK   bool
	Time      int64 // event time of the record that caused this, ms since 1970
	TimeOK    bool
	Score     float32 // of that record; not finite prints as null
	Threshold float64
	Version   int
	Top       []Share
	Topic     string
	Partition int32
	Offset    int64
}

// AppendJSON appends the record as one JSON object without a line end; always valid JSON.
func (r *AlertRecord) AppendJSON(b []byte) []byte {
	b = append(b, `{"v":`...)
	b = append(b, recordVersion)
	b = append(b, `,"id":`...)
	b = events.AppendString(b, r.ID)
	b = append(b, `,"state":"`...)
	b = append(b, r.State...)
	b = append(b, `","reason":"`...)
	b = append(b, r.Reason...)
	b = append(b, `","since":`...)
	b = appendTime(b, r.Since, r.SinceOK)
	b = append(b, `,"time":`...)
	b = appendTime(b, r.Time, r.TimeOK)
	b = append(b, `,"score":`...)
	b = appendFloat32(b, r.Score)
	b = append(b, `,"threshold":`...)
	b = appendFloat64(b, r.Threshold)
	b = append(b, `,"version":`...)
	b = strconv.AppendInt(b, int64(r.Version), 10)
	b = append(b, `,"top":`...)
	b = appendShares(b, r.Top)
	b = append(b, `,"source":{`...)
	b = appendSource(b, r.Topic, r.Partition)
	b = strconv.AppendInt(b, r.Offset, 10)
	return append(b, '}', '}')
}

// appendSource appends topic, partition and all of offset but its number, with a leading comma unless they open an object.
func appendSource(b []byte, topic string, partition int32) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, `"topic":`...)
	b = events.AppendString(b, topic)
	b = append(b, `,"partition":`...)
	b = strconv.AppendInt(b, int64(partition), 10)
	return append(b, `,"offset":`...)
}

// appendKey appends a key that is text as it is, any other as base64: no key is changed on its way through.
func appendKey(b []byte, key []byte) []byte {
	switch {
	case key == nil:
		return append(b, `,"key":null`...)
	case utf8.Valid(key):
		b = append(b, `,"key":`...)
		return events.AppendString(b, key)
	}
	b = append(b, `,"key_b64":"`...)
	b = base64.StdEncoding.AppendEncode(b, key)
	return append(b, '"')
}

func appendShares(b []byte, top []Share) []byte {
	b = append(b, '[')
	for i := range top {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"feature":`...)
		b = events.AppendString(b, top[i].Feature)
		b = append(b, `,"value":`...)
		b = appendValue(b, top[i].Value)
		b = append(b, `,"expected":`...)
		b = appendValue(b, top[i].Expected)
		if u := top[i].Usual; u != nil {
			b = append(b, `,"usual":[`...)
			b = appendFloat32(b, u[0])
			b = append(b, ',')
			b = appendFloat32(b, u[1])
			b = append(b, ']')
		}
		b = append(b, `,"share":`...)
		b = appendFloat64(b, math.Round(top[i].Share*1e4)/1e4)
		b = append(b, '}')
	}
	return append(b, ']')
}

func appendValue(b []byte, v Value) []byte {
	switch v.Kind {
	case NumberValue:
		return appendFloat32(b, v.Number)
	case TextValue:
		return events.AppendString(b, v.Text)
	case BooleanValue:
		return strconv.AppendBool(b, v.Number >= .5)
	}
	return append(b, "null"...)
}
