//go:build e2e

package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/lapwing-stream/lapwing/stream"
)

// dataset is a file on its way through load, train and serve.
type dataset struct {
	path     string
	rows     []map[string]string // as the file has them, the label's column too; "" = no value
	rejected int                 // lines that are no row

	features, exclude         []string
	label, key, time          string
	shuffle                   bool
	number, category, dropped string // a numeric and a categorical feature to make a mess of; the columns that load drops
}

// manifest reads the public sets' manifest, or skips the test.
func manifest(t *testing.T) (dir string, sets map[string]setOf) {
	t.Helper()
	dir, err := filepath.Abs(cmp.Or(os.Getenv("LAPWING_DATA"), filepath.Join("..", "..", "..", "shared", "data"))) // commands run elsewhere
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Skipf("SKIPPED-DATA: %s: no manifest.json in $LAPWING_DATA (default ../shared/data)", t.Name())
	}
	var list []setOf
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	sets = map[string]setOf{}
	for _, s := range list {
		sets[s.File] = s
	}
	return dir, sets
}

// setOf is what the manifest says of a file.
type setOf struct {
	File     string   `json:"file"`
	Rows     int      `json:"rows"`
	Features []string `json:"features"`
	Label    string   `json:"label"`
	Exclude  []string `json:"exclude"`
	Time     string   `json:"time"`
	Key      string   `json:"key"`
	Order    string   `json:"order"`
}

// open reads a file of the manifest with the standard library's CSV reader.
func (s setOf) open(t *testing.T, dir string) *dataset {
	t.Helper()
	d := &dataset{path: filepath.Join(dir, s.File), features: s.Features, label: s.Label, key: s.Key, shuffle: !strings.HasPrefix(s.Order, "time")}
	file, err := os.Open(d.path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var r io.Reader = file
	if strings.HasSuffix(d.path, ".gz") {
		if r, err = gzip.NewReader(file); err != nil {
			t.Fatal(err)
		}
	}
	lines, err := csv.NewReader(r).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range lines[0] {
		if name == "" {
			lines[0][i] = fmt.Sprintf("column_%d", i+1)
		}
	}
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, name := range lines[0] {
			row[name] = line[i]
		}
		d.rows = append(d.rows, row)
	}
	if len(d.rows) != s.Rows {
		t.Fatalf("%s has %d rows; the manifest says %d", s.File, len(d.rows), s.Rows)
	}
	var dropped []string
	if s.Label != "" {
		dropped = append(dropped, s.Label)
	}
	for _, name := range s.Exclude {
		switch {
		case name == "(first column, no name)": // known by the name that load gives it
			d.exclude = append(d.exclude, "column_1")
		case name == s.Time: // a clock of another kind: seconds since the set's beginning
			d.exclude = append(d.exclude, name)
		default: // gives the label away
			dropped = append(dropped, name)
		}
	}
	if s.Time != "" && !slices.Contains(s.Exclude, s.Time) {
		d.time = s.Time
	}
	d.dropped = strings.Join(dropped, ",")
	return d
}

// load runs `lapwing load` and holds that the topic has every row of the file, digit for digit, and no label.
func (f *flow) load(d *dataset, topic string) {
	f.t.Helper()
	args := []string{"load", d.path, "--topic", topic, "--partitions", "3", "--json"}
	for flag, value := range map[string]string{"--drop": d.dropped, "--key": d.key, "--time": d.time} {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	if d.shuffle {
		args = append(args, "--shuffle", "1")
	}
	var done struct {
		Rows, Sent int
		Rejected   map[string]int
		Examples   map[string][]struct{ At string }
	}
	code := exitOK
	if d.rejected > 0 {
		code = exitFailed // the sound rows are sent all the same
	}
	f.runTo(code, &done, args...)
	rejected := 0
	for reason, n := range done.Rejected {
		rejected += n
		if x := done.Examples[reason]; len(x) == 0 || !strings.HasPrefix(x[0].At, d.path+":") {
			f.t.Errorf("%d rejected rows (%s) name no line: %v", n, reason, x)
		}
	}
	if rejected != d.rejected || done.Sent != len(d.rows) || done.Rows != len(d.rows)+d.rejected {
		f.t.Fatalf("load read %d rows, sent %d and rejected %d; want %d sent and %d rejected", done.Rows, done.Sent, rejected, len(d.rows), d.rejected)
	}
	want := map[string]int{}
	for _, row := range d.rows {
		want[d.content(row)]++
	}
	keyless := map[int32]int{}
	for p, records := range f.all(topic) {
		for _, r := range records {
			row := parse(f.t, r.Value)
			if d.key != "" && row[d.key] != string(r.Key) {
				f.t.Fatalf("%s/%d/%d has key %q: %s", topic, p, r.Offset, r.Key, r.Value)
			}
			if r.Key == nil {
				keyless[p]++
			}
			for _, name := range strings.Split(d.dropped, ",") {
				if _, there := row[name]; there {
					f.t.Fatalf("%s/%d/%d holds %s, which is dropped: %s", topic, p, r.Offset, name, r.Value)
				}
			}
			if d.time != "" {
				if seconds, _ := strconv.ParseInt(row[d.time], 10, 64); r.Timestamp.Unix() != seconds {
					f.t.Fatalf("%s/%d/%d has timestamp %v: %s", topic, p, r.Offset, r.Timestamp, r.Value)
				}
			}
			text := d.content(row)
			if want[text]--; want[text] < 0 {
				f.t.Fatalf("%s/%d/%d is no row of the file, or comes too often: %s", topic, p, r.Offset, r.Value)
			}
		}
	}
	for text, n := range want {
		if n > 0 {
			f.t.Fatalf("a row of the file is not in the topic: %s", text)
		}
	}
	for p := range int32(3) { // in turn
		if n := keyless[p]; d.key == "" && (n < len(d.rows)/3 || n > len(d.rows)/3+1) {
			f.t.Errorf("partition %d has %d of %d records", p, n, len(d.rows))
		}
	}
}

// content is a row as one text: names and values of all columns that are sent.
func (d *dataset) content(row map[string]string) string {
	dropped := strings.Split(d.dropped, ",")
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(row)) {
		if !slices.Contains(dropped, name) {
			fmt.Fprintf(&b, "%q=%q ", name, row[name])
		}
	}
	return b.String()
}

// parse reads a flat record: numbers as their digits, null as "".
func parse(t *testing.T, value []byte) map[string]string {
	t.Helper()
	var fields map[string]any
	dec := json.NewDecoder(bytes.NewReader(value))
	dec.UseNumber()
	if err := dec.Decode(&fields); err != nil {
		t.Fatalf("%v: %s", err, value)
	}
	row := map[string]string{}
	for name, v := range fields {
		if v == nil {
			v = ""
		}
		row[name] = fmt.Sprint(v)
	}
	return row
}

// The mess that every topic gets: what a record may be besides a sound one, and what has to become of it.
type poison struct {
	value func(d *dataset, sound map[string]json.RawMessage) []byte
	want  string // status of the score, reason of the dead letter, or "tombstone"
}

func with(name func(*dataset) string, text string) func(*dataset, map[string]json.RawMessage) []byte {
	return func(d *dataset, sound map[string]json.RawMessage) []byte {
		changed := maps.Clone(sound)
		if text == "" {
			delete(changed, name(d))
		} else {
			changed[name(d)] = json.RawMessage(text)
		}
		var b []byte // json.Marshal would refuse some of it
		for _, k := range slices.Sorted(maps.Keys(changed)) {
			b = append(fmt.Appendf(b, ",%q:", k), changed[k]...)
		}
		b[0] = '{'
		return append(b, '}')
	}
}

func bytesOf(s string) func(*dataset, map[string]json.RawMessage) []byte {
	return func(*dataset, map[string]json.RawMessage) []byte { return []byte(s) }
}

func aNumber(d *dataset) string   { return d.number }
func aCategory(d *dataset) string { return cmp.Or(d.category, "a_new_field") }

var poisons = []poison{
	{func(*dataset, map[string]json.RawMessage) []byte { return nil }, "tombstone"},
	{bytesOf(""), "empty_value"},
	{bytesOf("sensor offline"), "not_json"},
	{bytesOf("[1, 2, 3]"), "not_object"},
	{bytesOf("{}"), "no_features"},
	{bytesOf(`{"heartbeat": true}`), "no_features"},
	{bytesOf("\x00\x00\x00\x00\x11\x02\x06"), "confluent_avro"},
	{bytesOf("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"), "gzip"},
	{func(d *dataset, sound map[string]json.RawMessage) []byte {
		whole := with(aNumber, "1")(d, sound)
		return whole[:len(whole)-3]
	}, "not_json"},
	{with(aNumber, "NaN"), "not_json"},
	{with(aNumber, "007"), "not_json"},
	{with(aNumber, "1e39"), "not_finite"},
	{with(aNumber, `"Infinity"`), "not_finite"},
	{with(aNumber, "null"), "ok"},
	{with(aNumber, ""), "ok"},
	{with(aNumber, `"NaN"`), "ok"},
	{with(aNumber, `"broken"`), "ok"},
	{with(aNumber, `[1]`), "ok"},
	{with(aNumber, `" 12.5 "`), "ok"},
	{with(aNumber, "3e38"), "ok"},
	{with(aNumber, "-1e-45"), "ok"},
	{with(aCategory, `"never seen"`), "ok"},
	{with(aCategory, "7.0"), "ok"},
	{func(d *dataset, _ map[string]json.RawMessage) []byte { return fmt.Appendf(nil, `{"%s":5}`, d.number) }, "partial"},
	{func(*dataset, map[string]json.RawMessage) []byte { return nil }, "tombstone"},
}

// mess writes the poisons over a topic's partitions, a sound record last in each so that one knows when all are read.
// It gives what has to become of each; "" = a sound record's end.
func (f *flow) mess(d *dataset, topic string) map[place]string {
	f.t.Helper()
	var sound map[string]json.RawMessage
	var value []byte
	for _, records := range f.all(topic) {
		value = records[0].Value
	}
	if err := json.Unmarshal(value, &sound); err != nil {
		f.t.Fatal(err)
	}
	var records []*kgo.Record
	for i, p := range poisons {
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(i % 3), Key: fmt.Appendf(nil, "k\xff%d", i%5), Value: p.value(d, sound)})
	}
	for p := range int32(3) {
		records = append(records, &kgo.Record{Topic: topic, Partition: p, Value: value})
	}
	f.produce(records...)
	want := map[place]string{}
	for i, r := range records {
		want[place{r.Partition, r.Offset}] = "ok"
		if i < len(poisons) {
			want[place{r.Partition, r.Offset}] = poisons[i].want
		}
	}
	return want
}

// trained is what `lapwing train --json` ends with.
type trained struct {
	Version int
	Rows    struct {
		Read, Used int64
		LeftOut    map[string]int64 `json:"left_out"`
	}
	Threshold float64
	Spec      struct{ Fields []struct{ Name, Type string } }
}

// wholeWay loads both files (one topic where they are the same), trains on history, serves live, and holds that every record has its end
// and every score is ONNX Runtime's. It gives the area under the ROC curve of the scores of live's rows.
func (f *flow) wholeWay(history, live *dataset, model string, flags ...string) (auc float64) {
	f.t.Helper()
	past, topic := "live"+f.suffix, "live"+f.suffix
	f.load(live, topic)
	if history != live {
		past = "history" + f.suffix
		f.load(history, past)
	}
	was := f.mess(history, past)
	var made trained
	args := append([]string{"train", "--topic", past, "--model", model, "--json"}, flags...)
	for flag, value := range map[string]string{"--key": live.key, "--time": live.time, "--exclude": strings.Join(live.exclude, ",")} {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	f.run(&made, args...)
	var leftOut int64
	for _, n := range made.Rows.LeftOut {
		leftOut += n
	}
	unusable := int64(0)
	for _, w := range was {
		if w != "ok" && w != "partial" {
			unusable++
		}
	}
	if all := int64(len(history.rows) + len(was)); made.Rows.Read != all || made.Rows.Used+leftOut != all || leftOut != unusable {
		f.t.Errorf("trained on %d of %d records, %d left out (%v); want %d and %d left out", made.Rows.Used, made.Rows.Read, leftOut, made.Rows.LeftOut, all, unusable)
	}
	for _, field := range made.Spec.Fields {
		if !slices.Contains(live.features, field.Name) {
			f.t.Errorf("%s became a feature", field.Name)
		}
	}

	s := f.serve("--topic", topic, "--model", model)
	if past != topic {
		was = map[place]string{}
	}
	maps.Copy(was, f.mess(live, topic)) // while it runs
	tombstones := 0
	for _, w := range was {
		if w == "tombstone" {
			tombstones++
		}
	}
	f.await(topic, len(live.rows)+len(was)-tombstones)
	said := s.stop().Streams[0]

	a := f.audit(topic, model)
	if a.records != len(live.rows)+len(was) || a.tombstones != tombstones || len(a.scores)+len(a.dead)+a.tombstones != a.records {
		f.t.Errorf("%d records: %d scores, %d dead letters, %d tombstones; want %d records and %d tombstones", a.records, len(a.scores), len(a.dead),
			a.tombstones, len(live.rows)+len(was), tombstones)
	}
	if said.RecordsIn != int64(a.records) || said.RecordsOut != int64(len(a.scores)) || said.Bad != int64(len(a.dead)) || said.Tombstones != int64(tombstones) || said.Restarts != 0 {
		f.t.Errorf("serve says %+v; counted: %d records, %d scores, %d dead letters, %d tombstones", said, a.records, len(a.scores), len(a.dead), tombstones)
	}
	if a.byVersion[made.Version] != len(a.scores) {
		f.t.Errorf("scores by version %v, want all by %d", a.byVersion, made.Version)
	}
	for at, want := range was {
		got := a.dead[at]
		if s, ok := a.scores[at]; ok {
			got = s.Status
			if (s.Score == nil) != (want == "not_finite") || s.Score == nil && !s.Anomaly {
				f.t.Errorf("record %v: score %v, anomaly %v; status %s", at, s.Score, s.Anomaly, s.Status)
			}
		}
		if want != "tombstone" && got != want {
			f.t.Errorf("record %v became %q, want %q", at, got, want)
		}
	}
	f.agree(a, made.Threshold, model)
	f.t.Logf("%d records: %d scores, %d dead letters %v, %d tombstones", a.records, len(a.scores), len(a.dead), said.BadBy, a.tombstones)
	return live.auc(f.t, a, was)
}

// auc is the area under the ROC curve of the rows' scores, NaN without a label. Rows are told by their content: where two are
// the same in all but the label, so are their scores, and it does not matter which is which.
func (d *dataset) auc(t *testing.T, a *audit, mess map[place]string) float64 {
	if d.label == "" {
		return math.NaN()
	}
	labels := map[string][]bool{}
	for _, row := range d.rows {
		text := d.content(row)
		labels[text] = append(labels[text], row[d.label] == "1")
	}
	type judged struct {
		score    float64
		positive bool
	}
	var all []judged
	for at, s := range a.scores {
		if _, made := mess[at]; made {
			continue
		}
		text := d.content(parse(t, a.in[at.partition][at.offset].Value))
		if s.Score == nil {
			t.Fatalf("row %v has no score", at)
		}
		all = append(all, judged{*s.Score, labels[text][0]})
		labels[text] = labels[text][1:]
	}
	slices.SortFunc(all, func(x, y judged) int { return cmp.Compare(x.score, y.score) })
	var wins, below float64 // pairs won by the positive, ties half; negatives so far
	for i := 0; i < len(all); {
		var pos, neg float64
		k := i
		for ; k < len(all) && all[k].score == all[i].score; k++ {
			if all[k].positive {
				pos++
			} else {
				neg++
			}
		}
		wins += pos * (below + neg/2)
		below += neg
		i = k
	}
	return wins / (below * (float64(len(all)) - below))
}

func embedded(t *testing.T) *flow {
	t.Helper()
	broker, err := stream.Embed(stream.EmbeddedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Close() })
	return newFlow(t, broker.Addr())
}

// Public sets as they are: from file to scores, each record with one end, each score ONNX Runtime's.
func TestRealInput(t *testing.T) {
	for _, c := range []struct {
		name, history, live string
		number, category    string
		auc                 float64 // at least, far below what is usual; 0: no label
	}{
		{"car-sensors", "", "car-sensors/car-sensor-data.csv", "coolant_temp", "", 0},
		{"cardio", "", "adbench/cardio.csv.gz", "f1", "", .7},
		{"shuttle", "", "adbench/shuttle.csv.gz", "f1", "", .7},
		{"creditcard", "", "creditcard/creditcard_sample.csv", "V1", "", .6},
		{"nsl-kdd", "nsl-kdd/train20.csv.gz", "nsl-kdd/test.csv.gz", "src_bytes", "service", .7},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, sets := manifest(t)
			live := sets[c.live].open(t, dir)
			live.number, live.category = c.number, c.category
			history := live
			if c.history != "" {
				history = sets[c.history].open(t, dir)
				history.number, history.category = c.number, c.category
			}
			auc := embedded(t).wholeWay(history, live, c.name)
			if c.auc > 0 {
				t.Logf("area under the ROC curve %.3f", auc)
			}
			if !(c.auc == 0 || auc >= c.auc) {
				t.Errorf("area under the ROC curve %.3f, want at least %.2f", auc, c.auc)
			}
		})
	}
}

// generatedMess is a file with what real ones have: a mark, semicolons, a column without a name, CRLF, gaps, words for
// missing, text among numbers, ragged lines, a constant, several gzip members.
func generatedMess(t *testing.T) *dataset {
	t.Helper()
	d := &dataset{
		path: filepath.Join(t.TempDir(), "mess.csv.gz"), features: []string{"temp", "flow", "bytes", "open", "mode"},
		label: "label", dropped: "label", key: "machine", time: "when", number: "temp", category: "mode",
	}
	header := []string{"column_1", "when", "machine", "mode", "temp", "flow", "bytes", "open", "firmware", "note", "label"}
	r := rand.New(rand.NewPCG(41, 41))
	var members [2]bytes.Buffer
	text := &members[0]
	text.WriteString("\ufeff\"\";\"when\";\"machine\";\"mode\";\"temp\";\"flow\";\"bytes\";\"open\";\"firmware\";\"note\";\"label\"\r\n")
	for i := range 3000 {
		if i == 1500 {
			text = &members[1]
		}
		load := r.Float64()
		temp, label := fmt.Sprintf("%.3f", 60+20*load+.3*r.NormFloat64()), "0"
		flow := fmt.Sprintf("%.3f", 5-3*load+.05*r.NormFloat64())
		switch {
		case i%97 == 5:
			temp = []string{"", "NaN", "null", "N/A", "sensor offline"}[i%5]
		case i%100 == 50:
			flow, label = fmt.Sprintf("%.3f", 2+3*load), "1"
		}
		cells := []string{strconv.Itoa(i), strconv.Itoa(1_750_000_000 + i), fmt.Sprintf("m%d", i%7), []string{"run", "idle", "RUN"}[i%3], temp, flow,
			strconv.FormatInt(int64(math.Exp(5+2*r.NormFloat64())), 10), strconv.FormatBool(i%2 == 0), "2000", fmt.Sprintf("some; words, number %d", i), label}
		line := slices.Clone(cells)
		line[9] = `"` + line[9] + `"`
		switch i % 300 {
		case 123:
			line = append(line, "surplus")
		case 223:
			line = line[:7]
		}
		text.WriteString(strings.Join(line, ";") + "\r\n")
		if len(line) != len(header) {
			d.rejected++
			continue
		}
		row := map[string]string{}
		for k, name := range header {
			row[name] = cells[k]
		}
		d.rows = append(d.rows, row)
	}
	var file bytes.Buffer
	for i := range members {
		z := gzip.NewWriter(&file)
		z.Header.ModTime = time.Unix(1_750_000_000, 0)
		z.Write(members[i].Bytes())
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(d.path, file.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return d
}

// relationAlone is what docs/train.md advises where a fault breaks a relation of few columns among many unrelated ones,
// as those of generatedMess do, within all usual ranges.
var relationAlone = []string{"--detector", "autoencoder", "--trim", "0"}

// A generated file with the same mess goes the same way where no public set is at hand. The default detector ranks its
// faults less well than an autoencoder alone (measured: .73 and .89), as docs/train.md says; both bounds hold that page.
func TestGeneratedInput(t *testing.T) {
	d := generatedMess(t)
	for _, c := range []struct {
		name  string
		flags []string
		least float64
	}{{"relation alone", relationAlone, .8}, {"default", nil, .68}} {
		t.Run(c.name, func(t *testing.T) {
			if auc := embedded(t).wholeWay(d, d, "mess", c.flags...); !(auc >= c.least) {
				t.Errorf("area under the ROC curve %.3f, want at least %v", auc, c.least)
			} else {
				t.Logf("area under the ROC curve %.3f", auc)
			}
		})
	}
}
