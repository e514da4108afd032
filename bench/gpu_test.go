package bench

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/trainer"
)

// The suite runs on what it is given; nothing takes the processor for a GPU.
func TestGPUSuiteNeedsAGPU(t *testing.T) {
	r, err := Run(t.Context(), Options{Suites: []string{"gpu"}, Smoke: true})
	if !errors.Is(err, errNoGPU) || len(r.Rows) != 1 || r.Rows[0].Error == "" {
		t.Errorf("%v, %+v", err, r.Rows)
	}
	if o := (Options{}).WithDefaults(); strings.Contains(strings.Join(o.Suites, " "), "gpu") {
		t.Errorf("it runs where it is not named: %v", o.Suites)
	}
}

func TestNamesOfGPUs(t *testing.T) {
	for name, want := range map[string]bool{"Tesla T4": true, "NVIDIA L4": true, "NVIDIA L40S": false, "NVIDIA H100 80GB HBM3": false, "Emulated Tesla T4": true, "Quadro T400": false, "": false} {
		if got := (&GPU{Name: name}).is("T4", "L4"); got != want {
			t.Errorf("%q is a T4 or L4: %v", name, got)
		}
	}
	if !(&GPU{Name: "NVIDIA A100-SXM4-40GB"}).is("A100") {
		t.Error("an A100 is none")
	}
}

// Three products of a multiply-add for each weight: forward, and backward to the weights and to the values.
func TestTrainingWork(t *testing.T) {
	if got, want := trainingWork(plainProgram(30, []int{14, 7, 14}, hiddenTanh)), 3.*(30*14+14*7+7*14+14*30); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

// Losses that rounding does not explain end the run: the processors are held closer than PyTorch, a loss that is no number agrees
// with nothing, and where ours failed its row says so.
func TestSameLosses(t *testing.T) {
	for _, c := range []struct {
		losses map[string]float64
		same   bool
	}{
		{map[string]float64{Ours: 1, onCPU: 1.0009, torchEager: 1.009}, true},
		{map[string]float64{Ours: 1, onCPU: 1.0011}, false},
		{map[string]float64{Ours: 1, torchGraphs: .98}, false},
		{map[string]float64{Ours: math.NaN(), onCPU: 1}, false},
		{map[string]float64{Ours: 1, torchEager: math.NaN()}, false},
		{map[string]float64{onCPU: 1, torchEager: 2}, true},
	} {
		if err := sameLosses("k", c.losses); c.same != (err == nil) || err != nil && !errors.Is(err, errDiffers) {
			t.Errorf("%v: %v", c.losses, err)
		}
	}
}

func TestTimeToALoss(t *testing.T) {
	run := trained{report: &trainer.Report{ValidationLoss: .3, Seconds: trainer.Seconds{Read: 2, Fit: 3}}, path: []evaluation{{3 * time.Second, .5}, {4 * time.Second, .4}}}
	for goal, want := range map[float64]time.Duration{.45: 4 * time.Second, .5: 3 * time.Second, .3: 5 * time.Second} {
		if at, err := run.reached(goal); err != nil || at != want {
			t.Errorf("to %v: %v, %v; want %v", goal, at, err, want)
		}
	}
	if _, err := run.reached(.2); err == nil {
		t.Error("a loss that was never reached has a time")
	}
}
