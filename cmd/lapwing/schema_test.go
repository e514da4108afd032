package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// TestConfigurationPageSchema holds docs/lapwing.schema.json to what the code declares; -update writes it, with the page,
// since -run TestConfigurationPage means both.
func TestConfigurationPageSchema(t *testing.T) {
	path := filepath.Join(home, "..", "..", "docs", "lapwing.schema.json")
	out, stderr, code := runIn(t, nil, "config", "schema")
	if code != 0 {
		t.Fatal(stderr)
	}
	if *update {
		writeFile(t, path, out)
		return
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(have), out); d != "" {
		t.Errorf("docs/lapwing.schema.json is stale; go generate ./cmd/lapwing writes it anew:\n%s", d)
	}
}

// compiledSchema is what an editor makes of the schema: it is held to the draft's own schema first.
func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := configJSONSchema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("lapwing.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("lapwing.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// document is a YAML text as a language server sees it: YAML 1.2's core schema, in which a time is text.
func document(t *testing.T, text string) any {
	t.Helper()
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(text), &node); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if len(node.Content) == 0 {
		return map[string]any{}
	}
	return plainJSON(t, node.Content[0])
}

func plainJSON(t *testing.T, n *yaml.Node) any {
	n = resolve(n)
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = plainJSON(t, n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			list = append(list, plainJSON(t, item))
		}
		return list
	}
	var v any
	switch n.Tag {
	case "!!int", "!!float", "!!bool", "!!null":
		if err := n.Decode(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	return n.Value
}

func readText(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{home}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSchemaTakesWhatTheProgramTakes(t *testing.T) {
	schema := compiledSchema(t)
	e, err := load(t, contractFile, loadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	shown, err := e.yaml()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"example": readText(t, "..", "..", "examples", "lapwing.yaml"), "contract": contractFile, "lapwing config": string(shown),
		"empty": "", "null sections": "train:\nscore:\nkafka:\nstreams:\n", "alerts none": "streams: [{model: m, input: {topics: [t]}, alerts: none}]",
		"topics as one word": "streams: [{model: m, input: {topics: t}}]", "a name of digits": "streams: [{model: 7, input: {topics: [1, 2], key: true}, output: o, dlq: d, alerts: none}]",
		"any property": "kafka: {client.id: x, linger.ms: 5, socket.keepalive.enable: true}", "layers": "train: {layers: [8, 3, 8]}", "layers as text": "train: {layers: '8,3,8'}",
		"in quotes": "score: {max_batch: '512', commit_interval: '1m'}\ntrain: {max_memory: 1.5 GB, max_rejected: ' 5 % ', allow_loss: 1e-2, learning_rate: 1e-3}",
		"a time":    "streams: [{model: m, input: {topics: [t]}, start: 2026-11-25T14:00:00Z}]",
	} {
		if _, err := load(t, text, loadOptions{}); err != nil {
			t.Errorf("%s: the program refuses it: %v", name, err)
		}
		if err := schema.Validate(document(t, text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	page := readText(t, "..", "..", "examples", "lapwing.yaml")
	if first, _, _ := strings.Cut(page, "\n"); first != "# yaml-language-server: $schema=../docs/lapwing.schema.json" {
		t.Errorf("the example begins with %q", first)
	}
}

// What a user gets wrong in the file, an editor underlines.
func TestSchemaRefusesWhatTheProgramRefuses_Case8_01(t *testing.T) {
	schema := compiledSchema(t)
	wrong := []string{
		"score: {max_bach: 1}", "score: {models_topic: x}", "alerts: {raise_after: 3}", "train.max_memory: 1GiB", "sasl.mechanism: PLAIN", "train: 5",
		"http: {port: 80}", "- a\n- b", "train: {max_memory: lots}", "train: {max_memory: 1000}", "train: {max_rejected: 5}", "train: {max_rejected: 5%%}",
		"score: {commit_interval: 10}", "score: {commit_interval: fast}", "score: {max_batch: 0}", "score: {max_batch: few}", "train: {seed: -1}", "train: {layers: [8, x]}",
		"train: {layers: [8, 0]}", "delivery: at_most_once", "log_level: inof", "grpc: 127.0.0.1:1", "admin: none", "score: {max_wait: 1s}", "train: {engine: hip}",
		"streams: {model: m}", "streams: [m]", "streams: [{input: {topics: [a]}}]", "streams: [{model: m}]", "streams: [{model: m, input: {topics: []}}]",
		"streams: [{model: '', input: {topics: [t]}}]", "streams: [{model: m, input: {topics: [t]}, alerts: off}]", "streams: [{model: m, input: {topics: [t], topic: t}}]",
		"streams: [{model: m, input: {topics: [t]}, alias: {a: b}}]", "kafka: {sasl: {mechanism: PLAIN}}", "kafka: [a]", "max_memory: 3GiB",
	}
	// Every setting with a letter too many, and one level too high.
	for _, s := range declared() {
		if s.section == "" {
			wrong = append(wrong, s.path+"x: 1")
		} else {
			wrong = append(wrong, fmt.Sprintf("%s: {%sx: 1}", s.section, lastKey(s.path)))
			if _, top := lookup(declared(), lastKey(s.path)); !top {
				wrong = append(wrong, lastKey(s.path)+": 1")
			}
		}
	}
	for _, s := range streamDeclared() {
		key := s.path + "x: 1"
		if s.section != "" {
			key = fmt.Sprintf("%s: {%sx: 1}", s.section, lastKey(s.path))
		}
		if s.section == "input" {
			key = fmt.Sprintf("input: {topics: [t], %sx: 1}", lastKey(s.path))
		} else {
			key = "input: {topics: [t]}, " + key
		}
		wrong = append(wrong, "streams: [{model: m, "+key+"}]")
	}
	if len(wrong) < 100 {
		t.Fatalf("only %d documents", len(wrong))
	}
	for _, text := range wrong {
		if _, err := load(t, text, loadOptions{}); err == nil {
			t.Errorf("the program takes %s", text)
		}
		if err := schema.Validate(document(t, text)); err == nil {
			t.Errorf("the schema takes %s", text)
		}
	}
}

// Whatever is written for a setting: where an editor underlines it, the program refuses it too.
func TestSchemaUnderlinesNoGoodValue(t *testing.T) {
	schema := compiledSchema(t)
	values := []string{
		"1", "0", "-1", "'1'", "1.5", "1e-3", "'1e3'", "true", "text", "''", "5%", "' 5 %'", "150%", "1GiB", "1 GiB", "'1.5kB'", "-1GiB", "10s", "'1h30m'", "7d", "1.5d", "-3s", "+2ms", "3µs",
		"'0'", "none", "latest", "auto", "cpu", "json", "all", "info", "at_least_once", "2026-11-25T14:00:00Z", "2026-11-25", "[]", "[1]", "['8', 3]", "[a, b]", "'14,7,14'", "'8, ,3,'", "[1.5]", "{}", "{a: 1}", "0x10", "1_000", "1048576", "99999999999",
	}
	agreed := 0
	check := func(where, text string) {
		_, err := load(t, text, loadOptions{})
		invalid := schema.Validate(document(t, text))
		if err == nil && invalid != nil {
			t.Errorf("the program takes %s %q and the schema does not: %v", where, text, invalid)
		}
		if (err == nil) == (invalid == nil) {
			agreed++
		}
	}
	n := 0
	for _, v := range values {
		for _, s := range declared() {
			text := s.path + ": " + v
			if s.section != "" {
				text = s.section + ": {" + lastKey(s.path) + ": " + v + "}"
			}
			check(s.path, text)
			n++
		}
		for _, s := range streamDeclared() {
			parts := map[string]string{"model": "model: m", "input": "input: {topics: [t]}"}
			switch {
			case s.section == "input" && s.path != "input.topics":
				parts["input"] = "input: {topics: [t], " + lastKey(s.path) + ": " + v + "}"
			case s.section != "":
				parts[s.section] = s.section + ": {" + lastKey(s.path) + ": " + v + "}"
			default:
				parts[s.path] = s.path + ": " + v
			}
			var all []string
			for _, p := range parts {
				all = append(all, p)
			}
			check(s.path, "streams: [{"+strings.Join(all, ", ")+"}]")
			n++
		}
	}
	// Times, properties of librdkafka and quoted numbers out of bounds are the program's to refuse.
	if agreed < n*9/10 {
		t.Errorf("they agree on %d of %d values only", agreed, n)
	}
}

func TestSchemaHasEveryDefaultAndBound(t *testing.T) {
	schema := compiledSchema(t)
	for _, all := range [][]setting{declared(), streamDeclared()} {
		for _, s := range all {
			at := schema
			if reflect.ValueOf(all).Pointer() == reflect.ValueOf(streamDeclared()).Pointer() {
				at = schema.Properties["streams"].Items2020
			}
			for key := range strings.SplitSeq(s.path, ".") {
				if at = at.Properties[key]; at == nil {
					t.Fatalf("%s is not in the schema", s.path)
				}
			}
			if len(at.Description) < len(s.doc) {
				t.Errorf("%s is described as %q", s.path, at.Description)
			}
			if s.group || s.list || s.def == "" || s.typ.Kind() == reflect.Map {
				continue
			}
			if at.Default == nil || fmt.Sprint(*at.Default) != s.def {
				t.Errorf("%s has default %v, not %s", s.path, at.Default, s.def)
			} else if err := at.Validate(*at.Default); err != nil {
				t.Errorf("%s: its default is not valid: %v", s.path, err)
			}
			if s.min == "" || at.Types == nil || s.typ.Kind() == reflect.Int64 && at.Minimum == nil {
				continue
			}
			if lo, _ := strconv.ParseFloat(s.min, 64); at.Minimum == nil || at.Validate(lo-1) == nil {
				t.Errorf("%s: %v is below its least %s, and taken", s.path, lo-1, s.min)
			}
		}
	}
}
