package server

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"runtime"
	"time"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/registry"
)

// None as an alerts topic leaves alerts out.
const None = "none"

// Options are the settings of a Server.
type Options struct {
	Streams []StreamOptions

	HTTP string // HOST:PORT of /healthz, /readyz and /metrics; "" = no listener

	MaxBatch           int           // records scored together, at most; default 4096
	Queue              int           // records read and not yet produced, at most; default 65536
	MaxInFlight        int           // batches on their way from input to output, at most; default 4
	Delivery           string        // exactly_once or at_least_once; default exactly_once
	CommitInterval     time.Duration // time from a produced record to its commit; default 100ms
	CommitRecords      int           // records after which a commit comes before that; default 65536
	TransactionTimeout time.Duration // the broker aborts a transaction that is open for longer; default 10s
	RollingRewind      int           // offsets of a partition read again on assignment for rolling features; default 20000
	RollingKeys        int           // keys of a partition whose last records are held for them; default 100000
	ShutdownTimeout    time.Duration // time to drain after the context has ended; default 30s
	RetryMin           time.Duration // first pause before a stream that failed is begun anew, or a model loaded that found no memory on the GPU; doubled each time; default 500ms
	RetryMax           time.Duration // longest such pause; default 15s

	Pyroscope ProfileOptions // URL "" = no profiles
}

// StreamOptions are the settings of one stream: input topics, one model, output topics.
type StreamOptions struct {
	Model string // model's name
	Alias string // alias to follow; default live

	Topics []string // input topics
	Format string   // format that the model's spec must have: json or csv; "" = whatever it has
	Key    string   // field shown as the key of records without one; "" = the model spec's
	Time   string   // field that the model's spec must take the time from; "" = whatever it has

	Output string // scores topic; default TOPIC.scores, with several topics to be named
	Alerts string // alerts topic, or none; default TOPIC.alerts
	DLQ    string // dead-letter topic; default TOPIC.dlq

	Start         string // where a group without offsets begins: earliest, latest, after-training or a time (RFC 3339); default earliest
	Where         string // condition that records must meet (events.ParseWhere), else they are counted and passed over; default none
	Contributions string // records that carry top: anomalies or all; default anomalies
	InstanceID    string // static group membership; "" = dynamic

	RaiseAfter  int           // consecutive anomalous records of a key that raise an alert; default 3
	ClearAfter  int           // consecutive normal records that clear it; default 10
	RepeatEvery time.Duration // event time between records of a lasting alert; default 10m
	ClearSilent time.Duration // event time without a record of the key that clears it; default 24h
	AlertKeys   int           // keys with alert state, at most; the least recent is cleared; default 1000000
	AlertRewind int           // records a partition goes back to rebuild counts on assignment; default 1000
}

// The values of StreamOptions.Contributions.
const (
	ContributionsAnomalies = "anomalies"
	ContributionsAll       = "all"
)

func defaulted[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// withDefaults fills in what is zero. It copies what it changes.
func (o Options) withDefaults() Options {
	defaulted(&o.MaxBatch, 4096)
	defaulted(&o.Queue, 65536)
	defaulted(&o.MaxInFlight, 4)
	defaulted(&o.Delivery, ExactlyOnce)
	defaulted(&o.CommitInterval, 100*time.Millisecond)
	defaulted(&o.CommitRecords, 65536)
	defaulted(&o.TransactionTimeout, 10*time.Second)
	defaulted(&o.RollingRewind, 20_000)
	defaulted(&o.RollingKeys, events.DefaultWindowKeys)
	defaulted(&o.ShutdownTimeout, 30*time.Second)
	defaulted(&o.RetryMin, 500*time.Millisecond)
	defaulted(&o.RetryMax, max(15*time.Second, o.RetryMin))
	o.Streams = append([]StreamOptions(nil), o.Streams...)
	for i := range o.Streams {
		s := &o.Streams[i]
		defaulted(&s.Alias, registry.Live)
		if len(s.Topics) == 1 {
			defaulted(&s.Output, s.Topics[0]+".scores")
			defaulted(&s.Alerts, s.Topics[0]+".alerts")
			defaulted(&s.DLQ, s.Topics[0]+".dlq")
		}
		defaulted(&s.Start, StartEarliest)
		defaulted(&s.Contributions, ContributionsAnomalies)
		defaulted(&s.RaiseAfter, 3)
		defaulted(&s.ClearAfter, 10)
		defaulted(&s.RepeatEvery, 10*time.Minute)
		defaulted(&s.ClearSilent, 24*time.Hour)
		defaulted(&s.AlertKeys, 1_000_000)
		defaulted(&s.AlertRewind, 1000)
	}
	return o
}

// inFlight is the number of batches that may be out: the queue is a bound in records.
func (o *Options) inFlight() int {
	return max(1, min(o.MaxInFlight, o.Queue/o.MaxBatch))
}

// Validate reports every fault at once. Zero values mean defaults and are no fault.
func (o Options) Validate() error {
	o = o.withDefaults()
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if len(o.Streams) == 0 {
		bad("no stream is given: name an input topic and a model")
	}
	if o.MaxBatch < 1 || o.MaxBatch > 1<<20 {
		bad("max_batch %d is not within 1 to %d", o.MaxBatch, 1<<20)
	}
	if o.Queue < 1 {
		bad("queue %d is below 1", o.Queue)
	}
	if o.MaxInFlight < 1 || o.MaxInFlight > 1024 {
		bad("max_in_flight %d is not within 1 to 1024", o.MaxInFlight)
	}
	if o.RollingRewind < 1 || o.RollingKeys < 1 {
		bad("rolling_rewind %d and rolling_keys %d must be at least 1", o.RollingRewind, o.RollingKeys)
	}
	for _, d := range []struct {
		name string
		is   time.Duration
	}{{"commit_interval", o.CommitInterval}, {"shutdown_timeout", o.ShutdownTimeout}, {"retry_min", o.RetryMin}} {
		if d.is < time.Millisecond {
			bad("%s %v is below 1ms", d.name, d.is)
		}
	}
	if o.Delivery != AtLeastOnce && o.Delivery != ExactlyOnce {
		bad("delivery %q is not one of %s, %s", o.Delivery, ExactlyOnce, AtLeastOnce)
	}
	if o.CommitRecords < 1 {
		bad("commit_records %d is below 1", o.CommitRecords)
	}
	if o.TransactionTimeout < time.Second {
		bad("transaction_timeout %v is below 1s", o.TransactionTimeout)
	}
	if o.Delivery == ExactlyOnce && o.TransactionTimeout < 2*o.CommitInterval {
		bad("transaction_timeout %v is below twice commit_interval %v: transactions would end before they are committed", o.TransactionTimeout, o.CommitInterval)
	}
	if o.RetryMax < o.RetryMin {
		bad("retry_max %v is below retry_min %v", o.RetryMax, o.RetryMin)
	}
	if o.HTTP != "" {
		if _, _, err := net.SplitHostPort(o.HTTP); err != nil {
			bad("http %q is not HOST:PORT: %w", o.HTTP, err)
		}
	}
	if err := o.Pyroscope.Validate(); err != nil {
		faults = append(faults, err)
	}
	writes := map[string]string{} // topic → what writes it
	dlqs := map[string]string{}   // of dead letters, which streams may share: a header names the model
	reads := map[string]bool{}
	for i := range o.Streams {
		for _, t := range o.Streams[i].Topics {
			reads[t] = true
		}
	}
	for i := range o.Streams {
		s := &o.Streams[i]
		who := fmt.Sprintf("stream %d (model %s)", i+1, s.Model)
		if err := s.validate(); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", who, err))
		}
		for _, w := range []struct{ what, topic string }{{"output", s.Output}, {"alerts", s.Alerts}, {"dlq", s.DLQ}} {
			switch {
			case w.topic == "" || w.what == "alerts" && w.topic == None:
			case reads[w.topic]:
				bad("%s: %s %q is also an input topic: scores would be scored; name another", who, w.what, w.topic)
			case writes[w.topic] != "" || w.what != "dlq" && dlqs[w.topic] != "":
				bad("%s: %s %q is already written by %s; name its own", who, w.what, w.topic, writes[w.topic]+dlqs[w.topic])
			case w.what == "dlq":
				dlqs[w.topic] = who
			default:
				writes[w.topic] = who
			}
		}
	}
	return errors.Join(faults...)
}

// topicForm is what Kafka takes as a topic's name.
var topicForm = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

func (s *StreamOptions) validate() error {
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if err := registry.ValidName(s.Model); err != nil {
		faults = append(faults, err)
	} else if _, err := registry.ParseRef(s.Model + "@" + s.Alias); err != nil {
		faults = append(faults, err)
	}
	if len(s.Topics) == 0 {
		bad("no input topic is given")
	}
	seen := map[string]bool{}
	for _, t := range s.Topics {
		if t == "" || seen[t] {
			bad("input topic %q is empty or named twice", t)
		}
		seen[t] = true
	}
	for _, t := range append([]string{s.Output, s.Alerts, s.DLQ}, s.Topics...) {
		if t != "" && !topicForm.MatchString(t) {
			bad("%q cannot be a topic's name: use 1 to 249 of a-z, A-Z, 0-9, '.', '_', '-'", t)
		}
	}
	if s.Output == "" || s.DLQ == "" || s.Alerts == "" {
		if len(s.Topics) > 1 {
			bad("with several input topics output, alerts and dlq must be named")
		}
	}
	if s.Output == None || s.DLQ == None {
		bad("output and dlq cannot be %q: every record ends as a score or a dead letter", None)
	}
	switch s.Format {
	case "", "json", "csv":
	default:
		bad("format %q is not one of json, csv", s.Format)
	}
	if _, _, err := parseStart(s.Start); err != nil {
		faults = append(faults, err)
	}
	if s.Where != "" {
		if _, err := events.ParseWhere(s.Where); err != nil {
			bad("where: %w", err)
		}
	}
	if s.Contributions != ContributionsAnomalies && s.Contributions != ContributionsAll {
		bad("contributions %q is not one of %s, %s", s.Contributions, ContributionsAnomalies, ContributionsAll)
	}
	for _, n := range []struct {
		name    string
		is, min int
	}{{"raise_after", s.RaiseAfter, 1}, {"clear_after", s.ClearAfter, 1}, {"alert_keys", s.AlertKeys, 1}, {"alert_rewind", s.AlertRewind, 0}} {
		if n.is < n.min {
			bad("%s %d is below %d", n.name, n.is, n.min)
		}
	}
	if s.RepeatEvery < time.Millisecond || s.ClearSilent < time.Millisecond {
		bad("repeat_every %v and clear_silent %v must be at least 1ms", s.RepeatEvery, s.ClearSilent)
	}
	return errors.Join(faults...)
}

// name is what logs, metrics and states call the stream: its output names it uniquely.
func (s *StreamOptions) name() string { return s.Output }

// group is the consumer group: one a stream.
func (s *StreamOptions) group() string { return "lapwing." + s.Output }

func (s *StreamOptions) ref() registry.Ref { return registry.Ref{Name: s.Model, Alias: s.Alias} }

func (s *StreamOptions) alerts() bool { return s.Alerts != None }

func (s *StreamOptions) rules() alertRules {
	return alertRules{
		model: s.Model, raiseAfter: s.RaiseAfter, clearAfter: s.ClearAfter,
		repeatEvery: s.RepeatEvery.Milliseconds(), clearSilent: s.ClearSilent.Milliseconds(), keys: s.AlertKeys,
	}
}

// ProfileOptions say where continuous profiles go.
type ProfileOptions struct {
	URL      string        // Pyroscope server, such as http://127.0.0.1:4040; "" = none
	Name     string        // application name; default lapwing
	User     string        // basic authentication
	Password string        // secret
	Interval time.Duration // time between uploads; default 15s
}

// Validate reports every fault at once.
func (p ProfileOptions) Validate() error {
	if p.URL == "" {
		return nil
	}
	u, err := url.Parse(p.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errors.New("pyroscope.url is not http://HOST:PORT or https://HOST:PORT")
	}
	if p.Interval < 0 {
		return fmt.Errorf("pyroscope.interval %v is below 0", p.Interval)
	}
	return nil
}

// Threads that loading models may keep busy beside scoring (CASES 6.04: a load must not slow a neighbour).
func loaders() int { return max(1, runtime.GOMAXPROCS(0)/4) }
