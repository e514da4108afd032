//go:build e2e

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/bench/kafka"
)

// Files to records to scores to files, by the connectors that come with Kafka, configured as docs/connect.md says.
func TestRealKafkaConnect(t *testing.T) {
	f := realKafka(t)
	dir := peers(t, kafka.Connect)
	topic := "sensors" + f.suffix
	f.run(nil, "generate", "cars", "--rate", "0", "--count", "2000", "--topic", topic+".history")
	f.run(nil, "train", "--topic", topic+".history", "--model", topic, "--epochs", "2", "--layers", "6,3,6")
	var lines bytes.Buffer
	rows := 0
	for _, records := range f.all(topic + ".history") {
		for _, r := range records {
			fmt.Fprintf(&lines, "%s\n", r.Value)
			rows++
		}
	}
	in, out, short := filepath.Join(f.dir, "sensors.jsonl"), filepath.Join(f.dir, "scores.jsonl"), filepath.Join(f.dir, "anomalies.txt")
	if err := os.WriteFile(in, lines.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rest := l.Addr().String()
	l.Close()
	f.makeTopic(topic, 1)
	s := f.serve("--topic", topic, "--model", topic, "--delivery", "exactly_once") // makes the topic that the sink waits for
	worker := f.java(dir, "org.apache.kafka.connect.cli.ConnectStandalone",
		f.configured("connect/worker.properties", "localhost:9092", f.addr, "/var/lib/connect/offsets", filepath.Join(f.dir, "offsets"),
			"libs/connect-file-4.3.1.jar", filepath.Join(dir, "connect", "connect-file-4.3.1.jar"), "127.0.0.1:8083", rest),
		f.configured("connect/source.properties", "/var/spool/sensors.jsonl", in, "topic=sensors", "topic="+topic),
		f.configured("connect/sink.properties", "topics=sensors.scores", "topics="+topic+".scores", "/var/spool/scores.jsonl", out),
		f.configured("connect/fields.properties", "topics=sensors.scores", "topics="+topic+".scores", "/var/spool/scores.txt", short))

	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var scores, fields []string
	for len(scores) < rows || len(fields) < rows {
		select {
		case <-tick.C:
		case <-f.ctx.Done():
			t.Fatalf("%d and %d of %d scores are in the files", len(scores), len(fields), rows)
		}
		if err := worker.Ended(); err != nil {
			t.Fatal(err)
		}
		scores, fields = linesOf(t, out), linesOf(t, short)
	}
	seen := map[int64]bool{}
	for i, line := range scores {
		var s score
		if err := json.Unmarshal([]byte(line), &s); err != nil || s.Score == nil || s.Model != topic || seen[s.Offset] {
			t.Fatalf("line %d: %v: %s", i+1, err, line)
		}
		seen[s.Offset] = true
	}
	if len(scores) != rows || len(fields) != rows || !strings.Contains(fields[0], "score=") || strings.Contains(fields[0], "partition=") {
		t.Errorf("%d rows became %d scores and %d lines such as %s", rows, len(scores), len(fields), fields[0])
	}
	// Connect's own HTTP interface says how its connectors are.
	for _, name := range []string{"sensors", "scores", "fields"} {
		answer, err := http.Get("http://" + rest + "/connectors/" + name + "/status")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || strings.Count(string(body), `"state":"RUNNING"`) != 2 {
			t.Errorf("%s: %s, %v", name, body, err)
		}
	}
	if said := s.stop().Streams[0]; said.RecordsOut != int64(rows) || said.Bad != 0 {
		t.Errorf("serve says %+v", said)
	}
}

// linesOf gives the whole lines of a file, none where it is missing.
func linesOf(t *testing.T, file string) []string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	end := bytes.LastIndexByte(data, '\n')
	if end < 0 {
		return nil
	}
	return strings.Split(string(data[:end]), "\n")
}
