//go:build e2e

package faults

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lapwing-stream/lapwing/bench/kafka"
)

// topics are a stream's.
type topics struct{ in, scores, dead string }

// kcatLine has key and value last: neither holds a blank or a line break in these tests, except for the value.
const kcatLine = `%p %o %T %S %k %s\n`

// kcat reads one partition from an offset to its end, as a reader of committed records. It is built on librdkafka, as
// Lapwing is, but on Debian's and not the one that is linked in; the whole is read once more by Java (console).
func kcat(ctx context.Context, brokers, topic string, partition int32, from int64, line string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "kcat", "-C", "-q", "-e", "-b", brokers, "-t", topic, "-p", strconv.Itoa(int(partition)), "-o", strconv.FormatInt(from, 10),
		"-f", line, "-X", "isolation.level=read_committed", "-X", "fetch.wait.max.ms=10", "-X", "check.crcs=true")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("kcat could not read %s/%d from %d: %w\n%s", topic, partition, from, err, said.String())
	}
	return out, nil
}

// reader reads what has come to the three topics since it last did.
type reader struct {
	brokers string
	of      topics
	next    map[string]int64 // by topic/partition
}

func newReader(brokers string, of topics) *reader {
	return &reader{brokers: brokers, of: of, next: map[string]int64{}}
}

// into tells the ledger, the input first.
func (r *reader) into(ctx context.Context, l *ledger, partitions int) error {
	return r.read(ctx, l, partitions, r.of.in, r.of.scores, r.of.dead)
}

func (r *reader) read(ctx context.Context, l *ledger, partitions int, topics ...string) error {
	for _, topic := range topics {
		text := make([][]byte, partitions)
		errs := make([]error, partitions)
		line := kcatLine
		if topic == r.of.dead {
			line = `%p %o %T %S %k %h\n`
		}
		var reading sync.WaitGroup
		for p := range partitions {
			reading.Go(func() {
				text[p], errs[p] = kcat(ctx, r.brokers, topic, int32(p), r.next[lane(topic, int32(p))], line)
			})
		}
		reading.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		for p := range partitions {
			lines := bufio.NewScanner(bytes.NewReader(text[p]))
			lines.Buffer(nil, 1<<20)
			for lines.Scan() {
				f := strings.SplitN(lines.Text(), " ", 6)
				if len(f) < 6 {
					return fmt.Errorf("%s/%d: kcat wrote %q", topic, p, lines.Text())
				}
				offset, err1 := strconv.ParseInt(f[1], 10, 64)
				stamp, err2 := strconv.ParseInt(f[2], 10, 64)
				if err := errors.Join(err1, err2); err != nil {
					return err
				}
				r.next[lane(topic, int32(p))] = offset + 1
				e := entry{key: f[4], time: stamp}
				if topic == r.of.in {
					e.null = f[3] == "-1"
					l.read(place{int32(p), offset}, e)
				} else if err := tell(l, output{topic: topic, partition: int32(p), offset: offset, entry: e}, f[5], topic == r.of.dead); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func lane(topic string, partition int32) string { return fmt.Sprintf("%s/%d", topic, partition) }

// tell reads which record an output is about: a score says it in its value, a dead letter in its headers, NAME=VALUE or
// NAME:VALUE with commas between.
func tell(l *ledger, o output, text string, dead bool) error {
	if dead {
		for _, h := range strings.Split(text, ",") {
			name, value, _ := strings.Cut(strings.Replace(h, ":", "=", 1), "=")
			n, err := strconv.ParseInt(value, 10, 64)
			switch {
			case name == "lapwing.partition" && err == nil:
				o.about.partition = int32(n)
			case name == "lapwing.offset" && err == nil:
				o.about.offset = n
			}
		}
	} else {
		var s struct {
			Partition *int32
			Offset    *int64
			Model     string
			Version   int
		}
		if err := json.Unmarshal([]byte(text), &s); err != nil || s.Partition == nil || s.Offset == nil || s.Model != model || s.Version < 1 {
			return fmt.Errorf("%s/%d/%d is no score: %w: %s", o.topic, o.partition, o.offset, err, text)
		}
		o.about = place{*s.Partition, *s.Offset}
	}
	l.wrote(o, dead)
	return nil
}

// console reads the three topics from their beginnings by Kafka's own console consumer. That ends when nothing has come for a while: on a
// machine that is busy with other things it may not have begun by then, so where it has not seen what kcat saw it gets a second try, with
// more patience, and that one counts. known has the deleted records of the input.
func console(ctx context.Context, jars, brokers string, of topics, known *ledger, want tally) (l *ledger, got tally, err error) {
	for _, patience := range []time.Duration{10 * time.Second, time.Minute} {
		l = newLedger()
		known.remember(l)
		if err = consoleOnce(ctx, jars, brokers, of, l, patience); err != nil {
			return l, got, err
		}
		if got = l.close(); got == want {
			break
		}
	}
	return l, got, nil
}

func consoleOnce(ctx context.Context, jars, brokers string, of topics, l *ledger, patience time.Duration) error {
	names := []string{of.in, of.scores, of.dead}
	text := make([]bytes.Buffer, len(names))
	errs := make([]error, len(names))
	var reading sync.WaitGroup
	for i, topic := range names {
		reading.Go(func() {
			cmd := exec.CommandContext(ctx, "java", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-Dlog4j2.statusLoggerLevel=OFF",
				"-cp", kafka.Broker.Jars(jars), "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", brokers, "--topic", topic, "--from-beginning",
				"--isolation-level", "read_committed", "--timeout-ms", strconv.FormatInt(patience.Milliseconds(), 10), "--formatter-property", "print.timestamp=true", "--formatter-property", "print.partition=true",
				"--formatter-property", "print.offset=true", "--formatter-property", "print.headers=true", "--formatter-property", "print.key=true",
				"--formatter-property", "null.literal=NULL")
			var said bytes.Buffer
			cmd.Stdout, cmd.Stderr = &text[i], &said
			if err := cmd.Run(); err != nil && !strings.Contains(said.String(), "TimeoutException") {
				errs[i] = fmt.Errorf("the console consumer could not read %s: %w\n%s", topic, err, said.String())
			}
		})
	}
	reading.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for i, topic := range names {
		lines := bufio.NewScanner(&text[i])
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			f := strings.SplitN(lines.Text(), "\t", 6) // CreateTime:1 Partition:2 Offset:3 HEADERS key value
			if len(f) < 6 {
				return fmt.Errorf("%s: the console consumer wrote %q", topic, lines.Text())
			}
			var n [3]int64
			for j, name := range []string{"CreateTime:", "Partition:", "Offset:"} {
				v, err := strconv.ParseInt(strings.TrimPrefix(f[j], name), 10, 64)
				if err != nil {
					return fmt.Errorf("%s: the console consumer wrote %q", topic, lines.Text())
				}
				n[j] = v
			}
			e := entry{key: f[4], time: n[0]}
			if i == 0 {
				e.null = f[5] == "NULL"
				l.read(place{int32(n[1]), n[2]}, e)
				continue
			}
			body := f[5]
			if topic == of.dead {
				body = f[3]
			}
			if err := tell(l, output{topic: topic, partition: int32(n[1]), offset: n[2], entry: e}, body, topic == of.dead); err != nil {
				return err
			}
		}
	}
	return nil
}
