package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/lapwing-stream/lapwing/stream"
)

type tailFlags struct {
	topic         string
	fromBeginning bool
	count         int64
	anomalies     bool
}

func (a *app) tailCommand() *cobra.Command {
	var o tailFlags
	cmd := &cobra.Command{
		Use: "tail scores|alerts|TOPIC", Short: "Watch scores, alerts or any topic as they come", GroupID: groupRun,
		Long: `Prints a line a record as it comes: for scores and alerts what they mean, for any other topic
its key and value. "scores" and "alerts" stand for the topics of --topic T (T.scores, T.alerts),
of the streams in lapwing.yaml, or for the only topic of that kind there is.

It runs until it is interrupted, or until --count records were shown.`,
		Example: `  lapwing tail scores --topic cars
  lapwing tail alerts --from-beginning
  lapwing tail cars -n 5 --from-beginning --json`,
		Args: args(1, 1, "one of scores, alerts or the name of a topic"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.count < 0 {
				return usage(fmt.Sprintf("--count is %d", o.count), "", "give a number of records, or 0 to go on until interrupted")
			}
			return a.tail(cmd, args[0], &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.topic, "topic", "", "input topic `T` whose scores or alerts are meant")
	f.BoolVar(&o.fromBeginning, "from-beginning", false, "begin with the oldest record, and not with the next one")
	f.Int64VarP(&o.count, "count", "n", 0, "end after so many `RECORDS`; 0: never")
	f.BoolVar(&o.anomalies, "anomalies", false, "of scores, only the anomalies")
	a.jsonFlag(f, "print a JSON object a line: topic, partition, offset, key, time, value")
	return cmd
}

func (a *app) tail(cmd *cobra.Command, what string, o *tailFlags) error {
	ctx := cmd.Context()
	e, err := a.configure(cmd)
	if err != nil {
		return err
	}
	client, err := a.connect(ctx, e)
	if err != nil {
		return err
	}
	defer client.Close()
	topics, err := tailTopics(ctx, client, e, what, o.topic)
	if err != nil {
		return err
	}
	start := "latest"
	if o.fromBeginning {
		start = "earliest"
	}
	t, err := client.Tail(ctx, topics, stream.TailOptions{Start: start, Committed: true})
	if err != nil {
		return err
	}
	defer t.Close()
	a.logs.release()
	if !a.json && a.term.isTerminal() {
		a.printf("%s\n", a.term.paint(faint, fmt.Sprintf("watching %s; Ctrl-C ends", clean(strings.Join(topics, ", ")))))
	}
	var shown int64
	var out bytes.Buffer
	for o.count == 0 || shown < o.count {
		b, err := t.Next(ctx)
		var again *stream.RecreatedError
		switch {
		case errors.As(err, &again):
			a.log.Warn(again.Error(), "topic", again.Topic)
			continue
		case ctx.Err() != nil:
			return nil // Ctrl-C is how a watch ends
		case err != nil:
			return err
		}
		out.Reset()
		for i := range b.Records {
			r := &b.Records[i]
			if o.anomalies && !isAnomaly(r.Value) {
				continue
			}
			if a.json {
				tailJSON(&out, r)
			} else {
				out.WriteString(a.tailLine(r))
				out.WriteByte('\n')
			}
			if shown++; shown == o.count {
				break
			}
		}
		b.Release()
		if out.Len() > 0 {
			if _, err := a.term.Write(out.Bytes()); err != nil {
				return nil // whoever read along has gone: lapwing tail … | head
			}
		}
	}
	return nil
}

// tailTopics finds what "scores" and "alerts" mean.
func tailTopics(ctx context.Context, client *stream.Client, e *effective, what, topic string) ([]string, error) {
	kind := what
	if kind != "scores" && kind != "alerts" {
		if topic != "" {
			return nil, usage("--topic goes with scores or alerts, and not with a topic of its own", what, "lapwing tail scores --topic "+topic)
		}
		_, err := client.Partitions(ctx, what)
		if n := nearest(what, []string{"scores", "alerts"}); isNoTopic(err) && n != "" && distance(what, n) == 1 {
			return nil, &fault{what: "topic " + what + " does not exist", where: client.Brokers(), next: "did you mean " + n + "?", cause: err}
		}
		if err != nil {
			return nil, err
		}
		return []string{what}, nil
	}
	var found []string
	for _, s := range e.Streams {
		s = s.withNames()
		name := s.Output
		if kind == "alerts" {
			name = s.Alerts.Topic
		}
		for _, in := range s.Input.Topics {
			if name != noAlerts && (topic == "" || topic == in) {
				found = append(found, name)
				break
			}
		}
	}
	if topic != "" && len(found) == 0 {
		found = []string{topic + "." + kind}
	}
	if len(found) > 0 {
		for _, t := range found {
			_, err := client.Partitions(ctx, t)
			if isNoTopic(err) {
				return nil, notServed(ctx, client, t, topic, err)
			}
			if err != nil {
				return nil, err
			}
		}
		return found, nil
	}
	all, err := client.Topics(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range all {
		if strings.HasSuffix(t.Name, "."+kind) {
			found = append(found, t.Name)
		}
	}
	switch len(found) {
	case 1:
		return found, nil
	case 0:
		return nil, &fault{what: "there is no topic of " + kind + " yet", where: client.Brokers(), next: "lapwing serve makes one; or name a topic: lapwing tail TOPIC"}
	}
	return nil, usage(fmt.Sprintf("there are %d topics of %s", len(found), kind), strings.Join(found, ", "),
		"say which: lapwing tail "+kind+" --topic "+strings.TrimSuffix(found[0], "."+kind))
}

// notServed words that a topic of scores or alerts is not there, where the input topic is; else that that one is not.
func notServed(ctx context.Context, client *stream.Client, name, input string, cause error) error {
	next := "lapwing serve makes it"
	if input != "" {
		if _, err := client.Partitions(ctx, input); err != nil {
			return err
		}
		next = "lapwing serve --topic " + shellWord(input) + " --model NAME makes it"
	}
	return &fault{what: "topic " + name + " does not exist yet", where: client.Brokers(), next: next, cause: cause}
}

// scoreLine and alertLine are the records of FORMATS as far as a reader of lines wants them.
type scoreLine struct {
	V          int      `json:"v"`
	Model      string   `json:"model"`
	Version    int      `json:"version"`
	Key        *string  `json:"key"`
	KeyB64     string   `json:"key_b64"`
	Time       *string  `json:"time"`
	Score      *float64 `json:"score"`
	Percentile *float64 `json:"percentile"`
	Anomaly    *bool    `json:"anomaly"`
	Status     string   `json:"status"`
	Top        []topOne `json:"top"`
}

type alertLine struct {
	ID        string   `json:"id"`
	State     string   `json:"state"`
	Reason    string   `json:"reason"`
	Since     *string  `json:"since"`
	Time      *string  `json:"time"`
	Score     *float64 `json:"score"`
	Threshold float64  `json:"threshold"`
	Version   int      `json:"version"`
	Top       []topOne `json:"top"`
}

type topOne struct {
	Feature  string    `json:"feature"`
	Value    any       `json:"value"`
	Expected any       `json:"expected"`
	Share    *float64  `json:"share"`
	Usual    []float64 `json:"usual"`
}

func isAnomaly(value []byte) bool {
	var s scoreLine
	return json.Unmarshal(value, &s) == nil && s.Anomaly != nil && *s.Anomaly
}

// tailLine words one record: a score or an alert by what it holds, whatever its topic is called.
func (a *app) tailLine(r *stream.Record) string {
	if looks(r.Value, `"state":`, `"source":`) {
		var al alertLine
		if json.Unmarshal(r.Value, &al) == nil && al.State != "" && al.ID != "" {
			return a.alertText(&al, r)
		}
	}
	if looks(r.Value, `"anomaly":`, `"status":`) {
		var s scoreLine
		if json.Unmarshal(r.Value, &s) == nil && s.Anomaly != nil && s.Model != "" {
			return a.scoreText(&s, r)
		}
	}
	at := a.term.paint(faint, fmt.Sprintf("%d:%d", r.Partition, r.Offset))
	key := "-"
	if r.Key != nil {
		key = a.term.paint(cyan, clean(text(r.Key)))
	}
	value := a.term.paint(faint, "null")
	if r.Value != nil {
		value = clean(text(r.Value))
	}
	headers := ""
	for _, h := range r.Headers {
		headers += " " + a.term.paint(faint, clean(h.Key+"="+text(h.Value)))
	}
	return at + " " + key + " " + value + headers
}

func looks(value []byte, parts ...string) bool {
	for _, p := range parts {
		if !bytes.Contains(value, []byte(p)) {
			return false
		}
	}
	return true
}

// text is bytes as text, or their base64 where they are none.
func text(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return "base64:" + base64.StdEncoding.EncodeToString(b)
}

func (a *app) scoreText(s *scoreLine, r *stream.Record) string {
	score := "     null"
	if s.Score != nil {
		score = padLeft(fourDigits(*s.Score), 9)
	}
	percentile := ""
	if s.Percentile != nil {
		percentile = strconv.FormatFloat(*s.Percentile, 'f', -1, 64) + "%"
	}
	line := fmt.Sprintf("%s  %s  %s %s", a.term.paint(faint, clock(s.Time)), pad(clean(keyText(s.Key, s.KeyB64)), 12), score, padLeft(percentile, 8))
	if *s.Anomaly {
		line += "  " + a.term.paint(red, "anomaly")
	} else {
		line += "         "
	}
	if s.Status != "ok" {
		line += "  " + a.term.paint(yellow, clean(s.Status))
	}
	line += "  " + a.term.paint(faint, fmt.Sprintf("%s/%d", clean(s.Model), s.Version))
	return line + topText(a.term, s.Top)
}

func (a *app) alertText(al *alertLine, r *stream.Record) string {
	c := map[string]colour{"raised": red, "repeated": yellow, "cleared": green}[al.State]
	key := clean(text(r.Key))
	if parts := strings.SplitN(key, "|", 3); len(parts) == 3 {
		key = parts[2]
	}
	line := fmt.Sprintf("%s  %s  %s", a.term.paint(faint, clock(al.Time)), a.term.paint(c, pad(clean(al.State), 8)), a.term.paint(bold, pad(key, 12)))
	if al.State == "cleared" {
		return line + "  " + a.term.paint(faint, clean(al.Reason)+", since "+clock(al.Since))
	}
	if al.Score != nil {
		line += fmt.Sprintf("  score %s over %s", fourDigits(*al.Score), fourDigits(al.Threshold))
	}
	return line + topText(a.term, al.Top)
}

// topText names the features that contributed most: coolant_temp 118.2, expected 91.4, usual 81 to 99 (61 %).
func topText(t *terminal, top []topOne) string {
	var parts []string
	for i, f := range top {
		s := clean(f.Feature) + " " + clean(valueText(f.Value))
		if i == 0 {
			s = t.paint(bold, s)
			if f.Expected != nil {
				s += ", expected " + clean(valueText(f.Expected))
			}
			if len(f.Usual) == 2 {
				s += ", usual " + fourDigits(f.Usual[0]) + " to " + fourDigits(f.Usual[1])
			}
		}
		if f.Share != nil && *f.Share > 0 {
			s += fmt.Sprintf(" (%.0f%%)", 100**f.Share)
		}
		parts = append(parts, s)
	}
	if len(parts) == 0 {
		return ""
	}
	return "  " + strings.Join(parts, "; ")
}

func valueText(v any) string {
	switch x := v.(type) {
	case nil:
		return "none"
	case float64:
		return fourDigits(x)
	case string:
		return strconv.Quote(x)
	}
	return fmt.Sprint(v)
}

// fourDigits is a number with four digits that count.
func fourDigits(x float64) string {
	if x == math.Trunc(x) && math.Abs(x) < 1e6 {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return strconv.FormatFloat(x, 'g', 4, 64)
}

func keyText(key *string, b64 string) string {
	switch {
	case key != nil:
		return *key
	case b64 != "":
		return "base64:" + b64
	}
	return "-"
}

// clock is an event time's day and time.
func clock(t *string) string {
	if t == nil {
		return "-                  "
	}
	at, err := time.Parse(time.RFC3339Nano, *t)
	if err != nil {
		return clean(*t)
	}
	return at.UTC().Format("2006-01-02 15:04:05")
}

// tailJSON writes a record as one JSON object; a value that is JSON stands as it is.
func tailJSON(out *bytes.Buffer, r *stream.Record) {
	object := struct {
		Topic     string            `json:"topic"`
		Partition int32             `json:"partition"`
		Offset    int64             `json:"offset"`
		Time      *time.Time        `json:"time"`
		Key       *string           `json:"key"`
		KeyB64    string            `json:"key_b64,omitempty"`
		Headers   map[string]string `json:"headers,omitempty"`
		Value     json.RawMessage   `json:"value"`
		ValueB64  string            `json:"value_b64,omitempty"`
	}{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}
	if r.Time >= 0 {
		at := time.UnixMilli(r.Time).UTC()
		object.Time = &at
	}
	if r.Key != nil && utf8.Valid(r.Key) {
		s := string(r.Key)
		object.Key = &s
	} else if r.Key != nil {
		object.KeyB64 = base64.StdEncoding.EncodeToString(r.Key)
	}
	for _, h := range r.Headers {
		if object.Headers == nil {
			object.Headers = map[string]string{}
		}
		object.Headers[h.Key] = text(h.Value)
	}
	switch {
	case r.Value == nil:
	case json.Valid(r.Value):
		object.Value = r.Value
	case utf8.Valid(r.Value):
		object.Value, _ = json.Marshal(string(r.Value))
	default:
		object.ValueB64 = base64.StdEncoding.EncodeToString(r.Value)
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(object); err != nil {
		fmt.Fprintf(out, "{\"topic\":%q,\"partition\":%d,\"offset\":%d,\"error\":%q}\n", r.Topic, r.Partition, r.Offset, err)
	}
}
