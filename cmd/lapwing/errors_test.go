package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

type hinted struct{ what, hint string }

func (h hinted) Error() string { return h.what }
func (h hinted) Hint() string  { return h.hint }

func TestErrorsReadAsThreeLines(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"fault", usage("no such thing", "lapwing.yaml:3", "do that"), "lapwing: no such thing\n  lapwing.yaml:3\n  next: do that\n"},
		{"wrapped fault", fmt.Errorf("around: %w", usage("no such thing", "", "do that")), "lapwing: no such thing\n  next: do that\n"},
		{"of stream", &stream.Error{What: "no broker answers", Where: "127.0.0.1:1", Next: "start one"}, "lapwing: no broker answers\n  127.0.0.1:1\n  next: start one\n"},
		{"of stream, wrapped", fmt.Errorf("training: %w", &stream.Error{What: "no broker answers", Where: "x"}), "lapwing: training: no broker answers\n  x\n"},
		{"three lines", errors.New("what\n  where\n  try this"), "lapwing: what\n  where\n  next: try this\n"},
		{"many lines", errors.New("what\none\ntwo\nnext: three\nfour"), "lapwing: what\n  one; two; four\n  next: three\n"},
		{"hint", hinted{"there is no model cars", "train one"}, "lapwing: there is no model cars\n  next: train one\n"},
		{"hint said twice", hinted{"there is no model cars; train one", "train one"}, "lapwing: there is no model cars\n  next: train one\n"},
		{"plain", errors.New("it broke"), "lapwing: it broke\n"},
		{"control characters", errors.New("it \x1b[31m broke"), "lapwing: it ·[31m broke\n"},
		{"long", errors.New("topic cars, partition 3, offset 1234: the value is not a JSON object: unexpected end of the text after the key \"temp\", which began at byte 17 of 120"),
			"lapwing: the value is not a JSON object: unexpected end of the text after the key \"temp\", which began at byte 17 of 120\n  topic cars, partition 3, offset 1234\n"},
		{"long without a place", errors.New("the value of the field is not what it was in the history that this model was trained on: a number was expected and a text was found there"),
			"lapwing: the value of the field is not what it was in the history that this model was trained on\n  a number was expected and a text was found there\n"},
		{"place and advice", errors.New("spec.yaml:3: there is no field temp; use one of a, b"), "lapwing: there is no field temp\n  spec.yaml:3\n  next: use one of a, b\n"},
		{"joined", errors.Join(errors.New("one"), hinted{"two", "mend it"}), "lapwing: 2 things are wrong\n  one\n  two; mend it\n"},
		{"joined, one", errors.Join(errors.New("one")), "lapwing: one\n"},
		{"two causes", fmt.Errorf("%w and %w", errors.New("one"), errors.New("two")), "lapwing: one and two\n"},
	} {
		var b bytes.Buffer
		printError(&b, c.err)
		if b.String() != c.want {
			t.Errorf("%s:\n%swant\n%s", c.name, &b, c.want)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {errors.New("x"), 1}, {usage("x", "", ""), 2}, {fmt.Errorf("a: %w", usage("x", "", "")), 2},
		{fmt.Errorf("a: %w", &registry.OvertakenError{}), 3}, {fmt.Errorf("a: %w", context.Canceled), 130}, {&faults{code: exitUsage}, 2},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v exits with %d, want %d", c.err, got, c.want)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"train", "serve", "score", "models", "tail", "version"}
	for in, want := range map[string]string{
		"trian": "train", "serv": "serve", "SCORE": "score", "model": "models", "tial": "tail", "xyzzy": "", "": "", "versoin": "version", "completely-else": "",
	} {
		if got := nearest(in, names); got != want {
			t.Errorf("nearest(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestKafkaPropertiesAreKnown_Case8_02(t *testing.T) {
	var all errgroup.Group
	all.SetLimit(16) // each makes a client, which mostly waits
	for _, p := range kafkaProperties {
		all.Go(func() error {
			err := (&stream.Options{Properties: map[string]string{"bootstrap.servers": "x:1", p: "nonsense"}}).Validate()
			if err != nil && strings.Contains(err.Error(), "No such configuration property") {
				t.Errorf("librdkafka has no %s", p)
			}
			return nil
		})
	}
	all.Wait()
	_, err := load(t, `kafka:
  enable.auto.commit: true
  isolation.level: read_uncommitted
  sesion.timeout.ms: 1
  transactional.id: x
  bootstrap.server: localhost:9092
  linger.ms: often
`, loadOptions{})
	var b bytes.Buffer
	printError(&b, err)
	golden(t, "kafka_faults.golden", b.Bytes())
}

func TestAnOvertakenImportNamesItsFile(t *testing.T) {
	err := importFault(fmt.Errorf("publish: %w", &registry.OvertakenError{By: registry.Manifest{Name: "cars", Version: 3, By: "someone"}}), "my cars.onnx", "cars")
	if f := explain(err); exitCode(err) != exitOvertaken || f.where != "my cars.onnx" || !strings.HasSuffix(f.next, "lapwing models import 'my cars.onnx' --model cars") {
		t.Errorf("exit %d, %+v", exitCode(err), f)
	}
}
