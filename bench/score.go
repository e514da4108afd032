package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
)

// scoreBatches are the rows of a call.
var scoreBatches = []int{1, 16, 256, 1024, 8192}

var scoreMetrics = []metric{{name: "rows/s", unit: "1/s"}, {name: "call", unit: "µs", lower: true}}

// caller scores one batch, its input and output being where they always are.
type caller struct {
	call   func() error
	scores func() []float32
	close  func()
}

// scoreSuite calls each engine in process, on the bytes of one published model, for the score alone: ONNX Runtime gets the
// graph that models export --outputs score writes, Lapwing the file as it is in the topic, decoded as serve does.
func scoreSuite(ctx context.Context, r *run) error {
	missing := r.openONNXRuntime()
	if missing != nil && r.Smoke {
		return missing
	}
	nets, err := plainNets()
	if err != nil {
		return err
	}
	for _, width := range []int{18, 30} {
		n, err := r.detector(ctx, width)
		if err != nil {
			return fmt.Errorf("training the default detector on %d features: %w", width, err)
		}
		nets = append(nets, n)
	}
	torch := r.startTorch(ctx, "cpu")
	defer torch.close()
	for _, n := range nets {
		if err := r.scoreNet(ctx, n, missing, torch); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) scoreNet(ctx context.Context, n *network, missing error, torch *torch) error {
	m, err := model.Decode(n.data)
	if err != nil {
		return err
	}
	engine := cpu.New()
	scorer, err := engine.Scorer(m.Program)
	if err != nil {
		return err
	}
	ours := func(rows []float32) (*caller, error) {
		scores := make([]float32, len(rows)/n.width)
		out := kernels.Output{Score: scores}
		return &caller{func() error { return scorer.Score(rows, out) }, func() []float32 { return scores }, func() {}}, nil
	}
	nobody := func([]float32) (*caller, error) { return nil, missing }
	theirs, bare := nobody, nobody
	if missing == nil {
		pruned, err := model.Prune(n.data, "score")
		if err != nil {
			return err
		}
		load := func(graph []byte) (func([]float32) (*caller, error), func(), error) {
			s, err := newORTSession(graph, "features", "score")
			if err != nil {
				return nil, nil, err
			}
			return func(rows []float32) (*caller, error) {
				c, err := s.bind("features", rows, n.width)
				if err != nil {
					return nil, err
				}
				return &caller{c.run, c.scores, c.close}, nil
			}, s.close, nil
		}
		var end func()
		if theirs, end, err = load(pruned); err != nil {
			return err
		}
		defer end()
		if n.hidden != nil {
			if pruned, err = withoutScaler(pruned); err != nil {
				return err
			}
			if bare, end, err = load(pruned); err != nil {
				return err
			}
			defer end()
		}
	}
	limit := work(m.Program)
	for _, threads := range r.scoreThreads() {
		for _, batch := range scoreBatches {
			c := cell{suite: "score", group: fmt.Sprintf("%s, %s", n.name, plural(threads, "thread")), x: float64(batch), xName: "batch"}
			c.kase = fmt.Sprintf("%s, batch %d", c.group, batch)
			us, closeUs := r.scoreSubject(Ours, Ours, n, batch, threads, ours)
			defer closeUs()
			ort, closeORT := r.scoreSubject("onnxruntime", Peer, n, batch, threads, theirs)
			defer closeORT()
			reference, err := sameScores(n, batch, ours, theirs, missing)
			if err != nil {
				return fmt.Errorf("%s: %w", c.kase, err)
			}
			subjects := []subject{us, ort}
			if n.hidden != nil {
				if _, err := sameScores(n, batch, ours, bare, missing); err != nil {
					return fmt.Errorf("%s: %w", c.kase, err)
				}
				more, closeBare := r.scoreSubject(unscaled, Peer, n, batch, threads, bare)
				defer closeBare()
				subjects = append(subjects, more)
			}
			if threads == 2 && batch >= 1024 {
				alone, closeAlone := r.scoreSubject(alone, Ours, n, batch, 1, ours)
				defer closeAlone()
				subjects = append(subjects, alone)
			}
			if threads == 1 {
				more, err := torch.scoreSubjects(ctx, n, m.Program, n.rows[:batch*n.width], batch, reference)
				if err != nil {
					return fmt.Errorf("%s: %w", c.kase, err)
				}
				subjects = append(subjects, more...)
			}
			subjects = append(subjects, r.peakSubject(engine.Level(), threads, limit, batch))
			m, err := r.measure(ctx, c, scoreMetrics, subjects...)
			if err != nil {
				return err
			}
			r.scoreTargets(n, batch, threads, m)
		}
	}
	return nil
}

// unscaled is ONNX Runtime on a network's layers alone, as a file without a scaler has them: Lapwing still does all.
const unscaled = "onnxruntime, no scaler"

// alone is what two threads are held to, in the same rounds.
const alone = "lapwing, 1 thread"

// scoreThreads are 1 and, where there are two processors, 2.
func (r *run) scoreThreads() []int {
	if runtime.GOMAXPROCS(0) > 1 {
		return []int{1, 2}
	}
	return []int{1}
}

// sameScores holds both engines' scores of a batch to each other, and gives ours.
func sameScores(n *network, batch int, ours, theirs func([]float32) (*caller, error), missing error) ([]float32, error) {
	a, err := ours(n.rows[:batch*n.width])
	if err != nil {
		return nil, err
	}
	if err := a.call(); err != nil || missing != nil {
		return a.scores(), err
	}
	b, err := theirs(n.rows[:batch*n.width])
	if err != nil {
		return nil, err
	}
	defer b.close()
	if err := b.call(); err != nil {
		return nil, err
	}
	return a.scores(), equal(a.scores(), b.scores(), "onnxruntime")
}

// equal holds scores to a peer's. Both sum in float32, in orders of their own.
func equal(ours, theirs []float32, peer string) error {
	if len(ours) != len(theirs) {
		return fmt.Errorf("%w: %d scores, %s gives %d", errDiffers, len(ours), peer, len(theirs))
	}
	for i, x := range ours {
		if d := math.Abs(float64(x) - float64(theirs[i])); !(d <= 1e-5+1e-4*math.Abs(float64(theirs[i]))) {
			return fmt.Errorf("%w: row %d scores %v, %s says %v", errDiffers, i, x, peer, theirs[i])
		}
	}
	return nil
}

// scoreSubject calls from as many goroutines as there are threads, each with a batch of its own, as concurrent requests do.
func (r *run) scoreSubject(name, role string, n *network, batch, threads int, make func([]float32) (*caller, error)) (subject, func()) {
	var callers []*caller
	s := subject{name: name, role: role}
	for t := range threads {
		at := (t * batch) % (netRows - batch + 1) * n.width
		c, err := make(n.rows[at : at+batch*n.width])
		if err != nil {
			s.absent = err
			break
		}
		callers = append(callers, c)
	}
	s.once = func(ctx context.Context) (figures, error) {
		rates, faults := make2(threads)
		var all sync.WaitGroup
		for t, c := range callers {
			all.Go(func() { rates[t], faults[t] = r.perSecond(ctx, c.call) })
		}
		all.Wait()
		var calls float64
		for _, x := range rates {
			calls += x
		}
		return figures{"rows/s": calls * float64(batch), "call": 1e6 * float64(threads) / calls}, errors.Join(faults...)
	}
	return s, func() {
		for _, c := range callers {
			c.close()
		}
	}
}

func make2(n int) ([]float64, []error) { return make([]float64, n), make([]error, n) }

// peakSubject is what the multiply-adds of the rows would take at the peak of the level that the engine uses, measured in
// the same rounds.
func (r *run) peakSubject(level string, threads int, work float64, batch int) subject {
	return subject{name: "FMA peak, " + level, role: Limit, once: func(context.Context) (figures, error) {
		var all sync.WaitGroup
		rates, faults := make2(threads)
		for t := range threads {
			all.Go(func() { rates[t], faults[t] = cpu.PeakFMA(level, max(r.Sample/4, 5*time.Millisecond)) })
		}
		all.Wait()
		var sum float64
		for _, x := range rates {
			sum += x
		}
		rows := sum / work
		return figures{"rows/s": rows, "call": 1e6 * float64(threads) * float64(batch) / rows}, errors.Join(faults...)
	}}
}

// scoreTargets are the table's. A batch of a range has one of its own.
func (r *run) scoreTargets(n *network, batch, threads int, m *measured) {
	if threads == 2 && batch >= 1024 {
		r.targetRatio(fmt.Sprintf("score %s, batch %d, two threads times one", n.name, batch), 1.8, m, Ours, alone, "rows/s", false)
	}
	if threads != 1 {
		return
	}
	name := func(than string) string { return fmt.Sprintf("score %s, batch %d, times %s", n.name, batch, than) }
	against := func(times float64) {
		r.targetRatio(name("ONNX Runtime"), times, m, Ours, "onnxruntime", "rows/s", false)
		if n.hidden != nil { // harder than what was asked, which is about the same bytes
			r.targetRatio(name("ONNX Runtime without the scaler"), times, m, Ours, unscaled, "rows/s", false)
		}
	}
	detector := n.hidden == nil
	switch {
	case batch == 1:
		against(5)
	case batch == 16:
		against(8)
	case detector && batch != 1024:
		against(3)
	case detector:
	default:
		against(map[int]float64{30: 1.8, 18: 2.2, 128: 1.15}[n.width])
	}
	if !detector && batch == 1024 {
		share := .5
		if n.width == 128 {
			share = .7
		}
		for _, row := range m.rows {
			if row.Role == Limit && row.Metric == "rows/s" {
				r.targetRatio(name("the FMA peak"), share, m, Ours, row.Subject, "rows/s", false)
				return
			}
		}
	}
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + strings.TrimSuffix(word, "s")
	}
	return fmt.Sprintf("%d %ss", n, word)
}
