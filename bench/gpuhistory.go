package bench

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/trainer"
)

// Metrics of a training from a topic.
const (
	historyRead  = "read"
	historyAfter = "last record to published model"
	historyShare = "that by the read"
	historyLoss  = "to the loss"
	historyValid = "validation loss"
)

// trained is what a training from a topic came to.
type trained struct {
	report *trainer.Report
	took   time.Duration
	path   []evaluation
}

// evaluation is a validation loss, and how long after the start it was known.
type evaluation struct {
	at   time.Duration
	loss float64
}

// reached is when the validation loss first was no more than goal.
func (t *trained) reached(goal float64) (time.Duration, error) {
	for _, e := range t.path {
		if e.loss <= goal {
			return e.at, nil
		}
	}
	if t.report.ValidationLoss <= goal { // of a fit that was over before it was asked
		return time.Duration((t.report.Seconds.Read + t.report.Seconds.Fit) * float64(time.Second)), nil
	}
	return 0, fmt.Errorf("the validation loss came to %v, not to %v", t.report.ValidationLoss, goal)
}

// gpuHistory trains from a topic as lapwing train does with nothing set, on the GPU and on the processors. What comes after the last
// record is the trimming pass, the fit, the judging of all rows and the publishing.
func (r *run) gpuHistory(ctx context.Context) error {
	c, err := embedded(ctx) // a rented machine has no other, and what is compared is what comes after the read
	if err != nil {
		return err
	}
	defer c.close()
	values, _, err := fleetValues(min(r.History, 200_000))
	if err != nil {
		return err
	}
	fmt.Fprintf(r.Log, "gpu: a topic of %d records\n", r.History)
	if err := c.fill(ctx, "history", values, r.History); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lapwing-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	log := slog.New(slog.DiscardHandler)
	models := registry.Open(c.client, registry.Options{Log: log})
	train := func(ctx context.Context, e kernels.Engine) (*trained, error) {
		t := &trained{}
		o := trainer.Defaults()
		o.Topic, o.Model, o.Key, o.Time, o.KeepDir = "history", "history", "car", "time", dir
		began := time.Now()
		progress := func(p trainer.Progress) {
			if p.Stage == "fit" && p.Validation > 0 {
				t.path = append(t.path, evaluation{time.Since(began), p.Validation})
			}
		}
		var err error
		t.report, err = trainer.Run(ctx, trainer.Deps{Client: c.client, Registry: models, Engine: e, Log: log, Progress: progress}, o)
		t.took = time.Since(began)
		return t, err
	}
	// The processors' run sets the goal, and is the round that is not counted.
	first, err := train(ctx, cpu.New())
	if err != nil {
		return fmt.Errorf("training on the processors: %w", err)
	}
	goal := first.report.ValidationLoss * 1.01
	times := func(e kernels.Engine) func(context.Context) (figures, error) {
		return func(ctx context.Context) (figures, error) {
			t, err := train(ctx, e)
			if err != nil {
				return nil, err
			}
			// A tenth would be another model; a hundredth is a target.
			if loss := t.report.ValidationLoss; !(math.Abs(loss-first.report.ValidationLoss) <= .1*first.report.ValidationLoss) {
				return nil, fmt.Errorf("%w: the validation loss is %v, that of the processors %v", errDiffers, loss, first.report.ValidationLoss)
			}
			read := t.report.Seconds.Read
			after := t.took.Seconds() - read
			f := figures{historyRead: read, historyAfter: after, historyShare: after / read, historyValid: t.report.ValidationLoss}
			at, err := t.reached(goal)
			f[historyLoss] = at.Seconds()
			return f, err
		}
	}
	kase := fmt.Sprintf("train from %d records of a topic: %s, %s", r.History, c.kind, cores())
	m, err := r.measure(ctx, cell{suite: "gpu", kase: kase, rounds: min(r.Rounds, 3), warmed: true},
		[]metric{{name: historyRead, unit: "s", lower: true}, {name: historyAfter, unit: "s", lower: true}, {name: historyShare, unit: "×", lower: true},
			{name: historyLoss, unit: "s", lower: true}, {name: historyValid, lower: true}},
		subject{name: Ours, once: times(r.GPU.Engine)}, subject{name: onCPU, once: times(cpu.New())})
	if err != nil {
		return err
	}
	us := m.row(Ours, historyShare)
	t := r.target(fmt.Sprintf("train from %d records on the GPU: last record to published model, by the read", r.History), .2, m.value(Ours, historyShare), "×", true)
	t.Noisy = us.Noisy != ""
	if us.Error != "" {
		t.Error = us.Error
	}
	r.targetRatio(fmt.Sprintf("train from %d records: validation loss on the GPU by that on the processors", r.History), 1.01, m, Ours, onCPU, historyValid, true)
	if curve := first.report.Curve; len(curve) > 0 && curve[len(curve)-1].Epoch < 3 {
		r.note("gpu: the training ended in epoch %d: its loss no longer fell", curve[len(curve)-1].Epoch)
	}
	return nil
}
