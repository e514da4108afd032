package quality

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// entry is what a folder's manifest.json says of one file, as far as it matters here.
type entry struct {
	File         string   `json:"file"` // path below the folder, with slashes
	Collection   string   `json:"set"`
	Kind         string   `json:"kind"` // "tabular…", "multivariate series", "univariate series", "panel…"
	Delimiter    string   `json:"delimiter"`
	Header       *bool    `json:"header"` // absent: there is one
	Rows         int      `json:"rows"`
	Features     []string `json:"features"`
	Label        string   `json:"label"`
	LabelWindows string   `json:"label_windows"`
	Exclude      []string `json:"exclude"`
	Time         string   `json:"time"`
	Key          string   `json:"key"`
	Order        string   `json:"order"`
	Split        string   `json:"split"` // "train", "test" or "": one file for both
	TrainRows    int      `json:"train_rows"`
	Mark         struct {
		Fit string `json:"fit"`
	} `json:"mark"`
}

// unnamed is how a manifest calls a first column without a name; the file reader calls it column_1.
const unnamed = "(first column, no name)"

// set is one thing to be judged on: a labelled file, and the file that comes with it to train on, where there is one.
type set struct {
	Name       string // path without endings; of a pair, what both have in common
	Collection string
	Train      *entry // nil: the rows come from Test
	Test       *entry
}

// ordered says that rows follow each other in time and must not be shuffled.
func (s *set) ordered() bool {
	return strings.HasPrefix(s.Test.Order, "time") || strings.HasPrefix(s.Test.Order, "by ") || s.Test.Key != ""
}

// clean says that a series comes with rows set apart to learn what is normal from.
func (s *set) clean() bool {
	return s.ordered() && strings.Contains(s.Test.Kind, "series") && (s.Train != nil || s.Test.first() > 0)
}

// first is the number of leading rows that the manifest sets apart to train on; 0: none.
func (e *entry) first() int {
	if e.TrainRows > 0 {
		return e.TrainRows
	}
	var n int
	if _, err := fmt.Sscanf(e.Mark.Fit, "first %d rows", &n); err != nil {
		return 0
	}
	return n
}

// dropped are the columns that must not reach the topic.
func (e *entry) dropped() []string {
	var names []string
	if e.Label != "" {
		names = append(names, e.Label)
	}
	for _, name := range e.Exclude {
		if name == unnamed {
			name = "column_1"
		}
		names = append(names, name)
	}
	return names
}

// clock is the column with the event time, "" without one. What the manifest excludes is no time of day.
func (e *entry) clock() string {
	if slices.Contains(e.Exclude, e.Time) {
		return ""
	}
	return e.Time
}

// manifestError says what to do about a folder that cannot be measured.
type manifestError struct {
	what, place, next string
	cause             error
}

func (e *manifestError) Error() string { return e.place + ": " + e.what + "; next: " + e.next }
func (e *manifestError) Unwrap() error { return e.cause }
func (e *manifestError) Where() string { return e.place }
func (e *manifestError) Hint() string  { return e.next }

const manifestNext = "give a folder with a manifest.json that lists its files (docs/quality.md has the form)"

// readManifest gives the labelled sets of a folder that match pattern, in the manifest's order, and which of those that
// match have no label.
func readManifest(dir, pattern string) (sets []set, unlabelled []string, err error) {
	file := filepath.Join(dir, "manifest.json")
	raw, err := os.ReadFile(file)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, nil, &manifestError{"the manifest cannot be read: " + err.Error(), file, manifestNext, err}
	}
	var entries []entry
	if err := json.Unmarshal(raw, &entries); err != nil {
		return nil, nil, &manifestError{"the manifest is no JSON list of files: " + err.Error(), file, manifestNext, err}
	}
	train := map[string]*entry{} // by what is left of the path without the word train
	for i := range entries {
		if e := &entries[i]; e.Split == "train" {
			train[stem(e)] = e
		}
	}
	for i := range entries {
		e := &entries[i]
		if e.File == "" || !filepath.IsLocal(filepath.FromSlash(e.File)) {
			return nil, nil, &manifestError{fmt.Sprintf("file %d has the path %q, which is not below the folder", i+1, e.File), file, manifestNext, nil}
		}
		s := set{Name: bare(e.File), Collection: e.Collection, Test: e}
		switch e.Split {
		case "train": // measured with its test file
			continue
		case "test":
			s.Name = strings.TrimSuffix(strings.TrimSuffix(stem(e), "."), "/")
			s.Train = train[stem(e)]
		}
		ok, err := matches(pattern, e.File, s.Name, path.Base(s.Name), e.Collection)
		switch {
		case err != nil:
			return nil, nil, err
		case !ok:
		case e.Label == "" && e.LabelWindows == "":
			unlabelled = append(unlabelled, s.Name)
		default:
			sets = append(sets, s)
		}
	}
	if len(sets) == 0 {
		what := "the folder has no labelled set"
		if pattern != "" {
			what = fmt.Sprintf("no labelled set matches %q", pattern)
		}
		return nil, nil, &manifestError{what, file, "name sets as the manifest's files, such as 'adbench/*' or cardio", nil}
	}
	return sets, unlabelled, nil
}

// bare is a file's path without .csv, .gz and the like.
func bare(file string) string {
	for {
		ext := path.Ext(file)
		if !slices.Contains([]string{".csv", ".jsonl", ".ndjson", ".gz", ".zst"}, ext) {
			return file
		}
		file = strings.TrimSuffix(file, ext)
	}
}

// stem is the path of one of a pair without what tells them apart: train and test, and digits after it (train20).
func stem(e *entry) string {
	dir, base := path.Split(bare(e.File))
	if at := strings.LastIndex(base, e.Split); at >= 0 {
		base = base[:at] + strings.TrimLeft(base[at+len(e.Split):], "0123456789")
	}
	return dir + base
}

// matches: one of the globs in pattern, parted by commas, is one of names; "" matches all.
func matches(pattern string, names ...string) (bool, error) {
	if pattern == "" {
		return true, nil
	}
	for glob := range strings.SplitSeq(pattern, ",") {
		for _, name := range names {
			ok, err := path.Match(strings.TrimSpace(glob), name)
			if err != nil {
				return false, &manifestError{fmt.Sprintf("%q is no pattern: %v", glob, err), "--sets", "for example --sets 'adbench/*'", err}
			}
			if ok {
				return true, nil
			}
		}
	}
	return false, nil
}
