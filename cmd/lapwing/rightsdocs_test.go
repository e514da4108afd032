package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/stream"
)

// documentedRights are the rights of a command, as the lines of docs/security.md grant them: what is documented is what is tested.
func documentedRights(t *testing.T, command string) (rights []stream.Right) {
	t.Helper()
	page, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "### Rights of "+command+"\n")
	if !ok {
		t.Fatalf("docs/security.md has no section %q", "Rights of "+command)
	}
	section, _, _ = strings.Cut(section, "\n##")
	for line := range strings.Lines(section) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "kafka-acls.sh" {
			continue
		}
		var r stream.Right
		for i := 1; i < len(words); i++ {
			switch option := strings.TrimPrefix(words[i], "--"); option {
			case "operation":
				i++
				r.Operations = append(r.Operations, strings.ToUpper(words[i]))
			case "topic", "group", "transactional-id":
				i++
				r.Kind, r.Name = option, words[i]
			case "resource-pattern-type":
				i++
				r.Prefix = words[i] == "prefixed"
			}
		}
		if got := r.Grant("HOST:PORT"); got != strings.TrimSpace(line) {
			t.Errorf("docs/security.md and the program disagree on how a right is granted:\n%s%s", line, got)
		}
		rights = append(rights, r)
	}
	return rights
}

// The documented lines are those that the program prints, and name what it names without settings.
func TestDocumentedRights(t *testing.T) {
	for command, want := range map[string][]string{
		"train": {"topic cars", "topic lapwing.models", "topic lapwing.checkpoints", "transactional-id lapwing-models-"},
		"serve": {"topic cars", "topic lapwing.models", "topic cars.scores", "topic cars.dlq", "topic cars.alerts", "group lapwing.cars.scores", "transactional-id lapwing.cars.scores-"},
	} {
		var got []string
		for _, r := range documentedRights(t, command) {
			got = append(got, r.Kind+" "+r.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: rights on %q, want %q", command, got, want)
		}
	}
}
