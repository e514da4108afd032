package bench

import (
	"context"
	_ "embed"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/lapwing-stream/lapwing/bench/venv"
	"github.com/lapwing-stream/lapwing/kernels"
)

//go:embed torch.py
var torchProgram []byte

// torchLimit is the longest that one answer may take: compiling takes up to half a minute.
const torchLimit = 3 * time.Minute

// torch is PyTorch in a process of its own, which times itself.
type torch struct {
	process *venv.Process
	absent  error
	dir     string
	sample  time.Duration
	modes   []torchMode
}

// torchMode is a way to run PyTorch, by the name that it has in tables.
type torchMode struct{ name, how string }

const (
	torchEager    = "torch"
	torchCompiled = "torch.compile"
	torchGraphs   = "torch, CUDA graphs"
)

func (m torchMode) compiled() bool { return m.how == "compiled" }

// startTorch always gives one, on a device as PyTorch names it; where PyTorch is missing, its subjects say so.
func (r *run) startTorch(ctx context.Context, device string) *torch {
	t := &torch{sample: r.Sample, modes: []torchMode{{torchEager, "eager"}, {torchCompiled, "compiled"}}}
	if device != "cpu" {
		t.modes = append(t.modes, torchMode{torchGraphs, "graphs"})
	}
	python, err := r.peerFile("torch", "bin", "python")
	if r.Smoke {
		err = errNotInSmoke
	}
	if err != nil {
		t.absent = err
		return t
	}
	if t.dir, t.absent = os.MkdirTemp("", "lapwing-bench-"); t.absent != nil {
		return t
	}
	program := filepath.Join(t.dir, "torch_peer.py")
	if t.absent = os.WriteFile(program, torchProgram, 0o644); t.absent != nil {
		return t
	}
	if t.process, t.absent = venv.Start(ctx, python, program, device); t.absent != nil {
		return t
	}
	var first struct{ Versions map[string]string }
	if t.absent = t.process.Answer(ctx, torchLimit, &first); t.absent == nil {
		r.Versions["torch"] = first.Versions["torch"]
	}
	return t
}

func (t *torch) close() {
	t.process.Close()
	if t.dir != "" {
		os.RemoveAll(t.dir)
	}
}

// ask is nil or the error of this request; a process that is gone fails all that come after.
func (t *torch) ask(ctx context.Context, request map[string]any, answer any) error {
	if t.absent != nil {
		return t.absent
	}
	if t.process.Ended() {
		return fmt.Errorf("the Python process ended before")
	}
	return t.process.Ask(ctx, torchLimit, request, answer)
}

// layers are what the Python program needs to build a plain network.
func (t *torch) layers(p *kernels.Program, rows []float32) (map[string]any, error) {
	return t.networks([]*kernels.Program{p}, rows)
}

// networks are the same of several that differ in their weights, for the Python program to stack.
func (t *torch) networks(of []*kernels.Program, rows []float32) (map[string]any, error) {
	widths, acts := []int{of[0].Width}, []string{}
	var weights []float32
	for k, p := range of {
		for _, s := range p.Steps {
			g, ok := s.(*kernels.Gemm)
			if !ok {
				continue
			}
			if k == 0 {
				widths, acts = append(widths, g.Out), append(acts, g.Act.String())
			}
			weights = append(append(weights, g.W...), g.B...)
		}
	}
	files := map[string]any{"networks": len(of), "widths": widths, "acts": acts, "weights": filepath.Join(t.dir, "weights.f32"), "rows": filepath.Join(t.dir, "rows.f32")}
	if err := writeFloats(files["weights"].(string), weights); err != nil {
		return nil, err
	}
	return files, writeFloats(files["rows"].(string), rows)
}

func writeFloats(name string, v []float32) error {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return os.WriteFile(name, b, 0o644)
}

func readFloats(name string) ([]float32, error) {
	b, err := os.ReadFile(name)
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v, err
}

// scoreSubjects are PyTorch's ways on a plain network. Compiling takes seconds for each shape: it is done for a few.
func (t *torch) scoreSubjects(ctx context.Context, n *network, p *kernels.Program, rows []float32, batch int, ours []float32) ([]subject, error) {
	var subjects []subject
	if n.hidden == nil {
		return nil, nil // a detector's prototypes would be a program of our own, and prove nothing about PyTorch
	}
	for _, mode := range t.modes {
		name := mode.name
		s := subject{name: name, role: Peer, absent: t.absent}
		if s.absent == nil {
			request, err := t.layers(p, rows)
			if err != nil {
				return nil, err
			}
			out := filepath.Join(t.dir, "scores.f32")
			request["op"], request["name"], request["batch"], request["how"], request["out"] = "score", name, batch, mode.how, out
			var nothing struct{}
			if s.absent = t.ask(ctx, request, &nothing); s.absent == nil {
				theirs, err := readFloats(out)
				if err != nil {
					return nil, err
				}
				if err := equal(ours, theirs, name); err != nil {
					return nil, err
				}
			}
		}
		s.once = func(ctx context.Context) (figures, error) {
			var a struct{ Calls, Seconds float64 }
			if err := t.ask(ctx, map[string]any{"op": "run", "name": name, "seconds": t.sample.Seconds()}, &a); err != nil {
				return nil, err
			}
			return figures{"rows/s": a.Calls * float64(batch) / a.Seconds, "call": 1e6 * a.Seconds / a.Calls}, nil
		}
		subjects = append(subjects, s)
	}
	return subjects, nil
}
