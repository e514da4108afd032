package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// ProducerOptions configure a producer.
type ProducerOptions struct {
	// Linger is how long a batch may wait for company. Milliseconds resolution; default 0: what is there goes at once, and
	// batches form while requests are on their way.
	Linger time.Duration
	// Compression is none, gzip, snappy, lz4 or zstd. Default none.
	Compression string
	// MaxQueued bounds the records that are not acknowledged yet. Records; default 16384. While a partition has no leader,
	// librdkafka burns a core on a hundred thousand waiting records and nothing on a few thousand.
	MaxQueued int
}

// Validate reports every fault of o at once.
func (o *ProducerOptions) Validate() error {
	var errs []error
	if o.Linger < 0 {
		errs = append(errs, fmt.Errorf("producer: Linger is %v: must not be negative", o.Linger))
	}
	switch o.Compression {
	case "", "none", "gzip", "snappy", "lz4", "zstd":
	default:
		errs = append(errs, fmt.Errorf("producer: Compression is %q: none, gzip, snappy, lz4 or zstd", o.Compression))
	}
	if o.MaxQueued < 0 || o.MaxQueued > 10_000_000 {
		errs = append(errs, fmt.Errorf("producer: MaxQueued is %d: 1 to 10000000", o.MaxQueued))
	}
	return errors.Join(errs...)
}

// largestRecord is what a producer takes, bytes, where the user sets no message.max.bytes. Batches are bounded by batch.size.
const largestRecord = 10 << 20

// Producer is an idempotent producer. Safe for concurrent use; records of one partition keep the order of their Produce calls.
type Producer struct {
	c      *Client
	p      *kafka.Producer
	max    int64
	out    *outlet       // nil: the Go client, one record a call
	done   chan struct{} // the reader of p's events has ended
	known  sync.Map      // topic -> *string, topics that were seen to exist
	breaks atomic.Int64  // connections that broke, or gave no answer in time

	mu     sync.Mutex
	sent   int64 // records handed to librdkafka
	acked  int64 // records with a delivery report, good or bad
	err    error // the first failed delivery
	wake   chan struct{}
	closed bool
}

// Producer makes an idempotent producer.
func (c *Client) Producer(ctx context.Context, o ProducerOptions) (*Producer, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return c.producer(o, nil)
}

func (c *Client) producer(o ProducerOptions, role map[string]any) (*Producer, error) {
	if o.MaxQueued == 0 {
		o.MaxQueued = 16384
	}
	set := map[string]any{
		"enable.idempotence":           true,
		"acks":                         "all",
		"partitioner":                  "murmur2_random",
		"linger.ms":                    strconv.FormatFloat(float64(o.Linger.Microseconds())/1000, 'f', -1, 64),
		"queue.buffering.max.messages": o.MaxQueued,
		"go.delivery.report.fields":    "none",
		"go.events.channel.size":       4096,
		"go.produce.channel.size":      0,
	}
	if o.Compression != "" {
		set["compression.type"] = o.Compression
	}
	cfg := c.config(map[string]string{
		// Requests that wait for a leader are retried inside librdkafka for so long; then the record's delivery has failed.
		"message.timeout.ms":         "300000",
		"queue.buffering.max.kbytes": "65536",
		// The topic decides what is too large. With librdkafka's 1,000,000 a dead letter that the input took could not be written.
		"message.max.bytes": strconv.Itoa(largestRecord),
	}, set, role)
	p, err := kafka.NewProducer(cfg)
	if err != nil {
		return nil, &Error{What: "the producer could not be made", Where: c.scrub(err.Error()), Next: "correct the kafka properties", Err: err}
	}
	pr := &Producer{c: c, p: p, max: int64(o.MaxQueued), done: make(chan struct{}), wake: make(chan struct{})}
	go pr.acknowledge()
	pr.out = newOutlet(p, pr.reported)
	return pr, nil
}

// reported counts what the outlet has had reports on.
func (p *Producer) reported(r report) {
	var first error
	switch {
	case r.fatal: // the records failed by it
		first = fromProducer(p.p.GetFatalError())
	case r.code != 0:
		first = p.failed(r.topic, r.partition, kafka.NewError(r.code, "", false))
	}
	p.account(r.records, first)
}

func (p *Producer) account(n int64, first error) {
	p.mu.Lock()
	p.acked += n
	if p.err == nil {
		p.err = first
	}
	close(p.wake)
	p.wake = make(chan struct{})
	p.mu.Unlock()
}

// acknowledge counts the delivery reports that come by the Go client, many under one lock. It ends when Close closes the channel.
func (p *Producer) acknowledge() {
	defer close(p.done)
	events := p.p.Events()
	for e := range events {
		var n int64
		var first error
		for {
			switch e := e.(type) {
			case *kafka.Message:
				n++
				if err := e.TopicPartition.Error; err != nil && first == nil {
					first = p.failed(*e.TopicPartition.Topic, e.TopicPartition.Partition, err)
				}
			case kafka.Error:
				if e.IsFatal() && first == nil {
					first = fromProducer(e)
				}
			}
			if n >= 1024 {
				break
			}
			var more bool
			select {
			case e, more = <-events:
			default:
			}
			if !more {
				break
			}
		}
		p.account(n, first)
	}
}

// undelivered is why a record of topic was not delivered.
type undelivered struct {
	topic string
	error
}

func (e *undelivered) Unwrap() error { return e.error }

func (p *Producer) failed(topic string, partition int32, err error) error {
	if code(err) == kafka.ErrFatal { // says only that there was one
		if cause := p.p.GetFatalError(); cause != nil {
			err = cause
		}
	}
	next := "check the broker's log"
	switch code(err) {
	case kafka.ErrMsgSizeTooLarge:
		next = "raise message.max.bytes here and max.message.bytes of the topic"
	case kafka.ErrInvalidTimestamp:
		next = "the record's time is too far from the broker's clock: raise message.timestamp.after.max.ms or .before.max.ms of the topic"
	case kafka.ErrMsgTimedOut:
		next = "the partition had no leader for message.timeout.ms; check the brokers"
	case kafka.ErrClusterAuthorizationFailed: // to brokers before 2.8; since then WRITE on any topic will do
		next = "grant IDEMPOTENT_WRITE on the cluster"
	}
	e := &Error{What: "a record was not delivered: " + p.c.scrub(err.Error()), Where: fmt.Sprintf("topic %s, partition %d", topic, partition),
		Next: next, Err: &undelivered{topic, fromProducer(err)}}
	if code(err) == kafka.ErrTopicAuthorizationFailed {
		right := Right{Kind: "topic", Name: topic, Operations: []string{"WRITE"}}
		e.What, e.Next, e.Err = "a record was not delivered: this client may not "+right.String()+": "+err.Error(), right.Grant(p.c.Brokers()), &lackError{e.Err}
	}
	return e
}

// name checks once that a topic exists: a producer that asked for metadata of a missing one could create it by accident.
func (p *Producer) name(ctx context.Context, topic string) (*string, error) {
	if s, ok := p.known.Load(topic); ok {
		return s.(*string), nil
	}
	if _, err := p.c.Partitions(ctx, topic); err != nil {
		return nil, p.c.lacks(err, "topic", topic, "WRITE")
	}
	s, _ := p.known.LoadOrStore(topic, &topic)
	return s.(*string), nil
}

// Timestamps that librdkafka can carry: the Go client multiplies into nanoseconds (2262-04-11), and takes 0 to mean "now".
const (
	minTime = 1
	maxTime = 9223372036854
)

// Produce queues records, in order; it blocks while the queue is full, and returns an earlier delivery failure. The records'
// bytes are copied before it returns. Time 0 is sent as 1 ms (0 means "now" to librdkafka), beyond the year 2262 as its start.
func (p *Producer) Produce(ctx context.Context, records []Record) error {
	if p.out == nil {
		return p.produceEach(ctx, records)
	}
	var topic *string
	for i := range records {
		if topic == nil || *topic != records[i].Topic {
			t, err := p.name(ctx, records[i].Topic)
			if err != nil {
				if i > 0 { // as if one had been produced after the other
					err = errors.Join(p.Produce(ctx, records[:i]), err)
				}
				return err
			}
			topic = t
		}
	}
	for len(records) > 0 {
		room, err := p.reserve(ctx, int64(len(records)))
		if err != nil {
			return err
		}
		n, err := p.out.produce(records[:room])
		if err == nil {
			records = records[n:]
			continue
		}
		r := &records[n]
		records = records[n:]
		p.unreserve(room - int64(n))
		switch {
		case errors.Is(err, ErrClosed):
			return err
		case code(err) == kafka.ErrUnknownPartition && p.learn(ctx, r):
		case code(err) == kafka.ErrQueueFull: // bytes, not records, fill it
			if err := p.progress(ctx); err != nil {
				return err
			}
		default:
			return p.failed(r.Topic, r.Partition, err)
		}
	}
	return nil
}

// produceEach is Produce by the Go client's call for one record.
func (p *Producer) produceEach(ctx context.Context, records []Record) error {
	var msg kafka.Message
	var hdrs []kafka.Header
	var topic *string
	room := int64(0) // what is known to fit without asking again
	for i := range records {
		r := &records[i]
		if topic == nil || *topic != r.Topic {
			t, err := p.name(ctx, r.Topic)
			if err != nil {
				p.unreserve(room)
				return err
			}
			topic = t
		}
		msg = kafka.Message{TopicPartition: kafka.TopicPartition{Topic: topic, Partition: r.Partition}, Key: r.Key, Value: r.Value}
		if r.Partition < 0 {
			msg.TopicPartition.Partition = kafka.PartitionAny
		}
		if r.Time >= 0 {
			msg.Timestamp = time.UnixMilli(min(max(r.Time, minTime), maxTime))
		}
		if len(r.Headers) > 0 {
			hdrs = hdrs[:0]
			for _, h := range r.Headers {
				hdrs = append(hdrs, kafka.Header{Key: h.Key, Value: h.Value})
			}
			msg.Headers = hdrs
		}
		for {
			if room <= 0 {
				var err error
				if room, err = p.reserve(ctx, int64(len(records)-i)); err != nil {
					return err
				}
			}
			err := p.p.Produce(&msg, nil)
			if err == nil {
				room--
				break
			}
			if code(err) == kafka.ErrUnknownPartition && p.learn(ctx, r) {
				continue
			}
			if code(err) != kafka.ErrQueueFull {
				p.unreserve(room)
				return p.failed(r.Topic, r.Partition, err)
			}
			// Bytes, not records, fill the queue: wait for acknowledgements, and give back what was reserved.
			p.unreserve(room)
			room = 0
			if err := p.progress(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// learn refreshes what librdkafka knows of a topic that has grown; false where the partition does not exist.
func (p *Producer) learn(ctx context.Context, r *Record) bool {
	n, err := p.c.Partitions(ctx, r.Topic)
	if err != nil || int(r.Partition) >= n || ctx.Err() != nil {
		return false
	}
	if _, err := p.p.GetMetadata(&r.Topic, false, 1000); err != nil {
		pause(ctx, 0)
	}
	return true
}

// reserve waits for room and takes up to n of it.
func (p *Producer) reserve(ctx context.Context, n int64) (int64, error) {
	p.mu.Lock()
	for {
		if p.err != nil || p.closed {
			err := p.err
			if err == nil {
				err = ErrClosed
			}
			p.mu.Unlock()
			return 0, err
		}
		if free := p.max - (p.sent - p.acked); free > 0 {
			n = min(n, free)
			p.sent += n
			p.mu.Unlock()
			return n, nil
		}
		if err := p.wait(ctx); err != nil {
			p.mu.Unlock()
			return 0, err
		}
	}
}

func (p *Producer) unreserve(n int64) {
	if n > 0 {
		p.mu.Lock()
		p.sent -= n
		close(p.wake)
		p.wake = make(chan struct{})
		p.mu.Unlock()
	}
}

// wait gives up the lock until something was acknowledged.
func (p *Producer) wait(ctx context.Context) error {
	w := p.wake
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case <-w:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Producer) progress(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.acked >= p.sent {
		return nil
	}
	return p.wait(ctx)
}

// Flush waits until every record queued before it is acknowledged, and returns the first failure. It waits for delivery
// reports as they come: librdkafka's own flush returns in steps of 100 ms.
func (p *Producer) Flush(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for upTo := p.sent; p.acked < upTo && p.err == nil; {
		if err := p.wait(ctx); err != nil {
			return &Error{What: "records are not acknowledged", Where: fmt.Sprintf("%d records waiting for %s", upTo-p.acked, p.c.Brokers()),
				Next: "check the brokers", Err: err}
		}
	}
	return p.err
}

// Queued is the number of records that are not acknowledged yet.
func (p *Producer) Queued() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int(p.sent - p.acked)
}

// reset forgets a failure, once the records it concerns are to be written anew.
func (p *Producer) reset() {
	p.mu.Lock()
	p.err = nil
	p.mu.Unlock()
}

// Close flushes while ctx lasts, then gives up what is left, and says how much.
func (p *Producer) Close(ctx context.Context) error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	close(p.wake)
	p.wake = make(chan struct{})
	p.mu.Unlock()
	err := p.Flush(ctx)
	p.destroy()
	return err
}

func (p *Producer) destroy() {
	if p.Queued() > 0 {
		p.p.Purge(kafka.PurgeInFlight | kafka.PurgeQueue | kafka.PurgeNonBlocking)
	}
	if p.out != nil {
		p.out.close()
	}
	p.p.Close()
	<-p.done
}

// Transactor is a transactional producer. One goroutine at a time.
type Transactor struct {
	p       *Producer
	id      string
	timeout time.Duration // of a transaction
	open    bool
	breaks  int64        // of p, when it had been initialised
	hung    <-chan error // a call that does not return; nil: none
}

// errHung: librdkafka does not return from a call whose time is over. Sending offsets heeds no time limit, and waits for ever for a group's
// coordinator that has gone from the brokers' metadata, as each broker does when it is restarted (librdkafka issues 5456 and 5511, open).
// Nothing wakes it, so the producer is given up: the next one of the same id takes its transactions over.
var errHung = errors.New("librdkafka does not return from the call")

// hungAfter is how long after its time a call still may return.
const hungAfter = time.Second

// Transactor makes a transactional producer whose transactions are initialised: older ones with the same id are fenced, and what
// they left open is aborted. The broker aborts a transaction that stays open for longer than timeout (seconds; 0 = 60 s).
func (c *Client) Transactor(ctx context.Context, id string, timeout time.Duration) (*Transactor, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	if timeout == 0 {
		timeout = time.Minute
	}
	logs := make(chan kafka.LogEvent, 16)
	p, err := c.producer(ProducerOptions{}, map[string]any{
		"transactional.id":       id,
		"transaction.timeout.ms": int(timeout.Milliseconds()),
		// a record may not wait for longer than its transaction lives
		"message.timeout.ms": int(timeout.Milliseconds()),
		// nothing but a line in the log tells of a connection that broke: see Renew
		"log.connection.close": true,
		"go.logs.channel":      logs,
	})
	if err != nil {
		return nil, err
	}
	go p.hear(logs)
	t := &Transactor{p: p, id: id, timeout: timeout}
	p.meet(ctx)
	if err := t.retry(ctx, p.p.InitTransactions); err != nil {
		t.Close()
		return nil, t.explain("transactions could not be initialised", err)
	}
	t.breaks = p.breaks.Load()
	return t, nil
}

// meet waits until a broker that has a number is connected: librdkafka leaves the bootstrap address as soon as it has been told of the
// brokers, and where that comes between two steps of InitTransactions, it connects to the next one 500 ms later (2.11.1: in 10 of 30
// producers). Without an answer it gives up; InitTransactions then says why.
func (p *Producer) meet(ctx context.Context) {
	for range 5 {
		m, err := p.p.GetMetadata(nil, false, 500)
		if err != nil || m.OriginatingBroker.ID >= 0 || ctx.Err() != nil {
			return
		}
	}
}

// hear counts connections that broke, by librdkafka's log, and passes that on. It ends with the producer.
func (p *Producer) hear(logs <-chan kafka.LogEvent) {
	for {
		select {
		case e := <-logs:
			if e.Tag == "FAIL" || e.Tag == "REQTMOUT" {
				p.breaks.Add(1)
			}
			p.c.fold.line(e)
		case <-p.done:
			return
		}
	}
}

// Renew takes a new epoch where a request of an earlier transaction may still be on its way: a connection broke, or gave no answer in
// time, and librdkafka has asked again by another one, of which it says nothing. To brokers all transactions of an epoch look alike by
// the first protocol, so that a late end would end the next one in the middle (docs/transactions.md). Between transactions.
//
// A new producer takes it: librdkafka cannot be asked for an epoch, and tells of a break that is like the one before only once in 30 s.
func (t *Transactor) Renew(ctx context.Context) error {
	if t.open || t.p.breaks.Load() == t.breaks {
		return nil
	}
	next, err := t.p.c.Transactor(ctx, t.id, t.timeout)
	if err != nil {
		return err
	}
	t.p.c.log.Info("a connection to a broker broke: a new epoch keeps late requests out of the next transaction", "transactional.id", t.id)
	t.Close()
	*t = *next
	return nil
}

// retry repeats a call that may be repeated, until it succeeds or ctx ends: a commit that timed out is unknown, not failed.
func (t *Transactor) retry(ctx context.Context, call func(context.Context) error) error {
	for {
		err := t.bounded(ctx, call)
		var ke kafka.Error
		if err == nil || !errors.As(err, &ke) || !ke.IsRetriable() || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// bounded makes a call that may not return.
func (t *Transactor) bounded(ctx context.Context, call func(context.Context) error) error {
	if t.hung != nil {
		return errHung
	}
	done := make(chan error, 1)
	go func() { done <- call(ctx) }() // ends with the call; where that hangs, Close has somebody wait for it
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	limit := time.NewTimer(hungAfter)
	defer limit.Stop()
	select {
	case err := <-done:
		return err
	case <-limit.C:
		t.hung = done
		return errHung
	}
}

func (t *Transactor) explain(what string, err error) error {
	next := "check the broker's log"
	switch code(err) {
	case kafka.ErrInvalidTransactionTimeout:
		next = "lower transaction_timeout, or raise transaction.max.timeout.ms of the brokers"
	case kafka.ErrTimedOut, kafka.ErrTransport:
		next = "no broker answers for this id; check that those at " + t.p.c.Brokers() + " run, and that transaction.state.log.replication.factor is not above their number"
	case kafka.ErrFenced, kafka.ErrProducerFenced, kafka.ErrInvalidProducerEpoch:
		next = "another process with this id is at work; it wins"
	}
	if errors.Is(err, errHung) {
		next = "nothing: another producer takes over"
	}
	return &Error{What: what + ": " + t.p.c.scrub(err.Error()), Where: "transactional.id " + t.id, Next: next, Err: fromProducer(err)}
}

// Begin opens a transaction.
func (t *Transactor) Begin() error {
	t.p.reset()
	if err := t.p.p.BeginTransaction(); err != nil {
		return t.explain("the transaction could not be opened", err)
	}
	t.open = true
	return nil
}

// Produce queues records into the open transaction.
func (t *Transactor) Produce(ctx context.Context, records []Record) error {
	return t.p.Produce(ctx, records)
}

// Commit makes the transaction's records visible. After an error that is not ErrFenced, Abort.
func (t *Transactor) Commit(ctx context.Context) error {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	if err := t.retry(ctx, t.p.p.CommitTransaction); err != nil {
		t.p.mu.Lock()
		first := t.p.err
		t.p.mu.Unlock()
		if record := (*undelivered)(nil); NotAllowed(err) && errors.As(first, &record) { // of the record it is only known that it was given up
			return t.p.c.lacks(t.explain("the transaction was not committed", err), "topic", record.topic, "WRITE")
		}
		if first != nil && !errors.Is(fromProducer(err), ErrFenced) {
			return first
		}
		return t.explain("the transaction was not committed", err)
	}
	t.open = false
	return nil
}

// Abort drops the open transaction; without one it does nothing.
func (t *Transactor) Abort(ctx context.Context) error {
	if !t.open {
		return nil
	}
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	err := t.retry(ctx, t.p.p.AbortTransaction)
	t.p.reset()
	if err != nil {
		return t.explain("the transaction was not aborted", err)
	}
	t.open = false
	return nil
}

// Close ends the producer. An open transaction is left to the broker's timeout, or to the successor that fences it.
func (t *Transactor) Close() {
	t.p.mu.Lock()
	t.p.closed = true
	t.p.mu.Unlock()
	if t.hung != nil { // destroying it now would hang as well
		hung, p := t.hung, t.p
		go func() {
			<-hung
			p.destroy()
		}()
		return
	}
	t.p.destroy()
}
