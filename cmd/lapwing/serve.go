package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/server"
)

func (a *app) serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "Score a topic as it grows: follow the model, write scores and alerts", GroupID: groupRun,
		Long: `Follows the model topic and scores every record of the input topics: a score for each record goes
to T.scores, alerts go to T.alerts, what cannot be scored to T.dlq. A new model is taken between
two batches, without a record dropped. Before there is a model, records wait.

With --topic one stream is made from the flags; without it, the streams of lapwing.yaml are
served. SIGTERM and Ctrl-C finish what was read, commit, and leave.`,
		Example: `  lapwing serve --topic cars --model cars
  lapwing serve --topic cars --model cars --start after-training --raise-after 1
  lapwing serve --config streams.yaml --http 0.0.0.0:8080`,
		Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd) },
	}
	a.serveSettings(cmd)
	a.jsonFlag(cmd.Flags(), "print one JSON object at the start (http, streams) and one at the end (what was scored)")
	return cmd
}

// profileOptions say where train and serve push profiles.
func profileOptions(c *Config) server.ProfileOptions {
	return server.ProfileOptions{URL: c.Pyroscope.URL, User: c.Pyroscope.User, Password: c.Pyroscope.Password, Interval: c.Pyroscope.Interval}
}

// serverOptions is the configuration as the server takes it.
func serverOptions(c *Config) server.Options {
	o := server.Options{
		HTTP: c.HTTP, MaxBatch: c.Score.MaxBatch, Queue: c.Score.Queue, MaxInFlight: c.Score.MaxInFlight,
		RollingRewind: c.Score.RollingRewind, RollingKeys: c.Score.RollingKeys,
		Delivery: c.Delivery, CommitInterval: c.Score.CommitInterval, CommitRecords: c.Score.CommitRecords, TransactionTimeout: c.Score.TransactionTimeout,
		ShutdownTimeout: c.Score.ShutdownTimeout,
		Pyroscope:       profileOptions(c),
	}
	if c.HTTP == "none" {
		o.HTTP = ""
	}
	for _, s := range c.Streams {
		s = s.withNames()
		o.Streams = append(o.Streams, server.StreamOptions{
			Model: s.Model, Alias: s.Alias, Topics: s.Input.Topics, Format: s.Input.Format, Key: s.Input.Key, Time: s.Input.Time,
			Output: s.Output, Alerts: s.Alerts.Topic, DLQ: s.DLQ, Start: s.Start, Where: s.Where, Contributions: s.Contributions, InstanceID: s.InstanceID,
			RaiseAfter: s.Alerts.RaiseAfter, ClearAfter: s.Alerts.ClearAfter, RepeatEvery: s.Alerts.RepeatEvery, ClearSilent: s.Alerts.ClearSilent,
			AlertKeys: s.Alerts.AlertKeys, AlertRewind: s.Alerts.AlertRewind,
		})
	}
	return o
}

func (a *app) serve(cmd *cobra.Command) error {
	ctx := cmd.Context()
	e, err := a.configure(cmd)
	if err != nil {
		return err
	}
	if len(e.Streams) == 0 {
		return usage("there is nothing to serve: no stream is configured", "", "add --topic T and --model NAME, or streams to lapwing.yaml")
	}
	here := readMachine("")
	limitHeap(here.serveHeap())
	engine, release, err := a.engine(e.Score.Engine, e.GPU)
	if err != nil {
		return err
	}
	defer release()
	a.log.Info("engine", "name", engine.Name(), "level", engine.Level(), "gpu", onGPU(engine))
	client, err := a.connect(ctx, e)
	if err != nil {
		return err
	}
	defer client.Close()
	s, err := server.New(server.Deps{Client: client, Registry: registry.Open(client, registry.Options{Topic: e.ModelsTopic, Log: a.log}), Engine: engine, Log: a.log}, serverOptions(&e.Config))
	if err != nil {
		return err
	}
	a.announce(s, e, engineLine(engine))
	watch, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { a.logWhenBegun(watch, s) })
	if !a.json {
		live := a.term.startLive()
		if live != nil {
			watching.Go(func() { a.watch(watch, s, live) })
		}
	}
	err = s.Run(ctx)
	stop()
	watching.Wait()
	if err != nil {
		return err
	}
	status := s.Status()
	if a.json {
		return json.NewEncoder(a.term).Encode(status)
	}
	for _, st := range status.Streams {
		left := ""
		if st.LeftOut > 0 {
			left = ", " + count(st.LeftOut) + " left out by the filter"
		}
		a.printf("%s: %s records scored, %s dead letters, %s tombstones%s, %s alerts; drained and committed\n",
			clean(st.Stream), count(st.RecordsOut), count(st.Bad), count(st.Tombstones), left, count(st.Alerts))
	}
	return nil
}

// longestStart is when log lines are written even though no stream has begun.
const longestStart = 15 * time.Second

// logWhenBegun lets the log through once the server is past what may refuse its start.
func (a *app) logWhenBegun(ctx context.Context, s *server.Server) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	late := time.After(longestStart)
	for {
		begun := true
		for _, st := range s.Status().Streams {
			begun = begun && (st.Consumes || st.RecordsIn > 0)
		}
		if begun {
			a.logs.release()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-late:
			a.logs.release()
			return
		case <-tick.C:
		}
	}
}

// announce says at the start what goes where.
func (a *app) announce(s *server.Server, e *effective, engine string) {
	if a.json {
		type streamJSON struct {
			Model  string   `json:"model"`
			Topics []string `json:"topics"`
			Output string   `json:"output"`
			Alerts string   `json:"alerts"`
			DLQ    string   `json:"dlq"`
		}
		object := struct {
			HTTP    string       `json:"http"`
			Engine  string       `json:"engine"`
			Streams []streamJSON `json:"streams"`
		}{HTTP: s.HTTPAddr(), Engine: engine}
		for _, st := range e.Streams {
			st = st.withNames()
			object.Streams = append(object.Streams, streamJSON{st.Model + "@" + st.Alias, st.Input.Topics, st.Output, st.Alerts.Topic, st.DLQ})
		}
		json.NewEncoder(a.term).Encode(object)
		return
	}
	for _, st := range e.Streams {
		st = st.withNames()
		alerts := ", alerts to " + st.Alerts.Topic
		if st.Alerts.Topic == noAlerts {
			alerts = ""
		}
		a.printf("scoring %s with %s@%s into %s%s\n", clean(strings.Join(st.Input.Topics, ", ")), st.Model, st.Alias, clean(st.Output), clean(alerts))
	}
	http := ""
	if addr := s.HTTPAddr(); addr != "" {
		http = "; http://" + addr + "/readyz, /metrics"
	}
	a.printf("engine %s%s; Ctrl-C ends\n", engine, http)
}

// watch redraws what the server does until ctx ends.
func (a *app) watch(ctx context.Context, s *server.Server, live *liveBlock) {
	defer live.close()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	before := map[string]int64{}
	at := time.Now()
	shown := map[string]float64{}
	for {
		status := s.Status()
		now := time.Now()
		if d := now.Sub(at); d >= time.Second {
			for _, st := range status.Streams {
				shown[st.Stream] = float64(st.RecordsOut-before[st.Stream]) / d.Seconds()
				before[st.Stream] = st.RecordsOut
			}
			at = now
		}
		var lines []string
		for _, st := range status.Streams {
			lines = append(lines, a.streamLines(st, shown[st.Stream])...)
			if len(st.Missing) > 0 {
				lines = append(lines, "  "+a.term.paint(yellow, "waits for "+clean(strings.Join(st.Missing, "; "))))
			}
		}
		live.draw(lines)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// streamLines fit 80 cells for names of usual length.
func (a *app) streamLines(st server.StreamStatus, perSecond float64) []string {
	t := a.term
	version := "no model"
	if st.Version > 0 {
		version = fmt.Sprintf("version %d", st.Version)
	}
	lag := "lag -"
	if st.Lag >= 0 {
		lag = "lag " + count(st.Lag)
	}
	return []string{
		fmt.Sprintf("%s  %s  %s scored  %s  %s", t.paint(bold, clean(st.Stream)), t.paint(cyan, version), count(st.RecordsOut), rate(perSecond), lag),
		fmt.Sprintf("  p50 %.1f ms  p99 %.1f ms  %s anomalies  %s alerts  %s dead letters", st.P50, st.P99, count(st.Anomalies), count(st.Alerts), count(st.Bad)),
	}
}
