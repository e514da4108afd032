//go:build e2e

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lapwing-stream/lapwing/bench/kafka"
	"github.com/lapwing-stream/lapwing/server"
	"github.com/lapwing-stream/lapwing/stream"
)

// guarded is a broker with an authorizer. What the test asks is asked by a super user; the program comes as ada.
type guarded struct {
	*flow
	cluster *kafka.Cluster
}

func guardedKafka(t *testing.T) *guarded {
	t.Helper()
	cluster, err := kafka.Start(t.Context(), kafka.Options{Dir: peers(t, kafka.Broker), Listeners: []kafka.Listener{{Name: "SASL", Protocol: "SASL_PLAINTEXT"}}, Server: []string{
		"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users=User:ANONYMOUS",
		"listener.name.sasl.sasl.enabled.mechanisms=PLAIN",
		`listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_ada="ada";`,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cluster.Close() })
	return &guarded{newFlow(t, cluster.Addr()), cluster}
}

// ada is a command of the program as a user whose rights are counted.
func (g *guarded) ada(args ...string) *exec.Cmd {
	cmd := g.command(args...)
	cmd.Env = append(cmd.Env, "LAPWING_KAFKA_BOOTSTRAP_SERVERS="+g.cluster.Listener("SASL"), "LAPWING_KAFKA_SECURITY_PROTOCOL=sasl_plaintext",
		"LAPWING_KAFKA_SASL_MECHANISMS=PLAIN", "LAPWING_KAFKA_SASL_USERNAME=ada", "LAPWING_KAFKA_SASL_PASSWORD=ada")
	return cmd
}

// acls are rights as the broker keeps them: one entry an operation.
func (g *guarded) acls(rights []stream.Right) (all []kmsg.CreateACLsRequestCreation) {
	for _, r := range rights {
		for _, o := range r.Operations {
			c := kmsg.NewCreateACLsRequestCreation()
			c.ResourceType = map[string]kmsg.ACLResourceType{"topic": kmsg.ACLResourceTypeTopic, "group": kmsg.ACLResourceTypeGroup, "transactional-id": kmsg.ACLResourceTypeTransactionalId}[r.Kind]
			c.ResourceName, c.ResourcePatternType = r.Name, kmsg.ACLResourcePatternTypeLiteral
			if r.Prefix {
				c.ResourcePatternType = kmsg.ACLResourcePatternTypePrefixed
			}
			operation, err := kmsg.ParseACLOperation(o)
			if err != nil {
				g.t.Fatal(err)
			}
			c.Principal, c.Host, c.Operation, c.PermissionType = "User:ada", "*", operation, kmsg.ACLPermissionTypeAllow
			all = append(all, c)
		}
	}
	return all
}

func (g *guarded) grant(rights ...stream.Right) {
	g.t.Helper()
	q := kmsg.NewPtrCreateACLsRequest()
	q.Creations = g.acls(rights)
	a, err := q.RequestWith(g.ctx, g.client)
	if err != nil {
		g.t.Fatal(err)
	}
	for i, r := range a.Results {
		if r.ErrorCode != 0 {
			g.t.Fatalf("%+v was not granted: error code %d", q.Creations[i], r.ErrorCode)
		}
	}
	g.settled(q.Creations, true)
}

func (g *guarded) revoke(rights ...stream.Right) {
	g.t.Helper()
	q := kmsg.NewPtrDeleteACLsRequest()
	gone := g.acls(rights)
	for _, c := range gone {
		f := kmsg.NewDeleteACLsRequestFilter()
		f.ResourceType, f.ResourceName, f.ResourcePatternType, f.Operation, f.PermissionType = c.ResourceType, &c.ResourceName, c.ResourcePatternType, c.Operation, c.PermissionType
		q.Filters = append(q.Filters, f)
	}
	if a, err := q.RequestWith(g.ctx, g.client); err != nil || a.Results[0].ErrorCode != 0 {
		g.t.Fatal(err, a)
	}
	g.settled(gone, false)
}

// settled waits until the broker, which hears of a change from its controller, goes by it.
func (g *guarded) settled(changed []kmsg.CreateACLsRequestCreation, held bool) {
	g.t.Helper()
	q := kmsg.NewPtrDescribeACLsRequest()
	q.ResourceType, q.ResourcePatternType, q.Operation, q.PermissionType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny, kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		a, err := q.RequestWith(g.ctx, g.client)
		if err != nil {
			g.t.Fatal(err)
		}
		if !slices.ContainsFunc(changed, func(c kmsg.CreateACLsRequestCreation) bool {
			has := slices.ContainsFunc(a.Resources, func(r kmsg.DescribeACLsResponseResource) bool {
				return r.ResourceType == c.ResourceType && r.ResourceName == c.ResourceName && r.ResourcePatternType == c.ResourcePatternType &&
					slices.ContainsFunc(r.ACLs, func(one kmsg.DescribeACLsResponseResourceACL) bool { return one.Operation == c.Operation })
			})
			return has != held
		}) {
			return
		}
		<-tick.C
	}
}

// one is a single operation of a right.
func one(r stream.Right, operation string) stream.Right {
	r.Operations = []string{operation}
	return r
}

// says holds that the program named the right that it lacks, and how to give it.
func says(t *testing.T, what, out string, r stream.Right) {
	t.Helper()
	wants := []string{"this client may not " + r.String()}
	if r.Operations[0] != "CREATE" { // where somebody else makes the topic, the right is not needed
		wants = append(wants, strings.TrimPrefix(r.Grant(""), "kafka-acls.sh --bootstrap-server "))
	}
	for _, want := range wants {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), strings.TrimSpace(want)) {
			t.Errorf("%s without %v does not say %q:\n%s", what, r, want, out)
		}
	}
}

// doctorSays holds that doctor finds the right that is missing, and prints the line that grants it.
func (g *guarded) doctorSays(r stream.Right) {
	g.t.Helper()
	cmd := g.ada("doctor", "--topic", "cars", "--model", "cars", "--http", "none", "--json")
	out, err := cmd.Output()
	var object struct{ Findings []server.Finding }
	if len(out) == 0 || json.Unmarshal(out, &object) != nil {
		g.t.Fatalf("doctor without %v: %v\n%s", r, err, out)
	}
	for _, f := range object.Findings {
		if f.Area == "rights" && strings.Contains(f.Next, "--operation "+strings.ToLower(r.Operations[0])) && strings.Contains(f.Next+" ", "--"+r.Kind+" "+r.Name+" ") ||
			f.Area == "rights" && r.Operations[0] == "CREATE" && strings.HasPrefix(f.Next, "kafka-topics.sh") && strings.HasSuffix(f.Where, " "+r.Name) {
			return
		}
	}
	g.t.Errorf("doctor does not find that %v is missing:\n%s", r, out)
}

// heard is what a program has written so far.
type heard struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (h *heard) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.buf.Write(b)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.buf.String()
}

// serveUntil runs serve until it has said something, or has ended, and gives what it said.
func (g *guarded) serveUntil(text string, args ...string) string {
	g.t.Helper()
	var out heard
	cmd := g.ada(append([]string{"serve", "--topic", "cars", "--model", "cars"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(45 * time.Second)
	defer limit.Stop()
	for {
		select {
		case <-ended:
			return out.String()
		case <-limit.C:
			g.t.Errorf("serve did not say %q", text)
		case <-tick.C:
			if !strings.Contains(out.String(), text) {
				continue
			}
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			g.t.Error(err)
		}
		<-ended
		return out.String()
	}
}

// With the rights of docs/security.md, and no other, train and serve work; without any one of them it is named, by the command that
// needs it and by doctor, with the line that grants it.
func TestSecureKafkaRights(t *testing.T) {
	g := guardedKafka(t)
	var rows strings.Builder
	rows.WriteString("x,y\n")
	for i := range 100 {
		fmt.Fprintf(&rows, "%d,%d\n", i%17, i%7)
	}
	file := filepath.Join(g.dir, "rows.csv")
	writeFile(t, file, rows.String())
	g.run(nil, "load", file, "--topic", "cars")
	g.makeTopic("lapwing.checkpoints", 1) // so short a training writes none

	train := func() string {
		out, err := g.ada("train", "--topic", "cars", "--model", "cars", "--layers", "4", "--epochs", "1", "--checkpoint", "0").CombinedOutput()
		return fmt.Sprintf("%s%v", out, err)
	}
	trains := documentedRights(t, "train")
	g.grant(trains...)
	models := trains[slices.IndexFunc(trains, func(r stream.Right) bool { return r.Name == "lapwing.models" })]
	g.revoke(one(models, "CREATE")) // while the topic is missing
	says(t, "train", train(), one(models, "CREATE"))
	g.grant(one(models, "CREATE"))
	if out := train(); !strings.HasSuffix(out, "<nil>") {
		t.Fatalf("train with the rights that are documented:\n%s", out)
	}
	g.revoke(one(models, "CREATE"))
	if out := train(); !strings.HasSuffix(out, "<nil>") {
		t.Fatalf("train without CREATE on a topic that exists:\n%s", out)
	}
	for _, r := range trains {
		for _, o := range r.Operations {
			if o == "CREATE" {
				continue
			}
			g.revoke(one(r, o))
			if r.Name == "lapwing.checkpoints" {
				g.doctorSays(one(r, o))
			} else {
				says(t, "train", train(), one(r, o))
			}
			g.grant(one(r, o))
		}
	}
	g.revoke(trains...)

	serves := documentedRights(t, "serve")
	g.grant(serves...)
	for _, r := range serves { // while its topics are missing
		if slices.Contains(r.Operations, "CREATE") {
			g.revoke(one(r, "CREATE"))
			g.doctorSays(one(r, "CREATE"))
			says(t, "serve", g.serveUntil("may not "+one(r, "CREATE").String()), one(r, "CREATE"))
			g.grant(one(r, "CREATE"))
		}
	}
	g.serveUntil(`"msg":"first start"`)
	for _, r := range serves { // and where they exist, nothing is to be made
		if slices.Contains(r.Operations, "CREATE") {
			g.revoke(one(r, "CREATE"))
		}
	}
	for _, r := range serves {
		for _, o := range r.Operations {
			if o == "CREATE" {
				continue
			}
			g.revoke(one(r, o))
			g.doctorSays(one(r, o))
			says(t, "serve", g.serveUntil("may not "+one(r, o).String()), one(r, o))
			if r.Kind == "transactional-id" {
				scored(t, g, file, "at_least_once")
			}
			g.grant(one(r, o))
		}
	}
	scored(t, g, file, "exactly_once")
}

// scored holds that serve scores what waits: the 100 records of a file, and those that were there before.
func scored(t *testing.T, g *guarded, file, delivery string) {
	t.Helper()
	g.run(nil, "load", file, "--topic", "cars")
	before := 0
	for _, records := range g.all("cars.scores") {
		before += len(records)
	}
	cmd := g.ada("serve", "--topic", "cars", "--model", "cars", "--delivery", delivery)
	var out heard
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g.await("cars", before+100)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("serve with %s: %v\n%s", delivery, err, out.String())
	}
	if strings.Contains(out.String(), `"level":"ERROR"`) || strings.Contains(out.String(), `"level":"WARN"`) {
		t.Errorf("serve with %s and the rights that are documented complains:\n%s", delivery, out.String())
	}
}
