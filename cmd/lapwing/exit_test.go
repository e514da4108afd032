package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// process runs the program as a process of its own in the current folder; what it left behind is what counts once it has
// ended.
func (b *bed) process(environ []string, line string) (stdout, stderr string, code int) {
	b.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(b.t.Context(), os.Args[0], splitWords(b.t, line)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.t.TempDir(), "LAPWING_TEST_MAIN=1", "LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + b.broker}, environ...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		b.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// held is how many records a topic holds now.
func (b *bed) held(topic string) (n int64) {
	b.t.Helper()
	c, err := stream.Connect(b.t.Context(), stream.Options{Properties: map[string]string{"bootstrap.servers": b.broker}})
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	ranges, err := c.Watermarks(b.t.Context(), topic)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, r := range ranges {
		n += r.To - r.From
	}
	return n
}

// Commands that end at once leave everything that they announced as done, and a status that says whether it was.
func TestAnnouncedIsDoneAtExit_Case8_11(t *testing.T) {
	b := newBed(t)
	var rows strings.Builder
	rows.WriteString("x,y\n")
	for i := range 100 {
		fmt.Fprintf(&rows, "%d,%d\n", i%17, i%5)
	}
	writeFile(t, "rows.csv", rows.String())
	writeFile(t, "one.jsonl", `{"x":3,"y":1}`+"\n")
	done := func(line string) map[string]any {
		t.Helper()
		out, stderr, code := b.process(nil, line)
		var m map[string]any
		if code != 0 || json.Unmarshal([]byte(out), &m) != nil {
			t.Fatalf("lapwing %s: exit %d\n%s%s", line, code, out, stderr)
		}
		return m
	}
	if m := done("load rows.csv --topic t --json"); m["sent"] != 100.0 || b.held("t") != 100 {
		t.Errorf("load announced %v; the topic holds %d", m["sent"], b.held("t"))
	}
	trained := done("train --topic t --model m --layers 4 --epochs 1 --json")
	c, err := stream.Connect(t.Context(), stream.Options{Properties: map[string]string{"bootstrap.servers": b.broker}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if m, _, err := registry.Open(c, registry.Options{}).Get(t.Context(), registry.Ref{Name: "m", Alias: "live"}); err != nil || m.Digest != trained["digest"] {
		t.Errorf("train announced %v; the topic has %v, %v", trained["digest"], m.Digest, err)
	}
	if m := done("score one.jsonl --model m --to scored --json"); m["scored"] != 1.0 || b.held("scored") != 1 {
		t.Errorf("score announced %v; the topic holds %d", m["scored"], b.held("scored"))
	}
	done("score one.jsonl --model m --to scored.jsonl --json")
	if text, err := os.ReadFile("scored.jsonl"); err != nil || bytes.Count(text, []byte("\n")) != 1 {
		t.Errorf("%v: %s", err, text)
	}
	if m := done("generate cars --rate 0 --count 500 --topic cars --json"); m["records"] != 500.0 || b.held("cars") != 500 {
		t.Errorf("generate announced %v; the topic holds %d", m["records"], b.held("cars"))
	}
	// With a log level that was asked for, the last line of the log is there too.
	if _, stderr, code := b.process(nil, "score one.jsonl --model m --to - --log-level debug"); code != 0 || !strings.Contains(stderr, "engine chosen") || !strings.HasSuffix(stderr, "\n") {
		t.Errorf("exit %d; the log ends with %q", code, stderr)
	}

	// What the broker does not take is no success: of a record larger than the client is set to send.
	writeFile(t, "large.jsonl", `{"x":1,"y":2}`+"\n"+`{"x":"`+strings.Repeat("a", 2<<20)+`"}`+"\n")
	out, stderr, code := b.process(nil, "load large.jsonl --topic large -X message.max.bytes=1000000 --json")
	if code != exitFailed || !strings.Contains(stderr, "large") || strings.Contains(out, `"sent":2`) {
		t.Errorf("a record that was not delivered: exit %d\n%s%s", code, out, stderr)
	}
}

// The same bytes of model and scores in any zone and locale, from a CSV file with times that name no zone.
func TestZoneAndLocaleOfTheMachine_Case8_10(t *testing.T) {
	b := newBed(t)
	var rows strings.Builder
	rows.WriteString("when;x;y\n")
	for i := range 300 {
		fmt.Fprintf(&rows, "2026-03-29 %02d:%02d:00;%d,%03d;1.%03d,5\n", i/60, i%60, i%17, i, i)
	}
	writeFile(t, "rows.csv", rows.String())
	results := map[string]string{}
	for name, environ := range map[string][]string{
		"here": {"TZ=UTC", "LANG=C", "LC_ALL=C"}, "there": {"TZ=Asia/Kathmandu", "LANG=de_DE.UTF-8", "LC_ALL=de_DE.UTF-8", "LC_NUMERIC=de_DE.UTF-8"},
	} {
		file := "--delimiter ; --decimal-comma --time when --time-layout \"2006-01-02 15:04:05\""
		var out string
		for _, line := range []string{
			"load rows.csv --topic t-" + name + " --partitions 1 " + file, "train --topic t-" + name + " --model m --time when --layers 4 --epochs 2 --models-topic models-" + name,
			"score rows.csv --model m --to - --contributions all --models-topic models-" + name + " " + file,
		} {
			var stderr string
			var code int
			if out, stderr, code = b.process(environ, line); code != 0 {
				t.Fatalf("%s: lapwing %s: exit %d\n%s", name, line, code, stderr)
			}
		}
		records := strings.ReplaceAll(b.ok("tail t-"+name+" --from-beginning -n 300 --json"), "t-"+name, "T")
		results[name] = out + records
	}
	if results["here"] != results["there"] || strings.Count(results["here"], "\n") != 600 {
		t.Errorf("zone or locale changes what is sent or scored:\n%.600s\n%.600s", results["here"], results["there"])
	}
	if !strings.Contains(results["here"], `"x":16.033,"y":1033.5`) {
		t.Errorf("not the numbers of the file: %.300s", results["here"])
	}
}

// Secrets are in no output of any command whose connection fails in any way, with everything logged, nor in what a server
// answers.
func TestSecretsAppearNowhere_Case8_03(t *testing.T) {
	b := newBed(t)
	const mark = "XMARKERX"
	b.ok("generate cars --rate 0 --count 300 --topic cars")
	b.ok("train --topic cars --model cars --layers 4 --epochs 1")
	writeFile(t, "a.csv", "x\n1\n")
	frozen := frozenListener(t)
	failing := map[string]string{
		"refused":  "-X sasl.username=ann -X sasl.password=" + mark + "1 -X security.protocol=SASL_PLAINTEXT -X sasl.mechanism=PLAIN --brokers 127.0.0.1:1",
		"frozen":   "-X sasl.username=ann -X sasl.password=" + mark + "2 -X security.protocol=SASL_SSL -X sasl.mechanism=SCRAM-SHA-256 --brokers " + frozen,
		"no SASL":  "-X sasl.username=ann -X sasl.password=" + mark + "3 -X security.protocol=SASL_PLAINTEXT -X sasl.mechanism=PLAIN --brokers " + b.broker,
		"key":      "-X security.protocol=SSL -X ssl.key.password=" + mark + "4 -X ssl.key.pem=" + mark + "5 --brokers " + b.broker,
		"keystore": "-X security.protocol=SSL -X ssl.keystore.location=absent -X ssl.keystore.password=" + mark + "6 --brokers " + b.broker,
		"oauth": "-X security.protocol=SASL_PLAINTEXT -X sasl.mechanism=OAUTHBEARER -X sasl.oauthbearer.method=oidc -X sasl.oauthbearer.client.id=ann -X sasl.oauthbearer.client.secret=" + mark +
			"7 -X sasl.oauthbearer.token.endpoint.url=http://ann:" + mark + "8@127.0.0.1:1/token --brokers " + b.broker,
	}
	commands := []string{"models list", "train --topic cars --model cars", "serve --topic cars --model cars --http none", "score a.csv --model cars --to -", "load a.csv --topic t", "tail cars", "doctor --topic cars --model cars", "models diff cars/1 cars/1"}
	var group sync.WaitGroup
	limit := make(chan struct{}, 6)
	i := 0
	for name, flags := range failing {
		// Two commands of each way to fail: all of them would be the same connection eight times over.
		for range 2 {
			line := commands[i%len(commands)] + " --log-level debug " + flags
			i++
			group.Go(func() {
				limit <- struct{}{}
				defer func() { <-limit }()
				line, environ := secretsAside(line)
				out, stderr, code := b.process(append(environ, "LAPWING_PYROSCOPE_PASSWORD="+mark+"9", "LAPWING_PYROSCOPE_USER=ann"), line)
				if code == 0 {
					t.Errorf("%s: lapwing %s: succeeded", name, line)
				}
				if strings.Contains(out+stderr, mark) {
					t.Errorf("%s: lapwing %s shows a secret:\n%s%s", name, line, out, stderr)
				}
			})
		}
	}
	group.Wait()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, errs buffer
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, splitWords(t, "serve --topic cars --model cars --http 127.0.0.1:0 --json --log-level debug"), world{in: strings.NewReader(""), out: &out, err: &errs, environ: []string{
			"LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + b.broker, "LAPWING_KAFKA_SASL_PASSWORD=" + mark + "a", "LAPWING_KAFKA_SSL_KEY_PASSWORD=" + mark + "b",
			"LAPWING_PYROSCOPE_URL=http://ann:" + mark + "c@127.0.0.1:1", "LAPWING_PYROSCOPE_PASSWORD=" + mark + "d", "LAPWING_PYROSCOPE_INTERVAL=1s",
		}})
	}()
	awaitTopic(t, b.broker, "cars.scores")
	var started struct{ HTTP string }
	if err := json.Unmarshal([]byte(strings.SplitN(out.String(), "\n", 2)[0]), &started); err != nil || started.HTTP == "" {
		t.Fatalf("%v: %s", err, out.String())
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/", "/debug/pprof/heap"} {
		answer, err := (&http.Client{Timeout: 10 * time.Second}).Get("http://" + started.HTTP + path)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		body.ReadFrom(answer.Body)
		answer.Body.Close()
		if strings.Contains(body.String(), mark) {
			t.Errorf("%s shows a secret:\n%s", path, &body)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if all := out.String() + errs.String(); strings.Contains(all, mark) {
		t.Errorf("serve shows a secret:\n%s", all)
	}
}

// secretsAside moves secret properties from a command line, which takes none, to the environment.
func secretsAside(line string) (rest string, environ []string) {
	var words []string
	for part := range strings.SplitSeq(line, " -X ") {
		property, value, _ := strings.Cut(part, "=")
		if !secretProperty(property) {
			words = append(words, part)
			continue
		}
		value, after, more := strings.Cut(value, " ")
		environ = append(environ, "LAPWING_KAFKA_"+strings.ToUpper(strings.ReplaceAll(property, ".", "_"))+"="+value)
		if more { // what stood behind it belongs to the flag before
			words[len(words)-1] += " " + after
		}
	}
	return strings.Join(words, " -X "), environ
}

// frozenListener accepts connections and says nothing.
func frozenListener(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}
