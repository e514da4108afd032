package server

import (
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/lapwing-stream/lapwing/kernels"
)

// metricSet is every metric of a Server. It has a registry of its own: two servers in one process do not meet.
type metricSet struct {
	registry *prometheus.Registry

	in, out, bad, tombstones, leftOut, statuses, anomalies, alerts, lost, swaps, refused, commits, commitFailures, aborts, restarts *prometheus.CounterVec
	batch, stage, latency, swapSeconds, publishToSwap                                                                               *prometheus.HistogramVec
}

// Stages of the pipeline, as label values and profile labels.
const (
	stageDecode  = "decode"
	stageScore   = "score"
	stageEncode  = "encode"
	stageProduce = "produce"
	stageCommit  = "commit"
	stageLoad    = "load" // profile label of loading a model
)

// nativeFactor is the growth from one native bucket to the next: 10 % is the resolution that people read.
const nativeFactor = 1.1

func newMetricSet() *metricSet {
	m := &metricSet{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"stream"}, labels...))
		m.registry.MustRegister(v)
		return v
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor: nativeFactor, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}, append([]string{"stream"}, labels...))
		m.registry.MustRegister(v)
		return v
	}
	m.in = counter("lapwing_records_in_total", "Input records taken, whatever became of them.")
	m.out = counter("lapwing_records_out_total", "Score records produced.")
	m.bad = counter("lapwing_records_bad_total", "Dead letters produced, by reason.", "reason")
	m.tombstones = counter("lapwing_tombstones_total", "Input records with a null value: no score, no dead letter.")
	m.leftOut = counter("lapwing_left_out_total", "Input records that the stream's filter (where) left out: no score, no dead letter.")
	m.statuses = counter("lapwing_records_status_total", "Score records by status: ok, partial, warming, not_finite.", "status")
	m.anomalies = counter("lapwing_anomalies_total", "Score records above the model's threshold, or not finite.")
	m.alerts = counter("lapwing_alerts_total", "Alert records produced, by state: raised, repeated, cleared.", "state")
	m.lost = counter("lapwing_offsets_lost_total", "Offsets that retention deleted before they were read.")
	m.commits = counter("lapwing_commits_total", "Commits of offsets, with their records in exactly_once.")
	m.commitFailures = counter("lapwing_commit_failures_total", "Commits that failed; what they stood for is tried again.")
	m.aborts = counter("lapwing_transactions_aborted_total", "Transactions that were aborted; their records are scored again.")
	m.restarts = counter("lapwing_stream_restarts_total", "Times the stream was begun anew from its committed offsets after a failure.")
	m.swaps = counter("lapwing_model_swaps_total", "Times one live model replaced another.")
	m.refused = counter("lapwing_models_refused_total", "Model versions that could not be loaded; the one before goes on.")
	seconds := []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	m.batch = histogram("lapwing_batch_records", "Records scored together.", []float64{1, 4, 16, 64, 256, 1024, 4096, 16384})
	m.stage = histogram("lapwing_stage_seconds", "Time of one micro-batch in a stage: decode, score, encode, produce, commit.", seconds, "stage")
	m.latency = histogram("lapwing_latency_seconds", "Time of a micro-batch from read to handed to the producer; with exactly_once, to committed.", seconds)
	m.swapSeconds = histogram("lapwing_model_load_seconds", "Time to decode, compile, self-test and swap a model.", seconds)
	m.publishToSwap = histogram("lapwing_publish_to_swap_seconds", "Time from a model's publication, or the move of its alias, to its swap.", seconds)
	return m
}

// streamMetrics are one stream's children of the vectors, looked up once, and what Status tells.
type streamMetrics struct {
	set  *metricSet
	name string

	in, out, tombstones, leftOut, anomalies, lost, swaps, refused, commits, commitFailures, aborts, restarts prometheus.Counter
	status                                                                                                   [len(statusNames)]prometheus.Counter
	batch, latency, swapSeconds, publishToSwap                                                               prometheus.Observer
	decode, score, encode, produce, commit                                                                   prometheus.Observer

	// Kept beside, since a Prometheus counter cannot be read cheaply.
	nIn, nOut, nBad, nTombstones, nLeftOut, nAnomalies, nRaised, swapped, nLost, nRestarts, activeAlerts atomic.Int64

	latencies latencies
	busy      saturation
	blocked   [blockKinds]atomic.Int64 // when the producer began to wait, ns since 1970; 0 = it does not

	mu  sync.Mutex
	bad map[string]int64
}

func (m *metricSet) stream(name string) *streamMetrics {
	s := &streamMetrics{set: m, name: name, bad: map[string]int64{}}
	for _, c := range []struct {
		to   *prometheus.Counter
		from *prometheus.CounterVec
	}{
		{&s.in, m.in}, {&s.out, m.out}, {&s.tombstones, m.tombstones}, {&s.leftOut, m.leftOut}, {&s.anomalies, m.anomalies}, {&s.lost, m.lost},
		{&s.swaps, m.swaps}, {&s.refused, m.refused}, {&s.commits, m.commits}, {&s.commitFailures, m.commitFailures}, {&s.aborts, m.aborts}, {&s.restarts, m.restarts},
	} {
		*c.to = c.from.WithLabelValues(name)
	}
	for i, status := range statusNames {
		s.status[i] = m.statuses.WithLabelValues(name, status)
	}
	s.batch, s.latency = m.batch.WithLabelValues(name), m.latency.WithLabelValues(name)
	s.swapSeconds, s.publishToSwap = m.swapSeconds.WithLabelValues(name), m.publishToSwap.WithLabelValues(name)
	s.decode, s.score = m.stage.WithLabelValues(name, stageDecode), m.stage.WithLabelValues(name, stageScore)
	s.encode, s.produce = m.stage.WithLabelValues(name, stageEncode), m.stage.WithLabelValues(name, stageProduce)
	s.commit = m.stage.WithLabelValues(name, stageCommit)
	return s
}

func (s *streamMetrics) badRecord(reason string) {
	s.set.bad.WithLabelValues(s.name, reason).Inc()
	s.nBad.Add(1)
	s.mu.Lock()
	s.bad[reason]++
	s.mu.Unlock()
}

func (s *streamMetrics) badByReason() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]int64, len(s.bad))
	for k, n := range s.bad {
		out[k] = n
	}
	return out
}

func (s *streamMetrics) alert(state AlertState) {
	s.set.alerts.WithLabelValues(s.name, string(state)).Inc()
	if state == AlertRaised {
		s.nRaised.Add(1)
	}
}

func (s *streamMetrics) lose(offsets int64) {
	s.lost.Add(float64(offsets))
	s.nLost.Add(offsets)
}

// What the producer may wait for, in two goroutines.
const (
	blockProduce = iota // room for records, a transaction
	blockBeside         // acknowledgements and a commit, while it produces on
	blockKinds
)

// blockedSince is when the longest wait for the output's broker began, ns since 1970; 0 = there is none.
func (s *streamMetrics) blockedSince() (since int64) {
	for i := range s.blocked {
		if at := s.blocked[i].Load(); at > 0 && (since == 0 || at < since) {
			since = at
		}
	}
	return since
}

// latencies counts records by latency in buckets an eighth of an octave wide (9 %), from 1 µs to 70 min.
type latencies struct{ n [256]atomic.Int64 }

func (l *latencies) add(d time.Duration, records int) {
	i := int(8 * math.Log2(float64(max(d, time.Microsecond))/float64(time.Microsecond)))
	l.n[min(i, len(l.n)-1)].Add(int64(records))
}

// LatencyCounts is a snapshot of a stream's latencies, read to handed to the producer. The difference of two is
// the latency of the time between.
type LatencyCounts [256]int64

func (l *latencies) counts() (c LatencyCounts) {
	for i := range l.n {
		c[i] = l.n[i].Load()
	}
	return c
}

// Sub gives what was counted since an earlier snapshot.
func (c LatencyCounts) Sub(earlier LatencyCounts) LatencyCounts {
	for i := range c {
		c[i] -= earlier[i]
	}
	return c
}

// Quantile is the latency that the share p of records did not exceed, to 9 %; 0 where nothing was counted.
func (c LatencyCounts) Quantile(p float64) time.Duration {
	total := int64(0)
	for _, n := range c {
		total += n
	}
	if total == 0 {
		return 0
	}
	rank := max(1, int64(math.Ceil(p*float64(total))))
	for i, n := range c {
		if rank -= n; rank <= 0 {
			return time.Duration(float64(time.Microsecond) * math.Exp2(float64(i+1)/8))
		}
	}
	return 0
}

// saturation is the share of time in which records were on their way through the stages. It looks back over 5 to 10
// seconds.
type saturation struct {
	busy  atomic.Int64 // ns, of the stretches that have ended
	since atomic.Int64 // when this stretch began, ns since 1970; 0 = nothing is on its way

	mu           sync.Mutex
	from, middle mark
}

type mark struct {
	at   time.Time
	busy int64
}

const saturationWindow = 5 * time.Second

func (s *saturation) begin(now time.Time) { s.since.Store(now.UnixNano()) }

func (s *saturation) end(now time.Time) {
	if since := s.since.Swap(0); since > 0 {
		s.busy.Add(now.UnixNano() - since)
	}
}

func (s *saturation) ratio(now time.Time) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	is := mark{now, s.busy.Load()}
	if since := s.since.Load(); since > 0 {
		is.busy += now.UnixNano() - since
	}
	if s.from.at.IsZero() {
		s.from, s.middle = is, is
		return 0
	}
	if now.Sub(s.middle.at) >= saturationWindow {
		s.from, s.middle = s.middle, is
	}
	passed := now.Sub(s.from.at)
	if passed <= 0 {
		return 0
	}
	return max(0, min(1, float64(is.busy-s.from.busy)/float64(passed)))
}

// stateCollector asks the server's kept state at each scrape, so that nothing outlives what it describes:
// the series of a revoked partition end with the assignment (CASES 6.19).
type stateCollector struct{ server *Server }

var (
	descLag         = prometheus.NewDesc("lapwing_lag_records", "Readable records not yet read, by assigned partition.", []string{"stream", "topic", "partition"}, nil)
	descVersion     = prometheus.NewDesc("lapwing_model_version", "Version of the live model; 0 = none yet.", []string{"stream", "model"}, nil)
	descAge         = prometheus.NewDesc("lapwing_model_age_seconds", "Time since the live model was published.", []string{"stream", "model"}, nil)
	descBytes       = prometheus.NewDesc("lapwing_model_bytes", "Size of the live model's file.", []string{"stream", "model"}, nil)
	descLoading     = prometheus.NewDesc("lapwing_model_loading_version", "Version that is being loaded, while the live one goes on; 0 = none.", []string{"stream", "model"}, nil)
	descLoadingFor  = prometheus.NewDesc("lapwing_model_loading_seconds", "How long that load has been going on; 0 = none is.", []string{"stream", "model"}, nil)
	descSaturation  = prometheus.NewDesc("lapwing_scorer_saturation_ratio", "Share of the last 5 to 10 seconds in which records were on their way from read to produced; at 1 the input waits.", []string{"stream"}, nil)
	descBlocked     = prometheus.NewDesc("lapwing_output_blocked_seconds", "How long the producer has been waiting for the output's broker; 0 = it is not.", []string{"stream"}, nil)
	descReady       = prometheus.NewDesc("lapwing_ready", "1 where the stream is ready, as /readyz says.", []string{"stream"}, nil)
	descAlertActive = prometheus.NewDesc("lapwing_alerts_active", "Keys with a raised alert, of the assigned partitions.", []string{"stream"}, nil)
	descEngine      = prometheus.NewDesc("lapwing_engine_info", "1; what computes is in the labels: engine, level, device and its UUID, empty on the CPU.", []string{"engine", "level", "device", "uuid"}, nil)
	descLost        = prometheus.NewDesc("lapwing_device_lost", "1 where the GPU cannot be used any more; with --engine auto the CPU scores in its place.", nil, nil)
	descDeviceRows  = prometheus.NewDesc("lapwing_device_rows_total", "Rows scored by an engine with a GPU, by where: gpu, cpu.", []string{"where"}, nil)
	descFallbacks   = prometheus.NewDesc("lapwing_device_fallbacks_total", "Batches that the CPU scored since the GPU failed.", nil, nil)
	descSplits      = prometheus.NewDesc("lapwing_device_splits_total", "Times that a batch was cut in pieces since the GPU had too little free memory.", nil, nil)
	descCorrected   = prometheus.NewDesc("lapwing_device_corrected_total", "Times that the GPU computed wrong numbers and its model was loaded anew.", nil, nil)
	stateDescs      = []*prometheus.Desc{descLag, descVersion, descAge, descBytes, descLoading, descLoadingFor, descSaturation, descBlocked, descReady, descAlertActive, descEngine, descLost, descDeviceRows, descFallbacks, descSplits, descCorrected}
)

func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range stateDescs {
		ch <- d
	}
}

// device says what computes and, of an engine with a device of its own, how it is.
func (c *stateCollector) device(ch chan<- prometheus.Metric) {
	e := c.server.deps.Engine
	d, ok := e.(kernels.OnDevice)
	if !ok {
		ch <- prometheus.MustNewConstMetric(descEngine, prometheus.GaugeValue, 1, e.Name(), e.Level(), "", "")
		return
	}
	s := d.DeviceStatus()
	ch <- prometheus.MustNewConstMetric(descEngine, prometheus.GaugeValue, 1, e.Name(), e.Level(), s.Name, s.UUID)
	lost := 0.
	if s.Lost != "" {
		lost = 1
	}
	ch <- prometheus.MustNewConstMetric(descLost, prometheus.GaugeValue, lost)
	count := func(d *prometheus.Desc, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	count(descDeviceRows, s.OnDevice, "gpu")
	count(descDeviceRows, s.Beside, "cpu")
	count(descFallbacks, s.Fallbacks)
	count(descSplits, s.Splits)
	count(descCorrected, s.Corrected)
}

func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	follow := c.server.followState()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	c.device(ch)
	for _, r := range c.server.streams {
		name, m := r.o.name(), r.metrics
		ready := 0.
		if len(r.missing(follow)) == 0 {
			ready = 1
		}
		gauge(descReady, ready, name)
		gauge(descSaturation, m.busy.ratio(now), name)
		gauge(descAlertActive, float64(m.activeAlerts.Load()), name)
		blocked := 0.
		if since := m.blockedSince(); since > 0 {
			blocked = now.Sub(time.Unix(0, since)).Seconds()
		}
		gauge(descBlocked, blocked, name)
		version := 0
		if l := r.slot.live.Load(); l != nil {
			version = l.version
			gauge(descAge, max(0, now.Sub(l.manifest.Created).Seconds()), name, r.o.Model)
			gauge(descBytes, float64(l.manifest.Bytes), name, r.o.Model)
		}
		var loads int
		var since time.Duration
		if l := r.slot.loading.Load(); l != nil {
			loads, since = l.version, now.Sub(l.since)
		}
		gauge(descLoading, float64(loads), name, r.o.Model)
		gauge(descLoadingFor, since.Seconds(), name, r.o.Model)
		gauge(descVersion, float64(version), name, r.o.Model)
		if s := r.session.Load(); s != nil {
			for tp, n := range s.group.Lag() {
				gauge(descLag, float64(n), name, tp.Topic, strconv.Itoa(int(tp.Partition)))
			}
		}
	}
}
