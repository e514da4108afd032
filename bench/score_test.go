package bench

import (
	"errors"
	"math"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
)

// The work of a row is what the issue counts: multiply-adds, 12 for a tanh, 1 for a relu.
func TestWork(t *testing.T) {
	nets, err := plainNets()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		name string
		work float64
	}{
		{"30-14-7-14-30", 30*14 + 14*7 + 7*14 + 14*30 + 12*(14+14) + 7},
		{"18-14-7-7-18", 18*14 + 14*7 + 7*7 + 7*18 + 12*(14+7) + 7},
		{"128-64-16-64-128", 128*64 + 64*16 + 16*64 + 64*128 + 12*(64+64) + 16},
	} {
		m, err := model.Decode(nets[i].data)
		if err != nil {
			t.Fatal(err)
		}
		if nets[i].name != want.name || work(m.Program) != want.work {
			t.Errorf("%s: %v, want %s: %v", nets[i].name, work(m.Program), want.name, want.work)
		}
	}
	p := plainProgram(4, []int{2}, nil)
	white := kernels.Whitened(p, make([]float32, 16))
	if got := work(kernels.Blended(white, 2, make([]float32, 2*3*4), 1, 1)); got != 4*2+2*4+4*4+2*3*4 {
		t.Errorf("a detector's work: %v", got)
	}
}

func TestEqualScores(t *testing.T) {
	nan := float32(math.NaN())
	for _, c := range []struct {
		ours, theirs []float32
		same         bool
	}{
		{[]float32{1, 0}, []float32{1.00005, 1e-6}, true}, {[]float32{1}, []float32{1.001}, false}, {[]float32{1}, []float32{1, 2}, false},
		{[]float32{nan}, []float32{1}, false}, {[]float32{1}, []float32{nan}, false},
	} {
		if err := equal(c.ours, c.theirs, "peer"); c.same != (err == nil) || err != nil && !errors.Is(err, errDiffers) {
			t.Errorf("%v, %v: %v", c.ours, c.theirs, err)
		}
	}
}

// A peer that is not installed is a row that says so, and a target that says why there is no figure; but not in a smoke run.
func TestScoreWithoutPeers(t *testing.T) {
	r := testRun(Options{Rounds: 1, Sample: 1e6})
	nets, err := plainNets()
	if err != nil {
		t.Fatal(err)
	}
	missing := r.openONNXRuntime()
	if missing == nil {
		t.Fatal("a folder without peers has ONNX Runtime")
	}
	torch := r.startTorch(t.Context(), "cpu")
	defer torch.close()
	if err := r.scoreNet(t.Context(), nets[1], missing, torch); err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	for _, row := range r.Rows {
		if row.Role == Peer {
			said[row.Subject] = row.Error == "not installed: lapwing bench --install-peers"
		}
		if row.Role == Ours && !(row.Value > 0) {
			t.Errorf("%+v", row)
		}
	}
	if len(said) != 4 || !said[unscaled] || !said["onnxruntime"] || !said["torch"] || !said["torch.compile"] {
		t.Errorf("%v", said)
	}
	for _, target := range r.Targets {
		if target.Unit == "×" && target.OK && target.Error != "" {
			t.Errorf("%+v", target)
		}
	}
	if err := scoreSuite(t.Context(), testRun(Options{Smoke: true})); err == nil {
		t.Error("a smoke run needs ONNX Runtime")
	}
}
