package server

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/stream"
)

// session is one membership in the group, with one producer: read → decode → score → output, a goroutine each, in
// this order over bounded channels, so that the order of a partition is kept. A few records that find decode and score idle
// are taken through both by the reader (straight): what belongs to the two goroutines is its own as long as nothing is with them.
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
	staged   atomic.Int64 // events handed to the decode goroutine that have not reached output
	fail     func(error)  // ends the session

	heard func(ctx context.Context, done <-chan struct{}) error // waits until news is out

	// Of the decode goroutine:
	decoder  *events.Decoder
	decodes  *liveModel
	labelled *liveModel     // what the goroutine's labels say
	filter   *events.Filter // nil: every record
	rolling  *rollingState

	// Of the score goroutine:
	alerts *alertBook
	quiet  map[stream.TopicPartition]int64 // below: read again for the alert counts, no output
	sealed *parcel                         // where alerts go: the parcel being encoded, or the news being heard
	said   map[string]bool                 // kinds of bad record that were logged

	// Of the output goroutine:
	exact   bool // exactly once: what is undone is taken back, and partitions with it
	pending produced
	beside  besideCommit
	clock   commitClock
	undone  int  // until the news with this number, everything is from before an abort; 0: nothing is
	undos   int  // transactions that failed since the last commit
	moved   bool // the last one was undone for a rebalance

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
	rewound  int           // lost because the group was sent back to its committed offsets: the number of that
	done     chan struct{} // closed by output
}

// assignment is a partition that came, with what the score goroutine has to know.
type assignment struct {
	stream.Position
	from  int64 // first offset that is read: before Offset, where records are read again for the alert counts
	state []restored
}

func (r *runner) runSession(ctx context.Context) (err error) {
	group, err := r.client.Group(ctx, stream.GroupOptions{
		Topics: r.o.Topics, Group: r.o.group(), InstanceID: r.o.InstanceID, Member: r.o.ref().String(),
		MaxBatch: r.server.MaxBatch, MaxInFlight: r.server.inFlight(),
	})
	if err != nil {
		return unlessStopped(ctx, err)
	}
	sink, err := r.sink(ctx, group)
	if err != nil {
		return unlessStopped(ctx, errors.Join(err, group.Close()))
	}
	s := r.newSession(group, sink)
	r.session.Store(s)
	defer func() {
		r.session.Store(nil)
		r.metrics.activeAlerts.Store(0)
		r.metrics.busy.end(time.Now())
	}()

	// The stages outlive ctx: after it has ended they still drain, for as long as ShutdownTimeout.
	work, giveUp := context.WithCancelCause(context.WithoutCancel(ctx))
	defer giveUp(nil)
	s.fail = giveUp
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
	unread, _ := s.lag()
	r.left.Store(unread)

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

func (r *runner) newSession(group *stream.Group, sink stream.Sink) *session {
	flight := r.server.inFlight()
	s := &session{
		r: r, group: group, sink: sink,
		toDecode: make(chan *parcel, flight), toScore: make(chan *parcel, 1), toOutput: make(chan *parcel, 1),
		free:    make(chan *micro, flight+2),
		heard:   awaitHeard,
		rolling: newRollingState(r.server),
		quiet:   map[stream.TopicPartition]int64{},
		said:    map[string]bool{},
		exact:   r.exact(),
		pending: produced{next: map[stream.TopicPartition]int64{}},
		beside:  besideCommit{ended: make(chan committed, 1), run: func(f func()) { go f() }, await: awaitCommitted},
		clock:   commitClock{interval: r.server.CommitInterval, records: r.server.CommitRecords, eager: r.exact()},
	}
	if r.o.alerts() {
		s.alerts = newAlertBook(r.o.rules(), s.emitAlert)
	}
	return s
}

// lag is the number of readable records not yet read, of all assigned partitions; from kept state.
func (s *session) lag() (sum int64, partitions int) {
	of := s.group.Lag()
	for _, n := range of {
		sum += n
	}
	return sum, len(of)
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
		if err := s.handOn(reading, work, e); err != nil {
			return err
		}
	}
}

// handOn takes one event of the group.
func (s *session) handOn(reading, work context.Context, e stream.Event) error {
	switch e := e.(type) {
	case *stream.Batch:
		n := int64(len(e.Records))
		if s.inFlight.Add(n) == n {
			s.r.metrics.busy.begin(time.Now())
		}
		s.unsettled.Add(n)
		p := &parcel{batches: []*stream.Batch{e}, readAt: time.Now(), records: len(e.Records)}
		if s.idle(p) {
			return s.straight(work, p)
		}
		return s.stage(work, p)
	case *stream.Assigned:
		n, err := s.assign(reading, e)
		if err != nil {
			return err
		}
		return s.stage(work, &parcel{news: n})
	case *stream.Revoked:
		return s.tell(work, &news{revoked: e.Partitions})
	case *stream.Lost:
		gone := map[stream.TopicPartition]bool{}
		for _, tp := range e.Partitions {
			gone[tp] = true
		}
		s.lost.Store(&gone)
		return s.tell(work, &news{lost: e.Partitions, rewound: e.Rewound})
	}
	return nil
}

// tell sends news and waits until all before it is out: the following Next acknowledges a revocation.
func (s *session) tell(work context.Context, n *news) error {
	n.done = make(chan struct{})
	if err := s.stage(work, &parcel{news: n}); err != nil {
		return err
	}
	return s.heard(work, n.done)
}

func awaitHeard(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stage sends a parcel through all stages.
func (s *session) stage(work context.Context, p *parcel) error {
	s.staged.Add(1)
	return send(work, s.toDecode, p)
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
		n.assigned = append(n.assigned, assignment{Position: p, from: p.Offset})
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
			p.from = back
		}
	}
	return n, nil
}
