package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// Options say how to reach a cluster.
type Options struct {
	// Properties are librdkafka's, passed through. bootstrap.servers is required. No unit, no default.
	Properties map[string]string
	// Log gets librdkafka's own lines, repeats folded, and this package's. No unit; default slog.Default().
	Log *slog.Logger
	// ConnectTimeout bounds Connect, the search for what is wrong included. Seconds; default 10s.
	ConnectTimeout time.Duration
}

// clientID is the client.id where the user sets none.
const clientID = "lapwing"

// requestTimeout bounds an administrative request whose context has no deadline of its own.
const requestTimeout = 30 * time.Second

// ours are properties that are decided here, because a promise of Lapwing hangs on them.
var ours = map[string]string{
	"enable.auto.commit":            "offsets are committed only when their results have been acknowledged",
	"auto.commit.enable":            "offsets are committed only when their results have been acknowledged",
	"auto.commit.interval.ms":       "offsets are committed only when their results have been acknowledged",
	"enable.auto.offset.store":      "offsets are committed only when their results have been acknowledged",
	"auto.offset.reset":             "a position that is out of range is reported and counted, never reset in silence; use --start",
	"isolation.level":               "records of aborted transactions must not be read",
	"group.id":                      "the group is named after the stream's output",
	"group.instance.id":             "it is set by the stream's own setting for static membership",
	"group.protocol":                "cooperative rebalancing is what hands partitions over without loss",
	"partition.assignment.strategy": "cooperative rebalancing is what hands partitions over without loss",
	"transactional.id":              "it is derived from the model or the stream, so that a successor fences its predecessor",
	"enable.idempotence":            "retries must not double records",
	"acks":                          "a record counts as written when all in-sync replicas have it",
	"request.required.acks":         "a record counts as written when all in-sync replicas have it",
	"partitioner":                   "keys must meet in the partition where Java's producer puts them",
	"enable.partition.eof":          "the end of a partition is how a bounded read ends",
	"allow.auto.create.topics":      "a mistyped topic must not come into being",
	"statistics.interval.ms":        "lag is computed from it",
}

// Validate reports every fault of o at once.
func (o *Options) Validate() error {
	var errs []error
	if strings.TrimSpace(o.Properties["bootstrap.servers"]) == "" && o.Properties["metadata.broker.list"] == "" {
		errs = append(errs, &Error{What: "kafka: bootstrap.servers is missing", Next: "set it to HOST:PORT[,HOST:PORT…]"})
	}
	if o.ConnectTimeout < 0 {
		errs = append(errs, fmt.Errorf("ConnectTimeout is %v: must not be negative", o.ConnectTimeout))
	}
	for _, k := range slices.Sorted(maps.Keys(o.Properties)) {
		if why, ok := ours[k]; ok {
			errs = append(errs, &Error{What: "kafka: " + k + " cannot be set here", Where: "Lapwing owns it: " + why, Next: "remove it from the kafka properties"})
		} else if strings.HasPrefix(k, "go.") {
			errs = append(errs, &Error{What: "kafka: " + k + " cannot be set here", Where: "it configures the Go client, which is not visible from outside", Next: "remove it from the kafka properties"})
		} else if err := knownProperty(k, o.Properties[k]); err != nil {
			scrub := scrubber(o.Properties)
			errs = append(errs, &Error{What: "kafka: " + k + " is refused", Where: scrub(err.Error()), Next: "see librdkafka's CONFIGURATION.md for its properties", Err: ErrProperty})
		}
	}
	return errors.Join(errs...)
}

// ErrProperty: librdkafka does not know a property or refuses its value.
var ErrProperty = errors.New("bad kafka property")

// knownProperty asks librdkafka for a client that it refuses to make for another reason, once it has taken the property: making
// real ones costs threads and, now and then, seconds to close. Only names and single values are judged here; combinations (a
// mechanism without a password, an unreadable file) show when Connect makes the real one.
func knownProperty(k, v string) error {
	if k == "debug" || k == "log_level" { // would talk to stderr; Connect's real client judges their values
		return nil
	}
	a, err := kafka.NewAdminClient(&kafka.ConfigMap{k: v, "log_level": 0, "enable.idempotence": true, "acks": 1})
	if err == nil {
		a.Close()
		return nil
	}
	if m := err.Error(); strings.Contains(m, "No such configuration property") || strings.Contains(m, "Invalid value") ||
		strings.Contains(m, "out of range") || strings.Contains(m, "outside allowed range") ||
		strings.Contains(m, "Configuration property \"") && strings.Contains(m, "cannot be set") {
		return err
	}
	return nil
}

// Client is a connection to one cluster; readers and producers are made from it. Safe for concurrent use.
type Client struct {
	o      Options
	log    *slog.Logger
	fold   *folder
	scrub  func(string) string
	base   *kafka.Producer // never produces: an admin client of its own could not send its log lines to a channel
	admin  *kafka.AdminClient
	family string // broker.address.family where localhost answers on one family only

	down   chan struct{} // to Watch: librdkafka has lost its last connection
	silent atomic.Int64  // since when no broker answers, milliseconds since 1970; 0 = one does

	told sync.Map // topic → when a broker said that it is there (time.Time)

	closing   sync.WaitGroup // consumers that have given all they had
	closeOnce sync.Once
}

// toldFor is how long a topic counts as being there although a broker does not know it: one that was made through another broker
// comes to this one with the next piece of the controller's log, within a second where nothing is wrong. requestTimeout bounds it too.
const toldFor = 10 * time.Second

// Connect makes a client after one metadata round trip. Its errors say what is wrong, where, and what to do:
// absent broker, TLS or SASL wanted, wrong password, advertised listener that cannot be reached.
func Connect(ctx context.Context, o Options) (*Client, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = 10 * time.Second
	}
	o.Properties = maps.Clone(o.Properties)
	if b := o.Properties["metadata.broker.list"]; b != "" { // librdkafka's older name for the same thing
		if o.Properties["bootstrap.servers"] == "" {
			o.Properties["bootstrap.servers"] = b
		}
		delete(o.Properties, "metadata.broker.list")
	}
	// Most of the time is for the broker, some for finding out what is wrong, and a little for closing.
	ctx, cancel := context.WithTimeout(ctx, o.ConnectTimeout*9/10)
	defer cancel()
	trying, enough := context.WithTimeout(ctx, o.ConnectTimeout*2/3)
	defer enough()

	scrub := scrubber(o.Properties)
	c := &Client{o: o, log: o.Log, scrub: scrub, down: make(chan struct{}, 1)}
	reach, err := probe(trying, c.Brokers())
	if err != nil {
		return nil, orInterrupted(ctx, err)
	}
	if _, set := o.Properties["broker.address.family"]; !set {
		c.family = reach.family
	}
	c.fold = newFolder(o.Log, scrub)
	c.base, err = kafka.NewProducer(c.config(nil, map[string]any{
		"go.events.channel.size":  16,
		"go.produce.channel.size": 0,
		"log.connection.close":    true, // a listener that wants SASL says so only by closing
	}))
	if err != nil {
		c.fold.close()
		return nil, &Error{What: "the kafka properties do not fit together", Where: scrub(err.Error()), Next: "correct the kafka properties", Err: ErrProperty}
	}
	go func() { // ends when Close closes the channel
		for e := range c.base.Events() {
			if ke, ok := e.(kafka.Error); ok {
				c.fold.event(ke)
				if ke.Code() == kafka.ErrAllBrokersDown {
					select {
					case c.down <- struct{}{}:
					default:
					}
				}
			}
		}
	}()
	if c.admin, err = kafka.NewAdminClientFromProducer(c.base); err != nil {
		c.base.Close()
		c.fold.close()
		return nil, err
	}
	if err := c.firstMetadata(ctx, trying, reach); err != nil {
		c.abandon(ctx)
		return nil, orInterrupted(ctx, err)
	}
	c.fold.release()
	return c, nil
}

// abandon closes within ctx: librdkafka may wait for a broker that does not answer, and then goes on behind.
func (c *Client) abandon(ctx context.Context) {
	done := make(chan struct{})
	go func() { c.Close(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// Close ends the client. Readers and producers made from it are closed by their owners, before.
func (c *Client) Close() {
	c.closeOnce.Do(func() {
		c.closing.Wait() // at most closeTime each, all at once
		c.admin.Close()
		c.base.Close()
		c.fold.close()
	})
}

// Brokers is bootstrap.servers.
func (c *Client) Brokers() string { return c.o.Properties["bootstrap.servers"] }

// config merges defaults, the user's properties, and what role needs, later ones winning.
func (c *Client) config(defaults map[string]string, role ...map[string]any) *kafka.ConfigMap {
	m := kafka.ConfigMap{
		"client.id":               clientID,
		"log.connection.close":    false, // brokers close idle connections; that is no event
		"socket.nagle.disable":    true,  // a lone record must not wait for an acknowledgement of the one before
		"socket.keepalive.enable": true,
		"reconnect.backoff.ms":    50,
		"enable.metrics.push":     false, // nothing is told to anybody who was not asked to listen
		// A new partition is found within this time, hence read at most so late (it starts at its beginning).
		"topic.metadata.refresh.interval.ms": 10000,
		"reconnect.backoff.max.ms":           2000,
	}
	if c.family != "" {
		m["broker.address.family"] = c.family
	}
	for k, v := range defaults {
		m[k] = v
	}
	for k, v := range c.o.Properties {
		m[k] = v
	}
	for _, r := range role {
		for k, v := range r {
			m[k] = v
		}
	}
	m["go.logs.channel.enable"] = true
	if m["go.logs.channel"] == nil {
		m["go.logs.channel"] = c.fold.in
	}
	return &m
}

func withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, requestTimeout)
}

// adminErr names the request that failed; a bare "timed out" helps nobody.
func (c *Client) adminErr(what, where string, err error) error {
	next := "check the broker's log and this client's rights"
	if Unanswered(err) {
		next = "the broker at " + c.Brokers() + " does not answer; check that it runs"
	}
	return &Error{What: what + ": " + c.scrub(errText(err)), Where: where, Next: next, Err: err}
}

// ClusterID is the cluster's own name for itself.
func (c *Client) ClusterID(ctx context.Context) (string, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	id, err := c.admin.ClusterID(ctx)
	if err != nil {
		return "", c.adminErr("the cluster id could not be read", c.Brokers(), err)
	}
	return id, nil
}

// TopicSpec is a topic to be made. The replication factor is the broker's default.
type TopicSpec struct {
	Name       string
	Partitions int
	Config     map[string]string // cleanup.policy and so on
	AnyTime    bool              // take records however far ahead they are dated: brokers since 3.6 refuse more than an hour
}

// CreateTopic makes a topic; one that exists already is left as it is: false, nil.
func (c *Client) CreateTopic(ctx context.Context, t TopicSpec) (created bool, err error) {
	return c.create(ctx, t, false)
}

// MayCreate asks the broker whether it would make a topic: rights, replicas and settings. It makes none.
func (c *Client) MayCreate(ctx context.Context, t TopicSpec) error {
	_, err := c.create(ctx, t, true)
	return err
}

func (c *Client) create(ctx context.Context, t TopicSpec, pretend bool) (created bool, err error) {
	if err := checkTopicName(t.Name); err != nil {
		return false, err
	}
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	where := fmt.Sprintf("topic %s, %d partitions", t.Name, t.Partitions)
	config := t.Config
	if t.AnyTime {
		config = maps.Clone(t.Config)
		if config == nil {
			config = map[string]string{}
		}
		config["message.timestamp.after.max.ms"] = strconv.Itoa(math.MaxInt64)
	}
	create := func() (kafka.Error, error) {
		res, err := c.admin.CreateTopics(ctx, []kafka.TopicSpecification{{Topic: t.Name, NumPartitions: t.Partitions, ReplicationFactor: -1, Config: config}}, kafka.SetAdminValidateOnly(pretend))
		if err != nil {
			return kafka.Error{}, err
		}
		return res[0].Error, nil
	}
	e, err := create()
	if err == nil && t.AnyTime && e.Code() == kafka.ErrInvalidConfig { // an older broker, which has no such setting and no such limit
		config = t.Config
		e, err = create()
	}
	if err != nil {
		return false, c.lacks(c.adminErr("topic not created", where, err), "topic", t.Name, "CREATE")
	}
	if NotAllowed(e) { // also where it exists: brokers look at the right first
		if _, err := c.Partitions(ctx, t.Name); err == nil {
			return false, nil
		}
	}
	switch e.Code() {
	case kafka.ErrNoError:
		if pretend {
			return false, nil
		}
		// The broker answers before its metadata shows the topic; whoever creates one means to use it at once.
		c.told.Store(t.Name, time.Now())
		return true, c.awaitPartitions(ctx, t.Name, t.Partitions)
	case kafka.ErrTopicAlreadyExists:
		c.told.Store(t.Name, time.Now()) // maybe by another copy of us a moment ago
		return false, nil
	default:
		return false, c.lacks(c.adminErr("topic not created", where, e), "topic", t.Name, "CREATE")
	}
}

// checkTopicName holds a name to Kafka's rule. A broker says only that the topic is invalid, and the embedded one takes any.
func checkTopicName(name string) error {
	allowed := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
	}
	if name != "" && len(name) <= maxTopicName && name != "." && name != ".." && strings.IndexFunc(name, func(r rune) bool { return !allowed(r) }) < 0 {
		return nil
	}
	return &Error{What: "topic not created: its name is not valid", Where: fmt.Sprintf("topic %q", name), Next: "use 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'"}
}

// maxTopicName is Kafka's limit, in bytes.
const maxTopicName = 249

// awaitPartitions waits until the leaders of topic's n partitions are known and lead. A broker names them before they do, and of the
// batches that a producer has on their way it would then refuse the first and take the next: brokers before 4.5 take any first
// sequence number in an empty partition (KAFKA-15591). The first, sent again, is out of order, which librdkafka reads as "has been
// written": its records would be lost, though acknowledged.
func (c *Client) awaitPartitions(ctx context.Context, topic string, n int) error {
	for {
		d, err := c.describe(ctx, topic)
		if err == nil && len(d) == 1 && len(d[0].Partitions) >= n {
			led := true
			var tps []TopicPartition
			for _, p := range d[0].Partitions {
				led = led && p.Leader != nil && p.Leader.ID >= 0
				tps = append(tps, TopicPartition{topic, int32(p.Partition)})
			}
			if led {
				if _, err := c.listOffsets(ctx, tps, kafka.LatestOffsetSpec, kafka.IsolationLevelReadUncommitted); err == nil {
					return nil
				} else if code(err) != kafka.ErrUnknownTopicOrPart && ctx.Err() == nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return c.adminErr("the topic does not show up in the broker's metadata", "topic "+topic, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// AddPartitions raises a topic to total partitions. "Already there" is success.
func (c *Client) AddPartitions(ctx context.Context, topic string, total int) error {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	if n, err := c.Partitions(ctx, topic); err != nil || n >= total {
		return err
	}
	res, err := c.admin.CreatePartitions(ctx, []kafka.PartitionsSpecification{{Topic: topic, IncreaseTo: total}})
	if err == nil && res[0].Error.Code() != kafka.ErrNoError {
		err = res[0].Error
		if n, perr := c.Partitions(ctx, topic); perr == nil && n >= total { // someone else was faster
			return nil
		}
	}
	if err != nil {
		return c.lacks(c.adminErr("partitions not added", fmt.Sprintf("topic %s, to %d partitions", topic, total), err), "topic", topic, "ALTER")
	}
	return c.awaitPartitions(ctx, topic, total)
}

// DeleteTopic deletes a topic; one that is not there is an error that wraps ErrNoTopic.
func (c *Client) DeleteTopic(ctx context.Context, topic string) error {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	c.told.Delete(topic)
	res, err := c.admin.DeleteTopics(ctx, []string{topic})
	if err == nil && res[0].Error.Code() == kafka.ErrUnknownTopicOrPart {
		return c.noTopic(ctx, topic)
	}
	if err == nil && res[0].Error.Code() != kafka.ErrNoError {
		err = res[0].Error
	}
	if err != nil {
		return c.lacks(c.adminErr("topic not deleted", "topic "+topic, err), "topic", topic, "DELETE")
	}
	return nil
}

// TopicInfo names a topic and its number of partitions.
type TopicInfo struct {
	Name       string
	Partitions int
}

// Topics lists the topics by name, internal ones left out.
func (c *Client) Topics(ctx context.Context) ([]TopicInfo, error) {
	md, err := c.metadata(ctx, nil)
	if err != nil {
		return nil, c.adminErr("topics could not be listed", c.Brokers(), err)
	}
	var out []TopicInfo
	for name, t := range md.Topics {
		if t.Error.Code() == kafka.ErrNoError && !strings.HasPrefix(name, "__") {
			out = append(out, TopicInfo{name, len(t.Partitions)})
		}
	}
	slices.SortFunc(out, func(a, b TopicInfo) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// metadata asks for one topic or all. The C call cannot be cancelled, so it runs in slices short enough to notice ctx.
func (c *Client) metadata(ctx context.Context, topic *string) (*kafka.Metadata, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	for {
		md, err := c.admin.GetMetadata(topic, topic == nil, 1000)
		if err == nil {
			return md, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		if cd := code(err); cd != kafka.ErrTimedOut && cd != kafka.ErrTransport && cd != kafka.ErrLeaderNotAvailable {
			return nil, err
		}
	}
}

func (c *Client) describe(ctx context.Context, topics ...string) ([]kafka.TopicDescription, error) {
	r, err := c.admin.DescribeTopics(ctx, kafka.NewTopicCollectionOfTopicNames(topics))
	return r.TopicDescriptions, err
}

// Partitions is the number of partitions of topic; a missing one is an error that wraps ErrNoTopic. It never creates one.
func (c *Client) Partitions(ctx context.Context, topic string) (int, error) {
	d, err := c.topic(ctx, topic)
	return len(d.Partitions), err
}

func (c *Client) topic(ctx context.Context, topic string) (kafka.TopicDescription, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	if topic == "" {
		return kafka.TopicDescription{}, &Error{What: "no topic was named", Next: "name one with --topic", Err: ErrNoTopic}
	}
	d, err := c.describe(ctx, topic)
	for err == nil && len(d) == 1 && missing(d[0].Error) && c.isTold(topic) && pause(ctx, 0) {
		d, err = c.describe(ctx, topic)
	}
	if err == nil && len(d) == 1 {
		switch {
		case d[0].Error.Code() == kafka.ErrNoError:
			return d[0], nil
		case missing(d[0].Error):
			return kafka.TopicDescription{}, c.noTopic(ctx, topic)
		}
		err = d[0].Error
	}
	return kafka.TopicDescription{}, c.adminErr("the topic could not be looked up", "topic "+topic, err)
}

// missing tells whether a broker does not know a topic.
func missing(e kafka.Error) bool {
	return e.Code() == kafka.ErrUnknownTopicOrPart || e.Code() == kafka.ErrUnknownTopic
}

// isTold tells whether a broker has just said that the topic is there: then one that does not know it is behind.
func (c *Client) isTold(topic string) bool {
	t, ok := c.told.Load(topic)
	return ok && time.Since(t.(time.Time)) < toldFor
}

func (c *Client) noTopic(ctx context.Context, topic string) error {
	e := &Error{What: fmt.Sprintf("topic %s does not exist", topic), Where: c.Brokers(), Next: "create it first, or correct the name", Err: ErrNoTopic}
	all, err := c.Topics(ctx)
	if err != nil {
		return e
	}
	best, dist := "", len(topic)/2+1
	for _, t := range all {
		if d := editDistance(topic, t.Name); d < dist {
			best, dist = t.Name, d
		}
	}
	switch {
	case best != "":
		e.Next = fmt.Sprintf("did you mean %s?", best)
	case len(all) == 0:
		e.Next = "this cluster has no topics yet; create it first"
	}
	return e
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diag := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			next := diag
			if a[i-1] != b[j-1] {
				next = min(diag, row[j], row[j-1]) + 1
			}
			diag, row[j] = row[j], next
		}
	}
	return row[len(b)]
}

// TopicConfig is the effective configuration of a topic, defaults included.
func (c *Client) TopicConfig(ctx context.Context, topic string) (map[string]string, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	if _, err := c.Partitions(ctx, topic); err != nil {
		return nil, err
	}
	res, err := c.admin.DescribeConfigs(ctx, []kafka.ConfigResource{{Type: kafka.ResourceTopic, Name: topic}})
	if err == nil && len(res) == 1 && res[0].Error.Code() != kafka.ErrNoError {
		err = res[0].Error
	}
	if err != nil || len(res) != 1 {
		return nil, c.adminErr("the topic's configuration could not be read", "topic "+topic, err)
	}
	out := make(map[string]string, len(res[0].Config))
	for k, v := range res[0].Config {
		out[k] = v.Value
	}
	return out, nil
}
