package stream

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// connectErr makes a connection that must fail, and checks what every such failure owes: it is bounded, at most three lines, and
// says nothing secret, neither in the error nor in the log.
func connectErr(t *testing.T, addr string, props map[string]string) string {
	t.Helper()
	m := map[string]string{"bootstrap.servers": addr}
	for k, v := range props {
		m[k] = v
	}
	var log bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := Connect(ctx, Options{Properties: m, ConnectTimeout: 4 * time.Second, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err == nil {
		c.Close()
		t.Fatal("connected")
	}
	if ctx.Err() != nil {
		t.Fatal("Connect is not bounded by its own time-out")
	}
	text := err.Error()
	if n := strings.Count(text, "\n") + 1; n > 3 {
		t.Errorf("%d lines:\n%s", n, text)
	}
	if all := text + log.String(); strings.Contains(all, "marker-secret") {
		t.Errorf("a secret shows:\n%s", all)
	}
	return text
}

func wantText(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is missing in:\n%s", p, text)
		}
	}
}

func TestOptionsReportEveryFault_Case8_02(t *testing.T) {
	t.Parallel()
	o := Options{Properties: map[string]string{
		"enable.auto.commit": "true",
		"isolation.level":    "read_uncommitted",
		"sesion.timeout.ms":  "1",
		"session.timeout.ms": "abc",
		"message.max.bytes":  "1",
		"transactional.id":   "x",
		"go.batch.producer":  "true",
	}, ConnectTimeout: -1}
	err := o.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	wantText(t, err.Error(), "bootstrap.servers is missing", "enable.auto.commit cannot be set", "only when their results have been acknowledged",
		"isolation.level cannot be set", `No such configuration property: "sesion.timeout.ms"`, "session.timeout.ms is refused", "message.max.bytes is refused",
		"transactional.id cannot be set", "go.batch.producer", "ConnectTimeout")
	if !errors.Is(err, ErrProperty) {
		t.Error("not an ErrProperty")
	}
	ok := Options{Properties: map[string]string{"bootstrap.servers": "x:1", "compression.type": "zstd", "session.timeout.ms": "45000", "security.protocol": "sasl_ssl",
		"sasl.mechanisms": "PLAIN", "sasl.username": "u", "sasl.password": "p", "ssl.ca.location": "/nowhere", "fetch.wait.max.ms": "100"}}
	if err := ok.Validate(); err != nil {
		t.Error(err)
	}
}

func TestConnectBrokerAbsent(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	wantText(t, connectErr(t, addr, nil), "no Kafka broker answers", addr, "connection refused", "--brokers")
	wantText(t, connectErr(t, "no-such-host.invalid:9092", nil), "no-such-host.invalid", "cannot be resolved")
}

func TestConnectListenerIsSilent(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, protocol := range []string{"plaintext", "ssl", "sasl_ssl"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			o := Options{Properties: map[string]string{"bootstrap.servers": l.Addr().String(), "security.protocol": protocol},
				ConnectTimeout: 2 * time.Second, Log: testLog(t)}
			if protocol == "sasl_ssl" {
				maps.Copy(o.Properties, map[string]string{"sasl.mechanisms": "PLAIN", "sasl.username": "ada", "sasl.password": "p"})
			}
			began := time.Now()
			c, err := Connect(context.Background(), o)
			if err == nil {
				c.Close()
				t.Fatal("connected to a silent listener")
			}
			wantText(t, err.Error(), "accepts connections but does not answer", l.Addr().String())
			if took := time.Since(began); took > o.ConnectTimeout+time.Second { // finding the cause and closing come out of the bound
				t.Errorf("the bound is %v, it took %v", o.ConnectTimeout, took)
			}
		})
	}
}

func TestConnectInterrupted(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for name, servers := range map[string]string{"silent": l.Addr().String(), "absent": "127.0.0.1:1"} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c, err := Connect(ctx, Options{Properties: map[string]string{"bootstrap.servers": servers}, Log: testLog(t)})
		if err == nil {
			c.Close()
		}
		if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "broker") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "broker"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestConnectSecurityMismatch_Case2_06_8_03(t *testing.T) {
	t.Parallel()
	plain, err := embed(EmbeddedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	sasl, err := embed(EmbeddedOptions{}, kfake.EnableSASL(), kfake.Superuser("PLAIN", "ada", "marker-secret-right"))
	if err != nil {
		t.Fatal(err)
	}
	defer sasl.Close()
	secure, err := embed(EmbeddedOptions{}, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate(t)}}))
	if err != nil {
		t.Fatal(err)
	}
	defer secure.Close()
	user := func(proto, pass string) map[string]string {
		return map[string]string{"security.protocol": proto, "sasl.mechanisms": "PLAIN", "sasl.username": "ada", "sasl.password": pass, "debug": "security,broker"}
	}
	for _, c := range []struct {
		name  string
		addr  string
		props map[string]string
		want  []string
	}{
		{"plaintext to a TLS listener", secure.Addr(), nil, []string{"speaks TLS", "security.protocol is plaintext", "set security.protocol to ssl"}},
		{"SASL without TLS to a TLS listener", secure.Addr(), user("sasl_plaintext", "marker-secret-x"), []string{"speaks TLS", "sasl_ssl"}},
		{"TLS whose authority is unknown", secure.Addr(), map[string]string{"security.protocol": "ssl"}, []string{"certificate is not trusted", "ssl.ca.location"}},
		{"TLS to a plaintext listener", plain.Addr(), map[string]string{"security.protocol": "ssl"}, []string{"TLS handshake", "set security.protocol to plaintext"}},
		{"no SASL to a SASL listener", sasl.Addr(), nil, []string{"seems to want SASL", "sasl.mechanisms"}},
		{"wrong password", sasl.Addr(), user("sasl_plaintext", "marker-secret-wrong"), []string{`authentication failed for user "ada" by mechanism PLAIN`, "sasl.password"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantText(t, connectErr(t, c.addr, c.props), append(c.want, c.addr)...)
		})
	}
	t.Run("right password", func(t *testing.T) {
		connect(t, sasl.Addr(), user("sasl_plaintext", "marker-secret-right"))
	})
}

func TestConnectLocalhost_Case2_08(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", listen)
		if err != nil {
			t.Logf("not tried, this machine has no %s: %v", listen, err)
			continue
		}
		l.Close()
		e, err := Embed(EmbeddedOptions{Listen: listen})
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(e.Addr())
		addrs := []string{e.Addr()}
		ips, err := net.LookupIP("localhost")
		if err != nil {
			t.Fatal(err)
		}
		for _, ip := range ips { // localhost is tried where it can mean the family that is listened on
			if host, _, _ := net.SplitHostPort(e.Addr()); ip.String() == host {
				addrs = append(addrs, "localhost:"+port)
			}
		}
		for _, addr := range addrs {
			var log bytes.Buffer
			c, err := Connect(ctxOf(t), Options{Properties: map[string]string{"bootstrap.servers": addr}, Log: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Topics(ctxOf(t)); err != nil {
				t.Error(err)
			}
			c.Close()
			if log.Len() > 0 {
				t.Errorf("%s: error lines about an address that was merely tried first:\n%s", addr, log.String())
			}
		}
		e.Close()
	}
}

func TestConnectAdvertisedUnreachable_Case2_09(t *testing.T) {
	t.Parallel()
	e, err := Embed(EmbeddedOptions{Advertise: "kafka-internal.invalid:9092"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	addr := e.cluster.ListenAddrs()[0]
	if addr != "kafka-internal.invalid:9092" {
		t.Fatal(addr)
	}
	wantText(t, connectErr(t, e.bound, nil), "reached "+e.bound, "kafka-internal.invalid:9092 for broker 0", "cannot be resolved", "advertised.listeners")
}

func TestTopics(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	ctx := ctxOf(t)
	top := name("sensor-readings")
	created, err := c.CreateTopic(ctx, TopicSpec{Name: top, Partitions: 2, Config: map[string]string{"cleanup.policy": "compact"}})
	if err != nil || !created {
		t.Fatal(created, err)
	}
	if created, err = c.CreateTopic(ctx, TopicSpec{Name: top, Partitions: 3}); err != nil || created {
		t.Fatal(created, err)
	}
	if n, err := c.Partitions(ctx, top); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	for range 2 {
		if err := c.AddPartitions(ctx, top, 4); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Partitions(ctx, top); n != 4 || err != nil {
			t.Fatal(n, err)
		}
	}
	if cfg, err := c.TopicConfig(ctx, top); err != nil || cfg["cleanup.policy"] != "compact" {
		t.Fatal(cfg, err)
	}
	typo := strings.Replace(top, "readings", "raedings", 1)
	_, err = c.Partitions(ctx, typo)
	if !errors.Is(err, ErrNoTopic) {
		t.Fatal(err)
	}
	wantText(t, err.Error(), typo+" does not exist", "did you mean "+top)
	all, err := c.Topics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Name == typo {
			t.Error("looking a topic up has created it")
		}
		if i.Name == top && i.Partitions != 4 {
			t.Error(i)
		}
	}
	if err := c.DeleteTopic(ctx, top); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteTopic(ctx, name("never")); !errors.Is(err, ErrNoTopic) {
		t.Fatal(err)
	}
	if id, err := c.ClusterID(ctx); id == "" || err != nil {
		t.Fatal(id, err)
	}
}

// TestMadeTopicsAreLed: a broker names a new partition's leader before that leads, and then loses a producer's first batch
// where a second one is on its way (KAFKA-15591): 99 of 100 acknowledged records were in the partition.
func TestMadeTopicsAreLed_Case1_06(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	n := name("t")
	for i, refusal := range []*kerr.Error{kerr.NotLeaderForPartition, kerr.UnknownTopicOrPartition} {
		f := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: n, Err: refusal, Count: 2})
		var err error
		if i == 0 {
			_, err = c.CreateTopic(ctxOf(t), TopicSpec{Name: n, Partitions: 1})
		} else {
			err = c.AddPartitions(ctxOf(t), n, 3)
		}
		if err != nil {
			t.Fatal(err)
		}
		if f.Hits() != 2 {
			t.Errorf("%v was answered %d times: the topic was given out before", refusal, f.Hits())
		}
	}
}

// TestTopicThatOneBrokerDoesNotKnowYet: two copies of serve start together, and each finds that the other has made a topic which the
// broker that it asks next does not know yet. One of them ended with "topic t does not exist, did you mean t?".
func TestTopicThatOneBrokerDoesNotKnowYet(t *testing.T) {
	t.Parallel()
	first, k := fake(t)
	n := name("t")
	if _, err := first.CreateTopic(ctxOf(t), TopicSpec{Name: n, Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	c := connect(t, first.Brokers(), nil)
	behind := func() *kfake.FaultHandle {
		return k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: n, Err: kerr.UnknownTopicOrPartition, Count: 3})
	}
	told := behind()
	if _, err := c.Partitions(ctxOf(t), n); !errors.Is(err, ErrNoTopic) {
		t.Errorf("nobody has told this client of the topic, and %v", err)
	}
	told.Remove()
	if made, err := c.CreateTopic(ctxOf(t), TopicSpec{Name: n, Partitions: 2}); made || err != nil {
		t.Fatal(made, err)
	}
	f := behind()
	if have, err := c.Partitions(ctxOf(t), n); have != 2 || err != nil {
		t.Errorf("%d partitions, %v", have, err)
	}
	if f.Hits() != 3 {
		t.Errorf("the broker was behind %d times of 3", f.Hits())
	}
	// Once deleted it is gone.
	if err := c.DeleteTopic(ctxOf(t), n); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Partitions(ctxOf(t), n); !errors.Is(err, ErrNoTopic) {
		t.Error(err)
	}
}

func TestRepeatedLinesAreFolded(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	f := newFolder(slog.New(slog.NewTextHandler(&out, nil)), scrubber(map[string]string{"sasl.password": "marker-secret"}))
	defer f.close()
	f.release()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range 100 {
		f.write(logEvent("FAIL", 3, "broker %d: connect failed with marker-secret", i))
	}
	f.write(logEvent("CONFWARN", 4, "a consumer property is ignored"))
	if n := strings.Count(out.String(), "\n"); n != 1 || strings.Contains(out.String(), "marker-secret") {
		t.Fatalf("%d lines:\n%s", n, out.String())
	}
	for _, s := range f.seen {
		s.first = s.first.Add(-foldFor)
	}
	f.write(logEvent("FAIL", 3, "broker %d: connect failed with marker-secret", 7))
	wantText(t, out.String(), "repeated=99")
}

// Case 8.13, beside docs/embedded-broker.md and this suite, which runs against a real broker too: the embedded broker says
// at its start whether anything survives it, and with a folder everything does.
func TestEmbeddedKeepsItsFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e, err := Embed(EmbeddedOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, e.Notice(), dir, e.Addr())
	c := connect(t, e.Addr(), nil)
	cluster := clusterID(t, c)
	top := topic(t, c, 2)
	produce(t, c, records(top, 1, 0, 20)...)
	c.Close()
	addr := e.Addr()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if e, err = Embed(EmbeddedOptions{Listen: addr, Dir: dir}); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	c = connect(t, addr, nil)
	if got, _ := readHistory(t, c, top); len(got) != 20 {
		t.Fatalf("%d records after the restart, want 20", len(got))
	}
	if is := clusterID(t, c); is != cluster {
		t.Errorf("cluster %s has become %s", cluster, is)
	}
	_, err = Embed(EmbeddedOptions{Listen: addr})
	if err == nil {
		t.Fatal("two brokers on one address")
	}
	wantText(t, err.Error(), addr, "in use", "--listen")
	if _, err = Embed(EmbeddedOptions{Listen: "9092"}); err == nil {
		t.Fatal("an address without a port was taken")
	}
	mem, err := Embed(EmbeddedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	wantText(t, mem.Notice(), "nothing survives")
	named, err := Embed(EmbeddedOptions{ClusterID: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	defer named.Close()
	if is := clusterID(t, connect(t, mem.Addr(), nil)); is == "" || is == cluster {
		t.Errorf("a broker in memory calls itself %q", is)
	}
	if is := clusterID(t, connect(t, named.Addr(), nil)); is != "mine" {
		t.Errorf("cluster is %q", is)
	}
}

func clusterID(t *testing.T, c *Client) string {
	t.Helper()
	id, err := c.ClusterID(ctxOf(t))
	if err != nil {
		t.Fatal(err)
	}
	return id
}
