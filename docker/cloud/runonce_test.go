//go:build e2e

package cloud

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// These markers are secrets: they may stand in the configuration that run-once reads, and nowhere else.
const (
	password = "marker-of-a-password"
	token    = "marker-of-a-token"
)

// The program as a user builds it, a broker and a topic with a history, made once.
type workplace struct{ program, brokers string }

var place workplace

func TestMain(m *testing.M) {
	os.Exit(withWorkplace(m))
}

func withWorkplace(m *testing.M) int {
	dir, err := os.MkdirTemp("", "run-once")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	fail := func(what string, err error) int {
		fmt.Fprintln(os.Stderr, what+":", err)
		return 1
	}
	place.program = filepath.Join(dir, "lapwing-gpu")
	tags := "" // those of the tests: with gpu, on an emulated driver, the GPU trains
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-tags" {
				tags = s.Value
			}
		}
	}
	if out, err := exec.Command("go", "build", "-tags", tags, "-o", place.program, "../../cmd/lapwing").CombinedOutput(); err != nil {
		return fail("go build: "+string(out), err)
	}
	broker := exec.Command(place.program, "broker", "--listen", "127.0.0.1:0", "--json")
	said, err := broker.StdoutPipe()
	if err != nil {
		return fail("broker", err)
	}
	if err := broker.Start(); err != nil {
		return fail("broker", err)
	}
	defer func() {
		broker.Process.Signal(os.Interrupt)
		broker.Wait()
	}()
	var at struct{ Brokers string }
	line, err := bufio.NewReader(said).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &at)
	}
	if err != nil {
		return fail("broker", err)
	}
	place.brokers = at.Brokers
	if out, err := exec.Command(place.program, "generate", "cars", "--brokers", at.Brokers, "--topic", "cars", "--count", "20000", "--rate", "0", "--faults", "0").CombinedOutput(); err != nil {
		return fail("generate: "+string(out), err)
	}
	return m.Run()
}

// machine is what run-once runs on: a PATH with commands that only record that they were called, a folder for its
// temporary files, and a metadata service.
type machine struct {
	t        *testing.T
	dir      string
	metadata *httptest.Server
	asked    sync.Map     // method and path → times
	notice   atomic.Bool  // the cloud wants the instance back
	refusal  atomic.Int32 // status of Google's API for a deletion, 0 = it obeys
	secret   string       // what the secret store holds
	environ  []string     // of run-once, in addition
}

func newMachine(t *testing.T, secret string) *machine {
	m := &machine{t: t, dir: t.TempDir(), secret: secret}
	for _, name := range []string{"shutdown", "poweroff"} {
		m.command(name, `echo "$(basename "$0") $*" >>"$RECORDED"`)
	}
	// What curl was called with stays, as a look at the process list could miss it.
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal(err)
	}
	m.command("curl", `echo "$*" >>"$TMPDIR/curl"; exec `+curl+` "$@"`)
	m.metadata = httptest.NewServer(http.HandlerFunc(m.answer))
	t.Cleanup(m.metadata.Close)
	return m
}

func (m *machine) command(name, body string) {
	m.write(filepath.Join("bin", name), "#!/bin/sh\n"+body+"\n", 0o755)
}

func (m *machine) write(name, text string, mode fs.FileMode) string {
	path := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// answer is EC2's and Google's metadata service and Google's APIs, as far as run-once asks them.
func (m *machine) answer(w http.ResponseWriter, r *http.Request) {
	n, _ := m.asked.LoadOrStore(r.Method+" "+r.URL.Path, new(atomic.Int32))
	n.(*atomic.Int32).Add(1)
	google := r.Header.Get("Metadata-Flavor") == "Google"
	bearer := r.Header.Get("Authorization") == "Bearer "+token
	const instance = "projects/7/zones/here/instances/trainer"
	switch path := r.URL.Path; {
	case r.Method == "PUT" && path == "/latest/api/token" && r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") != "":
		fmt.Fprint(w, token)
	case path == "/latest/meta-data/spot/instance-action" && r.Header.Get("X-Aws-Ec2-Metadata-Token") == token && m.notice.Load():
		fmt.Fprint(w, `{"action": "terminate", "time": "2026-11-28T10:00:00Z"}`)
	case google && path == "/computeMetadata/v1/instance/preempted":
		fmt.Fprint(w, map[bool]string{true: "TRUE", false: "FALSE"}[m.notice.Load()])
	case google && path == "/computeMetadata/v1/instance/maintenance-event":
		fmt.Fprint(w, "NONE")
	case google && path == "/computeMetadata/v1/instance/service-accounts/default/token":
		fmt.Fprintf(w, `{"access_token":%q,"expires_in":3599,"token_type":"Bearer"}`, token)
	case google && path == "/computeMetadata/v1/instance/zone":
		fmt.Fprint(w, "projects/7/zones/here")
	case google && path == "/computeMetadata/v1/instance/name":
		fmt.Fprint(w, "trainer")
	case bearer && path == "/v1/projects/p/secrets/lapwing/versions/latest:access":
		fmt.Fprintf(w, "{\n  \"name\": \"x\",\n  \"payload\": {\n    \"data\": %q\n  }\n}\n", base64.StdEncoding.EncodeToString([]byte(m.secret)))
	case bearer && r.Method == "DELETE" && path == "/compute/v1/"+instance:
		if s := m.refusal.Load(); s != 0 {
			w.WriteHeader(int(s))
		}
	default:
		http.NotFound(w, r)
	}
}

func (m *machine) times(request string) int {
	if n, ok := m.asked.Load(request); ok {
		return int(n.(*atomic.Int32).Load())
	}
	return 0
}

func config(brokers string) string {
	return fmt.Sprintf("kafka: {bootstrap.servers: %q, sasl.password: %s}\n", brokers, password)
}

type exitRecord struct {
	Ending  string
	Code    int
	Seconds int
	Cloud   string
	Said    string
}

type outcome struct {
	exitRecord
	shutdowns []string // the calls of shutdown and poweroff
	log       string
}

// run lets run-once do its work; during is called as soon as the training runs, with its process.
func (m *machine) run(during func(training int, script *os.Process), args ...string) outcome {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	recorded, runtime := filepath.Join(m.dir, "recorded"), filepath.Join(m.dir, "run")
	for _, dir := range []string{runtime, filepath.Join(m.dir, "tmp")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			m.t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(ctx, "./run-once", append([]string{"--program", place.program, "--metadata", m.metadata.URL, "--api", m.metadata.URL, "--record", filepath.Join(m.dir, "record")}, args...)...)
	cmd.Env = []string{"PATH=" + filepath.Join(m.dir, "bin") + ":" + os.Getenv("PATH"), "RECORDED=" + recorded, "RUNTIME_DIRECTORY=" + runtime, "TMPDIR=" + filepath.Join(m.dir, "tmp"), "HOME=" + m.dir, "LD_LIBRARY_PATH=" + os.Getenv("LD_LIBRARY_PATH")}
	cmd.Env = append(cmd.Env, m.environ...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	var err error
	for waiting := true; waiting; {
		select {
		case err = <-ended:
			waiting = false
		case <-look.C:
			training := m.processes(cmd.Process.Pid)
			// Once it has said something it minds signals; before, on a busy machine, one would end it without a word.
			said, err := os.Stat(filepath.Join(runtime, "stderr"))
			if training != 0 && during != nil && err == nil && said.Size() > 0 {
				during(training, cmd.Process)
				during = nil
			}
		}
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	if during != nil {
		m.t.Fatalf("the training was not seen to run\n%s%s", &out, &log)
	}
	lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
	o := outcome{log: log.String()}
	if err := json.Unmarshal(lines[len(lines)-1], &o.exitRecord); err != nil {
		m.t.Fatalf("the last line is no exit record: %v\n%s%s", err, &out, &log)
	}
	if kept, err := os.ReadFile(filepath.Join(m.dir, "record")); err != nil || !bytes.Equal(bytes.TrimSpace(kept), lines[len(lines)-1]) {
		m.t.Errorf("--record has %q, %v; the last line is %q", kept, err, lines[len(lines)-1])
	}
	if code := cmd.ProcessState.ExitCode(); code != o.Code {
		m.t.Errorf("exit status %d, the record says %d", code, o.Code)
	}
	if calls, err := os.ReadFile(recorded); err == nil {
		o.shutdowns = strings.Split(strings.TrimSpace(string(calls)), "\n")
	}
	for _, text := range []string{out.String(), log.String()} {
		if strings.Contains(text, password) || strings.Contains(text, token) {
			m.t.Errorf("a secret was printed:\n%s", text)
		}
	}
	m.noSecretsIn(filepath.Join(m.dir, "tmp"), runtime)
	return o
}

// processes looks at every process below run-once: none may show a secret in its command line or environment. It
// returns the training, once it runs.
func (m *machine) processes(script int) (training int) {
	list, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		m.t.Fatal(err)
	}
	parent, line := map[int]int{}, map[int]string{}
	for _, dir := range list {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(dir + "/stat") // gone in between: not there
		if err != nil {
			continue
		}
		if _, after, ok := strings.Cut(string(stat), ") "); ok {
			if f := strings.Fields(after); len(f) > 1 {
				parent[pid], _ = strconv.Atoi(f[1])
			}
		}
		text, _ := os.ReadFile(dir + "/cmdline")
		line[pid] = strings.ReplaceAll(string(text), "\x00", " ")
	}
	for pid := range parent {
		up := pid
		for up > 1 && up != script {
			up = parent[up]
		}
		if up != script {
			continue
		}
		environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		for _, text := range []string{line[pid], string(environ)} {
			if strings.Contains(text, password) || strings.Contains(text, token) {
				m.t.Errorf("process %d shows a secret to anybody who looks: %q", pid, text)
			}
		}
		if strings.HasPrefix(line[pid], place.program+" train --config") {
			training = pid
		}
	}
	return training
}

func (m *machine) noSecretsIn(dirs ...string) {
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			if bytes.Contains(text, []byte(password)) || bytes.Contains(text, []byte(token)) {
				m.t.Errorf("%s holds a secret after the end", path)
			}
			return err
		})
		if err != nil {
			m.t.Error(err)
		}
	}
}

// endless is a training that does not end by itself within a test.
func endless(name string) []string {
	return []string{"--topic", "cars", "--model", name, "--epochs", "1000000", "--patience", "1000000"}
}

// published lists the versions of a model in Kafka.
func published(t *testing.T, name string) int {
	t.Helper()
	out, err := exec.Command(place.program, "models", "list", "--brokers", place.brokers, "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(out, []byte(strconv.Quote(name)))
}

// Whatever happens, the machine ends exactly once, and the record says why.
func TestRunOnceEndsExactlyOnce(t *testing.T) {
	const off = "shutdown -h now"
	tests := []struct {
		name      string
		config    string
		args      []string
		train     []string
		during    func(m *machine, training int, script *os.Process)
		ending    string
		code      int
		said      string
		published bool
	}{
		{name: "published", config: config(place.brokers), train: []string{"--topic", "cars", "--model", "published"}, ending: "published", published: true},
		{name: "bad-config", config: "kafka: {bootstrap.server: nowhere}\n", train: endless("bad-config"), ending: "refused", code: 2, said: "bootstrap.server"},
		{name: "hang", config: config(place.brokers), args: []string{"--limit", "12s", "--grace", "1s"}, train: endless("hang"),
			during: func(_ *machine, training int, _ *os.Process) { syscall.Kill(training, syscall.SIGSTOP) }, ending: "limit", code: 124},
		{name: "limit", config: config(place.brokers), args: []string{"--limit", "8s"}, train: endless("limit"), ending: "limit", code: 124, said: "interrupted"},
		{name: "notice", config: config(place.brokers), train: endless("notice"),
			during: func(m *machine, _ int, _ *os.Process) { m.notice.Store(true) }, ending: "notice", code: 75, said: "interrupted"},
		{name: "unreachable", config: config("127.0.0.1:1"), train: endless("unreachable"), ending: "failed", code: 1, said: "no Kafka broker answers"},
		{name: "terminated", config: config(place.brokers), train: endless("terminated"),
			during: func(_ *machine, _ int, script *os.Process) { script.Signal(syscall.SIGTERM) }, ending: "terminated", code: 75, said: "interrupted"},
		{name: "crash", config: config(place.brokers), train: endless("crash"),
			during: func(_ *machine, training int, _ *os.Process) { syscall.Kill(training, syscall.SIGKILL) }, ending: "failed", code: 137},
		{name: "no-such-option", config: config(place.brokers), args: []string{"--limits", "2h"}, train: endless("x"), ending: "refused", code: 2, said: "there is no option --limits"},
		{name: "no-duration", config: config(place.brokers), args: []string{"--limit", "soon"}, train: endless("x"), ending: "refused", code: 2, said: "--limit"},
		{name: "no-program", config: config(place.brokers), args: []string{"--program", "/nowhere/lapwing-gpu"}, train: endless("x"), ending: "failed", code: 127, said: "/nowhere/lapwing-gpu"},
		{name: "credentials-behind", config: config(place.brokers), train: append(endless("x"), "-X", "sasl.mechanisms=PLAIN"), ending: "refused", code: 2, said: "--config"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, "")
			file := m.write("lapwing.yaml", tt.config, 0o600)
			var during func(int, *os.Process)
			if tt.during != nil {
				during = func(training int, script *os.Process) { tt.during(m, training, script) }
			}
			o := m.run(during, append(append([]string{"--cloud", "aws", "--config", file}, tt.args...), append([]string{"--"}, tt.train...)...)...)
			if len(o.shutdowns) != 1 || o.shutdowns[0] != off {
				t.Errorf("the machine was ended by %q, want exactly one %q", o.shutdowns, off)
			}
			if o.Ending != tt.ending || o.Code != tt.code || !strings.Contains(o.Said, tt.said) || o.Cloud != "aws" {
				t.Errorf("the record is %+v, want ending %s, code %d, said … %q\n%s", o.exitRecord, tt.ending, tt.code, tt.said, o.log)
			}
			if n := published(t, tt.name); (n > 0) != tt.published {
				t.Errorf("%d versions of the model are in Kafka", n)
			}
		})
	}
}

// A machine that is taken away leaves a checkpoint, and the next one goes on from there: the same command, given again.
func TestRunOnceGoesOn(t *testing.T) {
	t.Parallel()
	kafka, err := kgo.NewClient(kgo.SeedBrokers(place.brokers), kgo.ConsumeTopics("lapwing.checkpoints"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(50*time.Millisecond), kgo.MetadataMaxAge(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer kafka.Close()
	// awaitCheckpoint returns the step of the next checkpoint that is whole, once one is beyond the given step.
	awaitCheckpoint := func(beyond int) (step int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
		defer cancel()
		for step <= beyond {
			fetches := kafka.PollFetches(ctx)
			if ctx.Err() != nil {
				t.Fatalf("no checkpoint was written: %v", fetches.Err())
			}
			fetches.EachRecord(func(r *kgo.Record) {
				var manifest struct{ Step int }
				if strings.HasPrefix(string(r.Key), "goes-on/") && strings.Count(string(r.Key), "/") == 2 && json.Unmarshal(r.Value, &manifest) == nil {
					step = max(step, manifest.Step)
				}
			})
		}
		return step
	}
	step := regexp.MustCompile(`a checkpoint holds step ([0-9,]+) of`)
	reached := 0
	for turn := range 2 {
		m := newMachine(t, "")
		file := m.write("lapwing.yaml", config(place.brokers)+"train: {checkpoint: 100ms}\n", 0o600)
		seen := 0
		o := m.run(func(int, *os.Process) {
			seen = awaitCheckpoint(reached)
			m.notice.Store(true)
		}, append([]string{"--cloud", "aws", "--config", file, "--"}, endless("goes-on")...)...)
		if o.Ending != "notice" || o.Code != 75 || len(o.shutdowns) != 1 {
			t.Errorf("%+v\n%s", o, o.log)
		}
		said := step.FindStringSubmatch(o.Said)
		if said == nil {
			t.Fatalf("it does not say what it leaves: %s", o.Said)
		}
		last, err := strconv.Atoi(strings.ReplaceAll(said[1], ",", ""))
		if err != nil || last < seen || seen <= reached {
			t.Errorf("turn %d: from step %d, a checkpoint at %d, the last at %d (%v)", turn, reached, seen, last, err)
		}
		if goesOn := strings.Contains(o.log, "going on from a checkpoint"); goesOn != (turn > 0) {
			t.Errorf("turn %d goes on: %v\n%s", turn, goesOn, o.log)
		}
		reached = last
	}
	m := newMachine(t, "")
	file := m.write("lapwing.yaml", config(place.brokers), 0o600)
	o := m.run(nil, append([]string{"--cloud", "aws", "--config", file, "--", "--seed", "2"}, endless("goes-on")...)...)
	if o.Ending != "failed" || o.Code != 1 || !strings.Contains(o.Said, "seed is 2, was 1") || len(o.shutdowns) != 1 {
		t.Errorf("with other arguments: %+v\n%s", o, o.log)
	}
}

// On Google's cloud the instance deletes itself; where it may not, it shuts down. Its configuration comes from the
// secret store.
func TestRunOnceOnGoogle(t *testing.T) {
	const deletion = "DELETE /compute/v1/projects/7/zones/here/instances/trainer"
	const secret = "gcp:projects/p/secrets/lapwing/versions/latest"
	t.Parallel()
	t.Run("deleted", func(t *testing.T) {
		m := newMachine(t, config(place.brokers))
		o := m.run(nil, "--cloud", "gcp", "--config", secret, "--", "--topic", "cars", "--model", "google")
		if o.Ending != "published" || len(o.shutdowns) != 0 || m.times(deletion) != 1 || published(t, "google") == 0 {
			t.Errorf("%+v, %d deletions\n%s", o, m.times(deletion), o.log)
		}
	})
	t.Run("not-allowed", func(t *testing.T) {
		m := newMachine(t, config(place.brokers))
		m.refusal.Store(http.StatusForbidden)
		o := m.run(func(int, *os.Process) { m.notice.Store(true) }, append([]string{"--cloud", "gcp", "--config", secret, "--"}, endless("preempted")...)...)
		if o.Ending != "notice" || o.Code != 75 || len(o.shutdowns) != 1 || m.times(deletion) != 1 {
			t.Errorf("%+v, %d deletions\n%s", o, m.times(deletion), o.log)
		}
	})
	t.Run("no-secret", func(t *testing.T) {
		m := newMachine(t, "")
		o := m.run(nil, append([]string{"--cloud", "gcp", "--config", secret + "-1", "--"}, endless("x")...)...)
		if o.Ending != "failed" || o.Code != 1 || !strings.Contains(o.Said, "the secret cannot be read") || len(o.shutdowns) != 0 || m.times(deletion) != 1 {
			t.Errorf("%+v, %d deletions\n%s", o, m.times(deletion), o.log)
		}
	})
}

// AWS's own client reads the secret; here stands one that gives it to who asks as the client's reference says.
func TestRunOnceReadsAWSSecret(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "")
	store := m.write("store", config(place.brokers), 0o600)
	m.command("aws", `[ "$*" = "--region eu-west-1 secretsmanager get-secret-value --secret-id arn:aws:secretsmanager:eu-west-1:1:secret:lapwing --query SecretString --output text" ] && cat `+store)
	o := m.run(nil, "--cloud", "aws", "--config", "aws:arn:aws:secretsmanager:eu-west-1:1:secret:lapwing", "--", "--topic", "cars", "--model", "amazon")
	if o.Ending != "published" || len(o.shutdowns) != 1 || published(t, "amazon") == 0 {
		t.Errorf("%+v\n%s", o, o.log)
	}
}

// A try on a desk does not end the desk.
func TestRunOnceWithoutCloudEndsNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "")
	o := m.run(nil, "--config", m.write("lapwing.yaml", config(place.brokers), 0o600), "--", "--topic", "cars", "--model", "desk")
	if o.Ending != "published" || len(o.shutdowns) != 0 {
		t.Errorf("%+v\n%s", o, o.log)
	}
}
