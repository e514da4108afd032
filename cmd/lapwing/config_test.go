package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files and generated pages")

// runIn runs the command line in a folder that holds files.
func runIn(t *testing.T, environ []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	err := run(t.Context(), args, world{in: strings.NewReader(""), out: &out, err: &errs, environ: environ})
	return out.String(), errs.String(), exitCode(err)
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// load reads a configuration from a file's text, as lapwing.yaml.
func load(t *testing.T, text string, o loadOptions) (*effective, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	writeFile(t, defaultFile, text)
	return loadConfig(o)
}

func TestDefaultsParseAndPrint(t *testing.T) {
	for _, all := range [][]setting{declared(), streamDeclared()} {
		for _, s := range all {
			if s.doc == "" {
				t.Errorf("%s has no doc", s.path)
			}
			if s.group || s.list || s.def == "" || s.typ.Kind() == reflect.Map {
				continue
			}
			v := reflect.New(s.typ).Elem()
			if err := s.set(v, s.def); err != nil {
				t.Errorf("default of %s: %v", s.path, err)
				continue
			}
			again := reflect.New(s.typ).Elem()
			if err := s.set(again, formatValue(v)); err != nil || !reflect.DeepEqual(v.Interface(), again.Interface()) {
				t.Errorf("%s: default %q prints as %q, which reads as %v (%v)", s.path, s.def, formatValue(v), again, err)
			}
		}
	}
}

func TestValues(t *testing.T) {
	for _, c := range []struct {
		text string
		want any // nil: refused
	}{
		{"1GiB", Size(1 << 30)}, {"512 MiB", Size(512 << 20)}, {"1.5GB", Size(1.5e9)}, {"1048576", Size(1 << 20)}, {"10kB", Size(10000)}, {"0", Size(0)},
		{"9223372036854775807", Size(1<<63 - 1)},
		{"5%", Share(.05)}, {"0.05", Share(.05)}, {" 100 %", Share(1)}, {"1e-4", Share(1e-4)},
		{"250ms", 250 * time.Millisecond}, {"7d", 7 * 24 * time.Hour}, {"24h", 24 * time.Hour}, {"1h30m", 90 * time.Minute},
		{"14,7,14", []int{14, 7, 14}}, {" 3 , 4", []int{3, 4}},
		{"a, b,", []string{"a", "b"}},
		{"0.5", 0.5}, {"12", 12}, {"12", uint64(12)}, {"true", true}, {"x y", "x y"},
	} {
		v := reflect.New(reflect.TypeOf(c.want)).Elem()
		if err := parseValue(v, c.text); err != nil || !cmp.Equal(v.Interface(), c.want) {
			t.Errorf("%q as %T = %v, %v; want %v", c.text, c.want, v, err, c.want)
		}
	}
	for _, c := range []struct {
		text string
		typ  any
	}{
		{"1GiBB", Size(0)}, {"-1GiB", Size(0)}, {"9e99GiB", Size(0)}, {"0x10", Size(0)}, {"", Size(0)}, {"lots", Size(0)},
		{"NaN", Share(0)}, {"5%%", Share(0)}, {"inf", 0.0}, {"1_000", 0.0}, {"0x1p3", 0.0}, {"1,5", 0.0},
		{"10", time.Duration(0)}, {"9e9d", time.Duration(0)}, {"1.5", 0}, {"-1", uint64(0)}, {"14,x", []int{}}, {"yep", false},
	} {
		v := reflect.New(reflect.TypeOf(c.typ)).Elem()
		if err := parseValue(v, c.text); err == nil {
			t.Errorf("%q was read as %T %v", c.text, c.typ, v)
		}
	}
	for size, want := range map[Size]string{1 << 30: "1GiB", 1536 << 20: "1536MiB", 1000: "1000", 0: "0"} {
		if size.String() != want {
			t.Errorf("%d prints as %s, not %s", int64(size), size, want)
		}
	}
}

// The file of the contract, but for keys that nothing reads yet.
const contractFile = `
kafka: {bootstrap.servers: "localhost:9092"}
models_topic: lapwing.models
http: 127.0.0.1:8080
delivery: exactly_once
train: {max_memory: 1GiB, max_rejected: 5%, engine: auto}
score: {engine: auto, max_batch: 4096, queue: 65536, max_in_flight: 4}
streams:
  - {model: cars, input: {topics: [cars], format: json, key: car, time: time}, output: cars.scores, alerts: {topic: cars.alerts, raise_after: 3}, dlq: cars.dlq}
`

func TestContractFileIsTheDefault(t *testing.T) {
	e, err := load(t, contractFile, loadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := defaultConfig()
	s := defaultStream()
	s.Model, s.Output, s.DLQ, s.Alerts.Topic = "cars", "cars.scores", "cars.dlq", "cars.alerts"
	s.Input = InputConfig{Topics: []string{"cars"}, Format: "json", Key: "car", Time: "time"}
	want.Streams = []StreamConfig{s}
	if d := cmp.Diff(want, e.Config); d != "" {
		t.Error(d)
	}
	// Names left out are those of the topic.
	short, err := load(t, "streams: [{model: cars, input: {topics: [cars], format: json, key: car, time: time}}]", loadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, short.Streams[0].withNames()); d != "" {
		t.Error(d)
	}
}

func TestPrecedence_Case6_13(t *testing.T) {
	text := "score: {max_batch: 1, queue: 1, max_in_flight: 1}\n"
	flagOf := func(path, value string) given {
		s, _ := lookup(declared(), path)
		return given{setting: s, flag: "--" + s.flag, text: value}
	}
	e, err := load(t, text, loadOptions{
		environ: []string{"LAPWING_SCORE_MAX_BATCH=2", "LAPWING_SCORE_QUEUE=2"},
		flags:   []given{flagOf("score.max_batch", "3")},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := []int{e.Score.MaxBatch, e.Score.Queue, e.Score.MaxInFlight}
	if !slices.Equal(got, []int{3, 2, 1}) {
		t.Errorf("max_batch, queue, max_in_flight = %v; want the flag's 3, the environment's 2, the file's 1", got)
	}
	want := map[string]string{
		"score.max_batch": "--max-batch", "score.queue": "LAPWING_SCORE_QUEUE", "score.max_in_flight": "lapwing.yaml:1",
	}
	if d := cmp.Diff(want, e.origin); d != "" {
		t.Error(d)
	}
	// What `lapwing config` shows is what a command gets.
	out, stderr, code := runIn(t, []string{"LAPWING_SCORE_QUEUE=2"}, "config", "serve", "--max-batch", "3", "--json")
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	var shown struct {
		Config struct {
			Score struct{ Max_batch, Queue, Max_in_flight int }
		}
	}
	if err := json.Unmarshal([]byte(out), &shown); err != nil {
		t.Fatal(err)
	}
	if s := shown.Config.Score; s.Max_batch != 3 || s.Queue != 2 || s.Max_in_flight != 1 {
		t.Errorf("config shows %+v", s)
	}
}

func TestEveryFaultAtOnce_Case8_01(t *testing.T) {
	_, err := load(t, `kafka:
  bootstrap.servers: a:1
  bootstrap.servers: b:1
score:
  max_bach: 12
max_memory: 3GiB
train:
	max_rejected: 10%
  min_rows: few
grpc: 127.0.0.1:8081
streams:
  - {model: cars, input: {topics: [cars]}, raise_after: 3, aliaz: live}
  - {model: cars, input: {topics: [cars]}}
  - {input: {topics: [a, b]}}
`, loadOptions{environ: []string{"LAPWING_SCOER_MAX_BATCH=3", "LAPWING_TRAIN_SEED=-1", "LAPWING_DATA=/x", "LAPWING_PYTHON=/x", "LAPWING_TEST_X=1", "HOME=/"}})
	var all *faults
	if err == nil || !asFaults(err, &all) {
		t.Fatalf("got %v", err)
	}
	var text bytes.Buffer
	printError(&text, err)
	golden(t, "config_faults.golden", text.Bytes())
	if exitCode(err) != exitUsage {
		t.Errorf("exit code %d", exitCode(err))
	}
}

func asFaults(err error, into **faults) bool {
	f, ok := err.(*faults)
	*into = f
	return ok
}

func TestConfigFileFaults_Case8_01(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"one unknown key", "score: {max_bach: 1}", "lapwing: unknown setting score.max_bach\n  lapwing.yaml:1\n  next: did you mean score.max_batch?\n"},
		{"one level too low", "score: {models_topic: x}", "lapwing: unknown setting score.models_topic\n  lapwing.yaml:1\n  next: did you mean models_topic?\n"},
		{"of a stream", "alerts: {raise_after: 3}", "lapwing: unknown setting alerts\n  lapwing.yaml:1\n  next: did you mean streams[].alerts?\n"},
		{"dotted", "train.max_memory: 1GiB", "lapwing: unknown setting train.max_memory\n  lapwing.yaml:1\n  next: write it as train: {max_memory: …}\n"},
		{"property at the top", "sasl.mechanism: PLAIN", "lapwing: unknown setting sasl.mechanism\n  lapwing.yaml:1\n  next: properties of the Kafka client stand below kafka:\n"},
		{"section as value", "train: 5", "lapwing: train is a section, not a value\n  lapwing.yaml:1\n  next: write its settings below it, such as train: {engine: auto}\n"},
		{"value as section", "http: {port: 80}", "lapwing: http takes one value: HOST:PORT|none\n  lapwing.yaml:1\n  next: write it as http: 127.0.0.1:8080\n"},
		{"list at the top", "- a\n- b", "lapwing: the file is not a map of settings\n  lapwing.yaml:1\n  next: write settings as key: value, such as models_topic: lapwing.models\n"},
		{"no YAML", "train: [1, 2\nscore: }", ""},
		{"two documents", "http: none\n---\nhttp: none\n", "lapwing: the file is not YAML: a second document begins; one file is one configuration\n  lapwing.yaml:2\n  next: correct the YAML there\n"},
		{"bad size", "train: {max_memory: lots}", "lapwing: train.max_memory: \"lots\" is not a size, such as 512MiB or 1GiB\n  lapwing.yaml:1\n  next: docs/configuration.md says what each setting takes\n"},
		{"small size", "train: {max_memory: 1kB}", "lapwing: train.max_memory: 1000 is too small; the least is 1MiB\n  lapwing.yaml:1\n  next: give a size, such as 512MiB or 1GiB\n"},
		{"large share", "train: {max_rejected: 500%}", "lapwing: train.max_rejected: 500% is too large; the most is 100%\n  lapwing.yaml:1\n  next: give a share, such as 5% or 0.05\n"},
		{"large rate", "train: {alarm_rate: 60%}", "lapwing: train.alarm_rate: 60% is too large; the most is 50%\n  lapwing.yaml:1\n  next: give a share, such as 5% or 0.05\n"},
		{"short duration", "score: {commit_interval: 1ns}", "lapwing: score.commit_interval: 1ns is too small; the least is 1ms\n  lapwing.yaml:1\n  next: give a duration, such as 250ms, 10s, 5m, 24h or 7d\n"},
		{"not a delivery", "delivery: at_most_once", "lapwing: delivery: \"at_most_once\" is not one of exactly_once, at_least_once; did you mean at_least_once?\n  lapwing.yaml:1\n  next: docs/configuration.md says what each setting takes\n"},
		{"word", "log_level: inof", "lapwing: log_level: \"inof\" is not one of debug, info, warn, error; did you mean info?\n  lapwing.yaml:1\n  next: docs/configuration.md says what each setting takes\n"},
		{"stream without a model", "streams: [{input: {topics: [a]}}]", "lapwing: streams[0] names no model\n  lapwing.yaml:1\n  next: add model: NAME (--model NAME)\n"},
		{"several topics, unnamed outputs", "streams: [{model: m, input: {topics: [a, b]}, output: s}]", ""},
		{"alias loop", "train: &a {layers: *a}", ""},
		{"nested property", "kafka: {sasl: {mechanism: PLAIN}}", "lapwing: kafka.sasl takes one value\n  lapwing.yaml:1\n  next: write the whole name of a property as one key, such as sasl.mechanism: PLAIN\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.text, loadOptions{})
			if err == nil {
				t.Fatal("accepted")
			}
			var b bytes.Buffer
			printError(&b, err)
			if n := strings.Count(b.String(), "\n"); n > 3 {
				t.Errorf("%d lines:\n%s", n, b.String())
			}
			if !strings.Contains(b.String(), "lapwing.yaml:") {
				t.Errorf("no line is named:\n%s", b.String())
			}
			if c.want != "" {
				if d := cmp.Diff(c.want, b.String()); d != "" {
					t.Error(d)
				}
			}
		})
	}
}

func TestConfigFileAccepted(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "comments": "# nothing\n", "null section": "train:\nscore:\nkafka:\n",
		"anchors":            "streams:\n  - &a {model: m, input: {topics: [t]}}\n  - {model: m, input: {topics: [u]}}\n",
		"alerts none":        "streams: [{model: m, input: {topics: [t]}, alerts: none}]",
		"topics as one word": "streams: [{model: m, input: {topics: t}}]", "byte order mark": "\ufeffhttp: none\n",
	} {
		if _, err := load(t, text, loadOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	e, _ := load(t, "streams: [{model: m, input: {topics: [t]}, alerts: none}]", loadOptions{})
	if got := e.Streams[0].withNames().Alerts.Topic; got != "none" {
		t.Errorf("alerts go to %q", got)
	}
	if _, err := loadConfig(loadOptions{file: "absent.yaml"}); err == nil {
		t.Error("a named file that is absent was passed over")
	}
}

func TestSecretsAreHidden_Case8_03(t *testing.T) {
	const mark = "XSECRETX"
	text := fmt.Sprintf(`
kafka:
  sasl.password: %[1]s1
  ssl.key.password: %[1]s2
  ssl.keystore.password: %[1]s3
  sasl.oauthbearer.client.secret: %[1]s4
  sasl.oauthbearer.config: scope=x secret=%[1]s5
  ssl.key.pem: |
    -----BEGIN
    %[1]s6
  sasl.oauthbearer.token.endpoint.url: https://user:%[1]s7@id.test/token
  ssl.ca.location: /etc/ca.pem
  sasl.username: alice
pyroscope: {url: "http://user:%[1]s8@127.0.0.1:4040", password: "%[1]s9"}
`, mark)
	t.Chdir(t.TempDir())
	writeFile(t, defaultFile, text)
	for _, args := range [][]string{{"config"}, {"config", "--json"}, {"config", "--log-level", "debug"}} {
		out, stderr, code := runIn(t, []string{"LAPWING_KAFKA_SASL_OAUTHBEARER_ASSERTION_PRIVATE_KEY_PASSPHRASE=" + mark}, args...)
		if code != 0 {
			t.Fatal(stderr)
		}
		if strings.Contains(out+stderr, mark) {
			t.Errorf("%v shows a secret:\n%s", args, out+stderr)
		}
		for _, open := range []string{"alice", "/etc/ca.pem", "id.test/token", "127.0.0.1:4040", "sasl.password"} {
			if !strings.Contains(out, open) {
				t.Errorf("%v hides %s:\n%s", args, open, out)
			}
		}
	}
	// Whatever quotes a secret later, on stderr it is not read.
	var b bytes.Buffer
	e, err := loadConfig(loadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := &scrubber{w: &b, secrets: e.secrets()}
	for k, v := range e.Kafka {
		fmt.Fprintf(s, "cannot use %s=%s\n", k, v)
	}
	fmt.Fprintln(s, e.Pyroscope.URL, e.Pyroscope.Password, strings.Split(e.Pyroscope.URL, ":")[2])
	if strings.Contains(b.String(), mark) {
		t.Errorf("stderr shows a secret:\n%s", b.String())
	}
}

// A secret may stand in a file, named by the property's name with .file behind it; it never stands on a command line.
func TestSecretsComeFromFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFile(t, "password", "XSECRETX \r\n")
	writeFile(t, "empty", "\n")
	e, err := loadConfig(loadOptions{environ: []string{"LAPWING_KAFKA_SASL_PASSWORD_FILE=password"}, props: []string{"ssl.key.password.file=password"}})
	if err != nil {
		t.Fatal(err)
	}
	for property, origin := range map[string]string{"sasl.password": "LAPWING_KAFKA_SASL_PASSWORD_FILE, from password", "ssl.key.password": "--property, from password"} {
		if e.Kafka[property] != "XSECRETX " || e.origin["kafka."+property] != origin {
			t.Errorf("%s is %q, from %q", property, e.Kafka[property], e.origin["kafka."+property])
		}
	}
	if len(e.Kafka) != 3 { // bootstrap.servers is the third
		t.Errorf("properties %v", e.Kafka)
	}
	for _, c := range []struct {
		name, environ, property, want string
	}{
		{"on the command line", "", "sasl.password=XSECRETX", "sasl.password is a secret, and a command line can be read by everybody on this machine"},
		{"absent", "LAPWING_KAFKA_SASL_PASSWORD_FILE=absent", "", "kafka.sasl.password.file cannot be read: "},
		{"empty", "LAPWING_KAFKA_SASL_PASSWORD_FILE=empty", "", "kafka.sasl.password.file names an empty file: empty"},
		{"both", "LAPWING_KAFKA_SASL_PASSWORD=XSECRETX", "sasl.password.file=password", "kafka.sasl.password is given, and a file for it too: password"},
	} {
		o := loadOptions{}
		if c.environ != "" {
			o.environ = []string{c.environ}
		}
		if c.property != "" {
			o.props = []string{c.property}
		}
		_, err := loadConfig(o)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "XSECRETX") {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestConfigOutputIsAFileAgain(t *testing.T) {
	e, err := load(t, contractFile, loadOptions{environ: []string{"LAPWING_TRAIN_LAYERS=8,3,8"}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := e.yaml()
	if err != nil {
		t.Fatal(err)
	}
	again, err := load(t, string(text), loadOptions{})
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if d := cmp.Diff(e.Config, again.Config); d != "" {
		t.Error(d)
	}
}

// golden compares text with a file under testdata, or rewrites it with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join(home, "testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, path, string(got))
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s differs (go test -update rewrites it):\n%s", name, d)
	}
}

// home is the package's folder: tests change the working directory.
var home, _ = os.Getwd()

// What is said nearer to the command line about where reading begins stands in for the rest, whether it is a time or a length of one.
func TestBeginningOfTheHistoryIsOne(t *testing.T) {
	from, _ := lookup(declared(), "train.from")
	last, _ := lookup(declared(), "train.last")
	for _, c := range []struct {
		name, file string
		o          loadOptions
		from       string
		last       time.Duration
	}{
		{"nothing", "", loadOptions{}, "", 0},
		{"the file's", "train: {last: 30d, until: end}", loadOptions{}, "", 720 * time.Hour},
		{"--from over the file's last", "train: {last: 30d}", loadOptions{flags: []given{{from, "--from", "0:1500"}}}, "0:1500", 0},
		{"--last over the file's from", "train: {from: 2026-11-01}", loadOptions{flags: []given{{last, "--last", "1h"}}}, "", time.Hour},
		{"the environment's over the file's", "train: {from: 2026-11-01}", loadOptions{environ: []string{"LAPWING_TRAIN_LAST=2h"}}, "", 2 * time.Hour},
		{"both from one place, for Validate to refuse", "train: {from: 2026-11-01, last: 1h}", loadOptions{}, "2026-11-01", time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := load(t, c.file, c.o)
			if err != nil {
				t.Fatal(err)
			}
			e.settleBeginning()
			if o, _ := trainOptions(&trainFlags{}, &e.Train); o.From != c.from || o.Last != c.last {
				t.Errorf("from %q, last %v; want %q, %v", o.From, o.Last, c.from, c.last)
			}
		})
	}
}
