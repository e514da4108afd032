package trainer

import (
	"math"
	"strconv"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/kernels/gorgonia"
	"github.com/lapwing-stream/lapwing/model"
)

// Every engine trains the default detector, trimming and judging included, and its model holds on another: the
// self-test is met there, and the scores of the whole history are the same but for rounding.
func TestEveryEngineTrainsTheDefaultDetector(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, values(2, machine(1, 600)...)...)
	engines := []kernels.Engine{cpu.New(), gorgonia.New()}
	for i, e := range engines {
		t.Run(e.Name(), func(t *testing.T) {
			b.deps.Engine = e
			o := quick("t")
			o.Model = "m" + strconv.Itoa(i)
			m := b.mustRun(o).Model
			if want := e.Name() + "/" + e.Level(); m.Lineage.Engine != want {
				t.Errorf("trained by %s, want %s", m.Lineage.Engine, want)
			}
			var kinds []string
			for _, s := range m.Program.Steps {
				kinds = append(kinds, s.Kind())
			}
			if n := len(kinds); kinds[n-1] != "join" || kinds[n-4] != "nearest" {
				t.Errorf("the default detector has the steps %v", kinds)
			}
			data, err := m.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if m, err = model.Decode(data); err != nil {
				t.Fatal(err)
			}
			var rows []float32
			for i := range 300 {
				x := float32(i) / 300
				rows = append(rows, x, 60+20*x, 5-3*x, 12+(x-.5)*float32(i%7))
			}
			var scores [2][]float32
			for k, other := range engines {
				s, err := other.Scorer(m.Program)
				if err != nil {
					t.Fatal(err)
				}
				if err := m.Verify(s, other == e); err != nil {
					t.Errorf("on %s: %v", other.Name(), err)
				}
				scores[k] = make([]float32, 300)
				if err := s.Score(rows, kernels.Output{Score: scores[k]}); err != nil {
					t.Fatal(err)
				}
			}
			for i, a := range scores[0] {
				if b := scores[1][i]; math.Abs(float64(a-b)) > 2e-5*float64(b)+1e-5*m.Threshold {
					t.Errorf("row %d scores %v and %v", i, a, b)
				}
			}
		})
	}
}

// Every activation, loss and optimizer trains on every engine, to a model that another engine verifies and whose
// lineage says what it was trained by.
func TestEveryEngineTrainsTheWholeVocabulary(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, values(2, machine(1, 600)...)...)
	engines := []kernels.Engine{cpu.New(), gorgonia.New()}
	type choice struct{ activation, loss, optimizer, rate string }
	choices := []choice{{"tanh", "huber", "adam", "0.003"}, {"tanh", "mse", "sgd", "0.3"}, {"gelu", "huber", "sgd", "0.3"}}
	for _, a := range kernels.Activations() {
		choices = append(choices, choice{a.String(), "mse", "adam", "0.003"})
	}
	for i, c := range choices {
		t.Run(c.activation+" "+c.loss+" "+c.optimizer, func(t *testing.T) {
			var losses [2]float64
			for k, e := range engines {
				asked := &recordingEngine{Engine: e}
				b.deps.Engine = asked
				o := quick("t")
				o.Model, o.Activation, o.Loss, o.Optimizer = "v"+strconv.Itoa(i)+strconv.Itoa(k), c.activation, c.loss, c.optimizer
				l := b.mustRun(o).Model
				s := l.Lineage.Settings
				if got := (choice{s["activation"], s["loss"], s["optimizer"], s["learning_rate"]}); got != c {
					t.Errorf("the lineage says %v", got)
				}
				if got := s["huber_delta"]; (got == "1") != (c.loss == "huber") {
					t.Errorf("the lineage of loss %s says huber_delta %q", c.loss, got)
				}
				if got := (choice{l.Program.Steps[1].(*kernels.Gemm).Act.String(), asked.options.Loss.String(), asked.options.Optimizer.String(), c.rate}); got != c {
					t.Errorf("%s was asked for %v", e.Name(), got)
				}
				losses[k] = l.Lineage.Metrics["validation_loss"]
				if before := l.Lineage.Metrics["untrained_loss"]; !(losses[k] < before) {
					t.Errorf("%s: the validation loss went from %v to %v", e.Name(), before, losses[k])
				}
				other, err := engines[1-k].Scorer(l.Program)
				if err != nil {
					t.Fatal(err)
				}
				if err := l.Verify(other, false); err != nil {
					t.Errorf("trained on %s: %v", e.Name(), err)
				}
			}
			if math.Abs(losses[0]-losses[1]) > .01*losses[1] {
				t.Errorf("validation losses %v: more than 1 %% apart", losses)
			}
		})
	}
}

// recordingEngine keeps what was last asked of it.
type recordingEngine struct {
	kernels.Engine
	options kernels.TrainOptions
}

func (e *recordingEngine) Trainer(p *kernels.Program, o kernels.TrainOptions) (kernels.Trainer, error) {
	e.options = o
	return e.Engine.Trainer(p, o)
}
