package quality

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/lapwing-stream/lapwing/bench/venv"
)

// The peers are Python packages, asked for by name; their environment is this bench's alone.
var (
	//go:embed peers.py
	peersProgram []byte
	//go:embed requirements.txt
	peersRequired []byte
	//go:embed requirements-torch.txt
	torchRequired []byte
)

// Peers are the names of what Lapwing is measured next to, in the order of the tables.
func Peers() []string {
	return []string{"iforest", "pca_residual", "pca", "ecod", "hbos", "knn", "autoencoder", "vae"}
}

// needTorch are the peers that are neural networks: PyTorch is by far the largest part of the environment.
var needTorch = []string{"autoencoder", "vae"}

// peers is the Python process that fits them, started anew after one that had to be ended.
type peers struct {
	ctx      context.Context
	o        *Options
	python   string            // of the environment
	program  string            // file
	absent   map[string]string // by peer: why it cannot run
	versions map[string]string
	dir      string // of the rows and scores that go to and fro

	process *venv.Process
}

// startPeers makes the environment where it is not there yet. What cannot be had is remembered for each peer's row.
func startPeers(ctx context.Context, o *Options) *peers {
	p := &peers{ctx: ctx, o: o, absent: map[string]string{}}
	fail := func(names []string, err error) {
		for _, n := range names {
			p.absent[n] = err.Error()
		}
		fmt.Fprintf(o.Log, "peers left out (%s): %v\n", strings.Join(names, ", "), err)
	}
	sum := sha256.Sum256(slices.Concat(peersRequired, torchRequired))
	home := filepath.Join(o.Cache, fmt.Sprintf("quality-%x", sum[:6]))
	env := venv.Env{Home: home, Base: o.Python, Log: o.Log}
	p.python = env.Python()
	p.program = filepath.Join(home, "peers.py")
	var err error
	if p.dir, err = os.MkdirTemp("", "lapwing-quality-"); err != nil {
		fail(o.Peers, err)
		return p
	}
	if err := env.Install(ctx, "requirements.txt", peersRequired, "scikit-learn and PyOD, some 100 MB"); err != nil {
		fail(o.Peers, err)
		return p
	}
	if slices.ContainsFunc(o.Peers, func(n string) bool { return slices.Contains(needTorch, n) }) {
		if err := env.Install(ctx, "requirements-torch.txt", torchRequired, "PyTorch, which can be several GB; --peers without autoencoder and vae does without"); err != nil {
			fail(needTorch, err)
		}
	}
	if err := os.WriteFile(p.program, peersProgram, 0o644); err != nil {
		fail(o.Peers, err)
	}
	return p
}

func (p *peers) close() {
	p.process.Close()
	if p.dir != "" {
		os.RemoveAll(p.dir)
	}
}

// begin starts the Python process unless it runs.
func (p *peers) begin() error {
	if !p.process.Ended() {
		return nil
	}
	var err error
	if p.process, err = venv.Start(p.ctx, p.python, p.program, strconv.Itoa(p.o.Threads)); err != nil {
		return err
	}
	var first struct{ Versions map[string]string }
	if err := p.process.Answer(p.ctx, p.o.Limit, &first); err != nil {
		p.process.Close()
		return err
	}
	p.versions = first.Versions
	return nil
}

// peerJob is one split as the peers get it.
type peerJob struct {
	p       *peers
	request struct {
		Peer    string `json:"peer"`
		Train   string `json:"train"`
		Test    string `json:"test"`
		Columns int    `json:"columns"`
		Seed    uint64 `json:"seed"`
		Out     string `json:"out"`
	}
	trained, tested int
	failed          error
}

// prepare writes a split's rows down for the peers: float32, little-endian, row after row.
func (p *peers) prepare(s *split, e *entry) (*peerJob, error) {
	j := &peerJob{p: p, trained: len(s.train), tested: len(s.test)}
	if p.dir == "" {
		return j, nil // no peer can run, and each says why
	}
	columns, train, test, err := matrix(e, s.train, s.test)
	if err != nil {
		j.failed = err
		return j, nil
	}
	j.request.Columns, j.request.Seed = columns, s.seed
	j.request.Train, j.request.Test, j.request.Out = filepath.Join(p.dir, "train.f32"), filepath.Join(p.dir, "test.f32"), filepath.Join(p.dir, "scores.f64")
	return j, errors.Join(writeFloats(j.request.Train, train), writeFloats(j.request.Test, test))
}

func writeFloats(name string, v []float32) error {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return os.WriteFile(name, b, 0o644)
}

// measure runs one peer on the split. Its threshold is the quantile of its own history scores at the rate that
// Lapwing would use.
func (j *peerJob) measure(ctx context.Context, name string, truth []bool, rate float64) Metrics {
	history, live, seconds, err := j.scores(ctx, name)
	if err != nil {
		return Metrics{Error: err.Error()}
	}
	m := measure(live, truth, quantileThreshold(history, rate))
	m.Seconds = value(seconds)
	return m
}

// scores gives one peer's scores of both halves.
func (j *peerJob) scores(ctx context.Context, name string) (history, live []float64, seconds float64, err error) {
	p := j.p
	if why, ok := p.absent[name]; ok {
		return nil, nil, 0, errors.New("not installed: " + why)
	}
	if j.failed != nil {
		return nil, nil, 0, j.failed
	}
	if err := p.begin(); err != nil {
		return nil, nil, 0, err
	}
	j.request.Peer = name
	if err := os.Remove(j.request.Out); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, 0, err
	}
	var r struct{ Seconds float64 }
	if err := p.process.Ask(p.ctx, p.o.Limit, &j.request, &r); err != nil {
		return nil, nil, 0, err
	}
	raw, err := os.ReadFile(j.request.Out)
	if err != nil {
		return nil, nil, 0, err
	}
	if len(raw) != 8*(j.trained+j.tested) {
		return nil, nil, 0, fmt.Errorf("%d scores for %d rows", len(raw)/8, j.trained+j.tested)
	}
	all := make([]float64, j.trained+j.tested)
	for i := range all {
		all[i] = math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:]))
	}
	return all[:j.trained], all[j.trained:], r.Seconds, nil
}
