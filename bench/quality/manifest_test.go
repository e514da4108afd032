package quality

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/events"
)

// folder writes files below a new folder; those that end in .gz are compressed.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		body := []byte(text)
		if strings.HasSuffix(name, ".gz") {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			z.Write(body)
			z.Close()
			body = b.Bytes()
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const smallManifest = `[
 {"file": "tab/one.csv.gz", "set": "tab", "kind": "tabular", "rows": 10, "features": ["a", "b"], "label": "label", "order": "sorted by label"},
 {"file": "tab/two.csv", "set": "tab", "kind": "tabular", "delimiter": ";", "rows": 10, "features": ["a"], "label": "bad", "exclude": ["(first column, no name)", "Time"], "time": "Time", "order": "as published"},
 {"file": "pair/m-1.test.csv", "set": "pair", "split": "test", "features": ["a"], "label": "label", "order": "time"},
 {"file": "pair/m-1.train.csv.gz", "set": "pair", "split": "train", "features": ["a"], "label": null, "order": "time"},
 {"file": "kdd/train20.csv", "set": "kdd", "split": "train", "features": ["a"], "label": "label", "order": "as published (shuffled)"},
 {"file": "kdd/test.csv", "set": "kdd", "split": "test", "features": ["a"], "label": "label", "order": "as published (shuffled)"},
 {"file": "series/1.csv", "set": "series", "features": ["a"], "label": "label", "order": "time", "mark": {"fit": "first 4 rows, marked on the rest"}},
 {"file": "plain.csv", "set": "plain", "features": ["a"], "label": null, "order": "time"},
 {"file": "win/a/x.csv", "set": "win", "features": ["value"], "label": null, "label_windows": "win/windows.json", "time": "timestamp", "order": "time"}
]`

func lines(header string, n int, line func(i int) string) string {
	text := header + "\n"
	for i := range n {
		text += line(i) + "\n"
	}
	return text
}

func smallFolder(t *testing.T) string {
	return folder(t, map[string]string{
		"manifest.json":         smallManifest,
		"tab/one.csv.gz":        lines("a,b,label", 10, func(i int) string { return fmt.Sprintf("%d,%d.5,%d", i, i, i/8) }),
		"tab/two.csv":           lines(";a;Time;bad", 10, func(i int) string { return fmt.Sprintf("%d;%d;%d;%d.0", i, i, i, i%2) }),
		"pair/m-1.test.csv":     lines("a,label", 5, func(i int) string { return fmt.Sprintf("%d,%d", 100+i, i%2) }),
		"pair/m-1.train.csv.gz": lines("a", 7, func(i int) string { return fmt.Sprint(i) }),
		"kdd/train20.csv":       lines("a,label", 6, func(i int) string { return fmt.Sprintf("%d,0", i) }),
		"kdd/test.csv":          lines("a,label", 4, func(i int) string { return fmt.Sprintf("%d,1", 100+i) }),
		"series/1.csv":          lines("a,label", 10, func(i int) string { return fmt.Sprintf("%d,%d", i, i/8) }),
		"win/a/x.csv": "timestamp,value\n2014-01-01 00:00:00,1\n2014-01-01 00:05:00,2\n2014-01-01 00:10:00,3\n" +
			"2014-01-01 00:15:00,4\n2014-01-01 00:20:00,5\n",
		"win/windows.json": `{"a/x.csv": [["2014-01-01 00:05:00.000000", "2014-01-01 00:10:00.000000"]]}`,
	})
}

func TestReadManifest(t *testing.T) {
	dir := smallFolder(t)
	sets, unlabelled, err := readManifest(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range sets {
		name := s.Name
		if s.Train != nil {
			name += " after " + s.Train.File
		}
		names = append(names, name)
	}
	want := []string{"tab/one", "tab/two", "pair/m-1 after pair/m-1.train.csv.gz", "kdd after kdd/train20.csv", "series/1", "win/a/x"}
	if !slices.Equal(names, want) {
		t.Errorf("sets %q\nwant %q", names, want)
	}
	if !slices.Equal(unlabelled, []string{"plain"}) {
		t.Errorf("unlabelled %q", unlabelled)
	}
	for pattern, want := range map[string]int{"tab/*": 2, "tab": 2, "one": 1, "tab/two.csv": 1, "m-*": 1, "kdd": 1, "one, kdd,nothing": 2} {
		if got, _, err := readManifest(dir, pattern); err != nil || len(got) != want {
			t.Errorf("%s gives %d sets, %v; want %d", pattern, len(got), err, want)
		}
	}
}

func TestManifestFaults(t *testing.T) {
	for _, c := range []struct{ name, manifest, pattern, want string }{
		{"no manifest", "", "", "manifest.json: the manifest cannot be read"},
		{"no JSON", "{", "", "manifest.json: the manifest is no JSON list"},
		{"outside", `[{"file": "../secret.csv", "label": "l"}]`, "", `the path "../secret.csv", which is not below the folder`},
		{"nothing labelled", `[{"file": "a.csv"}]`, "", "the folder has no labelled set"},
		{"no match", smallManifest, "nowhere*", `no labelled set matches "nowhere*"`},
		{"bad pattern", smallManifest, "[", `"[" is no pattern`},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{}
			if c.manifest != "" {
				files["manifest.json"] = c.manifest
			}
			_, _, err := readManifest(folder(t, files), c.pattern)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "; next: ") {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
}

func TestSplits(t *testing.T) {
	dir := smallFolder(t)
	sets, _, err := readManifest(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name                string
		splits, train, test int
		anomalies           int
		kept                bool // in the file's order
		first, firstAnomaly string
	}{
		{"tab/one", 3, 6, 4, 2, false, "", `{"a":8,"b":8.5}`},
		{"tab/two", 3, 6, 4, 5, false, "", `{"a":1}`},
		{"pair/m-1", 1, 7, 5, 2, true, `{"a":0}`, `{"a":101}`},
		{"kdd", 3, 6, 4, 4, true, "", `{"a":100}`},
		{"series/1", 1, 4, 6, 2, true, `{"a":0}`, `{"a":8}`},
		{"win/a/x", 1, 3, 2, 2, true, `{"timestamp":"2014-01-01 00:00:00","value":1}`, `{"timestamp":"2014-01-01 00:05:00","value":2}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := slices.IndexFunc(sets, func(s set) bool { return s.Name == c.name })
			list, rows, rejected, err := sets[at].splits(dir, 3)
			if err != nil {
				t.Fatal(err)
			}
			if len(list) != c.splits || rejected != 0 || len(rows) != c.train+c.test || anomalies(rows) != c.anomalies {
				t.Fatalf("%d splits, %d rows, %d rejected, %d anomalies", len(list), len(rows), rejected, anomalies(rows))
			}
			bad := slices.IndexFunc(rows, func(r row) bool { return r.anomalous })
			if got := string(rows[bad].value); got != c.firstAnomaly {
				t.Errorf("first anomaly %s, want %s: the label must not be in it", got, c.firstAnomaly)
			}
			for i, s := range list {
				if len(s.train) != c.train || len(s.test) != c.test {
					t.Errorf("%d rows to learn and %d to judge, want %d and %d", len(s.train), len(s.test), c.train, c.test)
				}
				if c.first != "" && string(s.train[0].value) != c.first {
					t.Errorf("the first row to learn is %s, want %s", s.train[0].value, c.first)
				}
				var all []string
				for _, r := range slices.Concat(s.train, s.test) {
					all = append(all, string(r.value))
				}
				if slices.Sort(all); len(slices.Compact(all)) != len(rows) {
					t.Errorf("split %d: a row is lost or doubled", i)
				}
			}
			again, _, _, err := sets[at].splits(dir, 3)
			if err != nil {
				t.Fatal(err)
			}
			for i := range list {
				same := slices.EqualFunc(list[i].train, again[i].train, func(a, b row) bool { return bytes.Equal(a.value, b.value) })
				if !same {
					t.Errorf("split %d is another one the second time", i)
				}
			}
			if c.splits > 1 && slices.EqualFunc(list[0].train, list[1].train, func(a, b row) bool { return bytes.Equal(a.value, b.value) }) {
				t.Error("two splits are the same")
			}
		})
	}
}

func TestRowsWithFaults(t *testing.T) {
	dir := folder(t, map[string]string{
		"ragged.csv":  "a,label\n1,0\n2,1,surplus\n3,1\n",
		"nolabel.csv": "a,label\n1,0\n2,\n",
		"w/x.csv":     "timestamp,value\n2014-01-01 00:00:00,1\n",
		"w/bad.json":  `{"x.csv": [["soon", "later"]]}`,
		"w/none.json": `{}`,
	})
	rows, rejected, err := (&entry{File: "ragged.csv", Label: "label"}).read(dir)
	if err != nil || len(rows) != 2 || rejected != 1 || !rows[1].anomalous {
		t.Errorf("%d rows, %d rejected, %v", len(rows), rejected, err)
	}
	for want, e := range map[string]*entry{
		"nolabel.csv:3: the row has no label":     {File: "nolabel.csv", Label: "label"},
		`label window "soon" of x.csv is no time`: {File: "w/x.csv", LabelWindows: "w/bad.json", Time: "timestamp"},
		"no label windows for x.csv":              {File: "w/x.csv", LabelWindows: "w/none.json", Time: "timestamp"},
		"no such file":                            {File: "w/y.csv", Label: "label"},
	} {
		if _, _, err := e.read(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	if rows[0].time != events.NoTime {
		t.Errorf("a row without time has %d", rows[0].time)
	}
}
