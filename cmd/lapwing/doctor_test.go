package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/kernels/gorgonia"
	"github.com/lapwing-stream/lapwing/server"
	"github.com/lapwing-stream/lapwing/stream"
	"github.com/lapwing-stream/lapwing/trainer"
)

// From nothing to a stream that would be served: each step is what the finding before it said to do.
func TestDoctor(t *testing.T) {
	t.Chdir(t.TempDir())
	_, stderr, code := runIn(t, nil, "doctor", "--brokers", "127.0.0.1:1", "--http", "none")
	if code != exitFailed || !strings.Contains(stderr, "serve would not work") {
		t.Errorf("without a broker: exit %d, %s", code, stderr)
	}
	broker, err := stream.Embed(stream.EmbeddedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	environ := []string{"LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + broker.Addr()}
	doctor := func(args ...string) (works bool, found map[string]server.Finding, code int) {
		t.Helper()
		stdout, stderr, code := runIn(t, environ, append([]string{"doctor", "--json", "--http", "none"}, args...)...)
		var object struct {
			Works    bool
			Findings []server.Finding
		}
		if err := json.Unmarshal([]byte(stdout), &object); err != nil {
			t.Fatalf("%v in %s; %s", err, stdout, stderr)
		}
		found = map[string]server.Finding{}
		for _, f := range object.Findings {
			if old, ok := found[f.Area]; !ok || old.Severity != server.Failure { // a failure is not hidden by what is well
				found[f.Area] = f
			}
		}
		return object.Works, found, code
	}
	if works, found, code := doctor(); works || code != exitFailed || found["broker"].Severity != server.Fine || found["streams"].Severity != server.Failure {
		t.Errorf("without a stream: %v, exit %d, %+v", works, code, found)
	}
	stream := []string{"--topic", "cars", "--model", "cars"}
	if works, found, code := doctor(stream...); works || code != exitFailed || found["topic"].Severity != server.Failure || found["model"].Severity != server.Failure {
		t.Errorf("without a topic: %v, exit %d, %+v", works, code, found)
	}
	if _, stderr, code := runIn(t, environ, "generate", "cars", "--rate", "0", "--count", "2000"); code != 0 {
		t.Fatal(stderr)
	}
	works, found, code := doctor(stream...)
	if works || code != exitFailed || found["topic"].Severity == server.Failure ||
		found["model"].Next != "lapwing train --topic cars --model cars --brokers "+broker.Addr() {
		t.Errorf("without a model: %v, exit %d, %+v", works, code, found)
	}
	command := strings.Fields(found["model"].Next)
	if _, stderr, code := runIn(t, nil, command[1:]...); code != 0 {
		t.Fatalf("%v: %s", command, stderr)
	}
	if works, found, code := doctor(stream...); !works || code != exitOK {
		t.Errorf("with all that was asked for: %v, exit %d, %+v", works, code, found)
	}
	stdout, stderr, code := runIn(t, environ, append([]string{"doctor", "--http", "none"}, stream...)...)
	if code != exitOK || !strings.Contains(stdout, "\nserve would work\n") || !strings.Contains(stdout, "ok      model   model cars/1: live as live, 18 columns") {
		t.Errorf("in words: exit %d\n%s%s", code, stdout, stderr)
	}
}

// Properties that a promise hangs on are refused before anything is asked, each with what to change; sizes that do not fit are found at
// the topics, with the line to change.
func TestDoctorOfProperties(t *testing.T) {
	t.Chdir(t.TempDir())
	_, stderr, code := runIn(t, nil, "doctor", "--brokers", "127.0.0.1:1", "-X", "acks=1", "-X", "isolation.level=read_uncommitted")
	for _, want := range []string{"kafka.acks cannot be set here: Lapwing owns it: a record counts as written when all in-sync replicas have it; remove it",
		"kafka.isolation.level cannot be set here: Lapwing owns it: records of aborted transactions must not be read; remove it"} {
		if code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("exit %d, %q is wanted in %s", code, want, stderr)
		}
	}
	broker, err := stream.Embed(stream.EmbeddedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	environ := []string{"LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + broker.Addr()}
	if _, stderr, code := runIn(t, environ, "generate", "cars", "--rate", "0", "--count", "100"); code != 0 {
		t.Fatal(stderr)
	}
	stdout, _, _ := runIn(t, environ, "doctor", "--http", "none", "--topic", "cars", "--model", "cars", "-X", "receive.message.max.bytes=1000", "-X", "fetch.max.bytes=400", "-X", "message.max.bytes=1000")
	for _, want := range []string{"receive.message.max.bytes is 1000", "next: kafka: {receive.message.max.bytes: ", "transaction protocol v1 is in force: the brokers have transaction.version 2"} {
		if !strings.Contains(strings.Join(strings.Fields(stdout), " "), want) {
			t.Errorf("%q is wanted in\n%s", want, stdout)
		}
	}
}

// What stands in the way of checkpoints is a warning with the line that gives the right.
func TestDoctorOfCheckpoints(t *testing.T) {
	t.Parallel()
	allow := func(operations ...kmsg.ACLOperation) (acls []kfake.ACL) {
		for _, o := range operations {
			acls = append(acls, kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: trainer.CheckpointTopic, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: o, Allow: true})
		}
		return append(acls, kfake.ACL{Resource: kmsg.ACLResourceTypeCluster, Name: "kafka-cluster", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationDescribe, Allow: true})
	}
	const read, write, describe = kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableACLs(), kfake.EnableSASL(), kfake.SleepOutOfOrder(), kfake.Superuser("PLAIN", "root", "root-secret"),
		kfake.User("PLAIN", "reader", "reader-secret", allow(read, describe)...), kfake.User("PLAIN", "trainer", "trainer-secret", allow(read, write, describe)...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	clients := map[string]*stream.Client{}
	for _, user := range []string{"root", "reader", "trainer"} {
		if clients[user], err = stream.Connect(t.Context(), stream.Options{Properties: map[string]string{
			"bootstrap.servers": k.ListenAddrs()[0], "security.protocol": "SASL_PLAINTEXT", "sasl.mechanisms": "PLAIN", "sasl.username": user, "sasl.password": user + "-secret",
		}}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(clients[user].Close)
	}
	check := func(user string, severity server.Severity, what, next string) {
		t.Helper()
		if f := checkpointFinding(t.Context(), clients[user]); f.Severity != severity || !strings.HasPrefix(f.What, what) || !strings.Contains(f.Next, next) || next == "" && f.Next != "" {
			t.Errorf("%s: %+v; want %s %q, next %q", user, f, severity, what, next)
		}
	}
	check("root", server.Note, "does not exist yet; train makes it", "")
	check("reader", server.Warning, "does not exist, and this client may not CREATE it", "--create --topic lapwing.checkpoints --partitions 1")
	if _, err := clients["root"].CreateTopic(t.Context(), stream.TopicSpec{Name: trainer.CheckpointTopic, Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	check("reader", server.Warning, "this client may not WRITE it", "--operation write --topic lapwing.checkpoints")
	check("trainer", server.Fine, "checkpoints of train", "")
}

// Machines that are not at hand.
func TestMachineFindings(t *testing.T) {
	yes, no := true, false
	sound := machine{
		now: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC), synchronised: &yes, memory: 8 << 30, disk: 50 << 30, diskPath: "/tmp",
		files: 65536, cpus: 4, level: "AVX2 and FMA",
	}
	config := &Config{Train: TrainConfig{MaxMemory: 1 << 30}}
	for _, c := range []struct {
		name  string
		spoil func(m *machine)
		want  string // "" = nothing above a note
	}{
		{"sound", func(*machine) {}, ""},
		{"unknown", func(m *machine) { *m = machine{now: sound.now, cpus: 1} }, ""},
		{"container without a clock of its own", func(m *machine) { m.synchronised = &no }, ""},
		{"clock of 1970", func(m *machine) { m.now = time.Unix(100, 0) }, "error clock: this machine's clock is in the past; next: set the clock"},
		{"clock that may be off", func(m *machine) { m.clockError = time.Minute }, "warning clock: the clock may be off by 1m0s"},
		{"small container", func(m *machine) { m.memory, m.memoryLimit = 512<<20, true }, "warning memory: a training may hold 1.0 GiB, with what it needs beside it more than the container's limit, 0.5 GiB; next: train: {max_memory: 312MiB}"},
		{"no disk", func(m *machine) { m.diskMemory = true }, "note disk: 50.0 GiB free in memory (tmpfs) for rows beyond train.max_memory"},
		{"full disk", func(m *machine) { m.disk = 1 << 20 }, "warning disk: 0.0 GiB free"},
		{"few files", func(m *machine) { m.files = 256 }, "warning files: this process may open 256 files; every broker takes a few; next: ulimit -n 4096"},
	} {
		m := sound
		c.spoil(&m)
		var got []string
		for _, f := range m.findings(config, cpu.New(), nil) {
			if f.Severity == server.Warning || f.Severity == server.Failure || f.Area == "disk" && f.Severity == server.Note {
				got = append(got, string(f.Severity)+" "+f.Area+": "+f.What+"; next: "+f.Next)
			}
		}
		text := strings.Join(got, "\n")
		for part := range strings.SplitSeq(c.want, "; next: ") {
			if c.want == "" && text != "" || !strings.Contains(text, part) {
				t.Errorf("%s: %q is wanted in %q", c.name, part, text)
			}
		}
	}
}

// What computes here, and why where that is the slow way.
func TestEngineFinding(t *testing.T) {
	for _, c := range []struct {
		cpu    string
		engine kernels.Engine
		want   string
	}{
		{"AVX-512", levelled{cpu.New(), "avx512"}, "ok: 4 threads, AVX-512; engine cpu/avx512"},
		{"AVX-512", levelled{cpu.New(), "avx2"}, "ok: 4 threads, AVX-512; engine cpu/avx2"},
		{"NEON", levelled{cpu.New(), "neon"}, "ok: 4 threads, NEON; engine cpu/neon"},
		{"", levelled{cpu.New(), "portable"}, "note: 4 threads; this CPU has none of AVX-512, AVX2 with FMA and NEON: the portable code computes"},
		{"AVX2 and FMA", levelled{cpu.New(), "portable"}, "note: 4 threads; this CPU has AVX2 and FMA, but this build has no code for it: the portable code computes"},
		{"AVX2 and FMA", gorgonia.New(), "ok: 4 threads; engine gorgonia/portable"},
	} {
		m := machine{cpus: 4, level: c.cpu}
		for _, f := range m.findings(&Config{}, c.engine, nil) {
			if got := string(f.Severity) + ": " + f.What; f.Area == "cpu" && !strings.HasPrefix(got, c.want) {
				t.Errorf("a CPU with %q: %s; want %s", c.cpu, got, c.want)
			}
		}
	}
}

// At every level of this machine, as serve, doctor and version tell it.
func TestEngineFindingOfEveryLevel(t *testing.T) {
	here := readMachine("")
	for i, level := range cpu.Levels() {
		e, err := cpu.NewAt(level)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, f := range here.findings(&Config{}, e, nil) {
			if f.Area != "cpu" || !strings.Contains(f.What, "engine cpu/"+level) {
				continue
			}
			found++
			if slow := strings.Contains(f.What, "the portable code computes"); slow != (level == "portable") || slow != (f.Severity == server.Note) {
				t.Errorf("level %s: %s: %s", level, f.Severity, f.What)
			}
		}
		if found != 1 {
			t.Errorf("level %s: %d findings", level, found)
		}
		if v := thisVersion(); i == 0 && (v.Engine != "cpu" || v.Level != level) {
			t.Errorf("version says %s/%s; the best level is %s", v.Engine, v.Level, level)
		}
	}
}

// levelled is an engine as another machine has it.
type levelled struct {
	kernels.Engine
	level string
}

func (l levelled) Level() string { return l.level }

func TestLimits(t *testing.T) {
	for text, want := range map[string]float64{"max": 0, "536870912": 512 << 20, "": 0, "0": 0} {
		if got, ok := parseLimit(text); got != want && ok || ok != (want > 0) {
			t.Errorf("memory.max %q = %v, %v", text, got, ok)
		}
	}
	for text, want := range map[string]float64{"max 100000": 0, "150000 100000": 1.5, "": 0, "1": 0, "1 0": 0} {
		if got, ok := parseQuota(text); ok != (want > 0) || ok && got != want {
			t.Errorf("cpu.max %q = %v, %v", text, got, ok)
		}
	}
}

// An address in use is a fault, unless it is a server of ours that uses it.
func TestPortFinding(t *testing.T) {
	ctx := t.Context()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("{\"live\":true}\n")) }))
	defer ours.Close()
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	for address, want := range map[string]server.Severity{
		"none": server.Note, "127.0.0.1:0": server.Fine, l.Addr().String(): server.Failure,
		strings.TrimPrefix(ours.URL, "http://"): server.Note, strings.TrimPrefix(other.URL, "http://"): server.Failure,
	} {
		if got := portFinding(ctx, address); got.Severity != want {
			t.Errorf("%s: %+v, %s is wanted", address, got, want)
		}
	}
}
