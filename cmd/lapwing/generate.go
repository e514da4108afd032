package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lapwing-stream/lapwing/bench/fleet"
	"github.com/lapwing-stream/lapwing/stream"
)

type generateFlags struct {
	topic      string
	seed       uint64
	cars       int
	interval   time.Duration
	start      string
	faults     float64
	kinds      []string
	clean      time.Duration
	rate       float64
	count      int64
	partitions int
}

func (a *app) generateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "generate", Annotations: map[string]string{groupsOthers: "all"}, Short: "Make up records to try things with", GroupID: groupData,
		Example: "  lapwing generate cars --rate 1000 --cars 100 --faults 0.2",
		Args:    a.noCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var o generateFlags
	cars := &cobra.Command{
		Use: "cars", Short: "Simulate a fleet of cars, with faults that develop over minutes",
		Long: `Writes the readings of a simulated fleet: 18 sensors a car that follow from its trips, and
faults that develop over minutes. What was wrong with which car and when goes to the topic
T.labels, so that no scorer can read it by accident.

Event time starts at --start and moves on by --interval from one reading of a car to its next,
however fast records are written. The same seed gives the same records.

The kinds of fault:
` + strings.TrimRight(kindTexts(), "\n"),
		Example: `  lapwing generate cars --rate 1000 --cars 100 --faults 0.2
  lapwing generate cars --rate 0 --count 200000 --topic cars     # a history, as fast as it goes
  lapwing generate cars --rate 500 --faults 1 --kinds slow_puncture,misfire`,
		Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.generate(cmd, &o) },
	}
	f := cars.Flags()
	f.Float64Var(&o.rate, "rate", 1000, "`RECORDS` a second; 0: as fast as it goes")
	f.IntVar(&o.cars, "cars", 100, "`CARS` in the fleet")
	f.Float64Var(&o.faults, "faults", 0, "expected `EPISODES` of fault for each car and hour of event time, 0 to 2")
	f.StringSliceVar(&o.kinds, "kinds", nil, "`KINDS` of fault, parted by commas (default all)")
	f.DurationVar(&o.clean, "clean-for", 0, "event `TIME` at the start without a fault")
	f.StringVar(&o.topic, "topic", "cars", "`TOPIC` to write to; labels go to TOPIC.labels")
	f.Int64Var(&o.count, "count", 0, "end after so many `RECORDS`; 0: never")
	f.Uint64Var(&o.seed, "seed", 1, "`SEED` of everything random")
	f.DurationVar(&o.interval, "interval", 10*time.Second, "event `TIME` between two readings of a car")
	f.StringVar(&o.start, "start", "", "event `TIME` of the first record, such as 2026-01-31T12:00:00Z, or now (default 2019-09-04T14:09:56Z)")
	f.IntVar(&o.partitions, "partitions", 6, "`PARTITIONS` of a topic that is created")
	a.jsonFlag(f, "end with one JSON object in place of the summary")
	cmd.AddCommand(cars)
	return cmd
}

// generated is what a run wrote.
type generated struct {
	Topic    string  `json:"topic"`
	Labels   string  `json:"labels"`
	Records  int64   `json:"records"`
	Episodes int64   `json:"episodes"`
	Seconds  float64 `json:"seconds"`
}

func (o *generateFlags) fleet() (*fleet.Fleet, error) {
	fo := fleet.Options{Seed: o.seed, Cars: o.cars, Interval: o.interval}
	fo.Faults.PerCarHour, fo.Faults.CleanFor = o.faults, o.clean
	switch o.start {
	case "":
	case "now":
		fo.Start = time.Now()
	default:
		at, err := time.Parse(time.RFC3339, o.start)
		if err != nil {
			return nil, usage("--start is not a time", o.start, "write it as 2026-01-31T12:00:00Z, or now")
		}
		fo.Start = at
	}
	for _, name := range o.kinds {
		k, err := fleet.ParseKind(name)
		if err != nil {
			next := "use some of " + strings.Join(kindNames(), ", ")
			if n := nearest(name, kindNames()); n != "" {
				next = "did you mean " + n + "?"
			}
			return nil, usage("there is no kind of fault "+name, "", next)
		}
		fo.Faults.Kinds = append(fo.Faults.Kinds, k)
	}
	return fleet.New(fo)
}

func kindNames() (names []string) {
	for _, k := range fleet.Kinds() {
		names = append(names, string(k))
	}
	return names
}

// kindTexts describes the kinds of fault, for help.
func kindTexts() string {
	var b strings.Builder
	for _, k := range fleet.Kinds() {
		line := fmt.Sprintf("  %-16s", k)
		for word := range strings.FieldsSeq(fleet.Describe(k)) {
			if len(line)+1+len(word) > 90 {
				b.WriteString(line + "\n")
				line = strings.Repeat(" ", 18)
			}
			line += " " + word
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

func (a *app) generate(cmd *cobra.Command, o *generateFlags) error {
	ctx := cmd.Context()
	fl, err := o.fleet()
	if err != nil {
		return err
	}
	if !(o.rate >= 0) || o.count < 0 || o.partitions < 1 {
		return usage("--rate, --count and --partitions must not be negative", "", "for example: "+firstExample(cmd))
	}
	e, err := a.configure(cmd)
	if err != nil {
		return err
	}
	client, err := a.connect(ctx, e)
	if err != nil {
		return err
	}
	defer client.Close()
	g := &generated{Topic: o.topic, Labels: o.topic + ".labels"}
	for _, t := range []stream.TopicSpec{historyTopic(g.Topic, o.partitions), historyTopic(g.Labels, 1)} {
		if _, err := client.CreateTopic(ctx, t); err != nil {
			return err
		}
	}
	producer, err := client.Producer(ctx, stream.ProducerOptions{Linger: 5 * time.Millisecond, Compression: "lz4"})
	if err != nil {
		return err
	}
	a.logs.release() // it may run for ever
	begin := time.Now()
	err = a.drive(ctx, fl, o, g, producer, begin)
	// What was made is delivered also after Ctrl-C, which is how a source without --count ends.
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if ferr := producer.Flush(closing); err == nil || ctx.Err() != nil {
		err = ferr
	}
	if cerr := producer.Close(closing); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	g.Seconds = time.Since(begin).Seconds()
	if a.json {
		return json.NewEncoder(a.term).Encode(g)
	}
	a.printf("%s records sent to topic %s, %s episodes of fault labelled in %s, in %s\n", a.term.paint(bold, count(g.Records)), clean(g.Topic),
		count(g.Episodes), clean(g.Labels), seconds(time.Since(begin)))
	return nil
}

// drive produces records at the pace until --count or the end of ctx.
func (a *app) drive(ctx context.Context, fl *fleet.Fleet, o *generateFlags, g *generated, producer *stream.Producer, begin time.Time) error {
	live := a.term.startLive()
	defer live.clear()
	pace := pacer{perSecond: o.rate}
	var batch []stream.Record
	var drawn time.Time
	for o.count == 0 || g.Records < o.count {
		batch = batch[:0]
		n := pace.step(loadBatch)
		if o.count > 0 {
			n = int(min(int64(n), o.count-g.Records))
		}
		var at time.Time
		for range n {
			rec, episodes := fl.Next()
			at = rec.Time
			batch = append(batch, stream.Record{Topic: g.Topic, Partition: -1, Key: []byte(rec.Key), Value: rec.Value, Time: rec.Time.UnixMilli()})
			for _, ep := range episodes {
				value, err := json.Marshal(ep)
				if err != nil {
					return err
				}
				batch = append(batch, stream.Record{Topic: g.Labels, Partition: -1, Key: []byte(ep.Car), Value: value, Time: rec.Time.UnixMilli()})
				g.Episodes++
			}
		}
		if err := pace.wait(ctx, n); err != nil {
			return err
		}
		if err := producer.Produce(ctx, batch); err != nil {
			return err
		}
		g.Records += int64(n)
		if live != nil && time.Since(drawn) > 100*time.Millisecond {
			drawn = time.Now()
			live.draw([]string{fmt.Sprintf("%s  %s records to %s  %s  %s  %d episodes of fault", a.term.paint(bold, "generate"), count(g.Records), clean(g.Topic),
				a.term.paint(faint, rate(float64(g.Records)/time.Since(begin).Seconds())), at.UTC().Format("2006-01-02 15:04:05"), g.Episodes)})
		}
	}
	return nil
}
