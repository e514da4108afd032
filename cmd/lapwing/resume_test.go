package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A training that is killed in the middle of an epoch, or interrupted, goes on in another folder on other threads, and gives the bytes of
// an unbroken run.
func TestTrainResumes(t *testing.T) {
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 5000 --topic cars")
	trainResumes(t, &resuming{broker: b.broker, topic: "cars", model: "cars"}, syscall.SIGKILL, syscall.SIGINT, syscall.SIGTERM)
}

func trainResumes(t *testing.T, c *resuming, signals ...syscall.Signal) {
	c.t = t
	var whole struct{ Digest string }
	c.must(&whole, "--model", c.model+"-whole")
	for _, signal := range signals {
		how := signal.String()
		t.Run(how, func(t *testing.T) {
			c := *c
			c.t, c.model = t, c.model+"-"+how
			code, stderr := c.end(signal)
			if signal != syscall.SIGKILL {
				if code != exitInterrupted {
					t.Errorf("exit status %d", code)
				}
				lines := strings.Split(strings.TrimSpace(stderr), "\n")
				if last := lines[max(len(lines)-3, 0):]; !strings.HasPrefix(last[0], "lapwing: interrupted: nothing was published; a checkpoint holds step ") || !strings.HasPrefix(last[len(last)-1], "  next: the same command with --resume") {
					t.Errorf("the last lines are\n%s", strings.Join(last, "\n"))
				}
			}
			var r struct {
				Digest    string
				Published bool
			}
			stderr = c.must(&r, "--resume", "--threads", "1")
			if !strings.Contains(stderr, "going on from a checkpoint") {
				t.Errorf("it does not say where it begins:\n%s", stderr)
			}
			if !r.Published || r.Digest != whole.Digest {
				t.Errorf("published %v, digest %s; the unbroken run gave %s", r.Published, r.Digest, whole.Digest)
			}
			if signal != syscall.SIGKILL {
				return
			}
			stderr = c.must(&r, "--resume")
			if !strings.Contains(stderr, "no checkpoint of this model: training begins at the beginning") || r.Digest != whole.Digest {
				t.Errorf("after the publish, digest %s:\n%s", r.Digest, stderr)
			}
		})
	}
}

// resuming trains one model in processes of their own, each in a folder of its own.
type resuming struct {
	t                    *testing.T
	broker, topic, model string
	flags                []string // beside the usual ones
	here, there          []string // environment of those that are broken off, and of those that come to an end
}

func (c *resuming) command(environ []string, more ...string) (cmd *exec.Cmd, out, errs *bytes.Buffer) {
	c.t.Helper()
	cmd = exec.CommandContext(c.t.Context(), os.Args[0], append([]string{
		"train", "--topic", c.topic, "--model", c.model, "--brokers", c.broker, "--json", "--layers", "8,3,8", "--epochs", "150", "--patience", "1000", "--batch-size", "64",
	}, append(slices.Clone(c.flags), more...)...)...)
	cmd.Dir = c.t.TempDir()
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "LAPWING_TEST_MAIN=1"}, environ...)
	out, errs = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, errs
	return cmd, out, errs
}

// must trains to the end, and gives what was said on stderr.
func (c *resuming) must(v any, more ...string) (stderr string) {
	c.t.Helper()
	cmd, out, errs := c.command(c.there, more...)
	if err := cmd.Run(); err != nil {
		c.t.Fatalf("lapwing %s: %v\n%s", strings.Join(cmd.Args[1:], " "), err, errs)
	}
	if err := json.Unmarshal(out.Bytes(), v); err != nil {
		c.t.Fatalf("%v: %s", err, out)
	}
	return errs.String()
}

// end sends a training the signal once it has written a checkpoint, and gives its end. It writes one at every turn, so that many are still
// to come then.
func (c *resuming) end(signal syscall.Signal) (code int, stderr string) {
	c.t.Helper()
	cmd, _, errs := c.command(c.here, "--checkpoint", "10ms")
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	c.awaitCheckpoint()
	cmd.Process.Signal(signal)
	<-ended
	if cmd.ProcessState.Success() {
		c.t.Fatalf("it was done before the signal\n%s", errs)
	}
	return cmd.ProcessState.ExitCode(), errs.String()
}

// awaitCheckpoint returns once a checkpoint of the model is whole.
func (c *resuming) awaitCheckpoint() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.broker), kgo.ConsumeTopics("lapwing.checkpoints"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(50*time.Millisecond), kgo.MetadataMaxAge(100*time.Millisecond))
	if err != nil {
		c.t.Fatal(err)
	}
	defer client.Close()
	for found := false; !found; {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			c.t.Fatalf("no checkpoint was written: %v", fetches.Err())
		}
		fetches.EachRecord(func(r *kgo.Record) {
			key := strings.Split(string(r.Key), "/")
			found = found || len(key) == 3 && key[0] == c.model && r.Value != nil
		})
	}
}

// With a checkpoint of another run the message names what differs.
func TestTrainResumeRefused(t *testing.T) {
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 5000 --topic cars")
	c := &resuming{t: t, broker: b.broker, topic: "cars", model: "cars"}
	c.end(syscall.SIGTERM)
	for line, want := range map[string]string{
		"--resume --seed 2 --batch-size 32": "lapwing: the checkpoint was made with other settings: batch_size is 32, was 64; seed is 2, was 1\n",
		"--resume=00000000":                 "lapwing: run 00000000 left no checkpoint\n",
	} {
		cmd, _, errs := c.command(c.there, strings.Fields(line)...)
		cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != exitFailed || !strings.HasPrefix(errs.String(), want) || !strings.Contains(errs.String(), "\n  next: ") {
			t.Errorf("%s: exit status %d\n%s", line, code, errs)
		}
	}
	if out := b.ok("models list --json"); strings.Contains(out, `"digest"`) {
		t.Errorf("something was published: %s", out)
	}
}
