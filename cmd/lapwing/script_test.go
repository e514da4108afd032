package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lapwing-stream/lapwing/stream"
)

// TestScripts runs the command lines of testdata/scripts against an embedded broker and compares what a user
// reads when they fail. A script is commands, then files:
//
//	# a comment
//	$ NAME=value lapwing train --topic t --model m     a command, run by the real run()
//	$ produce TOPIC "KEY" "VALUE" *120                 a record as it is, Go-quoted, so many times
//	! exit 1                                           what must follow: the exit code, unless 0,
//	! lapwing: what                                    and all of stderr
//	-- a.csv --                                        a file of the script's folder, until the next one
//
// Every failure is at most three lines (what, where, next), and a mark under the second; go test -update writes the ! lines anew.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob(filepath.Join(home, "testdata", "scripts", "*.txt"))
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) { runScript(t, path) })
	}
}

var scriptFile = regexp.MustCompile(`(?m)^-- (\S+) --\n`)

func runScript(t *testing.T, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	broker, err := stream.Embed(stream.EmbeddedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	t.Chdir(t.TempDir())
	commands, files := string(text), ""
	if at := scriptFile.FindStringIndex(commands); at != nil {
		commands, files = commands[:at[0]], commands[at[0]:]
		names := scriptFile.FindAllStringSubmatchIndex(files, -1)
		for i, n := range names {
			end := len(files)
			if i+1 < len(names) {
				end = names[i+1][0]
			}
			body := files[n[1]:end]
			if q, ok := strings.CutPrefix(body, "quoted "); ok { // bytes that a text file cannot show
				if body, err = strconv.Unquote(strings.TrimSpace(q)); err != nil {
					t.Fatalf("%s: %v", files[n[2]:n[3]], err)
				}
			}
			writeFile(t, files[n[2]:n[3]], expand(t, body))
		}
	}
	var got strings.Builder
	for line := range strings.Lines(commands) {
		if strings.HasPrefix(line, "! ") || line == "!\n" {
			continue
		}
		got.WriteString(line)
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			got.WriteString(runLine(t, broker.Addr(), strings.TrimSpace(command)))
		}
	}
	if *update {
		writeFile(t, path, got.String()+files)
		return
	}
	if d := cmp.Diff(commands, got.String()); d != "" {
		t.Errorf("go test -run TestScripts -update rewrites it:\n%s", d)
	}
}

// expand turns a line such as repeat 120 "1,2\n" into what it says.
func expand(t *testing.T, body string) string {
	var b strings.Builder
	for line := range strings.Lines(body) {
		var n int
		var what string
		if k, err := fmt.Sscanf(line, "repeat %d %q", &n, &what); k == 2 && err == nil {
			line = strings.Repeat(what, n)
		}
		b.WriteString(line)
	}
	return b.String()
}

// runLine runs one command and gives its ! lines.
func runLine(t *testing.T, broker, command string) string {
	t.Helper()
	words := splitWords(t, command)
	var environ []string
	if !strings.Contains(words[0], "BOOTSTRAP_SERVERS=") {
		environ = append(environ, "LAPWING_KAFKA_BOOTSTRAP_SERVERS="+broker)
	}
	for len(words) > 0 && strings.Contains(words[0], "=") {
		environ = append(environ, words[0])
		words = words[1:]
	}
	switch words[0] {
	case "produce":
		produce(t, broker, words[1], words[2], words[3:]...)
		return ""
	case "lapwing":
	default:
		t.Fatalf("what is %q?", command)
	}
	begin := time.Now()
	_, stderr, code := runIn(t, environ, words[1:]...)
	if code != 0 {
		// A refusal is quick: an absent broker, wrong TLS or a wrong password may take 10 s.
		if d := time.Since(begin); d > 20*time.Second {
			t.Errorf("%s took %v to fail", command, d)
		}
		lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.TrimSpace(l) == "^" }) // a mark under where
		if len(lines) > 3 || !strings.HasPrefix(lines[0], "lapwing: ") {
			t.Errorf("%s: not what, where, next:\n%s", command, stderr)
		}
	}
	var b strings.Builder
	if code != 0 {
		fmt.Fprintf(&b, "! exit %d\n", code)
	}
	for line := range strings.Lines(strings.ReplaceAll(stderr, broker, "BROKER")) {
		// Log lines of a success are JSON and hold times.
		if code == 0 && strings.HasPrefix(line, "{") {
			continue
		}
		b.WriteString("! " + line)
	}
	return b.String()
}

// splitWords parts a line at spaces; "…" is one word, with Go's escapes.
func splitWords(t *testing.T, s string) []string {
	t.Helper()
	var words []string
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		if s[0] == '"' {
			q, err := strconv.QuotedPrefix(s)
			if err != nil {
				t.Fatalf("%v in %s", err, s)
			}
			word, _ := strconv.Unquote(q)
			words, s = append(words, word), s[len(q):]
			continue
		}
		word, rest, _ := strings.Cut(s, " ")
		words, s = append(words, word), rest
	}
	return words
}

// produce writes values under one key, as any other program may. "null" is a tombstone.
func produce(t *testing.T, broker, topic, key string, values ...string) {
	t.Helper()
	c, err := stream.Connect(t.Context(), stream.Options{Properties: map[string]string{"bootstrap.servers": broker}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.CreateTopic(t.Context(), stream.TopicSpec{Name: topic, Partitions: 1, Config: map[string]string{"cleanup.policy": "compact"}}); err != nil {
		t.Fatal(err)
	}
	p, err := c.Producer(t.Context(), stream.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := strings.CutPrefix(values[len(values)-1], "*"); ok {
		times, err := strconv.Atoi(n)
		if err != nil {
			t.Fatal(err)
		}
		values = slices.Repeat(values[:len(values)-1], times)
	}
	var records []stream.Record
	for _, v := range values {
		r := stream.Record{Topic: topic, Partition: 0, Key: []byte(key), Value: []byte(v), Time: -1}
		if v == "null" {
			r.Value = nil
		}
		records = append(records, r)
	}
	if err := p.Produce(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
