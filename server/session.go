package server

import (
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// session is one membership in the group, with one producer: read → decode → score → output, a goroutine each, in
// this order over bounded channels, so that the order of a partition is kept.
//
// News of the assignment walks the same channels behind the records that came before it. So every stage sees it at
// the right place between two records, and when it comes out at the end, all records before it are produced.
type session struct {
	r     *runner
	group *stream.Group
	sink  stream.Sink

	toDecode, toScore, toOutput chan *parcel
	free                        chan *micro

	// lost are partitions that another member has by now: what is still on its way is not committed, nor produced
	// where that can be helped. Set by the reader, taken back by output when the news comes out.
	lost atomic.Pointer[map[stream.TopicPartition]bool]

	inFlight atomic.Int64 // records read and not yet produced

	// Of the decode goroutine:
	decoder *events.Decoder
	decodes *liveModel

	// Of the score goroutine:
	alerts *alertBook
	quiet  map[stream.TopicPartition]int64 // below: read again for the alert counts, no output
	sealed *parcel                         // where alerts go: the parcel being encoded, or the news being heard
	said   map[string]bool                 // kinds of bad record that were logged
	scores *liveModel                      // whose labels the goroutine wears

	// Of the output goroutine:
	pending map[stream.TopicPartition]int64 // produced and not yet committed
	begun   bool

	unsettled atomic.Int64 // records read and not yet committed, for the word at a failed stop
}

// parcel is what walks the channels: records with what is made of them, or news.
type parcel struct {
	batches []*stream.Batch
	m       *micro
	readAt  time.Time
	out     []stream.Record
	text    []byte // values of out
	next    map[stream.TopicPartition]int64
	scored  int // of out
	records int

	news *news
}

// news is a change of the assignment.
type news struct {
	assigned []assignment
	revoked  []stream.TopicPartition
	lost     []stream.TopicPartition
	done     chan struct{} // closed by output
}

// assignment is a partition that came, with what the score goroutine has to know.
type assignment struct {
	stream.Position
	state []restored
}

func (r *runner) runSession(ctx context.Context) (err error) {
	group, err := r.client.Group(ctx, stream.GroupOptions{
		Topics: r.o.Topics, Group: r.o.group(), InstanceID: r.o.InstanceID,
		MaxBatch: r.server.MaxBatch, MaxInFlight: r.server.inFlight(),
	})
	if err != nil {
		return unlessStopped(ctx, err)
	}
	sink, err := r.client.AtLeastOnce(ctx, group)
	if err != nil {
		return unlessStopped(ctx, errors.Join(err, group.Close()))
	}
	flight := r.server.inFlight()
	s := &session{
		r: r, group: group, sink: sink,
		toDecode: make(chan *parcel, flight), toScore: make(chan *parcel, 1), toOutput: make(chan *parcel, 1),
		free:    make(chan *micro, flight+2),
		quiet:   map[stream.TopicPartition]int64{},
		said:    map[string]bool{},
		pending: map[stream.TopicPartition]int64{},
	}
	if r.o.alerts() {
		s.alerts = newAlertBook(r.o.rules(), s.emitAlert)
	}
	r.session.Store(s)
	defer func() {
		r.session.Store(nil)
		r.metrics.activeAlerts.Store(0)
		r.metrics.busy.end(time.Now())
	}()

	// The stages outlive ctx: after it has ended they still drain, for as long as ShutdownTimeout.
	work, giveUp := context.WithCancelCause(context.WithoutCancel(ctx))
	defer giveUp(nil)
	stages, work := errgroup.WithContext(work)
	stages.Go(func() error { return s.runDecode(work) })
	stages.Go(func() error { return s.runScore(work) })
	stages.Go(func() error { return s.runOutput(work) })

	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	stop := context.AfterFunc(work, stopReading) // a stage that failed ends the reader
	defer stop()
	readErr := s.read(reading, work)
	close(s.toDecode)

	// A stream that has to wait for wider outputs leaves as cleanly as one that is told to stop.
	var rights *rightsError
	clean := (ctx.Err() != nil || errors.As(readErr, &rights)) && work.Err() == nil
	deadline := time.NewTimer(r.server.ShutdownTimeout)
	defer deadline.Stop()
	if !clean {
		giveUp(readErr)
	}
	drained := make(chan error, 1)
	go func() { drained <- stages.Wait() }()
	var stageErr error
	select {
	case stageErr = <-drained:
	case <-deadline.C:
		giveUp(errShutdown)
		stageErr = <-drained
	}
	left := s.unsettled.Load()

	// What is not committed by now will be read again; closing must not hang on a broker that does not answer.
	closing, done := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer done()
	if stageErr != nil || !clean {
		_ = sink.Abort(closing)
		now, cancel := context.WithCancel(closing)
		cancel()
		closing = now
	}
	sinkErr := sink.Close(closing)
	groupErr := group.Close()
	switch {
	case clean && stageErr != nil:
		return drainError(r.o.name(), left, stageErr)
	case clean:
		r.log.Info("stream drained", "stream", r.o.name(), "in", r.metrics.nIn.Load(), "out", r.metrics.nOut.Load())
		if err := errors.Join(sinkErr, groupErr); err != nil {
			// All is delivered and committed: the group will notice by its session timeout.
			r.log.Warn("the stream could not say good-bye to the broker", "stream", r.o.name(), "error", err)
		}
		if rights != nil {
			return rights
		}
		return nil
	case stageErr != nil && !errors.Is(stageErr, context.Canceled):
		return stageErr
	}
	return readErr
}

// unlessStopped drops an error that comes from being told to stop before anything was read.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// closeTimeout bounds the closing of a producer with nothing left to deliver.
const closeTimeout = 5 * time.Second

var errShutdown = errors.New("shutdown_timeout has passed")

// read asks the group for events until reading ends or fails, and hands them on in order.
func (s *session) read(reading, work context.Context) error {
	for {
		e, err := s.group.Next(reading)
		if err != nil {
			return err
		}
		switch e := e.(type) {
		case *stream.Batch:
			n := int64(len(e.Records))
			if s.inFlight.Add(n) == n {
				s.r.metrics.busy.begin(time.Now())
			}
			s.unsettled.Add(n)
			p := &parcel{batches: []*stream.Batch{e}, readAt: time.Now(), records: len(e.Records)}
			if err := send(work, s.toDecode, p); err != nil {
				return err
			}
		case *stream.Assigned:
			n, err := s.assign(reading, e)
			if err != nil {
				return err
			}
			if err := send(work, s.toDecode, &parcel{news: n}); err != nil {
				return err
			}
		case *stream.Revoked:
			if err := s.tell(work, &news{revoked: e.Partitions}); err != nil {
				return err
			}
		case *stream.Lost:
			gone := map[stream.TopicPartition]bool{}
			for _, tp := range e.Partitions {
				gone[tp] = true
			}
			s.lost.Store(&gone)
			if err := s.tell(work, &news{lost: e.Partitions}); err != nil {
				return err
			}
		}
	}
}

// tell sends news and waits until all before it is out: the following Next acknowledges a revocation.
func (s *session) tell(work context.Context, n *news) error {
	n.done = make(chan struct{})
	if err := send(work, s.toDecode, &parcel{news: n}); err != nil {
		return err
	}
	select {
	case <-n.done:
		return nil
	case <-work.Done():
		return context.Cause(work)
	}
}

func send(ctx context.Context, to chan *parcel, p *parcel) error {
	select {
	case to <- p:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// receive ends with ok false when from is closed, and with an error when ctx ends.
func receive(ctx context.Context, from chan *parcel) (p *parcel, ok bool, err error) {
	select {
	case p, ok = <-from:
		return p, ok, nil
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
}

// assign prepares partitions that came: outputs as wide as the input, alert state, and the way back for the counts.
func (s *session) assign(ctx context.Context, e *stream.Assigned) (*news, error) {
	if err := s.r.ensureOutputs(ctx); err != nil {
		return nil, err
	}
	n := &news{}
	for _, p := range e.Partitions {
		if p.Lost > 0 {
			s.r.metrics.lose(p.Lost)
			s.r.log.Warn("retention deleted records before they were read", "stream", s.r.o.name(), "topic", p.Topic, "partition", p.Partition, "offsets", p.Lost, "goes_on_at", p.Offset)
		}
		if p.Recreated {
			s.r.log.Warn("the committed offset is above the end of the partition: the topic was likely recreated; starting at its beginning",
				"stream", s.r.o.name(), "topic", p.Topic, "partition", p.Partition, "committed", p.Committed, "end", p.High, "goes_on_at", p.Offset)
		}
		n.assigned = append(n.assigned, assignment{Position: p})
	}
	if s.alerts == nil || len(n.assigned) == 0 {
		return n, nil
	}
	if err := s.restoreAlerts(ctx, n.assigned); err != nil {
		return nil, err
	}
	for i := range n.assigned {
		p := &n.assigned[i]
		if back := max(p.Low, p.Offset-int64(s.r.o.AlertRewind)); p.Committed >= 0 && !p.Recreated && back < p.Offset {
			if err := s.group.SeekTo(p.TopicPartition, back); err != nil {
				return nil, err
			}
		}
	}
	return n, nil
}

// runDecode makes rows. What is waiting when it comes for more goes into one micro-batch: batches form only while
// the scorer is busy, and a lone record waits for nobody.
func (s *session) runDecode(ctx context.Context) error {
	defer close(s.toScore)
	defer pprof.SetGoroutineLabels(context.Background())
	for {
		p, ok, err := receive(ctx, s.toDecode)
		if err != nil || !ok {
			return err
		}
		var after *parcel
		if p.news == nil {
			after = s.gather(p)
			s.decode(p)
		}
		if err := send(ctx, s.toScore, p); err != nil {
			return err
		}
		if after != nil {
			if after.news == nil {
				s.decode(after)
			}
			if err := send(ctx, s.toScore, after); err != nil {
				return err
			}
		}
	}
}

// gather adds batches that are waiting, as long as they fit. It returns what it took and could not add.
func (s *session) gather(p *parcel) (after *parcel) {
	for p.records < s.r.server.MaxBatch {
		select {
		case q, ok := <-s.toDecode:
			switch {
			case !ok:
				return nil
			case q.news != nil || p.records+q.records > s.r.server.MaxBatch:
				return q
			}
			p.batches = append(p.batches, q.batches...)
			p.records += q.records
		default:
			return nil
		}
	}
	return nil
}

func (s *session) decode(p *parcel) {
	began := time.Now()
	live := s.r.slot.live.Load()
	if s.decodes != live {
		s.decodes, s.decoder = live, live.decoder.Clone()
		pprof.SetGoroutineLabels(profileLabels(stageDecode, live))
	}
	select {
	case p.m = <-s.free:
	default:
		p.m = &micro{}
	}
	m := p.m
	m.live = live
	m.records = m.records[:0]
	for _, b := range p.batches {
		m.records = append(m.records, b.Records...)
	}
	m.decode(s.decoder)
	took := time.Since(began)
	s.r.metrics.decode.Observe(took.Seconds())
	s.r.metrics.batch.Observe(float64(p.records))
}

// runScore scores and encodes.
func (s *session) runScore(ctx context.Context) error {
	defer close(s.toOutput)
	defer pprof.SetGoroutineLabels(context.Background())
	for {
		p, ok, err := receive(ctx, s.toScore)
		if err != nil || !ok {
			return err
		}
		if p.news != nil {
			s.sealed = p
			s.hear(p.news)
			s.sealed = nil
		} else if err := s.score(p); err != nil {
			return err
		}
		if err := send(ctx, s.toOutput, p); err != nil {
			return err
		}
	}
}

// hear keeps the score goroutine's state to the assigned partitions.
func (s *session) hear(n *news) {
	for _, a := range n.assigned {
		s.quiet[a.TopicPartition] = a.Offset
		if s.alerts != nil {
			s.alerts.assign(a.TopicPartition, a.Offset, a.High, a.state)
		}
	}
	for _, gone := range [][]stream.TopicPartition{n.revoked, n.lost} {
		for _, tp := range gone {
			delete(s.quiet, tp)
			if s.alerts != nil {
				s.alerts.revoke(tp)
			}
		}
	}
	if s.alerts != nil {
		s.r.metrics.activeAlerts.Store(int64(s.alerts.raised))
	}
}

func (s *session) score(p *parcel) error {
	began := time.Now()
	if s.scores != p.m.live {
		s.scores = p.m.live
		pprof.SetGoroutineLabels(profileLabels(stageScore, p.m.live))
	}
	all := s.r.o.Contributions == ContributionsAll
	if err := p.m.score(all); err != nil {
		return fmt.Errorf("model %s: %w", p.m.live.manifest, err)
	}
	scored := time.Now()
	s.encode(p, all)
	s.r.metrics.score.Observe(scored.Sub(began).Seconds())
	s.r.metrics.encode.Observe(time.Since(scored).Seconds())
	return nil
}

// encode makes the output records of a parcel, feeds the alerts, and notes the offsets that follow.
func (s *session) encode(p *parcel, all bool) {
	m, o, metrics := p.m, s.r.o, s.r.metrics
	p.next = map[stream.TopicPartition]int64{}
	p.out, p.text = m.out[:0], m.text[:0]
	s.sealed = p
	var tp stream.TopicPartition
	var quiet, next int64
	var in, tombstones, anomalies int64
	var statuses [len(statusNames)]int64
	flush := func() {
		if tp.Topic != "" && next > quiet {
			p.next[tp] = next
		}
	}
	for i := range m.records {
		r, it := &m.records[i], &m.items[i]
		if r.Partition != tp.Partition || r.Topic != tp.Topic {
			flush()
			tp = stream.TopicPartition{Topic: r.Topic, Partition: r.Partition}
			quiet = s.quiet[tp]
		}
		next = r.Offset + 1
		loud := r.Offset >= quiet
		if loud {
			in++
		}
		switch it.outcome {
		case events.Tombstone:
			if loud {
				tombstones++
			}
			continue
		case events.Rejected, events.NoFeatures:
			if loud {
				p.out = append(p.out, s.deadLetter(r, it, m.live))
			}
			continue
		}
		out := m.record(i, all)
		if loud {
			at := len(p.text)
			p.text = out.AppendJSON(p.text)
			p.out = append(p.out, stream.Record{Topic: o.Output, Partition: r.Partition, Key: r.Key, Value: p.text[at:len(p.text):len(p.text)], Time: r.Time})
			p.scored++
			statuses[it.status]++
			if it.anomaly {
				anomalies++
			}
			if it.status == StatusPartial {
				s.sayOnce("partial", r, "more than half of the fields are missing; the record is scored with what the model imputes")
			}
		}
		if s.alerts != nil {
			s.alerts.observe(&observation{
				source: tp, offset: r.Offset, key: out.Key, time: it.time, timeOK: it.timeOK,
				score: out.Score, anomaly: it.anomaly, threshold: m.live.model.Threshold, version: m.live.version, top: out.Top,
			})
		}
	}
	flush()
	s.sealed = nil

	metrics.in.Add(float64(in))
	metrics.nIn.Add(in)
	metrics.tombstones.Add(float64(tombstones))
	metrics.nTombstones.Add(tombstones)
	metrics.anomalies.Add(float64(anomalies))
	metrics.nAnomalies.Add(anomalies)
	for i, n := range statuses {
		if n > 0 {
			metrics.status[i].Add(float64(n))
		}
	}
	if s.alerts != nil {
		metrics.activeAlerts.Store(int64(s.alerts.raised))
	}
}

// emitAlert is called by the alert book from within encode or hear.
func (s *session) emitAlert(key string, partition int32, r *AlertRecord) {
	s.r.metrics.alert(r.State)
	ms := int64(-1)
	if r.TimeOK && r.Time >= 0 {
		ms = r.Time
	}
	s.sealed.out = append(s.sealed.out, stream.Record{
		Topic: s.r.o.Alerts, Partition: partition, Key: []byte(key), Value: r.AppendJSON(nil), Time: ms,
	})
}

// deadLetter is the record as it was, with where it came from and why it is here.
func (s *session) deadLetter(r *stream.Record, it *item, live *liveModel) stream.Record {
	s.r.metrics.badRecord(it.reason)
	s.sayOnce(it.reason, r, it.detail)
	headers := make([]stream.Header, 0, len(r.Headers)+5)
	headers = append(headers, r.Headers...)
	headers = append(headers,
		stream.Header{Key: "lapwing.topic", Value: []byte(r.Topic)},
		stream.Header{Key: "lapwing.partition", Value: fmt.Append(nil, r.Partition)},
		stream.Header{Key: "lapwing.offset", Value: fmt.Append(nil, r.Offset)},
		stream.Header{Key: "lapwing.reason", Value: []byte(it.reason)},
		stream.Header{Key: "lapwing.model", Value: []byte(registry.Ref{Name: live.ref.Name, Version: live.version}.String())},
	)
	return stream.Record{Topic: s.r.o.DLQ, Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: headers, Time: r.Time}
}

// sayOnce logs the first record of each kind of trouble; the counters tell how many came after it.
func (s *session) sayOnce(reason string, r *stream.Record, detail string) {
	if s.said[reason] {
		return
	}
	s.said[reason] = true
	s.r.log.Warn("bad record, the first of its kind", "stream", s.r.o.name(), "reason", reason, "detail", detail,
		"topic", r.Topic, "partition", r.Partition, "offset", r.Offset)
}

// runOutput produces and commits. A commit waits for acknowledgements, so it comes once an interval, not once a
// batch; a stop and a revocation commit at once.
func (s *session) runOutput(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	running := false
	for {
		select {
		case p, ok := <-s.toOutput:
			if !ok {
				return s.commit(ctx)
			}
			if err := s.deliver(ctx, p); err != nil {
				return err
			}
		case <-timer.C:
			running = false
			if err := s.commit(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if len(s.pending) > 0 && !running {
			timer.Reset(s.r.server.CommitInterval)
			running = true
		}
	}
}

func (s *session) deliver(ctx context.Context, p *parcel) error {
	if p.news != nil {
		if len(p.out) > 0 { // restored alerts beyond alert_keys were cleared
			if err := s.sink.Produce(ctx, p.out); err != nil {
				return err
			}
		}
		return s.pass(ctx, p.news)
	}
	out := p.out
	if gone := s.lost.Load(); gone != nil {
		out = s.withoutLost(p, *gone)
	}
	if !s.begun {
		if err := s.sink.Begin(ctx); err != nil {
			return err
		}
		s.begun = true
	}
	began := time.Now()
	s.r.metrics.blocked.Store(began.UnixNano())
	err := s.sink.Produce(ctx, out)
	s.r.metrics.blocked.Store(0)
	if err != nil {
		return err
	}
	now := time.Now()
	s.r.metrics.produce.Observe(now.Sub(began).Seconds())
	s.r.metrics.latency.Observe(now.Sub(p.readAt).Seconds())
	s.r.metrics.latencies.add(now.Sub(p.readAt), p.scored)
	s.r.metrics.out.Add(float64(p.scored))
	s.r.metrics.nOut.Add(int64(p.scored))
	for tp, next := range p.next {
		s.pending[tp] = next
	}
	for _, b := range p.batches {
		b.Release()
	}
	if s.inFlight.Add(-int64(p.records)) == 0 {
		s.r.metrics.busy.end(time.Now())
	}
	if len(p.next) == 0 {
		s.unsettled.Add(-int64(p.records)) // all of it was read for the alert counts only
	}
	m := p.m
	clear(m.records) // the batches have gone back: hold nothing of theirs
	clear(p.out)
	m.out, m.text = p.out, p.text
	select {
	case s.free <- m:
	default:
	}
	return nil
}

// withoutLost leaves out what belongs to partitions of another member: it scores them itself.
func (s *session) withoutLost(p *parcel, gone map[stream.TopicPartition]bool) []stream.Record {
	for tp := range p.next {
		if gone[tp] {
			delete(p.next, tp)
		}
	}
	// An output record names its partition, not its source topic. With several input topics one partition number may
	// belong to a lost and to a kept partition: then its records stay, and come twice at worst.
	kept := map[int32]bool{}
	for tp := range p.next {
		kept[tp.Partition] = true
	}
	drop := map[int32]bool{}
	for tp := range gone {
		drop[tp.Partition] = !kept[tp.Partition]
	}
	out := p.out[:0]
	for _, r := range p.out {
		if !drop[r.Partition] {
			out = append(out, r)
		}
	}
	return out
}

// pass lets news out at the end of the pipeline.
func (s *session) pass(ctx context.Context, n *news) error {
	for _, a := range n.assigned {
		if a.Recreated {
			// The group's offset is above the end and would be so again at each restart until something is read.
			s.pending[a.TopicPartition] = a.Offset
		}
	}
	if len(n.lost) > 0 {
		for _, tp := range n.lost {
			delete(s.pending, tp)
		}
		s.lost.Store(nil)
	}
	if len(n.revoked) > 0 {
		if err := s.commit(ctx); err != nil {
			return err
		}
		for _, tp := range n.revoked {
			delete(s.pending, tp)
		}
	}
	if n.done != nil {
		close(n.done)
	}
	return nil
}

// commit settles all that was produced. That this member is no longer of the group's generation is no failure: the
// offsets stay pending, and the rebalance that follows says whose the partitions are.
func (s *session) commit(ctx context.Context) error {
	if len(s.pending) == 0 {
		return nil
	}
	began := time.Now()
	s.r.metrics.blocked.Store(began.UnixNano())
	err := s.sink.Commit(ctx, s.group.Offsets(s.pending))
	s.r.metrics.blocked.Store(0)
	s.r.metrics.commit.Observe(time.Since(began).Seconds())
	if err != nil {
		s.r.metrics.commitFailures.Inc()
		if errors.Is(err, stream.ErrNotMember) && ctx.Err() == nil {
			s.r.log.Warn("offsets not committed: the group is being rebalanced", "stream", s.r.o.name(), "error", err)
			return nil
		}
		return err
	}
	s.r.metrics.commits.Inc()
	clear(s.pending)
	s.begun = false
	s.unsettled.Store(s.inFlight.Load())
	return nil
}
