package trainer

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/stream"
)

// checkpoint is all that a run needs to go on elsewhere: what it read, how it was asked to train, and how far it came. The
// history itself is not in it: it is read again, from the same offsets.
type checkpoint struct {
	Model    string                     `json:"model"`
	Cluster  string                     `json:"cluster"`
	Ranges   []stream.Range             `json:"ranges"`
	From     int64                      `json:"from"` // times that the ranges were found by, ms; -1 = open
	Until    int64                      `json:"until"`
	Settings map[string]json.RawMessage `json:"settings"` // those that change the result
	History  string                     `json:"history"`  // digest of what was made of the history
	Steps    int                        `json:"steps"`    // planned in a try
	State    descentState               `json:"-"`
	Contest  *standing                  `json:"-"` // of several networks, in place of State, which then has the step alone
}

// checkpointHead stands before the numbers: those of the state, or of each network of the contest and then of the best one before them.
type checkpointHead struct {
	checkpoint
	stateHead
	Contest *contestHead `json:"contest,omitempty"`
}

// stateHead is a descentState but for its numbers.
type stateHead struct {
	Try       int           `json:"try"`
	Rate      float64       `json:"rate"`
	Step      int           `json:"step"`
	Order     place         `json:"order"`
	Untrained wholeFloat    `json:"untrained"`
	Lowest    *float64      `json:"lowest,omitempty"` // absent: no evaluation yet
	Best      int           `json:"best"`
	Worse     int           `json:"worse"`
	Sum       float64       `json:"sum"`
	Summed    int           `json:"summed"`
	Curve     []model.Epoch `json:"curve"`
	Shapes    []int         `json:"shapes"`          // values of each slice of weights
	Moments   int           `json:"moments"`         // steps that the optimizer remembers; 0: it has no moments
	Ended     bool          `json:"ended,omitempty"` // there are no weights but the best
}

// contestHead is a standing but for its numbers.
type contestHead struct {
	First    int           `json:"first"`
	Step     int           `json:"step"`
	Order    place         `json:"order"`
	Networks []networkHead `json:"networks"`
	Tried    []Candidate   `json:"tried,omitempty"`
	Best     *bestHead     `json:"best,omitempty"`
}

type networkHead struct {
	stateHead
	On       bool    `json:"on"`
	Diverged string  `json:"diverged,omitempty"`
	At       int     `json:"diverged_at,omitempty"`
	Fault    string  `json:"fault,omitempty"`
	Seconds  float64 `json:"seconds"`
}

type bestHead struct {
	stateHead
	Number int `json:"number"`
}

const (
	checkpointMagic = "lapwing checkpoint 1\n"
	// maxCheckpointHead bounds what is read before anything of it is known: a spec of 10,000 fields takes a megabyte.
	maxCheckpointHead = 64 << 20
)

// wholeFloat is a number that may be infinite or none, which JSON has no words for.
type wholeFloat float64

func (e wholeFloat) MarshalText() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(e), 'g', -1, 64), nil
}

func (e *wholeFloat) UnmarshalText(text []byte) error {
	v, err := strconv.ParseFloat(string(text), 64)
	*e = wholeFloat(v)
	return err
}

func (s *descentState) head() stateHead {
	h := stateHead{
		Try: s.Try, Rate: s.Rate, Step: s.Step, Order: s.Order, Best: s.Best, Worse: s.Worse, Sum: s.Sum, Summed: s.Summed,
		Curve: s.Curve, Moments: s.Moments.Steps, Untrained: wholeFloat(s.Untrained), Ended: s.Weights == nil && s.BestWeights != nil,
	}
	if s.BestWeights != nil {
		h.Lowest = &s.Lowest
	}
	of := s.Weights
	if h.Ended {
		of = s.BestWeights
	}
	for _, w := range of {
		h.Shapes = append(h.Shapes, len(w))
	}
	return h
}

// appendTo appends weights, moments and best weights as float32, little-endian.
func (s *descentState) appendTo(out []byte) []byte {
	for _, of := range [][][]float32{s.Weights, s.Moments.First, s.Moments.Second, s.BestWeights} {
		for _, values := range of {
			for _, v := range values {
				out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
			}
		}
	}
	return out
}

// bytes is how many the state's numbers take, of so many that there are.
func (h *stateHead) bytes(most int) (int64, error) {
	sets := int64(1)
	if h.Ended {
		sets = 0
	}
	if h.Moments > 0 {
		sets += 2
	}
	if h.Lowest != nil {
		sets++
	}
	values := int64(0)
	for _, n := range h.Shapes {
		if n < 0 || n > most {
			return 0, fmt.Errorf("a slice of weights has %d values", n)
		}
		values += int64(n)
	}
	if h.Moments < 0 || values > int64(most) || h.Ended && h.Lowest == nil {
		return 0, fmt.Errorf("its head speaks of %d weights after %d steps", values, h.Moments)
	}
	return 4 * sets * values, nil
}

// state takes the numbers from the beginning of rest, which has as many as bytes says.
func (h *stateHead) state(rest *[]byte) descentState {
	take := func() [][]float32 {
		all := make([][]float32, len(h.Shapes))
		for i, n := range h.Shapes {
			all[i] = make([]float32, n)
			for k := range all[i] {
				all[i][k] = math.Float32frombits(binary.LittleEndian.Uint32((*rest)[4*k:]))
			}
			*rest = (*rest)[4*n:]
		}
		return all
	}
	s := descentState{
		Try: h.Try, Rate: h.Rate, Step: h.Step, Order: h.Order, Untrained: float64(h.Untrained), Lowest: math.Inf(1), Best: h.Best, Worse: h.Worse,
		Sum: h.Sum, Summed: h.Summed, Curve: h.Curve,
	}
	if !h.Ended && len(h.Shapes) > 0 {
		s.Weights = take()
	}
	if h.Moments > 0 {
		s.Moments = kernels.Moments{Steps: h.Moments, First: take(), Second: take()}
	}
	if h.Lowest != nil {
		s.Lowest, s.BestWeights = *h.Lowest, take()
	}
	return s
}

// encode writes magic, the head's length and JSON, then the numbers.
func (c *checkpoint) encode() ([]byte, error) {
	h := checkpointHead{checkpoint: *c, stateHead: c.State.head()}
	states := []*descentState{&c.State}
	if s := c.Contest; s != nil {
		h.Contest = &contestHead{First: s.First, Step: s.Step, Order: s.Order, Tried: s.Tried}
		for i := range s.Networks {
			n := &s.Networks[i]
			head := networkHead{stateHead: n.head(), On: n.On, Fault: n.Fault, Seconds: n.Seconds}
			if n.Diverged != nil {
				head.Diverged, head.At = n.Diverged.what, n.Diverged.step
			}
			h.Contest.Networks = append(h.Contest.Networks, head)
			states = append(states, &n.descentState)
		}
		if s.Best != nil {
			h.Contest.Best = &bestHead{s.Best.head(), s.BestNumber}
			states = append(states, s.Best)
		}
	}
	head, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	out := append([]byte(checkpointMagic), 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(out[len(checkpointMagic):], uint32(len(head)))
	out = append(out, head...)
	for _, s := range states {
		out = s.appendTo(out)
	}
	return out, nil
}

// decodeCheckpoint reads what encode wrote. Nothing is allocated that the data does not hold.
func decodeCheckpoint(data []byte) (*checkpoint, error) {
	rest, ours := bytes.CutPrefix(data, []byte(checkpointMagic))
	if !ours {
		if bytes.HasPrefix(data, []byte("lapwing checkpoint ")) {
			return nil, fmt.Errorf("it is of another version of Lapwing")
		}
		return nil, fmt.Errorf("it is no checkpoint of Lapwing")
	}
	if len(rest) < 4 {
		return nil, fmt.Errorf("it is cut off")
	}
	n := int64(binary.LittleEndian.Uint32(rest))
	rest = rest[4:]
	if n > maxCheckpointHead || n > int64(len(rest)) {
		return nil, fmt.Errorf("its head has %d bytes, of %d", n, len(rest))
	}
	var h checkpointHead
	if err := json.Unmarshal(rest[:n], &h); err != nil {
		return nil, fmt.Errorf("its head cannot be read: %w", err)
	}
	rest = rest[n:]
	heads := []*stateHead{&h.stateHead}
	if c := h.Contest; c != nil {
		for i := range c.Networks {
			heads = append(heads, &c.Networks[i].stateHead)
		}
		if c.Best != nil {
			heads = append(heads, &c.Best.stateHead)
		}
	}
	all := int64(0)
	for _, s := range heads {
		bytes, err := s.bytes(len(rest))
		if err != nil {
			return nil, err
		}
		all += bytes
	}
	if all != int64(len(rest)) {
		return nil, fmt.Errorf("it holds %d bytes of weights; its head speaks of %d", len(rest), all)
	}
	c := &h.checkpoint
	c.State = h.state(&rest)
	if from := h.Contest; from != nil {
		s := &standing{First: from.First, Step: from.Step, Order: from.Order, Tried: from.Tried}
		for i := range from.Networks {
			k := &from.Networks[i]
			n := networkStanding{descentState: k.state(&rest), On: k.On, Fault: k.Fault, Seconds: k.Seconds}
			if k.Diverged != "" {
				n.Diverged = &divergence{k.Diverged, k.At}
			}
			s.Networks = append(s.Networks, n)
		}
		if from.Best != nil {
			best := from.Best.state(&rest)
			s.Best, s.BestNumber = &best, from.Best.Number
		}
		c.Contest = s
	}
	return c, nil
}

// resultSettings are the options that change the result, by name, and the engine. An option is taken for one of them unless
// it stands here.
func (j *job) resultSettings() (map[string]json.RawMessage, error) {
	o := j.Options
	o.Model, o.Alias, o.By, o.KeepDir, o.SpillDir = "", "", "", "", ""
	o.MaxMemory, o.Threads, o.MinRows, o.MaxRejected, o.AllowLoss = 0, 0, 0, 0, 0
	o.Ranges, o.Checkpoint, o.Resume = nil, 0, ""
	o.PerKey, o.MaxKeys = false, 0 // of runs without checkpoints
	if o.Candidates == 1 {
		o.Candidates, o.Vary = 0, "" // as checkpoints of one network have had it from the beginning
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	var named map[string]json.RawMessage
	if err := json.Unmarshal(text, &named); err != nil {
		return nil, err
	}
	named["Engine"], err = json.Marshal(arithmetic(j.Engine))
	return named, err
}

// arithmetic names what the weights are computed by, down to the byte. An engine's levels train the same weights, on any processor and
// any device, but for the portable code, which adds in another order. What a level does change, the lineage, is that of the machine
// which ends the run.
func arithmetic(e kernels.Engine) string {
	if e.Level() == "portable" {
		return e.Name() + "/portable"
	}
	return e.Name()
}

// differences names the settings that are not those of the checkpoint.
func differences(here, there map[string]json.RawMessage) []string {
	var out []string
	short := func(v json.RawMessage) string {
		if v == nil {
			return "unknown"
		}
		if len(v) > 40 {
			return "another"
		}
		return string(v)
	}
	for name, v := range here {
		if !bytes.Equal(v, there[name]) {
			out = append(out, fmt.Sprintf("%s is %s, was %s", snake(name), short(v), short(there[name])))
		}
	}
	for name, v := range there {
		if _, known := here[name]; !known {
			out = append(out, fmt.Sprintf("%s is unknown, was %s", snake(name), short(v)))
		}
	}
	slices.Sort(out)
	return out
}

// snake spells BatchSize as the configuration does: batch_size.
func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if 'A' <= r && r <= 'Z' {
			if i > 0 {
				b.WriteByte('_')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}
