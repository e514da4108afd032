package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/server"
	"github.com/lapwing-stream/lapwing/stream"
	"github.com/lapwing-stream/lapwing/trainer"
)

type scoreFlags struct {
	file          events.FileOptions
	delimiter     string
	model, to     string
	contributions string
	topic         string
	trainer.Selection
}

func (a *app) scoreCommand() *cobra.Command {
	var o scoreFlags
	cmd := &cobra.Command{
		Use: "score [FILE...]", Short: "Score files or part of a topic once, by the code that scores a stream", GroupID: groupRun,
		Long: `Scores every row of the files, or every record of part of a topic, with one model and ends. They go
through the same code as a stream's records: the same record gets the same score. What cannot be
scored is counted with its line or offset and never stops the others; the exit code is 1 then.

With --topic the end is fixed at the start, records come partition by partition in the order of
their offsets, and no offset is committed anywhere. --from, --until, --last and --partitions choose
by the records' Kafka timestamps; without them all of the topic is scored.

Scores go to standard output, or to what --to names: a file (a path with a slash, or a name ending
in .jsonl or .json), or else a topic, which is created if it is absent. There the scores of
a topic's records keep partition, key and timestamp.`,
		Example: `  lapwing score today.csv --model cars --to scores.jsonl
  lapwing score today.csv --model cars/3 | head
  lapwing score --topic cars --from 2026-11-01 --until 2026-11-08 --model cars/3 --to november.jsonl
  lapwing score --topic cars --model cars --last 1h --where 'event.speed > 0' --to cars.jsonl
  zcat big.jsonl.gz | lapwing score - --format jsonl --model cars@canary --to cars.rescored`,
		Args: args(0, -1, ""),
		RunE: func(cmd *cobra.Command, files []string) error {
			if err := checkScoreInput(cmd, files, &o); err != nil {
				return err
			}
			return a.score(cmd, files, &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.model, "model", "", "`NAME[@ALIAS|/VERSION]` of the model, required; without either, its alias live")
	f.StringVar(&o.topic, "topic", "", "score the records of `TOPIC` in place of files")
	f.StringVar(&o.to, "to", "", "scores go to `FILE|TOPIC|-`; -, or nothing: standard output")
	f.StringVar(&o.contributions, "contributions", "anomalies", "which scores carry the features that contributed most, `anomalies|all`")
	addSelectionFlags(f, &o.Selection)
	addFileFlags(f, &o.file, &o.delimiter)
	a.scoreSettings(cmd)
	a.jsonFlag(f, "end with one JSON object in place of the summary")
	return cmd
}

// scoreSink takes score records.
type scoreSink interface {
	put(ctx context.Context, s *server.Scored) error
	finish(ctx context.Context) error // delivers what was put
	abandon()                         // after an error
}

func (a *app) score(cmd *cobra.Command, files []string, o *scoreFlags) error {
	ctx := cmd.Context()
	if list := checkFileFlags(&o.file, o.delimiter); len(list) > 0 {
		return &faults{what: fmt.Sprintf("%d flags of %s are wrong", len(list), cmd.CommandPath()), list: list, code: exitUsage}
	}
	if o.contributions != server.ContributionsAll && o.contributions != server.ContributionsAnomalies {
		return usage(fmt.Sprintf("--contributions is %q", o.contributions), "", "anomalies or all")
	}
	if o.to == "" {
		o.to = "-"
	}
	if err := notIntoItself(o); err != nil {
		return err
	}
	if err := o.Selection.Validate(); err != nil {
		return mistyped(err)
	}
	where, err := o.where()
	if err != nil {
		return err
	}
	ref, err := parseRef(o.model)
	if err != nil {
		return err
	}
	e, err := a.configure(cmd)
	if err != nil {
		return err
	}
	engine, release, err := a.engine(e.Score.Engine, e.GPU)
	if err != nil {
		return err
	}
	defer release()
	client, err := a.connect(ctx, e)
	if err != nil {
		return err
	}
	defer client.Close()
	manifest, data, err := a.registry(client, e).Get(ctx, ref)
	if err != nil {
		return noModelTopic(err, e)
	}
	if err := notItsHistory(o.to, manifest, data); err != nil {
		return err
	}
	sink, err := a.openSink(ctx, client, o.to, o.topic)
	if err != nil {
		return err
	}
	r := &scoreResult{Model: manifest.String(), To: o.to, Examples: map[string][]rejects{}}
	r.Rejected = map[string]int64{}
	begin := time.Now()
	b := server.BoundedOptions{
		Data: data, Ref: registry.Ref{Name: manifest.Name, Version: manifest.Version}, Engine: engine, Where: where,
		Key: o.file.Key, Contributions: o.contributions, MaxBatch: e.Score.MaxBatch, RollingKeys: e.Score.RollingKeys,
	}
	if o.topic != "" {
		err = a.scoreTopic(ctx, client, e, o, b, sink, r)
	}
	for _, name := range files {
		b.Source = filepath.Base(name)
		if err = a.scoreFile(ctx, name, o, b, sink, r); err != nil {
			break
		}
	}
	if err != nil {
		sink.abandon()
		if ctx.Err() != nil {
			return &fault{what: "interrupted", where: fmt.Sprintf("%s rows were scored, not all of them are in %s", count(r.Scored), o.to), cause: ctx.Err(), code: exitInterrupted}
		}
		return err
	}
	if err := sink.finish(ctx); err != nil {
		return err
	}
	r.Seconds = time.Since(begin).Seconds()
	// Standard output is the scores' where they go there; the summary must not stand among them.
	out := io.Writer(a.term)
	if o.to == "-" {
		out = a.stderr
	}
	if a.json {
		if err := json.NewEncoder(out).Encode(r); err != nil {
			return err
		}
	} else {
		r.write(out, a.term)
	}
	if r.Scored == 0 {
		return r.nothing(files, o)
	}
	if o.topic != "" {
		return errors.Join(someRejected(r.Rejected, r.Records, r.first, "serve sends such records to the dead-letter topic; the others were scored"), someLost(r.Lost, o.topic))
	}
	return someRejected(r.Rejected, r.Records, r.first, "correct those lines and score only them; the others were scored")
}

// notItsHistory refuses scores among the records that the model was trained on: the next training would learn from them.
func notItsHistory(to string, manifest registry.Manifest, data []byte) error {
	if !isTopic(to) {
		return nil
	}
	m, err := model.Decode(data)
	if err != nil {
		return fmt.Errorf("model %s cannot be read: %w", manifest, err)
	}
	if m.Lineage.Topic != to {
		return nil
	}
	return &fault{what: fmt.Sprintf("topic %s holds the history that model %s was trained on: scores do not belong among its records", to, manifest),
		where: "--to " + to, next: "name another topic, such as --to " + to + ".scores"}
}

// noModelTopic says in the words of models that the model topic is not there.
func noModelTopic(err error, e *effective) error {
	if isNoTopic(err) {
		return &fault{what: "there are no models: topic " + e.ModelsTopic + " does not exist", where: e.Kafka["bootstrap.servers"],
			next: "train one: lapwing train --topic TOPIC --model NAME", cause: err}
	}
	return err
}

func (a *app) scoreFile(ctx context.Context, name string, o *scoreFlags, b server.BoundedOptions, sink scoreSink, r *scoreResult) error {
	f, err := openFile(name, o.file)
	if err != nil {
		return err
	}
	defer f.Close()
	report, err := server.ScoreBounded(ctx, b, f.Next, func(s *server.Scored) error {
		return r.take(ctx, sink, s, fmt.Sprintf("%s:%d", name, s.Line))
	})
	r.Merge(report)
	for _, w := range f.Warnings() {
		if len(r.Warnings) < 20 && !slices.Contains(r.Warnings, w) {
			r.Warnings = append(r.Warnings, w)
		}
	}
	return err
}

// take puts a score into the sink, or notes why there is none.
func (r *scoreResult) take(ctx context.Context, sink scoreSink, s *server.Scored, at string) error {
	if s.Reason == "" {
		return sink.put(ctx, s)
	}
	one := rejects{At: at, Detail: s.Detail}
	if r.first == nil && s.Reason != events.Tombstone.String() {
		r.first = &one
	}
	if ex := r.Examples[s.Reason]; len(ex) < loadExamples {
		r.Examples[s.Reason] = append(ex, one)
	}
	return nil
}

// isTopic: --to is neither standard output nor the name of a file.
func isTopic(to string) bool {
	ext := filepath.Ext(to)
	return to != "-" && !strings.ContainsRune(to, os.PathSeparator) && ext != ".jsonl" && ext != ".json" && ext != ".ndjson"
}

// openSink makes what --to names. With the topic that is scored, a topic of scores has as many partitions.
func (a *app) openSink(ctx context.Context, client *stream.Client, to, topic string) (scoreSink, error) {
	switch {
	case to == "-":
		return &fileSink{w: bufio.NewWriterSize(a.term, 1<<16)}, nil
	case !isTopic(to):
		// The name appears only with everything in it.
		f, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".*")
		if err != nil {
			return nil, fileFault(to, err)
		}
		return &fileSink{w: bufio.NewWriterSize(f, 1<<16), f: f, name: to}, nil
	}
	like := 6
	if topic != "" {
		n, err := client.Partitions(ctx, topic)
		if err != nil {
			return nil, err
		}
		like = n
	}
	if _, err := client.CreateTopic(ctx, stream.TopicSpec{Name: to, Partitions: like}); err != nil {
		return nil, err
	}
	n, err := client.Partitions(ctx, to)
	if err != nil {
		return nil, err
	}
	if topic != "" {
		if err := enoughPartitions(topic, to, like, n); err != nil {
			return nil, err
		}
	}
	p, err := client.Producer(ctx, stream.ProducerOptions{Linger: 5 * time.Millisecond, Compression: "lz4"})
	if err != nil {
		return nil, err
	}
	return &topicSink{p: p, topic: to, partitions: n, same: topic != ""}, nil
}

// fileSink writes a JSON line a score.
type fileSink struct {
	w    *bufio.Writer
	f    *os.File // nil: standard output
	name string
}

func (s *fileSink) put(_ context.Context, r *server.Scored) error {
	if _, err := s.w.Write(r.JSON); err != nil {
		return err
	}
	return s.w.WriteByte('\n')
}

func (s *fileSink) finish(context.Context) error {
	if err := s.w.Flush(); err != nil {
		s.abandon()
		return err
	}
	if s.f == nil {
		return nil
	}
	err := s.f.Chmod(0o644)
	if cerr := s.f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(s.f.Name(), s.name)
	}
	if err != nil {
		os.Remove(s.f.Name())
	}
	return err
}

func (s *fileSink) abandon() {
	if s.f == nil {
		s.w.Flush()
		return
	}
	s.f.Close()
	os.Remove(s.f.Name())
}

// topicSink produces a record a score. Scores of a topic's records go where those stand; rows of files without a key go to the
// partitions in turn, as load does.
type topicSink struct {
	p          *stream.Producer
	topic      string
	partitions int
	batch      []stream.Record
	rows       int64
	same       bool // partitions are those of the records
}

func (s *topicSink) put(ctx context.Context, r *server.Scored) error {
	rec := stream.Record{Topic: s.topic, Partition: -1, Key: r.Key, Value: slices.Clone(r.JSON), Time: r.Time}
	if s.same {
		rec.Partition = r.Source.Partition
		rec.Key = slices.Clone(r.Key) // of a batch that is released before it is sent
	} else if r.Key == nil {
		rec.Partition = int32(s.rows % int64(s.partitions))
	}
	s.rows++
	if s.batch = append(s.batch, rec); len(s.batch) < loadBatch {
		return nil
	}
	return s.send(ctx)
}

func (s *topicSink) send(ctx context.Context) error {
	err := s.p.Produce(ctx, s.batch)
	s.batch = nil // the producer may still hold it
	return err
}

func (s *topicSink) finish(ctx context.Context) error {
	err := s.send(ctx)
	if err == nil {
		err = s.p.Flush(ctx)
	}
	if cerr := s.p.Close(ctx); err == nil {
		err = cerr
	}
	return err
}

func (s *topicSink) abandon() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s.p.Close(ctx)
}

// scoreResult is what became of the rows.
type scoreResult struct {
	Model string `json:"model"`
	To    string `json:"to"`
	server.BoundedReport
	Examples map[string][]rejects `json:"examples,omitempty"`
	Warnings []string             `json:"warnings,omitempty"`
	Lost     int64                `json:"lost"` // offsets that retention deleted before they were read
	Seconds  float64              `json:"seconds"`

	first *rejects // not a tombstone
}

// MarshalJSON names the counts of the embedded report.
func (r *scoreResult) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{
		"model": r.Model, "to": r.To, "records": r.Records, "scored": r.Scored, "anomalies": r.Anomalies, "not_finite": r.NotFinite,
		"partial": r.Partial, "warming": r.Warming, "tombstones": r.Tombstones, "left_out": r.LeftOut, "lost": r.Lost, "rejected": r.Rejected, "examples": r.Examples, "warnings": r.Warnings, "seconds": r.Seconds,
	})
}

// anomalies counts them in words.
func anomalies(n int64) string {
	if n == 1 {
		return "1 anomaly"
	}
	return count(n) + " anomalies"
}

func (r *scoreResult) write(w io.Writer, t *terminal) {
	fmt.Fprintf(w, "%s read, %s scored with %s, %s, in %s\n", counted(r.Records, "row"), t.paint(bold, count(r.Scored)), r.Model,
		t.paint(red, anomalies(r.Anomalies)), seconds(time.Duration(r.Seconds*float64(time.Second))))
	for _, reason := range slices.Sorted(maps.Keys(r.Rejected)) {
		fmt.Fprintf(w, "%s rejected: %s\n", t.paint(yellow, count(r.Rejected[reason])), clean(reason))
		for _, x := range r.Examples[reason] {
			fmt.Fprintf(w, "  %s: %s\n", clean(x.At), clean(x.Detail))
		}
	}
	for _, n := range []struct {
		n    int64
		what string
	}{{r.LeftOut, "left out by the filter"}, {r.Lost, "offsets deleted by retention before they were read"}, {r.Tombstones, "empty"}, {r.Partial, "with more than half of the fields missing"}, {r.Warming, "with fewer records of their key before them than the rolling features look back"}, {r.NotFinite, "with a value or score that is not finite"}} {
		if n.n > 0 {
			fmt.Fprintf(w, "%s %s\n", count(n.n), n.what)
		}
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "note: %s\n", clean(warning))
	}
}

// nothing words a run that scored no row.
func (r *scoreResult) nothing(files []string, o *scoreFlags) error {
	f := &fault{what: "nothing was scored: the input has no rows", where: strings.Join(files, ", "), next: "check the file"}
	if o.topic != "" {
		f.what, f.where, f.next = "nothing was scored: no record was read", "topic "+o.topic, "choose a longer time, or check the topic"
	}
	if r.LeftOut == r.Records && r.Records > 0 {
		f.what, f.where, f.next = fmt.Sprintf("nothing was scored: the filter left out all of %s records", count(r.Records)), "where "+o.Where, "widen the filter, or check the fields' names"
	} else if r.Records > 0 {
		f.what = fmt.Sprintf("nothing was scored: none of %s rows fits the model %s", count(r.Records), r.Model)
		for _, reason := range slices.Sorted(maps.Keys(r.Examples)) {
			if ex := r.Examples[reason]; len(ex) > 0 {
				f.where = ex[0].At + ": " + reason
				if ex[0].Detail != "" {
					f.where += ", " + ex[0].Detail
				}
				break
			}
		}
		f.next = "compare the columns with the model's: lapwing models show " + r.Model
	}
	return f
}
