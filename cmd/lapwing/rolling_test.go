package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

// everything reads a topic to its end, by partition in offset order.
func everything(t *testing.T, c *stream.Client, topic string) (out []stream.Record) {
	t.Helper()
	ranges, err := c.Ranges(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	h, err := c.ReadRanges(t.Context(), topic, ranges, stream.HistoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for {
		b, err := h.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range b.Records {
			r.Key, r.Value = slices.Clone(r.Key), slices.Clone(r.Value) // the batch's until Release
			out = append(out, r)
		}
		b.Release()
	}
}

// lengthOf is the number of offsets of a topic; 0 where it is not there yet.
func lengthOf(t *testing.T, c *stream.Client, topic string) (n int64) {
	t.Helper()
	marks, err := c.Watermarks(t.Context(), topic)
	if err != nil {
		return 0
	}
	for _, m := range marks {
		n += m.To - m.From
	}
	return n
}

// Killed in the midst of the stream, again and again, serve gives each record the score that a process which was never
// killed gives it, also where a record is scored twice. What was trained with rolling features needs no word about them.
func TestRollingSurvivesKills(t *testing.T) {
	b := newBed(t)
	client, err := stream.Connect(t.Context(), stream.Options{Properties: map[string]string{"bootstrap.servers": b.broker}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.CreateTopic(t.Context(), stream.TopicSpec{Name: "pumps", Partitions: 3}); err != nil {
		t.Fatal(err)
	}
	const history, total = 2000, 42_000
	random := rand.New(rand.NewPCG(11, 11))
	producer, err := client.Producer(t.Context(), stream.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	produce := func(from, to int) {
		var records []stream.Record
		for i := from; i < to; i++ {
			pump := random.IntN(24)
			records = append(records, stream.Record{
				Topic: "pumps", Partition: int32(pump % 3), Time: 1_795_615_200_000 + int64(i)*1000,
				Value: fmt.Appendf(nil, `{"pump":"p%d","speed":%.3f,"load":%.3f}`, pump, 50+20*math.Sin(float64(i)/300)+random.NormFloat64(), 5+random.NormFloat64()),
			})
		}
		if err := producer.Produce(t.Context(), records); err != nil {
			t.Fatal(err)
		}
	}
	produce(0, history)
	if err := producer.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.ok("train --topic pumps --model pumps --key pump --rolling 8 --epochs 1 --layers 6,3,6")
	produce(history, total)
	if err := producer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	serve := func(output string) (*exec.Cmd, *bytes.Buffer) {
		cmd := exec.Command(os.Args[0], "serve", "--topic", "pumps", "--model", "pumps", "--start", "after-training", "--http", "none", "--max-batch", "32", "--commit-interval", "20ms",
			"--output", output, "--alerts", output+".alerts", "--dlq", output+".dlq", "--brokers", b.broker, "-X", "session.timeout.ms=6000", "--instance-id", "copy")
		cmd.Env = append(os.Environ(), "LAPWING_TEST_MAIN=1")
		var text bytes.Buffer
		cmd.Stderr = &text
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd, &text
	}
	await := func(cmd *exec.Cmd, text *bytes.Buffer, output string, scores int64) {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		limit := time.NewTimer(90 * time.Second)
		defer limit.Stop()
		for lengthOf(t, client, output) < scores {
			select {
			case <-tick.C:
			case <-limit.C:
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				t.Fatalf("%s has %d of %d scores; serve wrote:\n%s", output, lengthOf(t, client, output), scores, text)
			}
		}
	}
	end := func(cmd *exec.Cmd) {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}
	const scores = total - history
	cmd, text := serve("whole")
	await(cmd, text, "whole", scores)
	end(cmd)

	short := 0 // kills with records left
	for n := int64(1); n <= 3; n++ {
		cmd, text := serve("killed")
		await(cmd, text, "killed", n*scores/5)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if lengthOf(t, client, "killed") < scores {
			short++
		}
	}
	if short == 0 {
		t.Error("every kill came too late: nothing was left to score")
	}
	cmd, text = serve("killed")
	seen := map[string]string{}
	twice := 0
	for limit := time.Now().Add(90 * time.Second); len(seen) < scores; {
		if time.Now().After(limit) {
			t.Fatalf("%d of %d records have a score; serve wrote:\n%s", len(seen), scores, text)
		}
		clear(seen)
		twice = 0
		for _, r := range everything(t, client, "killed") {
			at, score := scoreAt(t, r.Value)
			if before, ok := seen[at]; ok {
				if twice++; before != score {
					t.Fatalf("two scores of %s:\n%s\n%s", at, before, score)
				}
			}
			seen[at] = score
		}
	}
	end(cmd)
	if !strings.Contains(text.String(), "looked back for rolling features") {
		t.Errorf("the last start did not look back:\n%s", text)
	}
	t.Logf("%d kills with records left, %d records scored twice", short, twice)
	differ, warming := 0, 0
	for _, r := range everything(t, client, "whole") {
		at, score := scoreAt(t, r.Value)
		if seen[at] != score {
			if differ++; differ <= 3 {
				t.Errorf("%s after kills:\n%s\nunbroken:\n%s", at, seen[at], score)
			}
		}
		if strings.Contains(score, `"status":"warming"`) {
			warming++
		}
	}
	// The model was trained up to the start: the windows are full from the first record on.
	if differ > 0 || warming > 0 {
		t.Errorf("%d of %d scores differ, %d are warming", differ, scores, warming)
	}
}

// scoreAt gives the place of a score's record, and the score as it stands.
func scoreAt(t *testing.T, value []byte) (at, score string) {
	t.Helper()
	var s struct {
		Partition int
		Offset    int64
		Score     *float64
	}
	if err := json.Unmarshal(value, &s); err != nil || s.Score == nil {
		t.Fatalf("%v: %s", err, value)
	}
	return fmt.Sprintf("%d/%d", s.Partition, s.Offset), string(value)
}
