package kafka

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	client "github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/lapwing-stream/lapwing/bench/process"
)

// Options configure a cluster.
type Options struct {
	Dir     string        // private folder with the jars, see Part.Install; required
	Brokers int           // each is a controller too, count; default 1
	Heap    int           // of each, MiB; default 512
	Within  time.Duration // time from nothing to a record that is acknowledged; default 90s

	Listeners []Listener // of each broker beside PLAINTEXT, which is its own way to the others; default none
	Server    []string   // further lines of each broker's server.properties; default none

	// Way makes a second way to a broker, given its address, and tells where that way begins: clients that come over it are
	// told to stay on it. It is for networks that fail. Default none.
	Way func(broker string) (string, error)
}

// Listener is where a broker takes connections by one protocol.
type Listener struct {
	Name     string // upper case, as in server.properties
	Protocol string // PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL
}

// Cluster is a running Apache Kafka. Its data is in a temporary folder, which goes with it.
type Cluster struct {
	nodes []*process.Process
	addrs []string
	more  map[string][]string // of each further listener
	ways  []string
	files []string // properties of each node
	java  []string // how a node is started, without its file
	data  string
}

// Start starts brokers and returns when one record has been produced: a port that listens is not yet a working
// broker. The brokers end with Close, with ctx, and with this process.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if o.Brokers == 0 {
		o.Brokers = 1
	}
	if o.Heap == 0 {
		o.Heap = 512
	}
	if o.Within == 0 {
		o.Within = 90 * time.Second
	}
	if err := Broker.Missing(o.Dir); err != nil {
		return nil, err
	}
	data, err := os.MkdirTemp("", "lapwing-kafka")
	if err != nil {
		return nil, err
	}
	c := &Cluster{data: data}
	if err := c.start(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("the Kafka broker did not start: %w", err), c.Close())
	}
	return c, nil
}

// Addr is the address for bootstrap.servers.
func (c *Cluster) Addr() string { return strings.Join(c.addrs, ",") }

// Listener is the address of a further listener for bootstrap.servers.
func (c *Cluster) Listener(name string) string { return strings.Join(c.more[name], ",") }

// WayAddr is the address for bootstrap.servers over Options.Way.
func (c *Cluster) WayAddr() string { return strings.Join(c.ways, ",") }

// Brokers are the addresses of the brokers, from 0.
func (c *Cluster) Brokers() []string { return c.addrs }

// Restart starts a broker that has ended, with its data. It does not wait until the broker answers.
func (c *Cluster) Restart(ctx context.Context, i int) error {
	n, err := c.boot(ctx, i)
	if err == nil {
		c.nodes[i] = n
	}
	return err
}

// Node is the process of one broker, from 0.
func (c *Cluster) Node(i int) *process.Process { return c.nodes[i] }

// Close ends the brokers and removes their data.
func (c *Cluster) Close() error {
	for _, n := range c.nodes {
		n.Kill() // the data goes as well, so there is nothing to write out
	}
	c.nodes = nil
	return os.RemoveAll(c.data)
}

func (c *Cluster) start(ctx context.Context, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, o.Within)
	defer cancel()
	each := 3 + len(o.Listeners)
	ports, err := freePorts(each * o.Brokers)
	if err != nil {
		return err
	}
	var quorum, voters []string
	for i := range o.Brokers {
		controller := fmt.Sprintf("127.0.0.1:%d", ports[each*i+1])
		quorum = append(quorum, controller)
		voters = append(voters, fmt.Sprintf("%d@%s:%s", i+1, controller, uuid()))
		c.addrs = append(c.addrs, fmt.Sprintf("127.0.0.1:%d", ports[each*i]))
	}
	template, err := sources.ReadFile("server.properties")
	if err != nil {
		return err
	}
	java := func(args ...string) []string {
		return append([]string{"-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-Dlog4j2.statusLoggerLevel=OFF", "-cp", Broker.Jars(o.Dir)}, args...)
	}
	cluster := uuid()
	var formats []*process.Process
	for i := range o.Brokers {
		text := strings.NewReplacer(
			"@ID@", strconv.Itoa(i+1), "@QUORUM@", strings.Join(quorum, ","), "@DATA@", filepath.Join(c.data, strconv.Itoa(i+1)),
			"@PORT@", strconv.Itoa(ports[each*i]), "@CONTROLLER@", strconv.Itoa(ports[each*i+1]),
			"@REPLICAS@", strconv.Itoa(min(3, o.Brokers)), "@INSYNC@", strconv.Itoa(max(1, min(3, o.Brokers)-1)),
		).Replace(string(template))
		if o.Way != nil {
			second := fmt.Sprintf("127.0.0.1:%d", ports[each*i+2])
			way, err := o.Way(second)
			if err != nil {
				return err
			}
			c.ways = append(c.ways, way)
			text = strings.NewReplacer(
				"\nlisteners=", "\nlisteners=WAY://"+second+",", "\nadvertised.listeners=", "\nadvertised.listeners=WAY://"+way+",",
				"protocol.map=", "protocol.map=WAY:PLAINTEXT,",
			).Replace(text)
			text += "\ninter.broker.listener.name=PLAINTEXT\n"
		}
		text += c.listen(o.Listeners, text, ports[each*i+3:]) + strings.Join(o.Server, "\n") + "\n"
		file := filepath.Join(c.data, fmt.Sprintf("%d.properties", i+1))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
		c.files = append(c.files, file)
		f, err := process.Start(ctx, process.Options{}, "java", java("kafka.tools.StorageTool", "format", "-t", cluster, "--initial-controllers", strings.Join(voters, ","), "-c", file)...)
		if err != nil {
			return err
		}
		formats = append(formats, f)
	}
	for _, f := range formats {
		if err := f.Wait(); err != nil {
			return err
		}
	}
	heap := fmt.Sprintf("%dm", o.Heap)
	c.java = java("-Xms"+heap, "-Xmx"+heap)
	if o.Heap < 512 { // a small broker is one of several on a small machine: no threads for collecting, no second compiler
		c.java = append(c.java, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
	} else {
		c.java = append(c.java, "-XX:+UseG1GC")
	}
	c.java = append(c.java, "kafka.Kafka")
	for i := range o.Brokers {
		n, err := c.boot(ctx, i)
		if err != nil {
			return err
		}
		c.nodes = append(c.nodes, n)
	}
	return c.answers(ctx, o.Brokers)
}

// listen gives the lines that add listeners to a node's properties: of a property that is given twice, the last holds.
func (c *Cluster) listen(listeners []Listener, properties string, ports []int) string {
	if len(listeners) == 0 {
		return ""
	}
	var more, protocols strings.Builder
	for i, l := range listeners {
		addr := fmt.Sprintf("127.0.0.1:%d", ports[i])
		fmt.Fprintf(&more, ",%s://%s", l.Name, addr)
		fmt.Fprintf(&protocols, ",%s:%s", l.Name, l.Protocol)
		if c.more == nil {
			c.more = map[string][]string{}
		}
		c.more[l.Name] = append(c.more[l.Name], addr)
	}
	added := map[string]string{"listeners": more.String(), "advertised.listeners": more.String(), "listener.security.protocol.map": protocols.String()}
	var out strings.Builder
	for line := range strings.Lines(properties) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && added[name] != "" {
			fmt.Fprintf(&out, "%s=%s%s\n", name, value, added[name])
		}
	}
	return out.String()
}

// boot starts the process of a broker. Not under ctx, which ends with the start: Close and the death of this process end a node.
func (c *Cluster) boot(ctx context.Context, i int) (*process.Process, error) {
	return process.Start(context.WithoutCancel(ctx), process.Options{}, "java", append(slices.Clone(c.java), c.files[i])...)
}

// answers returns when a record in a topic that is spread over all brokers has been acknowledged, and its topic is gone.
func (c *Cluster) answers(ctx context.Context, brokers int) error {
	const topic = "lapwing-ready"
	admin, err := client.NewAdminClient(&client.ConfigMap{"bootstrap.servers": c.Addr(), "log_level": 0})
	if err != nil {
		return err
	}
	defer admin.Close()
	p, err := client.NewProducer(&client.ConfigMap{"bootstrap.servers": c.Addr(), "log_level": 0, "enable.idempotence": true, "acks": "all", "linger.ms": 0})
	if err != nil {
		return err
	}
	defer p.Close()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := errors.New("no broker answers")
	for made := false; ; {
		for _, n := range c.nodes {
			if err := n.Ended(); err != nil {
				return err
			}
		}
		if !made {
			md, err := admin.GetMetadata(nil, false, 500)
			if err == nil && len(md.Brokers) == brokers {
				_, err = admin.CreateTopics(ctx, []client.TopicSpecification{{Topic: topic, NumPartitions: brokers, ReplicationFactor: min(3, brokers)}})
				made = err == nil
			}
			if err != nil {
				last = err
			}
		} else if err := produced(ctx, p, topic, brokers); err == nil {
			_, err := admin.DeleteTopics(ctx, []string{topic})
			return err
		} else {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), last)
		case <-tick.C:
		}
	}
}

func produced(ctx context.Context, p *client.Producer, topic string, partitions int) error {
	for i := range partitions {
		done := make(chan client.Event, 1)
		if err := p.Produce(&client.Message{TopicPartition: client.TopicPartition{Topic: &topic, Partition: int32(i)}, Value: []byte("ready")}, done); err != nil {
			return err
		}
		select {
		case e := <-done:
			if m, ok := e.(*client.Message); ok && m.TopicPartition.Error != nil {
				return m.TopicPartition.Error
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// freePorts asks the system. Another process may take one before the broker does; then the start fails and says so.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// uuid is an id as Kafka writes them: 16 random bytes in URL-safe base64; one that begins with a dash would be read as
// an option.
func uuid() string {
	for {
		var b [16]byte
		rand.Read(b[:])
		if u := base64.RawURLEncoding.EncodeToString(b[:]); u[0] != '-' {
			return u
		}
	}
}
