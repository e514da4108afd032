package trainer

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/lapwing-stream/lapwing/kernels"
)

// What candidates for one model differ in.
const (
	VarySeed  = "seed"  // of the first weights: the run's, and those that follow it
	VaryRate  = "rate"  // the highest learning rate, by rateFactors
	VaryWidth = "width" // of the hidden layers, the code among them, by widthFactors
)

// Varieties are all of them.
var Varieties = []string{VarySeed, VaryRate, VaryWidth}

// MostCandidates by seed: what a GPU of today trains in a few waves.
const MostCandidates = 1024

// The sets that candidates are taken from, in this order. The first is the run without candidates. Beyond the last a network no
// longer learns, or no longer has to find anything out.
var (
	rateFactors  = []float64{1, 1. / 2, 2, 1. / 4, 4, 1. / 8, 8, 1. / 16, 16}
	widthFactors = []float64{1, 1. / 2, 2, 3. / 4, 3. / 2, 1. / 4, 3, 1. / 8, 4}
)

func mostCandidates(vary string) int {
	switch vary {
	case VaryRate:
		return len(rateFactors)
	case VaryWidth:
		return len(widthFactors)
	}
	return MostCandidates
}

// validateCandidates says what is wrong with the options that ask for several models.
func (o *Options) validateCandidates(fault func(bad bool, format string, args ...any)) {
	fault(!slices.Contains(Varieties, o.Vary), "vary %q is not known: seed, rate, width", o.Vary)
	fault(o.Candidates < 1 || o.Candidates > mostCandidates(o.Vary), "candidates is %d; 1 to %d by %s", o.Candidates, mostCandidates(o.Vary), o.Vary)
	fault(o.Candidates > 1 && o.Vary == VaryWidth && o.Layers != nil, "layers %s fix the widths, and candidates by width are asked for: leave one out", layerNames(o.Layers))
	fault(o.PerKey && o.Candidates > 1, "several candidates and a model for every key are asked for: ask for one of them")
	fault(o.PerKey && o.Resume != "" && o.Resume != Newest, "a run with a model for every key leaves no checkpoint that another could go on from: leave resume %s out", o.Resume)
	fault(o.MaxKeys < 1 || o.MaxKeys > MostKeys, "max keys is %d; 1 to %d", o.MaxKeys, MostKeys)
}

// Candidate is one of several networks that were trained for one model, and what became of it.
type Candidate struct {
	Varies         string  `json:"varies"` // what sets it apart: "seed 3", "rate 0.006", "layers 36,4,36"
	ValidationLoss float64 `json:"validation_loss"`
	Criterion      float64 `json:"criterion"` // what it was judged by: see Candidates.Criterion
	Steps          int     `json:"steps"`
	Seconds        float64 `json:"seconds"` // until it had stopped, beside the others
	Fault          string  `json:"fault,omitempty"`
	Chosen         bool    `json:"chosen,omitempty"`
}

// Candidates are those of a run.
type Candidates struct {
	Vary      string      `json:"vary"`
	Criterion string      `json:"criterion"`     // ByValidationLoss, ByLabels or ByInjected
	Why       string      `json:"why,omitempty"` // not by labels
	Tried     []Candidate `json:"tried"`
}

// Chosen is the one that was taken.
func (c *Candidates) Chosen() *Candidate {
	return &c.Tried[slices.IndexFunc(c.Tried, func(k Candidate) bool { return k.Chosen })]
}

// Criterion says in words what a candidate is taken by.
func Criterion(name string) string {
	switch name {
	case ByLabels:
		return "highest average precision on labelled rows"
	case ByInjected:
		return "highest average precision on anomalies injected into the validation rows"
	}
	return "lowest validation loss"
}

// varied is a value of one variety. The first is the run's own.
type varied struct {
	name   string
	seed   uint64
	rate   float64
	layers []int
}

// varieties are the candidates to train: as many as are asked for, or as there are different ones. n is the number of columns that vary.
func (j *job) varieties(layers []int, n int) (all []varied) {
	v, _ := j.vocabulary()
	for i := range j.Candidates {
		k := varied{seed: j.Seed, rate: v.rate, layers: layers}
		switch j.Vary {
		case VarySeed:
			k.seed += uint64(i)
			k.name = "seed " + strconv.FormatUint(k.seed, 10)
		case VaryRate:
			k.rate *= rateFactors[i]
			k.name = "rate " + strconv.FormatFloat(k.rate, 'g', 4, 64)
		case VaryWidth:
			k.layers = widened(layers, widthFactors[i], n)
			k.name = "layers " + layerNames(k.layers)
		}
		if !slices.ContainsFunc(all, func(other varied) bool { return other.name == k.name }) {
			all = append(all, k)
		}
	}
	return all
}

// widened are chosen layers (h, code, h) by a factor. The code stays narrower than both neighbours and the row.
func widened(layers []int, by float64, n int) []int {
	times := func(w int) int { return int(math.Round(by * float64(w))) }
	h := min(max(times(layers[0]), 2), kernels.MaxWidth)
	return []int{h, max(min(times(layers[1]), n-1, h-1), 1), h}
}

const (
	// networkCopies of the weights is what a network takes while it learns: itself, its best so far, two moments, and a gradient of
	// up to 16 parts.
	networkCopies = 24
	// usualNetworks is how much of that is none of max_memory's.
	usualNetworks = 16 << 20
	// networksShare is the part of max_memory (1/networksShare) that networks may take beside it.
	networksShare = 4
)

// together is how many candidates may learn at once, and how many bytes of max_memory those take. The others follow when these have
// finished: the result does not depend on it.
func (j *job) together(width int) (networks int, bytes int64) {
	each := j.networkBytes(width)
	networks = int(min(max((usualNetworks+j.MaxMemory/networksShare)/max(each, 1), 1), int64(j.Candidates)))
	if j.Candidates == 1 {
		return 1, 0
	}
	return networks, max(int64(networks)*each-usualNetworks, 0)
}

// networkBytes is what a network takes while it learns, at most.
func (j *job) networkBytes(width int) int64 {
	layers := j.Layers
	if layers == nil { // as wide as narrow makes them, at most
		h := min(max(2*width, 16), 64)
		if j.Vary == VaryWidth {
			h *= int(slices.Max(widthFactors))
		}
		layers = []int{h, h, h}
	}
	return networkCopies * weightBytes(append(append([]int{width}, layers...), width))
}

// competitor is a candidate with its network.
type competitor struct {
	Candidate
	varied
	program *kernels.Program
	state   descentState
}

// compete trains the candidates and leaves the best of them in f.
//
// All of them learn from the same minibatches, and share what came before: sample, maps, trimming, prototypes. So the history is read
// once for all, and a candidate differs from a run with its seed in that the sample was drawn with the run's.
func (j *job) compete(ctx context.Context, h *history, c *columns, f *fitted, report *Report, l *lesson, raw []float32) error {
	varying := 0
	for _, constant := range c.constant {
		if !constant {
			varying++
		}
	}
	r := &Candidates{Vary: j.Vary, Criterion: ByValidationLoss}
	var court *trial
	if j.Vary == VaryWidth {
		var err error
		if court, err = j.newTrial(ctx, h, c, f, l.held); err != nil {
			return err
		}
		r.Criterion, r.Why = court.criterion, court.why
	}
	all := j.varieties(f.layers, varying)
	for _, v := range all {
		r.Tried = append(r.Tried, Candidate{Varies: v.name})
	}
	if len(all) < j.Candidates {
		j.Log.Warn("fewer candidates than asked for differ", "asked", j.Candidates, "differ", len(all))
	}
	plan := j.newDescent(h, nil, l.train, l.held, l.batch)
	made := func(v varied) (*competitor, error) {
		k := &competitor{varied: v, Candidate: Candidate{Varies: v.name}}
		var err error
		if k.program, err = j.program(c.forward, c.constant, v.layers); err == nil {
			kernels.Initialise(k.program, v.seed)
		}
		return k, err
	}
	var best *competitor
	var from *standing
	at, samples, seconds := 0, 0., 0.
	if err := j.start(plan.total, report, h, l); err != nil {
		return err
	}
	if j.resumed != nil {
		from = j.resumed.Contest
		err := from.check(all, plan.total)
		if err == nil {
			best, err = from.best(all, made)
		}
		if err != nil {
			return j.misfit(err)
		}
		at = copy(r.Tried, from.Tried)
	}
	networks, _ := j.together(h.width)
	for at < len(all) {
		wave := all[at:min(at+networks, len(all))]
		if from != nil {
			wave = all[at : at+len(from.Networks)]
		}
		contest := &contest{job: j, plan: plan, all: r.Tried, first: at, best: best}
		for _, v := range wave {
			k, err := made(v)
			if err != nil {
				return err
			}
			contest.runners = append(contest.runners, k)
		}
		if err := contest.run(ctx, from); err != nil {
			return err
		}
		from = nil
		samples += contest.samples
		seconds += contest.seconds
		for _, k := range contest.runners {
			if k.Fault == "" {
				if err := adopt(k.program, k.state.BestWeights); err != nil {
					return err
				}
				if err := j.value(ctx, c, k, court, raw); err != nil {
					return err
				}
				if best == nil || better(r.Criterion, k.Criterion, best.Criterion) {
					best = k
				}
			}
			r.Tried[at] = k.Candidate
			at++
		}
	}
	if best == nil {
		return &InputError{
			What:  fmt.Sprintf("training diverged with every one of %d candidates: %s", len(all), r.Tried[0].Fault),
			Place: "topic " + j.Topic, Next: "lower the learning rate, or look for columns with extreme values (lapwing train --dry-run)", Kind: ErrDiverged,
		}
	}
	r.Tried[slices.IndexFunc(r.Tried, func(k Candidate) bool { return k.Varies == best.Varies })].Chosen = true
	f.candidates, f.program, f.layers = r, best.program, best.layers
	plan.descentState, plan.speed = best.state, samples/max(seconds, 1e-9)
	plan.result(f)
	return nil
}

// better: ties go to the earlier one, so that the result does not depend on waves.
func better(criterion string, a, b float64) bool {
	if criterion == ByValidationLoss {
		return a < b
	}
	return a > b
}

// value is what the candidate is judged by.
func (j *job) value(ctx context.Context, c *columns, k *competitor, court *trial, raw []float32) error {
	k.ValidationLoss = k.state.Lowest
	k.Criterion = k.ValidationLoss
	if court == nil || court.criterion == ByValidationLoss {
		return nil
	}
	whole := k.program.Clone()
	deafen(whole, c.constant)
	whole, err := j.whitened(ctx, whole, c, raw)
	if err != nil {
		return err
	}
	k.Criterion, err = court.precision(ctx, j, whole)
	return err
}

// settings of the lineage.
func (c *Candidates) settings(to map[string]string) {
	to["candidates"] = strconv.Itoa(len(c.Tried))
	to["vary"] = c.Vary
	to["criterion"] = c.Criterion
	to["candidate"] = c.Chosen().Varies
}

// metrics of the lineage: what the chosen one, and the next best, came to by the criterion.
func (c *Candidates) metrics(to map[string]float64) {
	var values []float64
	for _, k := range c.Tried {
		if k.Fault == "" {
			values = append(values, k.Criterion)
		}
	}
	slices.SortFunc(values, func(a, b float64) int {
		if c.Criterion == ByValidationLoss {
			return cmp.Compare(a, b)
		}
		return cmp.Compare(b, a)
	})
	to["criterion"], to["criterion_worst"] = values[0], values[len(values)-1]
	to["criterion_median"] = values[len(values)/2]
}
