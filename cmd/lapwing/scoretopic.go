package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/server"
	"github.com/lapwing-stream/lapwing/stream"
)

// checkScoreInput holds the arguments of score to one kind of input, files or a topic.
func checkScoreInput(cmd *cobra.Command, files []string, o *scoreFlags) error {
	if o.topic == "" {
		if len(files) == 0 {
			return usage("nothing to score is given", "", "give files, - for standard input, or --topic TOPIC; for example: "+firstExample(cmd))
		}
		for _, name := range []string{"from", "until", "last", "partitions"} {
			if f := cmd.Flags().Lookup(name); f.Changed {
				return usage("--"+name+" chooses from a topic, and files are given", strings.Join(files, ", "), "give --topic TOPIC in place of the files, or leave --"+name+" out")
			}
		}
		return required(cmd, "model")
	}
	if len(files) > 0 {
		return usage("files and a topic are given", strings.Join(files, ", ")+", --topic "+o.topic, "score one after the other")
	}
	// How a topic's records are written stands in the model; where it says nothing, silence would hide that a flag has no effect.
	var only []string
	ofFiles := pflag.NewFlagSet("", pflag.ContinueOnError)
	addFileFlags(ofFiles, new(events.FileOptions), new(string))
	ofFiles.VisitAll(func(f *pflag.Flag) {
		if g := cmd.Flags().Lookup(f.Name); f.Name != "key" && g != nil && g.Changed {
			only = append(only, "--"+f.Name)
		}
	})
	if len(only) > 0 {
		return usage(strings.Join(only, ", ")+" say how a file is read, and a topic is given", "--topic "+o.topic, "leave them out: the model knows how its records are written")
	}
	return required(cmd, "model")
}

// topicRange is the part of a topic that a score run reads, one partition after another, so that the scores come in one order
// whatever the broker does.
type topicRange struct {
	client *stream.Client
	topic  string
	batch  int
	ranges []stream.Range // what is left
	from   map[int32]int64
	open   *stream.History
	lost   int64
}

// rangeOf fixes what is read: what the flags choose and, for a model with rolling features, up to rewind records before it.
func (a *app) rangeOf(ctx context.Context, client *stream.Client, e *effective, o *scoreFlags, rolling bool) (*topicRange, error) {
	chosen, err := o.Selection.Choose(ctx, client, o.topic)
	if err != nil {
		return nil, err
	}
	t := &topicRange{client: client, topic: o.topic, batch: e.Score.MaxBatch, from: map[int32]int64{}}
	var kept []stream.Range
	if rolling {
		if kept, err = client.Watermarks(ctx, o.topic); err != nil {
			return nil, err
		}
	}
	for _, r := range chosen.Ranges {
		if r.From >= r.To {
			continue
		}
		t.from[r.Partition] = r.From
		if rolling && int(r.Partition) < len(kept) {
			r.From = min(r.From, max(kept[r.Partition].From, r.From-int64(e.Score.RollingRewind)))
		}
		t.ranges = append(t.ranges, r)
	}
	return t, nil
}

func (t *topicRange) next(ctx context.Context) (*stream.Batch, error) {
	for {
		if t.open == nil {
			if len(t.ranges) == 0 {
				return nil, io.EOF
			}
			h, err := t.client.ReadRanges(ctx, t.topic, t.ranges[:1], stream.HistoryOptions{MaxBatch: t.batch})
			if err != nil {
				return nil, err
			}
			t.open, t.ranges = h, t.ranges[1:]
		}
		b, err := t.open.Next(ctx)
		if !errors.Is(err, io.EOF) {
			return b, err
		}
		for _, r := range t.open.Results() {
			t.lost += r.Lost
		}
		t.open.Close()
		t.open = nil
	}
}

func (t *topicRange) close() {
	if t.open != nil {
		t.open.Close()
	}
}

// scoreTopic scores part of a topic to the end fixed here.
func (a *app) scoreTopic(ctx context.Context, client *stream.Client, e *effective, o *scoreFlags, b server.BoundedOptions, sink scoreSink, r *scoreResult) error {
	m, err := model.Decode(b.Data)
	if err != nil {
		return fmt.Errorf("model %s cannot be read: %w", b.Ref, err)
	}
	input, err := a.rangeOf(ctx, client, e, o, m.Spec.Rolling > 0)
	if err != nil {
		return err
	}
	defer input.close()
	b.From = input.from
	report, err := server.ScoreRecords(ctx, b, input.next, func(s *server.Scored) error {
		return r.take(ctx, sink, s, fmt.Sprintf("partition %d, offset %d", s.Source.Partition, s.Offset))
	})
	r.Merge(report)
	r.Lost = input.lost
	return err
}

// where parses --where; nil without it.
func (o *scoreFlags) where() (*events.Where, error) {
	if o.Where == "" {
		return nil, nil
	}
	return events.ParseWhere(o.Where)
}

// notIntoItself refuses the topic that is scored as the place for its scores.
func notIntoItself(o *scoreFlags) error {
	if o.topic == "" || o.to != o.topic {
		return nil
	}
	return usage("--to is the topic that is scored: its scores do not belong among its records", o.to, "name another, such as --to "+o.to+".scores")
}

// someLost is the fault of a run that could not read all that it was asked to.
func someLost(lost int64, topic string) error {
	if lost == 0 {
		return nil
	}
	return &fault{what: fmt.Sprintf("retention deleted %s offsets before they were read: the others were scored", count(lost)), where: "topic " + topic,
		next: "score a shorter or later time, or lengthen the topic's retention"}
}

// enoughPartitions: scores stand in the partition of their record.
func enoughPartitions(from, to string, need, has int) error {
	if has >= need {
		return nil
	}
	return &fault{what: fmt.Sprintf("topic %s has %d partitions and %s has %d: a score stands in the partition of its record", to, has, from, need),
		where: "--to " + to, next: fmt.Sprintf("add partitions to %s, name a topic that does not exist yet, or write to a file", to)}
}
