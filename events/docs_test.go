package events

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The page for users names every reason, word and bound that the code has.
func TestPageIsTrue(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "records.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{ReasonEmpty, ReasonNotJSON, ReasonNotObject, ReasonTooDeep, ReasonNoFeatures, ReasonCSVColumns, ReasonCSVQuote, ReasonCSVRows,
		ReasonNUL, ReasonAvro, ReasonAvroFile, ReasonGzip, ReasonZstd, ReasonXML, ReasonUTF16, ReasonBinary, ReasonTime, ReasonLong}
	for _, word := range []string{"null", "none", "nan", "-nan", "+nan", "na", "n/a", "#n/a", "-", "--", "?", "inf", "infinity", "∞"} {
		want = append(want, word)
		if infinite := infiniteWord([]byte(word)) != 0; !infinite && !isMissingWord([]byte(word)) {
			t.Errorf("%q is no missing-value word", word)
		}
	}
	for _, w := range want {
		if !strings.Contains(string(page), "`"+w+"`") {
			t.Errorf("docs/records.md does not name `%s`", w)
		}
	}
	for what, n := range map[string]int{"%d levels": MaxDepth, "%d most frequent": TopCategories, "up to %d)": MaxCategories, "%d names": maxFields,
		"%d elements": maxElements, "%d values or": maxDistinctText, "%d MiB": maxRow >> 20} {
		if w := fmt.Sprintf(what, n); !strings.Contains(strings.ReplaceAll(string(page), "\n", " "), w) {
			t.Errorf("docs/records.md does not say %q", w)
		}
	}
	for o := OK; o <= Rejected; o++ {
		if !strings.Contains(string(page), "\n| "+o.String()+" |") {
			t.Errorf("docs/records.md does not name the outcome %s", o)
		}
	}
	for _, w := range labelNamesAndWords() {
		if !strings.Contains(string(page), w) {
			t.Errorf("docs/records.md does not name the label name %q", w)
		}
	}
}

// labelNamesAndWords leaves out forms of a word that the page names.
func labelNamesAndWords() []string {
	var out []string
	for _, m := range []map[string]bool{labelWords, labelNames} {
		for w := range m {
			switch w {
			case "labels", "anomalies", "anomalous", "outliers", "faulty", "failures":
			default:
				out = append(out, w)
			}
		}
	}
	return out
}
