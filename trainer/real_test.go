package trainer

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/stream"
)

// dataset is what the manifest says about a file, as far as it matters here.
type dataset struct {
	File     string   `json:"file"`
	Rows     int      `json:"rows"`
	Features []string `json:"features"`
	Label    string   `json:"label"`
	Exclude  []string `json:"exclude"`
	Time     string   `json:"time"`
	Key      string   `json:"key"`
	Order    string   `json:"order"`
}

// dataFolder is $LAPWING_DATA, else the folder beside the repository.
func dataFolder(t *testing.T) (string, []dataset) {
	t.Helper()
	dir := os.Getenv("LAPWING_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "data")
	}
	raw, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Skipf("SKIPPED-DATA: %s: no manifest.json in %s", t.Name(), dir)
	}
	var sets []dataset
	if err := json.Unmarshal(raw, &sets); err != nil {
		t.Fatal(err)
	}
	return dir, sets
}

// load reads a file as the load command does, and returns its records and the number of rejected rows.
func load(t *testing.T, path string, o events.FileOptions) (records []stream.Record, rejected int) {
	t.Helper()
	f, err := events.OpenFile(path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		e, err := f.Next()
		var row *events.RowError
		switch {
		case errors.Is(err, io.EOF):
			return records, rejected
		case errors.As(err, &row):
			rejected++
			continue
		case err != nil:
			t.Fatal(err)
		}
		rec := stream.Record{Partition: int32(len(records) % 3), Key: e.Key, Value: e.Value, Time: start + int64(len(records))*1000}
		if e.Time != events.NoTime {
			rec.Time = e.Time
		}
		records = append(records, rec)
	}
}

func TestRealSets(t *testing.T) {
	dir, sets := dataFolder(t)
	for _, c := range []struct {
		file string
		rows int     // at most
		auc  float64 // at least; 0: no label
	}{
		{"car-sensors/car-sensor-data.csv", 10_000, 0},
		{"adbench/breastw.csv", 1000, .9},
		{"adbench/cardio.csv.gz", 2000, .75},
		{"adbench/shuttle.csv.gz", 4000, .95},
	} {
		t.Run(filepath.Base(c.file), func(t *testing.T) {
			at := slices.IndexFunc(sets, func(d dataset) bool { return d.File == c.file })
			if at < 0 {
				t.Fatalf("%s is not in the manifest", c.file)
			}
			d := sets[at]
			b := newBench(t)
			records, rejected := load(t, filepath.Join(dir, d.File), events.FileOptions{Key: d.Key, Time: d.Time})
			if len(records) != d.Rows || rejected > 0 {
				t.Fatalf("%d rows, %d rejected; the manifest says %d", len(records), rejected, d.Rows)
			}
			if !strings.HasPrefix(d.Order, "time") {
				rand.New(rand.NewPCG(1, 1)).Shuffle(len(records), func(i, k int) { records[i].Value, records[k].Value = records[k].Value, records[i].Value })
			}
			records = records[:min(len(records), c.rows)]
			b.topic("t", 3, records...)
			o := Defaults()
			o.Topic, o.Model, o.Key, o.Time, o.Label, o.Exclude, o.Threads = "t", "m", d.Key, d.Time, d.Label, d.Exclude, 2
			if race {
				o.Epochs, c.auc = 3, 0 // the detector makes fits ten times slower; what they are worth is seen without it
			}
			r := b.mustRun(o)
			if r.Rows.Used != int64(len(records)) {
				t.Errorf("rows %+v of %d", r.Rows, len(records))
			}
			for _, f := range r.Spec.Fields {
				if !slices.Contains(d.Features, f.Name) {
					t.Errorf("%s became a feature", f.Name)
				}
			}
			if j := r.Judgement; c.auc > 0 && !(j.AUC >= c.auc) {
				t.Errorf("AUC %.3f, want at least %.2f", j.AUC, c.auc)
			} else if j != nil {
				t.Logf("AUC %.3f, AP %.3f", j.AUC, j.AveragePrecision)
			}
			if r.Above > r.Rows.Used/100 || math.IsNaN(r.Threshold) {
				t.Errorf("%d of %d rows above the threshold %v", r.Above, r.Rows.Used, r.Threshold)
			}
			verify(t, b, r)
		})
	}
}

// verify checks the published bytes: they decode, reproduce their self-test, and every row of it scores finite.
func verify(t *testing.T, b *bench, r *Report) {
	t.Helper()
	m, err := model.Decode(r.Data)
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.deps.Engine.Scorer(m.Program)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Verify(s, true); err != nil {
		t.Error(err)
	}
	for _, row := range m.SelfTest.Rows {
		score, parts := make([]float32, 1), make([]float32, len(row))
		if err := s.Score(row, kernels.Output{Score: score, Contributions: parts}); err != nil {
			t.Fatal(err)
		}
		var sum float64
		for _, p := range parts {
			sum += float64(p)
		}
		if !(score[0] >= 0) || math.Abs(sum-float64(score[0])) > 1e-3*max(1, float64(score[0])) {
			t.Errorf("score %v, contributions add up to %v", score[0], sum)
		}
	}
}

// The mess of real files in one generated set, for machines without the data folder: BOM, quoted header, CRLF, an
// index column, text, flags, words for missing, a constant, a heavy tail, ragged rows, gzip.
func TestGeneratedMess(t *testing.T) {
	r := rand.New(rand.NewPCG(31, 31))
	var csv strings.Builder
	csv.WriteString("\ufeff\"row\",\"when\",\"machine\",\"mode\",\"temp\",\"flow\",\"bytes\",\"open\",\"firmware\",\"note\",\"label\"\r\n")
	const rows = 3000
	ragged := 0
	for i := range rows {
		load := r.Float64()
		temp, label := fmt.Sprintf("%.3f", 60+20*load+.3*r.NormFloat64()), 0
		flow := fmt.Sprintf("%.3f", 5-3*load+.05*r.NormFloat64())
		switch {
		case i%97 == 5:
			temp = []string{"", "NaN", "null", "N/A"}[i%4]
		case i%500 == 250:
			flow, label = fmt.Sprintf("%.3f", 9+3*load), 1
		}
		fmt.Fprintf(&csv, "%d,%d,m%d,%s,%s,%s,%.0f,%v,2000,\"some words, number %d\",%d", i, 1_750_000_000+i, i%7,
			[]string{"run", "idle", "RUN"}[i%3], temp, flow, math.Exp(5+2*r.NormFloat64()), i%2 == 0, i, label)
		if i%300 == 123 {
			csv.WriteString(",surplus")
			ragged++
		}
		csv.WriteString("\r\n")
	}
	path := filepath.Join(t.TempDir(), "mess.csv.gz")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	if _, err := io.WriteString(z, csv.String()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}

	b := newBench(t)
	records, rejected := load(t, path, events.FileOptions{Key: "machine", Time: "when"})
	if rejected != ragged || len(records) != rows-ragged {
		t.Fatalf("%d rows, %d rejected; want %d and %d", len(records), rejected, rows-ragged, ragged)
	}
	b.topic("t", 3, records...)
	o := Defaults()
	o.Topic, o.Model, o.Key, o.Time, o.Label, o.Threads, o.Epochs = "t", "m", "machine", "when", "label", 2, 15
	rep := b.mustRun(o)
	if rep.Rows.Used != rows-int64(ragged) || len(rep.TimeProblems) > 0 {
		t.Errorf("rows %+v, times %v", rep.Rows, rep.TimeProblems)
	}
	features := map[string]model.Field{}
	for _, f := range rep.Spec.Fields {
		features[f.Name] = f
	}
	for _, want := range []string{"temp", "flow", "bytes", "open", "mode"} {
		if _, ok := features[want]; !ok {
			t.Errorf("%s is no feature: %+v", want, rep.Notes)
		}
	}
	for _, f := range []string{"row", "when", "machine", "firmware", "note", "label"} {
		if _, ok := features[f]; ok {
			t.Errorf("%s became a feature", f)
		}
	}
	if j := rep.Judgement; j == nil || j.AUC < .8 {
		t.Errorf("judgement %+v", j)
	}
	verify(t, b, rep)
}
