package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lapwing-stream/lapwing/server"
	"github.com/lapwing-stream/lapwing/stream"
	"github.com/lapwing-stream/lapwing/trainer"
)

func (a *app) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look at everything serve needs, and say what to change", GroupID: groupAbout,
		Long: `Looks at what serve and train need and changes nothing: the broker and its version, topics and their
settings, this client's rights, the model topic and the live models, the groups' offsets, the clock,
disk, memory, CPU and GPU. Each finding that asks for something ends with the line to type.

Takes the flags and the configuration of serve. The exit status says whether serve would score:
0 if so, 1 if something stands in its way; warnings alone leave it at 0.`,
		Example: `  lapwing doctor
  lapwing doctor --topic cars --model cars
  lapwing doctor --config streams.yaml --json`,
		Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd) },
	}
	a.serveSettings(cmd)
	a.jsonFlag(cmd.Flags(), "print one JSON object: works, and findings with area, severity, what, where, next")
	return cmd
}

// connectWithin bounds the wait for a broker that does not answer: who asks a doctor wants to know soon.
const connectWithin = 5 * time.Second

func (a *app) doctor(cmd *cobra.Command) error {
	ctx := cmd.Context()
	e, err := a.configure(cmd)
	if err != nil {
		return err
	}
	engine, release, refused := a.engine(e.Score.Engine, e.GPU)
	if refused != nil {
		engine, release = bestEngine(), func() {} // to look at the rest by
	}
	defer release()
	var found []server.Finding
	client, err := stream.Connect(ctx, stream.Options{Properties: e.Kafka, Log: a.log, ConnectTimeout: connectWithin})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch {
	case err != nil:
		f := explain(err)
		found = append(found, server.Finding{Area: "broker", Severity: server.Failure, What: f.what, Where: f.where, Next: f.next})
	default:
		defer client.Close()
		deps := server.Deps{Client: client, Registry: a.registry(client, e), Engine: engine, Log: a.log}
		found = append(found, server.Examine(ctx, deps, serverOptions(&e.Config))...)
		found = nextCommands(found, client.Brokers())
		if e.Train.Checkpoint > 0 {
			found = append(found, checkpointFinding(ctx, client))
		}
		if len(e.Streams) == 0 {
			found = append(found, server.Finding{Area: "streams", Severity: server.Failure, What: "no stream is configured: serve would have nothing to do",
				Next: "add --topic T and --model NAME, or streams to lapwing.yaml"})
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	here := readMachine(e.Train.SpillDir)
	found = append(append(found, portFinding(ctx, e.HTTP)), here.findings(&e.Config, engine, refused)...)
	return a.showFindings(found)
}

// checkpointFinding looks at what train keeps its checkpoints in. It trains without them too, and serve has no use for them, so what is
// missing stands in nobody's way.
func checkpointFinding(ctx context.Context, client *stream.Client) server.Finding {
	const topic = trainer.CheckpointTopic
	f := server.Finding{Area: "topic", Severity: server.Fine, Where: "topic " + topic}
	f.What = "checkpoints of train"
	warn := func(what, next string) server.Finding {
		f.Area, f.Severity, f.What, f.Next = "rights", server.Warning, what+": train works without checkpoints, and --resume begins at the beginning", next
		return f
	}
	state, err := client.Describe(ctx, topic)
	switch {
	case errors.Is(err, stream.ErrNoTopic):
		if stream.NotAllowed(client.MayCreate(ctx, stream.TopicSpec{Name: topic, Partitions: 1})) {
			return warn("does not exist, and this client may not CREATE it", fmt.Sprintf(
				"kafka-topics.sh --bootstrap-server %s --create --topic %s --partitions 1 --config cleanup.policy=compact,delete --config retention.ms=604800000", client.Brokers(), topic))
		}
		f.Severity, f.What = server.Note, "does not exist yet; train makes it for its checkpoints"
	case stream.NotAllowed(err):
		right := stream.Right{Kind: "topic", Name: topic, Operations: []string{"CREATE", "READ", "WRITE"}}
		return warn("this client may not "+right.String(), right.Grant(client.Brokers()))
	case err != nil:
		return warn("cannot be looked at: "+explain(err).what, "")
	default:
		var missing, operations []string
		for _, o := range []string{"READ", "WRITE"} {
			if !state.Rights.Allows(o) {
				missing, operations = append(missing, o), append(operations, "--operation "+strings.ToLower(o))
			}
		}
		if len(missing) > 0 {
			return warn("this client may not "+strings.Join(missing, ", ")+" it", fmt.Sprintf(
				"kafka-acls.sh --bootstrap-server %s --add --allow-principal User:NAME %s --topic %s", client.Brokers(), strings.Join(operations, " "), topic))
		}
	}
	return f
}

// nextCommands lets the commands of a finding be typed as they stand: ours reach the broker that was looked at.
func nextCommands(found []server.Finding, brokers string) []server.Finding {
	for i := range found {
		if f := &found[i]; strings.HasPrefix(f.Next, "lapwing ") && brokers != usualBrokers {
			f.Next += " --brokers " + brokers
		}
	}
	return found
}

// usualBrokers are reached without --brokers.
const usualBrokers = "localhost:9092"

// errFindings ends doctor with exit status 1; what stands in the way has been said.
var errFindings = errors.New("serve would not work")

func (a *app) showFindings(found []server.Finding) error {
	failures, warnings := 0, 0
	for i := range found {
		// A message of the client library may quote a property.
		found[i].What, found[i].Next = a.scrub.scrub(found[i].What), a.scrub.scrub(found[i].Next)
		switch found[i].Severity {
		case server.Failure:
			failures++
		case server.Warning:
			warnings++
		}
	}
	if a.json {
		enc := json.NewEncoder(a.term)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(struct {
			Works    bool             `json:"works"`
			Findings []server.Finding `json:"findings"`
		}{failures == 0, found}); err != nil {
			return err
		}
	} else {
		for _, f := range found {
			a.showFinding(f)
		}
	}
	if failures > 0 {
		return &fault{what: fmt.Sprintf("serve would not work: %s in its way", things(failures)), next: "do what stands at each error above, then run lapwing doctor again", cause: errFindings}
	}
	if !a.json {
		a.printf("serve would work%s\n", map[bool]string{true: "; see the warnings", false: ""}[warnings > 0])
	}
	return nil
}

func things(n int) string {
	if n == 1 {
		return "1 thing is"
	}
	return fmt.Sprintf("%d things are", n)
}

func (a *app) showFinding(f server.Finding) {
	colours := map[server.Severity]colour{server.Fine: green, server.Note: cyan, server.Warning: yellow, server.Failure: red}
	head := fmt.Sprintf("%-7s %-7s ", f.Severity, f.Area)
	text := clean(f.What)
	if f.Where != "" {
		text = clean(f.Where) + ": " + text
	}
	const indent = 16
	text = a.term.paint(colours[f.Severity], head[:8]) + head[8:] + text
	a.printf("%s\n", strings.TrimRight(a.term.wrap(text, indent), "\n"))
	if f.Next != "" {
		a.printf("%*snext: %s\n", indent, "", clean(f.Next)) // not broken: it is there to be copied
	}
}
