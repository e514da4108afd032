package bench

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s differs (-want +got); -update writes it:\n%s", name, d)
	}
}

// No figure in the results of docs/benchmarks.md is typed by hand: they are those of the run in results.json.
func TestBenchmarksPage(t *testing.T) {
	name := filepath.Join("..", "docs", "benchmarks.md")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), "<!-- tables of bench/results.json -->\n")
	_, tail, closed := strings.Cut(rest, "<!-- end -->\n")
	if !ok || !closed {
		t.Fatal("docs/benchmarks.md has no place for the results")
	}
	var out bytes.Buffer
	out.WriteString(head + "<!-- tables of bench/results.json -->\n\n")
	raw, err := os.ReadFile("results.json")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		out.WriteString("No run is recorded yet.\n")
	case err != nil:
		t.Fatal(err)
	default:
		r, err := ReadReport(raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Markdown(&out); err != nil {
			t.Fatal(err)
		}
	}
	out.WriteString("\n<!-- end -->\n" + tail)
	golden(t, name, out.Bytes())
}

// fixed is a report with all that a row can be: ratios won and lost, a limit, noise, a missing peer, cases over batches.
func fixed() *Report {
	share := .07
	row := func(suite, kase, subject, role, metric, unit string, v float64) Row {
		return Row{Suite: suite, Case: kase, Subject: subject, Role: role, Metric: metric, Unit: unit, Value: v, Spread: [2]float64{v * .95, v * 1.05}, Samples: []float64{v * .95, v, v, v * 1.05}}
	}
	r := &Report{Machine: "a CPU, AVX2+FMA, 2 cores", Versions: map[string]string{"onnxruntime": "1.32.0"}, Lapwing: "v1", When: "2026-01-02T03:04:05Z", Seconds: 61, Command: "lapwing bench score"}
	for i, batch := range []float64{1, 16, 256} {
		of := func(subject, role string, v float64) Row {
			x := row("score", "net, batch", subject, role, "rows/s", "1/s", v)
			x.Case, x.Group, x.X, x.XName = "net, batch "+figure(batch), "net", batch, "batch"
			return x
		}
		us := of(Ours, Ours, 1e6*batch)
		us.Ratio = map[string]float64{"onnxruntime": 8 - 3.6*float64(i), "FMA peak": .5}
		them := of("onnxruntime", Peer, us.Value/us.Ratio["onnxruntime"])
		if i == 2 {
			them.Noisy, them.Others = "others took 7 % of a core", &share
		}
		r.Rows = append(r.Rows, us, them, Row{Suite: "score", Case: us.Case, Group: "net", X: batch, XName: "batch", Subject: "torch", Role: Peer, Metric: "rows/s", Unit: "1/s", Error: "not installed: lapwing bench --install-peers"}, of("FMA peak", Limit, 2e6*batch))
	}
	a, b := row("stream", "JSON", Ours, Ours, "records/s", "1/s", 4e5), row("stream", "JSON", Ours, Ours, "CPU", "s", 2)
	b.Lower, a.Ratio, b.Ratio = true, map[string]float64{"a <peer>": 4}, map[string]float64{"a <peer>": 1.25}
	c, d := row("stream", "JSON", "a <peer>", Peer, "records/s", "1/s", 1e5), row("stream", "JSON", "a <peer>", Peer, "CPU", "s", 1.6)
	d.Lower = true
	r.Rows = append(r.Rows, a, b, c, d, Row{Suite: "stream", Case: "JSON", Subject: "Kafka Streams", Role: Peer, Metric: "records/s", Unit: "1/s", Error: "java is missing: install a Java 17 runtime"})
	r.Targets = []Target{{Name: "score", Target: 5, Value: 8, Unit: "×", OK: true}, {Name: "CPU", Target: 1, Value: 1.25, Unit: "×", AtMost: true, Noisy: true}, {Name: "latency", Target: 1, Unit: "×", Error: "Kafka Streams: not measured"}}
	r.Notes = []string{"memory: left out"}
	return r
}

func TestReportPages(t *testing.T) {
	var text, html, markdown bytes.Buffer
	r := fixed()
	if err := errors.Join(r.Write(&text, Style{}), r.HTML(&html), r.Markdown(&markdown)); err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("testdata", "report.txt"), text.Bytes())
	golden(t, filepath.Join("testdata", "report.html"), html.Bytes())
	golden(t, filepath.Join("testdata", "report.md"), markdown.Bytes())
	if strings.Contains(html.String(), "<peer>") || strings.Contains(html.String(), "<script") || strings.Contains(html.String(), "http") {
		t.Error("the page has what is not escaped, a script or an address")
	}
}

func TestCompareReports(t *testing.T) {
	of := func(lower bool, v ...float64) *Report {
		return &Report{Machine: "m", Rows: []Row{{Suite: "s", Case: "k", Subject: "x", Metric: "f", Lower: lower, Value: median(v), Samples: v}}}
	}
	low, same, high := []float64{10, 11, 10.5, 10.2, 10.7}, []float64{10.1, 10.9, 10.4, 10.3, 10.6}, []float64{20, 21, 20.5, 20.2, 20.7}
	for _, c := range []struct {
		a, b *Report
		want string
	}{
		{of(false, low...), of(false, high...), "better"}, {of(true, low...), of(true, high...), "worse"}, {of(true, high...), of(true, low...), "better"},
		{of(false, low...), of(false, same...), "~"}, {of(false, low[:3]...), of(false, high...), "too few rounds"},
		{of(false, low...), &Report{Rows: []Row{{Suite: "s", Case: "k", Subject: "x", Metric: "f", Error: "gone"}}}, "no figure in the second"},
		{of(false, low...), &Report{Rows: []Row{}}, "only in the first"},
	} {
		got := Compare(c.a, c.b)
		if len(got) != 1 || got[0].Verdict != c.want {
			t.Errorf("%+v, want %s", got, c.want)
		}
		var out strings.Builder
		if err := WriteComparison(&out, c.a, c.b, Style{}); err != nil || !strings.Contains(out.String(), c.want) {
			t.Errorf("%v: %s", err, out.String())
		}
	}
	if got := Compare(&Report{}, of(false, low...)); len(got) != 1 || got[0].Verdict != "only in the second" {
		t.Errorf("%+v", got)
	}
	if _, err := ReadReport([]byte(`{"hello": 1}`)); err == nil {
		t.Error("what is no report is read")
	}
}

// What cannot be installed says what to install; the rest comes all the same.
func TestInstallPeersFaults(t *testing.T) {
	err := InstallPeers(t.Context(), Installation{Folder: t.TempDir(), Names: []string{"python"}, Python: "no-such-python"})
	if err == nil || !strings.Contains(err.Error(), "install Python 3.10") {
		t.Error(err)
	}
	err = Installation{Names: []string{"triton"}}.Validate()
	if err == nil || !strings.Contains(err.Error(), "triton") || !strings.Contains(err.Error(), "no folder") {
		t.Error(err)
	}
}

// Smoke runs what compares results; a plain run leaves out what must be named.
func TestDefaultSuites(t *testing.T) {
	o := Options{Smoke: true}.WithDefaults()
	if strings.Join(o.Suites, " ") != "score decode train history stream" || o.Rounds != 1 {
		t.Errorf("%v", o.Suites)
	}
	o = Options{Sample: time.Second}.WithDefaults()
	if strings.Join(o.Suites, " ") != "limit score decode train history stream latency swap" || len(o.Suites) != len(Suites())-2 { // all but memory and gpu
		t.Errorf("%v", o.Suites)
	}
}
