package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

// bed is an embedded broker and a folder to run commands in.
type bed struct {
	t      *testing.T
	broker string
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b, err := stream.Embed(stream.EmbeddedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	t.Chdir(t.TempDir())
	return &bed{t: t, broker: b.Addr()}
}

// ok runs a command line that must succeed, and gives its stdout.
func (b *bed) ok(line string) string {
	b.t.Helper()
	out, stderr, code := runIn(b.t, []string{"LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + b.broker}, splitWords(b.t, line)...)
	if code != 0 {
		b.t.Fatalf("lapwing %s: exit %d\n%s", line, code, stderr)
	}
	return out
}

// object runs a command line that prints one JSON object.
func (b *bed) object(line string) map[string]any {
	b.t.Helper()
	var m map[string]any
	if out := b.ok(line); json.Unmarshal([]byte(out), &m) != nil {
		b.t.Fatalf("lapwing %s: not one JSON object:\n%s", line, out)
	}
	return m
}

// fails runs a command line that must exit with 1, and gives its stdout and stderr.
func (b *bed) fails(line string) (out, stderr string) {
	b.t.Helper()
	out, stderr, code := runIn(b.t, []string{"LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + b.broker}, splitWords(b.t, line)...)
	if code != exitFailed {
		b.t.Fatalf("lapwing %s: exit %d\n%s", line, code, stderr)
	}
	return out, stderr
}

func (b *bed) has(out string, parts ...string) {
	b.t.Helper()
	for _, p := range parts {
		if !strings.Contains(out, p) {
			b.t.Errorf("%q is not in:\n%s", p, out)
		}
	}
}

func TestCommandsFromHistoryToScores(t *testing.T) {
	b := newBed(t)
	made := b.object("generate cars --rate 0 --count 3000 --cars 20 --faults 2 --topic cars --json")
	if made["records"] != 3000.0 || made["labels"] != "cars.labels" || made["episodes"].(float64) < 1 {
		t.Errorf("generate: %v", made)
	}
	labels := b.ok("tail cars.labels --from-beginning -n 1")
	b.has(labels, `"kind":`, "car")

	spec := b.ok("train --topic cars --dry-run --time time --key car")
	b.has(spec, "format: json", "coolant_temp", "# read")
	writeFile(t, "spec.yaml", spec)
	report := b.object("train --topic cars --model cars --spec spec.yaml --layers 6,3,6 --epochs 2 --json")
	if report["version"] != 1.0 || report["published"] != true || report["inferred"] != false {
		t.Errorf("train: %v", report)
	}
	next := fmt.Sprint(report["next"])
	b.has(next, "lapwing serve --topic cars --model cars --start after-training", "lapwing tail alerts --topic cars")
	text := b.ok("train --topic cars --model cars --alias none --epochs 1 --layers 4")
	b.has(text, "published   cars/2", "  lapwing models move cars@live 2\n  lapwing serve --topic cars --model cars --start after-training\n  lapwing tail alerts --topic cars\n")

	list := b.ok("models list")
	b.has(list, "cars  live → 1", "\n     2 ", "\n     1 ")
	show := b.ok("models show cars/1")
	b.has(show, "cars/1", "topic cars", "18 columns", "coolant_temp")
	b.has(b.ok("models move cars@live 2 --why tested"), "cars@live means version 2 now (before: version 1)")
	if _, stderr, code := runIn(t, []string{"LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + b.broker}, "models", "move", "cars@canry", "2"); code != exitUsage ||
		stderr != "lapwing: model cars has no alias canry\n  next: did you mean canary? --new-alias makes another\n" {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	b.ok("models move cars@north 1 --new-alias")
	b.ok("models move cars@north 2")
	b.has(b.ok("models rollback cars"), "cars@live means version 1 now")
	b.has(b.ok("models show cars"), "live → 1 by", "1 → 2", "tested", "2 → 1")
	b.ok("models export cars --to cars.onnx")
	b.ok("models export cars/1 --to pruned.onnx --outputs score")
	if whole, pruned := size(t, "cars.onnx"), size(t, "pruned.onnx"); pruned >= whole {
		t.Errorf("pruned to %d of %d bytes", pruned, whole)
	}
	b.has(b.ok("models import cars.onnx --model copied --alias canary"), "copied/1 is published from cars.onnx")
	if m := b.object("models show copied@canary --json"); m["version"] != 1.0 || m["manifest"].(map[string]any)["digest"] != report["digest"] {
		t.Errorf("an exported and imported model differs: %v", m["manifest"])
	}

	rows := b.ok("tail cars --from-beginning -n 50 --json")
	var file bytes.Buffer
	for line := range strings.Lines(rows) {
		var r struct{ Value json.RawMessage }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		file.Write(append(r.Value, '\n'))
	}
	file.WriteString("not JSON\n")
	writeFile(t, "rows.jsonl", file.String())
	var scored map[string]any
	out, stderr := b.fails("score rows.jsonl --model cars/1 --to scores.jsonl --json")
	if err := json.Unmarshal([]byte(out), &scored); err != nil {
		t.Fatal(err)
	}
	if want := "lapwing: 1 of 51 rows was rejected\n  rows.jsonl:51: "; !strings.HasPrefix(stderr, want) {
		t.Errorf("%s\nwant %s", stderr, want)
	}
	b.has(stderr, "next: correct those lines and score only them; the others were scored")
	if scored["records"] != 51.0 || scored["scored"] != 50.0 || scored["model"] != "cars/1" {
		t.Errorf("score: %v", scored)
	}
	lines, err := os.ReadFile("scores.jsonl")
	if err != nil || bytes.Count(lines, []byte("\n")) != 50 || !bytes.Contains(lines, []byte(`"model":"cars","version":1`)) {
		t.Errorf("%v: %.300s", err, lines)
	}
	if direct, _ := b.fails("score rows.jsonl --model cars@live --to -"); direct != string(lines) {
		t.Error("the same rows got other scores on standard output")
	}
	b.fails("score rows.jsonl --model cars --to rescored")
	b.has(b.ok("tail rescored --from-beginning -n 50"), "cars/1", "car1 ")
	_, stderr = b.fails("score rows.jsonl --model cars --to cars")
	if want := "lapwing: topic cars holds the history that model cars/1 was trained on: scores do not belong among its records\n  --to cars\n  next: name another topic, such as --to cars.scores\n"; stderr != want {
		t.Errorf("%s\nwant %s", stderr, want)
	}
	if left, _ := filepath.Glob(".scores*"); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func size(t *testing.T, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// buffer is a bytes.Buffer for a command that still runs.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestServeScoresAndEndsCleanly(t *testing.T) {
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 2000 --cars 20 --topic cars")
	b.ok("train --topic cars --model cars --layers 4 --epochs 1")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, errs buffer
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, splitWords(t, "serve --topic cars --model cars --http 127.0.0.1:0 --json"),
			world{in: strings.NewReader(""), out: &out, err: &errs, environ: []string{"LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + b.broker}})
	}()
	// tail needs the topic to exist; serve makes it.
	awaitTopic(t, b.broker, "cars.scores")
	scores := b.ok("tail scores --topic cars --from-beginning -n 2000 --json")
	if n := strings.Count(scores, `"status":"ok"`); n != 2000 {
		t.Errorf("%d of 2000 scores are ok", n)
	}
	b.has(b.ok("tail scores --from-beginning -n 3"), "cars/1") // the only topic of scores
	stop()
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	objects := strings.Split(strings.TrimSpace(out.String()), "\n")
	var last struct {
		Streams []struct {
			RecordsIn  int64 `json:"records_in"`
			RecordsOut int64 `json:"records_out"`
		}
	}
	if len(objects) != 2 || !strings.Contains(objects[0], `"output":"cars.scores"`) || json.Unmarshal([]byte(objects[len(objects)-1]), &last) != nil {
		t.Fatalf("not two JSON objects:\n%s", out.String())
	}
	if s := last.Streams; len(s) != 1 || s[0].RecordsIn != 2000 || s[0].RecordsOut != 2000 {
		t.Errorf("%+v", s)
	}
	if e := bestEngine(); strings.Count(errs.String(), fmt.Sprintf(`"msg":"engine","name":%q,"level":%q`, e.Name(), e.Level())) != 1 {
		t.Errorf("the log does not say once what computes:\n%s", errs.String())
	}
	for line := range strings.Lines(errs.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a log line of a pipe is not JSON: %s", line)
		}
	}
}

func awaitTopic(t *testing.T, broker, topic string) {
	t.Helper()
	c, err := stream.Connect(t.Context(), stream.Options{Properties: map[string]string{"bootstrap.servers": broker}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if n, err := c.Partitions(ctx, topic); err == nil && n > 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("topic %s does not appear", topic)
		case <-tick.C:
		}
	}
}

// The progress of a training stays within the terminal and leaves it as it was.
func TestTrainInATerminal(t *testing.T) {
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 5000 --topic cars")
	for _, how := range []string{"end", "interrupt"} {
		t.Run(how, func(t *testing.T) {
			s := openScreen(t, 80, 24, []string{"LAPWING_TEST_MAIN=1"}, "train", "--topic", "cars", "--model", "cars", "--brokers", b.broker, "--layers", "16,8,16",
				"--epochs", map[string]string{"end": "2", "interrupt": "1000"}[how], "--patience", "1000")
			fitting, stopped := false, false
			s.frames(func(final bool) bool {
				_, rows := s.lines()
				all := strings.Join(rows, "\n")
				if n := strings.Count(all, "train    epoch"); n > 1 {
					t.Fatalf("the progress stands %d times in\n%s", n, all)
				}
				fitting = fitting || strings.Contains(all, "epoch ")
				if how == "interrupt" && fitting && !stopped {
					stopped = true
					s.pty.Write([]byte{3})
				}
				return true
			})
			raw := s.raw.String()
			if !fitting {
				t.Errorf("no epoch was shown: %q", raw)
			}
			if s.hidden || !strings.Contains(raw, showCursor) {
				t.Error("the cursor stays hidden")
			}
			above, rows := s.lines()
			all := strings.Join(append(above, rows...), "\n")
			if how == "end" && !strings.Contains(strings.ReplaceAll(all, "\n", ""), "lapwing serve --topic cars --model cars --start after-training --brokers "+b.broker) {
				t.Errorf("the next command is not printed:\n%s", all)
			}
			if how == "interrupt" {
				if !strings.Contains(all, "lapwing: interrupted: nothing was published") {
					t.Errorf("the interruption is not told:\n%s", all)
				}
				s.cmd.Wait()
				if code := s.cmd.ProcessState.ExitCode(); code != exitInterrupted {
					t.Errorf("exit code %d", code)
				}
			}
		})
	}
	if out := b.ok("models list --json"); strings.Count(out, `"digest"`) != 1 {
		t.Errorf("an interrupted training published: %s", out)
	}
}

func TestLoadCountsAndPlacesRows(t *testing.T) {
	b := newBed(t)
	writeFile(t, "a.csv", "id,x,when\n1,1.50,2026-01-01T00:00:00Z\n2,,2026-01-01T00:00:01Z\n3,7\n")
	var got map[string]any
	out, stderr := b.fails("load a.csv --topic t --key id --time when --drop when --json")
	if want := "lapwing: 1 of 3 rows was rejected\n  a.csv:4: 2 fields, header has 3\n  next: correct those lines and load only them; the others were sent\n"; stderr != want {
		t.Errorf("%s\nwant %s", stderr, want)
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if got["rows"] != 3.0 || got["sent"] != 2.0 || got["created"] != true || fmt.Sprint(got["rejected"]) != "map[csv_columns:1]" {
		t.Errorf("%v", got)
	}
	b.has(fmt.Sprint(got["examples"]), "a.csv:4")
	records := b.ok("tail t --from-beginning -n 2 --json")
	b.has(records, `"value":{"id":1,"x":1.50}`, `"value":{"id":2,"x":null}`, `"key":"1"`, `"time":"2026-01-01T00:00:01Z"`)
	again, _ := b.fails("load a.csv --topic t --partitions 3")
	b.has(again, "1 rejected: csv_columns\n  a.csv:4: 2 fields", "note: topic t exists and keeps its 6 partitions")

	// Without a key rows go round the partitions in order; a seed decides a shuffle.
	var rows strings.Builder
	rows.WriteString("n\n")
	for i := range 40 {
		fmt.Fprintf(&rows, "%d\n", i)
	}
	writeFile(t, "n.csv", rows.String())
	for _, topic := range []string{"plain --partitions 4", "s1 --partitions 1 --shuffle 7", "s2 --partitions 1 --shuffle 7", "s3 --partitions 1 --shuffle 8"} {
		b.ok("load n.csv --topic " + topic)
	}
	plain := b.ok("tail plain --from-beginning -n 40")
	b.has(plain, `0:9 - {"n":36}`, `3:0 - {"n":3}`)
	s1, s2, s3 := b.ok("tail s1 --from-beginning -n 40"), b.ok("tail s2 --from-beginning -n 40"), b.ok("tail s3 --from-beginning -n 40")
	if s1 != s2 || s1 == s3 || strings.HasPrefix(s1, `0:0 - {"n":0}`+"\n"+`0:1 - {"n":1}`) {
		t.Error("a shuffle does not follow its seed")
	}
}

func TestTailLines(t *testing.T) {
	a := &app{world: world{out: &bytes.Buffer{}}}
	a.term = newTerminal(a.out, a.getenv)
	for _, c := range []struct {
		name string
		r    stream.Record
		want string
	}{
		{"score", stream.Record{Value: []byte(`{"v":1,"model":"cars","version":7,"topic":"cars","partition":3,"offset":1,"key":"car-17","time":"2026-11-25T14:00:00.000Z","score":1.83,"percentile":99.97,"anomaly":true,"status":"ok","top":[{"feature":"coolant_temp","value":118.2,"expected":91.4,"usual":[81.25,99],"share":0.61},{"feature":"mode","value":"run","expected":null,"share":0.2}]}`)},
			`2026-11-25 14:00:00  car-17             1.83   99.97%  anomaly  cars/7  coolant_temp 118.2, expected 91.4, usual 81.25 to 99 (61%); mode "run" (20%)`},
		{"score that is none", stream.Record{Value: []byte(`{"v":1,"model":"cars","version":7,"key_b64":"/w==","time":null,"score":null,"percentile":null,"anomaly":true,"status":"not_finite","top":[]}`)},
			`-                    base64:/w==        null           anomaly  not_finite  cars/7`},
		{"alert", stream.Record{Key: []byte("cars|cars|car-17"), Value: []byte(`{"v":1,"id":"cars/cars/3/1","state":"raised","reason":"anomaly","since":"2026-11-25T13:59:00.000Z","time":"2026-11-25T14:00:00.000Z","score":2.5,"threshold":1.2,"version":7,"top":[{"feature":"speed","value":7,"expected":27.123456,"share":1}],"source":{"topic":"cars","partition":3,"offset":9}}`)},
			`2026-11-25 14:00:00  raised    car-17        score 2.5 over 1.2  speed 7, expected 27.12 (100%)`},
		{"cleared", stream.Record{Key: []byte("cars|cars|car-17"), Value: []byte(`{"v":1,"id":"x","state":"cleared","reason":"silent","since":"2026-11-25T13:59:00.000Z","time":"2026-11-25T14:00:00.000Z","score":0.1,"threshold":1.2,"version":7,"top":[],"source":{}}`)},
			`2026-11-25 14:00:00  cleared   car-17        silent, since 2026-11-25 13:59:00`},
		{"tombstone", stream.Record{Partition: 2, Offset: 5, Key: []byte("k")}, `2:5 k null`},
		{"hostile", stream.Record{Key: []byte("\x1b[2J"), Value: []byte("a\x07\nb"), Headers: []stream.Header{{Key: "h\x1b", Value: []byte{0xff}}}}, "0:0 ·[2J a· b h·=base64:/w=="},
	} {
		if got := a.tailLine(&c.r); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
	var b bytes.Buffer
	tailJSON(&b, &stream.Record{Topic: "t", Key: []byte{0xff}, Value: []byte("text"), Time: -1})
	if want := `{"topic":"t","partition":0,"offset":0,"time":null,"key":null,"key_b64":"/w==","value":"text"}` + "\n"; b.String() != want {
		t.Errorf("%s", &b)
	}
}

// What can be read once only is opened once: lapwing load <(zcat …).
func TestLoadReadsANamedPipe(t *testing.T) {
	b := newBed(t)
	if err := syscall.Mkfifo("pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- os.WriteFile("pipe", []byte("a,b\n1,2\n"), 0o600) }()
	writeFile(t, "more.csv", "a,b\n3,4\n")
	if got := b.object("load pipe more.csv --topic t --json"); got["sent"] != 2.0 {
		t.Errorf("%v", got)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	b.has(b.ok("tail t --from-beginning -n 2"), `{"a":1,"b":2}`, `{"a":3,"b":4}`)
}

// A training pushes its profiles too, the last of them when it ends.
func TestTrainPushesProfiles(t *testing.T) {
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 300 --topic cars")
	var pushed atomic.Int64
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f, _, err := r.FormFile("profile"); err == nil {
			f.Close()
			pushed.Add(1)
		}
	}))
	defer receiver.Close()
	b.ok("train --topic cars --model cars --layers 4 --epochs 1 --pyroscope-url " + receiver.URL)
	if pushed.Load() == 0 {
		t.Error("no profile came")
	}
}

// Other programs' records in the model topic are no news to a command that succeeds.
func TestCommandsPassOverStrangersInSilence(t *testing.T) {
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 300 --topic cars")
	produce(t, b.broker, "lapwing.models", "what is this", "garbage", "more", "and more")
	for _, line := range []string{"train --topic cars --model cars --layers 4 --epochs 1", "models list"} {
		_, stderr, code := runIn(t, []string{"LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + b.broker}, splitWords(t, line)...)
		if code != 0 || stderr != "" {
			t.Errorf("%s: exit %d\n%s", line, code, stderr)
		}
	}
	_, stderr, _ := runIn(t, []string{"LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + b.broker}, "models", "list", "--log-level", "debug")
	b.has(stderr, "passed over a record of the model topic")
}
