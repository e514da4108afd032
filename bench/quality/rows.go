package quality

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/model"
)

// row is one line of a file as it goes into a topic: without its label and what gives it away.
type row struct {
	value, key []byte
	time       int64 // ms since 1970; events.NoTime = none
	anomalous  bool
}

// maxTrain is how many rows a model is fitted on at most, as in the experiments that the default recipe comes from.
const maxTrain = 20_000

// read gives the rows of a file and how many lines were none.
func (e *entry) read(dir string) (rows []row, rejected int, err error) {
	o := events.FileOptions{Format: "csv", Key: e.Key, Time: e.clock()}
	if e.Delimiter != "" {
		o.Delimiter = []rune(e.Delimiter)[0]
	}
	o.NoHeader = e.Header != nil && !*e.Header
	name := filepath.Join(dir, filepath.FromSlash(e.File))
	whole, err := events.OpenFile(name, o)
	if err != nil {
		return nil, 0, err
	}
	defer whole.Close()
	o.Drop = e.dropped()
	sent, err := events.OpenFile(name, o) // the same lines without the label
	if err != nil {
		return nil, 0, err
	}
	defer sent.Close()
	label, err := e.labels(dir)
	if err != nil {
		return nil, 0, err
	}
	for {
		with, err := whole.Next()
		without, err2 := sent.Next()
		var bad *events.RowError
		switch {
		case errors.Is(err, io.EOF) && errors.Is(err2, io.EOF):
			return rows, rejected, nil
		case errors.As(err, &bad) && errors.As(err2, &bad):
			rejected++
			continue
		case err != nil || err2 != nil:
			return nil, 0, errors.Join(err, err2)
		case with.Line != without.Line:
			return nil, 0, fmt.Errorf("%s: line %d without its label reads as line %d", name, with.Line, without.Line)
		}
		r := row{value: without.Value, key: without.Key, time: without.Time}
		if label != nil {
			var ok bool
			if r.anomalous, ok = label(&with); !ok {
				return nil, 0, &manifestError{"the row has no label", fmt.Sprintf("%s:%d", name, with.Line), "correct the row, or the manifest's label", nil}
			}
		}
		rows = append(rows, r)
	}
}

// labels gives how a row's label is found; nil for a file without labels.
func (e *entry) labels(dir string) (func(*events.Entry) (positive, ok bool), error) {
	if e.LabelWindows != "" {
		return windowLabels(filepath.Join(dir, filepath.FromSlash(e.LabelWindows)), e)
	}
	if e.Label == "" {
		return nil, nil
	}
	read, err := events.LabelReader(model.Spec{Format: "json"}, e.Label)
	if err != nil {
		return nil, err
	}
	return func(x *events.Entry) (positive, ok bool) { return read(x.Value) }, nil
}

// windowLabels reads a JSON object of lists of [from, to], by file; a row within one, both ends included, is anomalous.
func windowLabels(file string, e *entry) (func(*events.Entry) (positive, ok bool), error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all map[string][][2]string
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, &manifestError{"label windows are no JSON: " + err.Error(), file, manifestNext, err}
	}
	base, err := filepath.Rel(filepath.Dir(e.LabelWindows), e.File)
	if err != nil {
		return nil, err
	}
	texts, ok := all[filepath.ToSlash(base)]
	if !ok {
		return nil, &manifestError{"no label windows for " + base, file, "add them, or an empty list", nil}
	}
	var windows [][2]int64
	for _, w := range texts {
		var at [2]int64
		for i, text := range w {
			t, err := time.Parse("2006-01-02 15:04:05", text)
			if err != nil {
				return nil, &manifestError{fmt.Sprintf("label window %q of %s is no time", text, base), file, "write it as 2006-01-02 15:04:05", err}
			}
			at[i] = t.UnixMilli()
		}
		windows = append(windows, at)
	}
	return func(x *events.Entry) (positive, ok bool) {
		for _, w := range windows {
			positive = positive || w[0] <= x.Time && x.Time <= w[1]
		}
		return positive, x.Time != events.NoTime
	}, nil
}

// split is what a model may see and what it is judged on.
type split struct {
	seed        uint64
	train, test []row
}

// truth tells which rows of the judged ones are anomalous.
func (s *split) truth() []bool {
	t := make([]bool, len(s.test))
	for i := range s.test {
		t[i] = s.test[i].anomalous
	}
	return t
}

// splits divides the rows. Rows in time order give one split: the rows set apart to train on, else the first 60 %,
// and what follows. Others are shuffled anew for each split. History is never cleaned by the labels.
func (s *set) splits(dir string, n int) (list []split, rows []row, rejected int, err error) {
	test, rejected, err := s.Test.read(dir)
	if err != nil {
		return nil, nil, 0, err
	}
	rows = test
	if s.Train != nil {
		train, more, err := s.Train.read(dir)
		if err != nil {
			return nil, nil, 0, err
		}
		rejected += more
		rows = append(append(make([]row, 0, len(train)+len(test)), train...), test...)
		if s.ordered() {
			return []split{{1, latest(train), test}}, rows, rejected, nil
		}
		for i := range n {
			list = append(list, split{uint64(i + 1), shuffled(train, i)[:min(len(train), maxTrain)], test})
		}
		return list, rows, rejected, nil
	}
	if s.ordered() {
		at := s.Test.first()
		if at <= 0 || at >= len(rows) {
			at = len(rows) * 6 / 10
		}
		return []split{{1, latest(rows[:at]), rows[at:]}}, rows, rejected, nil
	}
	at := len(rows) * 6 / 10
	for i := range n {
		all := shuffled(rows, i)
		list = append(list, split{uint64(i + 1), all[:min(at, maxTrain)], all[at:]})
	}
	return list, rows, rejected, nil
}

// latest are the last rows of a history that is too long: what comes next resembles them most.
func latest(rows []row) []row { return rows[max(0, len(rows)-maxTrain):] }

// shuffled gives the rows in the random order of split i.
func shuffled(rows []row, i int) []row {
	all := append([]row(nil), rows...)
	r := rand.New(rand.NewPCG(uint64(i+1), 0x7175616c)) // the second word only sets this use apart from others
	r.Shuffle(len(all), func(a, b int) { all[a], all[b] = all[b], all[a] })
	return all
}

func anomalies(rows []row) (n int) {
	for i := range rows {
		if rows[i].anomalous {
			n++
		}
	}
	return n
}
