package quality

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
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

	process *exec.Cmd
	to      io.WriteCloser
	from    chan reply
	said    *lastWords
}

// reply is a line of the Python program.
type reply struct {
	Versions map[string]string `json:"versions"` // in its first line
	Seconds  float64           `json:"seconds"`
	Error    string            `json:"error"`
	lost     error             // the process ended, or wrote what is no JSON
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
	p.python = filepath.Join(home, "bin", "python")
	p.program = filepath.Join(home, "peers.py")
	var err error
	if p.dir, err = os.MkdirTemp("", "lapwing-quality-"); err != nil {
		fail(o.Peers, err)
		return p
	}
	if err := p.install(home, "requirements.txt", peersRequired, "scikit-learn and PyOD, some 100 MB"); err != nil {
		fail(o.Peers, err)
		return p
	}
	if slices.ContainsFunc(o.Peers, func(n string) bool { return slices.Contains(needTorch, n) }) {
		if err := p.install(home, "requirements-torch.txt", torchRequired, "PyTorch, which can be several GB; --peers without autoencoder and vae does without"); err != nil {
			fail(needTorch, err)
		}
	}
	if err := os.WriteFile(p.program, peersProgram, 0o644); err != nil {
		fail(o.Peers, err)
	}
	return p
}

// install adds packages to the environment unless its mark says that they are there.
func (p *peers) install(home, name string, required []byte, what string) error {
	mark := filepath.Join(home, name+".ready")
	if _, err := os.Stat(mark); err == nil {
		return nil
	}
	fmt.Fprintf(p.o.Log, "installing peers into %s, once: %s\n", home, what)
	started := time.Now()
	command := func(name string, args ...string) error {
		c := exec.CommandContext(p.ctx, name, args...)
		var said lastWords
		c.Stdout, c.Stderr = &said, &said
		if err := c.Run(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(append([]string{filepath.Base(name)}, args[:min(len(args), 3)]...), " "), err, said.line())
		}
		return nil
	}
	if _, err := os.Stat(p.python); err != nil {
		if err := os.MkdirAll(filepath.Dir(home), 0o755); err != nil {
			return err
		}
		if err := command(p.o.Python, "-m", "venv", home); err != nil {
			return err
		}
	}
	list := filepath.Join(home, name)
	if err := os.WriteFile(list, required, 0o644); err != nil {
		return err
	}
	if err := command(p.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", list); err != nil {
		return err
	}
	fmt.Fprintf(p.o.Log, "installed in %.0f s\n", time.Since(started).Seconds())
	return os.WriteFile(mark, nil, 0o644)
}

func (p *peers) close() {
	p.end()
	if p.dir != "" {
		os.RemoveAll(p.dir)
	}
}

// end ends the Python process. What it was doing is lost.
func (p *peers) end() {
	if p.process == nil {
		return
	}
	p.to.Close()
	p.process.Cancel()
	for range p.from { // until its output ends
	}
	p.process.Wait()
	p.process = nil
}

// begin starts the Python process unless it runs.
func (p *peers) begin() error {
	if p.process != nil {
		return nil
	}
	c := exec.CommandContext(p.ctx, p.python, p.program, strconv.Itoa(p.o.Threads))
	p.said = &lastWords{}
	c.Stderr = p.said
	var err error
	if p.to, err = c.StdinPipe(); err != nil {
		return err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	p.process, p.from = c, make(chan reply, 1)
	go func(to chan<- reply) { // ends with the process's output
		defer close(to)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var r reply
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				r.lost = fmt.Errorf("said what is no answer: %.100s", lines.Bytes())
			}
			to <- r
		}
	}(p.from)
	first, err := p.answer(time.NewTimer(p.o.Limit))
	if err != nil {
		return err
	}
	p.versions = first.Versions
	return nil
}

// answer waits for the next line of the process, which is ended where none comes.
func (p *peers) answer(limit *time.Timer) (reply, error) {
	defer limit.Stop()
	select {
	case r, ok := <-p.from:
		switch {
		case !ok:
			p.end()
			return r, fmt.Errorf("the Python process ended: %s", p.said.line())
		case r.lost != nil:
			p.end()
			return r, r.lost
		}
		return r, nil
	case <-limit.C:
		p.end()
		return reply{}, fmt.Errorf("no answer within %v", p.o.Limit)
	case <-p.ctx.Done():
		p.end()
		return reply{}, context.Cause(p.ctx)
	}
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
	line, err := json.Marshal(&j.request)
	if err != nil {
		return nil, nil, 0, err
	}
	if err := os.Remove(j.request.Out); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, 0, err
	}
	if _, err := p.to.Write(append(line, '\n')); err != nil {
		p.end()
		return nil, nil, 0, fmt.Errorf("the Python process ended: %s", p.said.line())
	}
	r, err := p.answer(time.NewTimer(p.o.Limit))
	if err != nil {
		return nil, nil, 0, err
	}
	if r.Error != "" {
		return nil, nil, 0, errors.New(r.Error)
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

// lastWords keeps the end of what a process says.
type lastWords struct {
	sync.Mutex
	text []byte
}

func (w *lastWords) Write(b []byte) (int, error) {
	w.Lock()
	defer w.Unlock()
	w.text = append(w.text, b...)
	w.text = w.text[max(0, len(w.text)-4096):]
	return len(b), nil
}

// line is the last line that says something.
func (w *lastWords) line() string {
	w.Lock()
	defer w.Unlock()
	lines := bytes.Split(bytes.TrimSpace(w.text), []byte("\n"))
	last := string(bytes.TrimSpace(lines[len(lines)-1]))
	if last == "" {
		return "it said nothing"
	}
	return last
}
