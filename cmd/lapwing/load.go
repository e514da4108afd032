package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/stream"
)

const (
	loadBatch = 1000 // records handed to the producer together
	// A shuffle holds all rows; what is larger should be shuffled by other means than this process's memory.
	shuffleLimit = 2 << 30
	// examples shown for each reason of rejection.
	loadExamples = 3
)

// loadFlags are the flags of load.
type loadFlags struct {
	file       events.FileOptions
	topic      string
	delimiter  string
	shuffle    uint64
	rate       float64
	partitions int
}

// loadResult is what became of the rows.
type loadResult struct {
	Topic      string               `json:"topic"`
	Partitions int                  `json:"partitions"`
	Created    bool                 `json:"created"` // the topic
	Rows       int64                `json:"rows"`    // read, rejected ones among them
	Sent       int64                `json:"sent"`    // acknowledged by the broker
	Rejected   map[string]int64     `json:"rejected"`
	Examples   map[string][]rejects `json:"examples,omitempty"` // the first of each reason
	Warnings   []string             `json:"warnings,omitempty"`
	Seconds    float64              `json:"seconds"`

	first *rejects
}

type rejects struct {
	At     string `json:"at"` // file:line
	Detail string `json:"detail"`
}

func (a *app) loadCommand() *cobra.Command {
	var o loadFlags
	cmd := &cobra.Command{
		Use: "load FILE...", Short: "Write files into a topic: CSV or JSON lines, also .gz and .zst", GroupID: groupData,
		Long: `Writes each row as one JSON object with the header's names: numbers digit for digit, an empty
cell null. With --raw the line itself is sent. "-" is standard input; gzip and zstd are
recognised by their content. Delimiter and format are found, or given.

The topic is created with --partitions if it is absent. Rows without a key go to the partitions
in turn, so the same file always lands in the same places. A row that cannot be read is counted
with its line and never stops the others; the exit code is 1 then.`,
		Example: `  lapwing load cars.csv --topic cars --key car --time time
  lapwing load train.csv.gz --topic payments --drop label,id --shuffle 1
  zcat big.jsonl.gz | lapwing load - --format jsonl --topic events --rate 5000
  lapwing load messwerte.csv --topic werk --delimiter ';' --decimal-comma --encoding latin1`,
		Args: args(1, -1, "at least one FILE, or - for standard input"),
		RunE: func(cmd *cobra.Command, files []string) error {
			if err := required(cmd, "topic"); err != nil {
				return err
			}
			return a.load(cmd, files, &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.topic, "topic", "", "`TOPIC` to write to; required")
	addFileFlags(f, &o.file, &o.delimiter)
	f.StringSliceVar(&o.file.Drop, "drop", nil, "`COLUMNS` that are not sent, parted by commas")
	f.Uint64Var(&o.shuffle, "shuffle", 0, "send the rows in a random order that this `SEED` decides; holds all rows in memory")
	f.Float64Var(&o.rate, "rate", 0, "most `RECORDS` a second; 0: as fast as it goes")
	f.IntVar(&o.partitions, "partitions", 6, "`PARTITIONS` of a topic that is created")
	f.BoolVar(&o.file.Raw, "raw", false, "send each line as it is")
	a.jsonFlag(f, "end with one JSON object in place of the summary")
	return cmd
}

// addFileFlags are the flags that say how files are read, of load and score alike.
func addFileFlags(f *pflag.FlagSet, o *events.FileOptions, delimiter *string) {
	f.StringVar(&o.Key, "key", "", "`COLUMN` whose text becomes the record's key")
	f.StringVar(&o.Time, "time", "", "`COLUMN` that also sets the record's timestamp")
	f.StringVar(&o.TimeUnit, "time-unit", "", "`UNIT` of a numeric time: s, ms, us or ns; empty: found from the first one")
	f.StringVar(&o.TimeLayout, "time-layout", "", "`LAYOUT` of a time in text, as Go writes 2006-01-02 15:04:05; empty: RFC 3339 and its like")
	f.StringVar(&o.TimeZone, "time-zone", "", "`ZONE` of times that name none (default UTC)")
	f.StringVar(&o.Format, "format", "", "how the file is written, `csv|jsonl`; empty: found by name and content")
	f.StringVar(delimiter, "delimiter", "", "`CHARACTER` between CSV columns, or tab; empty: found")
	f.BoolVar(&o.DecimalComma, "decimal-comma", false, "numbers have a decimal comma, and points between thousands")
	f.StringVar(&o.Encoding, "encoding", "", "`ENCODING` of the text: utf-8, utf-16, latin1 or windows-1252; empty: UTF-8, or what its mark says")
	f.BoolVar(&o.NoHeader, "no-header", false, "the CSV has no header line: its first line is a row")
	f.StringSliceVar(&o.Columns, "columns", nil, "`NAMES` of the CSV's columns, in place of its header")
}

func checkFileFlags(o *events.FileOptions, delimiter string) (list []error) {
	switch {
	case delimiter == "tab" || delimiter == `\t`:
		o.Delimiter = '\t'
	case utf8.RuneCountInString(delimiter) == 1:
		o.Delimiter, _ = utf8.DecodeRuneInString(delimiter)
	case delimiter != "":
		list = append(list, usage(fmt.Sprintf("--delimiter is %q, which is not one character", delimiter), "", "give one, such as ';', or the word tab"))
	}
	if o.Format != "" && o.Format != "csv" && o.Format != "jsonl" {
		list = append(list, usage(fmt.Sprintf("--format is %q", o.Format), "", "csv or jsonl"))
	}
	return list
}

func (o *loadFlags) check(cmd *cobra.Command) error {
	var list []error
	bad := func(what, next string) { list = append(list, usage(what, "", next)) }
	list = append(list, checkFileFlags(&o.file, o.delimiter)...)
	if !(o.rate >= 0) {
		bad(fmt.Sprintf("--rate is %v", o.rate), "give records a second, 0 for as fast as it goes")
	}
	if o.partitions < 1 || o.partitions > 10_000 {
		bad(fmt.Sprintf("--partitions is %d", o.partitions), "give 1 to 10000")
	}
	if len(list) > 0 {
		return &faults{what: fmt.Sprintf("%d flags of %s are wrong", len(list), cmd.CommandPath()), list: list, code: exitUsage}
	}
	return nil
}

func (a *app) load(cmd *cobra.Command, files []string, o *loadFlags) error {
	ctx := cmd.Context()
	if err := o.check(cmd); err != nil {
		return err
	}
	e, err := a.configure(cmd)
	if err != nil {
		return err
	}
	opened, err := openFirst(files, o.file)
	defer func() {
		for _, f := range opened {
			f.Close()
		}
	}()
	if err != nil {
		return err
	}
	client, err := a.connect(ctx, e)
	if err != nil {
		return err
	}
	defer client.Close()
	r := &loadResult{Topic: o.topic, Rejected: map[string]int64{}, Examples: map[string][]rejects{}}
	if r.Created, err = client.CreateTopic(ctx, historyTopic(o.topic, o.partitions)); err != nil {
		return err
	}
	if r.Partitions, err = client.Partitions(ctx, o.topic); err != nil {
		return err
	}
	if !r.Created && cmd.Flags().Changed("partitions") && r.Partitions != o.partitions {
		r.Warnings = append(r.Warnings, fmt.Sprintf("topic %s exists and keeps its %d partitions", o.topic, r.Partitions))
	}
	producer, err := client.Producer(ctx, stream.ProducerOptions{Linger: 5 * time.Millisecond, Compression: "lz4"})
	if err != nil {
		return err
	}
	l := &loading{a: a, o: o, result: r, opened: opened, producer: producer, pace: pacer{perSecond: o.rate}, start: time.Now()}
	l.live = a.term.startLive()
	err = l.files(ctx, files, cmd.Flags().Changed("shuffle"))
	if err == nil {
		err = producer.Flush(ctx)
	}
	l.live.clear()
	r.Sent = l.queued - int64(producer.Queued())
	r.Seconds = time.Since(l.start).Seconds()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if cerr := producer.Close(closing); err == nil {
		err = cerr
	}
	if err != nil {
		if ctx.Err() != nil {
			return &fault{what: "interrupted", where: fmt.Sprintf("%s of %s rows read are in topic %s", count(r.Sent), count(r.Rows), r.Topic), cause: ctx.Err(), code: exitInterrupted}
		}
		return err
	}
	if a.json {
		enc := json.NewEncoder(a.term)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(r); err != nil {
			return err
		}
	} else {
		a.loadSummary(r)
	}
	if r.Sent == 0 {
		return r.nothing(files)
	}
	return someRejected(r.Rejected, r.Rows, r.first, "correct those lines and load only them; the others were sent")
}

// someRejected is the fault of a command that did what it could with the other rows; nil where none was rejected. The
// summary has the counts by reason.
func someRejected(by map[string]int64, rows int64, first *rejects, next string) error {
	var n int64
	for _, c := range by {
		n += c
	}
	if n == 0 {
		return nil
	}
	f := &fault{what: fmt.Sprintf("%s of %s rows were rejected", count(n), count(rows)), next: next}
	if n == 1 {
		f.what = fmt.Sprintf("1 of %s rows was rejected", count(rows))
	}
	if first != nil {
		f.where = first.At + ": " + first.Detail
	}
	return f
}

// openFirst opens every file before anything is written: a mistyped name must not leave half of a load behind. What
// can be read once only, such as a named pipe, stays open; it is given by its place among the files.
func openFirst(files []string, o events.FileOptions) (map[int]*events.File, error) {
	opened := map[int]*events.File{}
	for i, name := range files {
		if name == "-" {
			continue
		}
		f, err := openFile(name, o)
		if err != nil {
			return opened, err
		}
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
			f.Close()
		} else {
			opened[i] = f
		}
	}
	return opened, nil
}

// openFile words what the operating system and the file room say.
func openFile(name string, o events.FileOptions) (*events.File, error) {
	f, err := events.OpenFile(name, o)
	if err == nil {
		return f, nil
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return nil, &fault{what: "the file cannot be opened: " + pe.Err.Error(), where: pe.Path, next: "check the name; - is standard input", cause: err}
	}
	if several, ok := errors.Unwrap(err).(interface{ Unwrap() []error }); ok && len(several.Unwrap()) > 1 {
		return nil, &faults{what: name, list: several.Unwrap()}
	}
	// FILE[:LINE]: what; what to do
	if rest, ok := strings.CutPrefix(err.Error(), name+":"); ok {
		where := name
		if line, after, numbered := strings.Cut(rest, ": "); numbered && line != "" && strings.Trim(line, "0123456789") == "" {
			where, rest = name+":"+line, after
		}
		what, next, _ := strings.Cut(strings.TrimSpace(rest), "; ")
		return nil, &fault{what: what, where: where, next: next, cause: err}
	}
	return nil, err
}

// nothing words a load that wrote no record.
func (r *loadResult) nothing(files []string) error {
	f := &fault{what: "nothing was sent: the input has no rows", where: strings.Join(files, ", "), next: "check the file; lapwing load --help has examples"}
	if r.Rows > 0 {
		f.what = fmt.Sprintf("nothing was sent: %s read, all rejected", counted(r.Rows, "row"))
		for _, reason := range r.reasons() {
			if ex := r.Examples[reason]; len(ex) > 0 {
				f.where = ex[0].At + ": " + ex[0].Detail
				break
			}
		}
		f.next = "check --format, --delimiter and --encoding"
		if r.reasons()[0] == events.ReasonTime {
			f.next = "check --time, --time-unit and --time-layout"
		}
	}
	return f
}

// reasons are the most frequent first.
func (r *loadResult) reasons() []string {
	return slices.SortedFunc(maps.Keys(r.Rejected), func(x, y string) int {
		if d := r.Rejected[y] - r.Rejected[x]; d != 0 {
			return int(d)
		}
		return strings.Compare(x, y)
	})
}

func (a *app) loadSummary(r *loadResult) {
	a.printf("%s read, %s sent to topic %s (%s) in %s\n", counted(r.Rows, "row"), a.term.paint(bold, count(r.Sent)), clean(r.Topic),
		counted(r.Partitions, "partition"), seconds(time.Duration(r.Seconds*float64(time.Second))))
	for _, reason := range r.reasons() {
		a.printf("%s rejected: %s\n", a.term.paint(yellow, count(r.Rejected[reason])), clean(reason))
		for _, x := range r.Examples[reason] {
			a.printf("  %s: %s\n", clean(x.At), clean(x.Detail))
		}
	}
	for _, w := range r.Warnings {
		a.printf("note: %s\n", clean(w))
	}
}

// loading is one run of load.
type loading struct {
	a        *app
	o        *loadFlags
	result   *loadResult
	opened   map[int]*events.File // by place: what can be read once only
	producer *stream.Producer
	pace     pacer
	live     *liveBlock
	start    time.Time
	drawn    time.Time

	batch  []stream.Record
	queued int64
	rows   int64 // sent or about to be, for the partition of rows without a key
}

func (l *loading) files(ctx context.Context, files []string, shuffled bool) error {
	var held []events.Entry
	var bytes int64
	take := func(e events.Entry) error { return l.send(ctx, e) }
	if shuffled {
		take = func(e events.Entry) error {
			if bytes += int64(len(e.Value)+len(e.Key)) + 80; bytes > shuffleLimit {
				return &fault{what: "the input is too large to be shuffled in memory", where: fmt.Sprintf("%s rows take %s", count(len(held)), Size(shuffleLimit)),
					next: "shuffle the file by other means, or load parts of it"}
			}
			held = append(held, e)
			return nil
		}
	}
	for i, name := range files {
		f := l.opened[i]
		delete(l.opened, i)
		if f == nil {
			var err error
			if f, err = openFile(name, l.o.file); err != nil {
				return err
			}
		}
		if err := l.file(ctx, f, take); err != nil {
			return err
		}
	}
	rng := rand.New(rand.NewPCG(l.o.shuffle, 0x6c6f6164)) // the second word only sets this use apart from others
	rng.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
	for _, e := range held {
		if err := l.send(ctx, e); err != nil {
			return err
		}
	}
	return l.flush(ctx)
}

// file hands on the rows of f, which it closes.
func (l *loading) file(ctx context.Context, f *events.File, take func(events.Entry) error) error {
	defer f.Close()
	defer func() {
		for _, w := range f.Warnings() {
			if len(l.result.Warnings) < 20 && !slices.Contains(l.result.Warnings, w) {
				l.result.Warnings = append(l.result.Warnings, w)
			}
		}
	}()
	for {
		e, err := f.Next()
		var bad *events.RowError
		switch {
		case err == nil:
			l.result.Rows++
			if err := take(e); err != nil {
				return err
			}
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &bad):
			l.result.Rows++
			l.reject(bad)
		default:
			return err
		}
		if l.result.Rows%loadBatch == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			l.draw()
		}
	}
}

func (l *loading) reject(bad *events.RowError) {
	l.result.Rejected[bad.Reason]++
	one := rejects{At: fmt.Sprintf("%s:%d", bad.File, bad.Line), Detail: bad.Detail}
	if l.result.first == nil {
		l.result.first = &one
	}
	if ex := l.result.Examples[bad.Reason]; len(ex) < loadExamples {
		l.result.Examples[bad.Reason] = append(ex, one)
	}
}

func (l *loading) send(ctx context.Context, e events.Entry) error {
	r := stream.Record{Topic: l.o.topic, Partition: -1, Value: e.Value, Key: e.Key, Time: e.Time}
	if e.Time == events.NoTime {
		r.Time = -1 // the client stamps it
	}
	if e.Key == nil {
		r.Partition = int32(l.rows % int64(l.result.Partitions))
	}
	l.rows++
	l.batch = append(l.batch, r)
	if len(l.batch) < l.pace.step(loadBatch) {
		return nil
	}
	return l.flush(ctx)
}

func (l *loading) flush(ctx context.Context) error {
	if len(l.batch) == 0 {
		return nil
	}
	if err := l.pace.wait(ctx, len(l.batch)); err != nil {
		return err
	}
	if err := l.producer.Produce(ctx, l.batch); err != nil {
		return err
	}
	l.queued += int64(len(l.batch))
	l.batch = l.batch[:0]
	l.draw()
	return nil
}

func (l *loading) draw() {
	if l.live == nil || time.Since(l.drawn) < 100*time.Millisecond {
		return
	}
	l.drawn = time.Now()
	t := l.a.term
	l.live.draw([]string{fmt.Sprintf("%s  %s rows read, %s sent  %s", t.paint(bold, "load"), count(l.result.Rows), count(l.queued),
		t.paint(faint, rate(float64(l.queued)/time.Since(l.start).Seconds())))})
}
