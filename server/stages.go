package server

import (
	"context"
	"fmt"
	"runtime/pprof"
	"time"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

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
		if err := s.decodeTurn(ctx, p); err != nil {
			return err
		}
	}
}

// decodeTurn takes a parcel, and what waits behind it, to the score goroutine.
func (s *session) decodeTurn(ctx context.Context, p *parcel) error {
	var after *parcel
	if p.news == nil {
		after = s.gather(p)
	}
	for ; p != nil; p, after = after, nil {
		if p.news != nil {
			s.rolling.hear(p.news)
		} else if err := s.decode(ctx, p); err != nil {
			return err
		} else if s.labelled != s.decodes {
			s.labelled = s.decodes
			pprof.SetGoroutineLabels(profileLabels(stageDecode, s.labelled))
		}
		if err := send(ctx, s.toScore, p); err != nil {
			return err
		}
	}
	return nil
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

func (s *session) decode(ctx context.Context, p *parcel) error {
	live := s.r.slot.live.Load()
	if s.decodes != live {
		s.decodes, s.decoder, s.rolling.stale = live, live.decoder.Clone(), true
		if err := s.compileFilter(live); err != nil {
			return err
		}
	}
	if err := s.lookBack(ctx); err != nil {
		return err
	}
	began := time.Now()
	select {
	case p.m = <-s.free:
	default:
		p.m = &micro{}
	}
	m := p.m
	m.live, m.filter = live, s.filter
	m.take(p.batches)
	m.decode(s.decoder, s.rolling.windows)
	s.rolling.advance(m.records)
	took := time.Since(began)
	s.r.metrics.decode.Observe(took.Seconds())
	s.r.metrics.batch.Observe(float64(p.records))
	return nil
}

// compileFilter makes the stream's filter for records as the model's spec has them.
func (s *session) compileFilter(live *liveModel) (err error) {
	s.filter = nil
	if s.r.o.Where == "" {
		return nil
	}
	w, err := events.ParseWhere(s.r.o.Where)
	if err == nil {
		s.filter, err = w.Filter(live.model.Spec)
	}
	if err != nil {
		return fmt.Errorf("the filter of stream %s does not fit model %s: %w", s.r.o.name(), live.ref, err)
	}
	return nil
}

// runScore scores and encodes.
func (s *session) runScore(ctx context.Context) error {
	defer pprof.SetGoroutineLabels(context.Background())
	var labelled *liveModel
	for {
		p, ok, err := receive(ctx, s.toScore)
		if err != nil {
			return err // the context has ended for all stages; the reader may be sending to output
		}
		if !ok {
			// Where decode has ended with the context, the reader may still be sending to output.
			if err := context.Cause(ctx); err != nil {
				return err
			}
			// The reader has ended; or decode has failed, and what it failed on keeps the reader from going straight.
			close(s.toOutput)
			return nil
		}
		if p.news == nil && labelled != p.m.live {
			labelled = p.m.live
			pprof.SetGoroutineLabels(profileLabels(stageScore, labelled))
		}
		if err := s.scoreTurn(ctx, p); err != nil {
			return err
		}
	}
}

// scoreTurn takes a parcel to the output goroutine.
func (s *session) scoreTurn(ctx context.Context, p *parcel) error {
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
	s.staged.Add(-int64(max(1, len(p.batches))))
	return nil
}

// straightMost is up to how many records the reader itself takes to the output: to wake two goroutines for them, each on a
// processor that has gone to sleep, takes longer than to score them. More are worth being decoded while others are scored.
const straightMost = 64

// idle tells whether a parcel may go straight: its records are few, the stages are idle, and output waits for more.
func (s *session) idle(p *parcel) bool {
	return p.records <= straightMost && s.staged.Load() == 0 && len(s.toOutput) == 0
}

// straight does what the stages do. Sending does not block: there is room in toOutput, and nobody else sends.
func (s *session) straight(ctx context.Context, p *parcel) error {
	err := s.decode(ctx, p)
	if err == nil {
		err = s.score(p)
	}
	if err != nil {
		s.fail(err)
		return err
	}
	return send(ctx, s.toOutput, p)
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
	var in, tombstones, leftOut, anomalies int64
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
			m.head = m.head[:0]
		}
		next = r.Offset + 1
		loud := r.Offset >= quiet
		if loud {
			in++
		}
		if it.leftOut {
			if loud {
				leftOut++
			}
			continue
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
			if len(m.head) == 0 {
				m.head = out.appendHead(m.head)
			}
			at := len(p.text)
			p.text = out.appendBody(append(p.text, m.head...))
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
	metrics.leftOut.Add(float64(leftOut))
	metrics.nLeftOut.Add(leftOut)
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
