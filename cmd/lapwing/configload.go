package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/lapwing-stream/lapwing/server"
)

// defaultFile is read where it exists and --config names no other.
const defaultFile = "lapwing.yaml"

// effective is the configuration that a command runs with, and where each value came from.
type effective struct {
	Config
	file   string            // the file that was read; "" = none
	origin map[string]string // path → "lapwing.yaml:3", "LAPWING_HTTP", "--http"; absent = default
}

// given is a value that a flag was set to.
type given struct {
	setting setting
	flag    string // as typed, with dashes
	text    string
}

// loadOptions are the places that settings come from.
type loadOptions struct {
	file    string   // --config; "" = defaultFile where it exists
	environ []string // NAME=value
	flags   []given  // of plain settings
	props   []string // --property KEY=VALUE
	stream  []given  // of one stream, in place of the file's
}

// loader collects faults over all sources, so that one run names them all.
type loader struct {
	e      *effective
	faults []error
}

// loadConfig reads file, environment and flags over the defaults: a flag wins over the environment, that over
// the file. The error names every fault of all of them at once.
func loadConfig(o loadOptions) (*effective, error) {
	l := &loader{e: &effective{origin: map[string]string{}}}
	l.e.Config = defaultConfig()
	l.file(o.file)
	l.environment(o.environ)
	l.flags(o)
	l.check()
	for _, err := range l.faults {
		if f, ok := err.(*fault); ok && f.next == "" && len(l.faults) == 1 {
			f.next = "docs/configuration.md says what each setting takes"
		}
	}
	if len(l.faults) > 0 {
		return l.e, &faults{
			what: fmt.Sprintf("%d faults in the configuration", len(l.faults)),
			list: l.faults, next: "correct them; lapwing config --help and docs/configuration.md list every setting", code: exitUsage,
		}
	}
	return l.e, nil
}

// defaultConfig is what holds where nothing is said.
func defaultConfig() Config {
	var c Config
	applyDefaults(reflect.ValueOf(&c).Elem(), declared())
	return c
}

func defaultStream() StreamConfig {
	var s StreamConfig
	applyDefaults(reflect.ValueOf(&s).Elem(), streamDeclared())
	return s
}

// applyDefaults sets every declared default. A default that does not parse is a mistake in the declaration,
// which a test finds; it cannot depend on input.
func applyDefaults(root reflect.Value, all []setting) {
	for _, s := range all {
		if s.group || s.list || s.def == "" {
			continue
		}
		v := root.FieldByIndex(s.index)
		if v.Kind() == reflect.Map {
			m := map[string]string{}
			for _, part := range splitList(s.def) {
				key, value, _ := strings.Cut(part, "=")
				m[key] = value
			}
			v.Set(reflect.ValueOf(m))
			continue
		}
		if err := s.set(v, s.def); err != nil {
			panic(fmt.Sprintf("default of %s: %v", s.path, err))
		}
	}
}

// fault notes one fault of the configuration.
func (l *loader) fault(where, what, next string) {
	l.faults = append(l.faults, &fault{what: what, where: where, next: next, code: exitUsage})
}

// file reads the YAML file, if there is one.
func (l *loader) file(path string) {
	named := path != ""
	if !named {
		path = defaultFile
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && !named {
		return
	}
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		l.fault(path, "the configuration file cannot be read: "+err.Error(), "give the right file to --config, or leave it out for the defaults")
		return
	}
	l.e.file = path
	l.yaml(filepath.Base(path), path, text)
}

// yaml walks the file's nodes; decoding into the struct would lose lines and doubled keys.
func (l *loader) yaml(_ string, path string, text []byte) {
	node, err := parseYAML(text)
	if err != nil {
		if at := tabLine(text); at > 0 {
			l.fault(fmt.Sprintf("%s:%d", path, at), "a tab in the indentation, which YAML does not allow", "indent with spaces")
			// The rest is read as if each tab were two spaces, so that its faults are named too.
			if node, err = parseYAML(untab(text)); err != nil {
				return
			}
		} else {
			where, what := yamlError(path, err)
			l.fault(where, what, "correct the YAML there")
			return
		}
	}
	if node == nil {
		return // empty, or comments alone
	}
	if node.Kind != yaml.MappingNode {
		l.fault(fmt.Sprintf("%s:%d", path, node.Line), "the file is not a map of settings", "write settings as key: value, such as models_topic: lapwing.models")
		return
	}
	l.mapping(path, node, declared(), "", "", reflect.ValueOf(&l.e.Config).Elem())
}

// parseYAML gives the root node of the only document; nil where there is none.
func parseYAML(text []byte) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if err := d.Decode(&second); err == nil {
		return nil, fmt.Errorf("yaml: line %d: a second document begins; one file is one configuration", second.Line)
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return nil, nil
	}
	return doc.Content[0], nil
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)

// yamlError parts the parser's message into line and text.
func yamlError(path string, err error) (where, what string) {
	s := err.Error()
	if m := yamlLine.FindStringSubmatch(s); m != nil {
		return path + ":" + m[1], "the file is not YAML: " + strings.TrimPrefix(s, m[0])
	}
	return path, "the file is not YAML: " + strings.TrimPrefix(s, "yaml: ")
}

// tabLine is the first line, from 1, that is indented with a tab; 0 = none.
func tabLine(text []byte) int {
	for i, line := range bytes.Split(text, []byte("\n")) {
		indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
		if bytes.IndexByte(indent, '\t') >= 0 && len(bytes.TrimSpace(line)) > 0 {
			return i + 1
		}
	}
	return 0
}

func untab(text []byte) []byte {
	lines := bytes.Split(text, []byte("\n"))
	for i, line := range lines {
		body := bytes.TrimLeft(line, " \t")
		indent := line[:len(line)-len(body)]
		lines[i] = append(bytes.ReplaceAll(indent, []byte("\t"), []byte("  ")), body...)
	}
	return bytes.Join(lines, []byte("\n"))
}

// resolve follows an alias to what it names.
func resolve(n *yaml.Node) *yaml.Node {
	for range 10 {
		if n.Kind != yaml.AliasNode {
			break
		}
		n = n.Alias
	}
	return n
}

// mapping sets root's fields from a mapping node. prefix is the path within all, shown the path before that
// (streams[0].).
func (l *loader) mapping(file string, node *yaml.Node, all []setting, shown, prefix string, root reflect.Value) {
	first := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		keyNode, value := node.Content[i], resolve(node.Content[i+1])
		key := keyNode.Value
		where := fmt.Sprintf("%s:%d", file, keyNode.Line)
		path := prefix + key
		if keyNode.Kind != yaml.ScalarNode {
			l.fault(where, "a key of "+orTop(shown+prefix)+" is not a plain name", "write settings as key: value")
			continue
		}
		if line, twice := first[key]; twice {
			l.fault(where, fmt.Sprintf("%s%s is given twice, on line %d too", shown, path, line), "keep one of them")
			continue
		}
		first[key] = keyNode.Line
		s, ok := lookup(all, path)
		if !ok || strings.Contains(key, ".") {
			l.unknown(where, shown, path, all)
			continue
		}
		if value.Tag == "!!null" {
			continue // `train:` with nothing below it
		}
		l.node(file, where, value, s, all, shown, root)
	}
}

func orTop(path string) string {
	if path == "" {
		return "the file"
	}
	return strings.TrimSuffix(path, ".")
}

// node sets one setting, or the section below it.
func (l *loader) node(file, where string, value *yaml.Node, s setting, all []setting, shown string, root reflect.Value) {
	v := root.FieldByIndex(s.index)
	full := shown + s.path
	switch {
	case s.path == "alerts" && s.group && value.Kind == yaml.ScalarNode && value.Value == noAlerts:
		topic, _ := lookup(all, "alerts.topic")
		root.FieldByIndex(topic.index).SetString(noAlerts)
		l.e.origin[shown+"alerts.topic"] = where
	case s.group:
		if value.Kind != yaml.MappingNode {
			l.fault(where, full+" is a section, not a value", "write its settings below it, such as "+example(all, s.path))
			return
		}
		l.mapping(file, value, all, shown, s.path+".", root)
	case s.list:
		if value.Kind != yaml.SequenceNode {
			l.fault(where, full+" is a list", "begin each stream with a dash: - {model: cars, input: {topics: [cars]}}")
			return
		}
		for i, item := range value.Content {
			item = resolve(item)
			stream := defaultStream()
			prefix := fmt.Sprintf("streams[%d].", i)
			at := fmt.Sprintf("%s:%d", file, item.Line)
			if item.Kind != yaml.MappingNode {
				l.fault(at, fmt.Sprintf("streams[%d] is not a map of settings", i), "write it as - {model: cars, input: {topics: [cars]}}")
				continue
			}
			l.mapping(file, item, streamDeclared(), prefix, "", reflect.ValueOf(&stream).Elem())
			l.e.origin[fmt.Sprintf("streams[%d]", i)] = at
			l.e.Streams = append(l.e.Streams, stream)
		}
	case v.Kind() == reflect.Map:
		if value.Kind != yaml.MappingNode {
			l.fault(where, full+" is a map of properties", "write it as kafka: {bootstrap.servers: localhost:9092}")
			return
		}
		l.properties(file, value)
	case value.Kind == yaml.SequenceNode && v.Kind() == reflect.Slice:
		var parts []string
		for _, item := range value.Content {
			parts = append(parts, resolve(item).Value)
		}
		l.set(where, full, s, v, strings.Join(parts, ","))
	case value.Kind == yaml.ScalarNode:
		l.set(where, full, s, v, value.Value)
	default:
		l.fault(where, full+" takes one value: "+s.allowed(), "write it as "+lastKey(s.path)+": "+orExample(s))
	}
}

// noAlerts in place of a topic leaves alerts out.
const noAlerts = "none"

func lastKey(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func orExample(s setting) string {
	if s.def != "" {
		return s.def
	}
	return "…"
}

// example is a first setting of a section, as it would be written.
func example(all []setting, section string) string {
	for _, s := range all {
		if s.section == section && !s.group {
			return lastKey(section) + ": {" + lastKey(s.path) + ": " + orExample(s) + "}"
		}
	}
	return section
}

// set parses text into v and notes where it came from.
func (l *loader) set(where, full string, s setting, v reflect.Value, text string) {
	if err := s.set(v, text); err != nil {
		next := ""
		if !strings.Contains(err.Error(), s.allowed()) {
			next = "give " + s.allowed()
		}
		l.fault(where, full+": "+err.Error(), next)
		return
	}
	l.e.origin[full] = where
}

// properties reads the kafka map.
func (l *loader) properties(file string, node *yaml.Node) {
	first := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], resolve(node.Content[i+1])
		where := fmt.Sprintf("%s:%d", file, key.Line)
		if line, twice := first[key.Value]; twice {
			l.fault(where, fmt.Sprintf("kafka.%s is given twice, on line %d too", key.Value, line), "keep one of them")
			continue
		}
		first[key.Value] = key.Line
		if value.Kind != yaml.ScalarNode {
			l.fault(where, "kafka."+key.Value+" takes one value", "write the whole name of a property as one key, such as sasl.mechanism: PLAIN")
			continue
		}
		l.e.Kafka[key.Value] = value.Value
		l.e.origin["kafka."+key.Value] = where
	}
}

// unknown notes a key that nothing declares, with the nearest one that is: the same name in another section
// first, since a key one level too high or low is the commonest mistake.
func (l *loader) unknown(where, shown, path string, all []setting) {
	if why, ok := notYet[shown+path]; ok {
		l.fault(where, shown+path+" has no effect: "+why, "take it out")
		return
	}
	l.fault(where, "unknown setting "+shown+path, suggestSetting(shown, path, all))
}

func suggestSetting(shown, path string, all []setting) string {
	key, section := lastKey(path), ""
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		section = path[:i]
	}
	var elsewhere, siblings, paths []string
	for _, s := range all {
		if s.path == path { // a dotted key at the top: right name, wrong form
			return "write it as " + strings.ReplaceAll(path, ".", ": {") + ": …" + strings.Repeat("}", strings.Count(path, "."))
		}
		if lastKey(s.path) == key {
			elsewhere = append(elsewhere, shown+s.path)
		}
		if s.section == section {
			siblings = append(siblings, shown+s.path)
		}
		if !s.group {
			paths = append(paths, shown+s.path)
		}
	}
	if shown == "" {
		for _, s := range streamDeclared() {
			if lastKey(s.path) == key {
				elsewhere = append(elsewhere, "streams[]."+s.path)
			}
		}
	} else {
		for _, s := range declared() {
			if lastKey(s.path) == key && !s.group {
				elsewhere = append(elsewhere, s.path)
			}
		}
	}
	near := nearest(shown+path, siblings)
	switch {
	case near != "" && distance(shown+path, near) == 1: // input.topic
		return "did you mean " + near + "?"
	case len(elsewhere) > 0:
		return "did you mean " + strings.Join(elsewhere, " or ") + "?"
	case near != "":
		return "did you mean " + near + "?"
	case nearest(shown+path, paths) != "":
		return "did you mean " + nearest(shown+path, paths) + "?"
	case looksLikeProperty(path):
		return "properties of the Kafka client stand below kafka:"
	case len(siblings) > 0:
		return "known here: " + strings.Join(siblings, ", ")
	}
	return "docs/configuration.md lists every setting"
}

func looksLikeProperty(path string) bool { return strings.Contains(path, ".") }

// testVariables are of the test suite, not settings.
func testVariable(name string) bool {
	return name == "LAPWING_DATA" || name == "LAPWING_PYTHON" || strings.HasPrefix(name, "LAPWING_TEST_")
}

// environment reads every variable with the prefix; one that means no setting is a fault, since it was
// surely meant to have an effect.
func (l *loader) environment(environ []string) {
	known := map[string]setting{}
	var names []string
	for _, s := range declared() {
		if s.env != "" && !s.group && s.typ.Kind() != reflect.Map {
			known[s.env] = s
			names = append(names, strings.TrimPrefix(s.env, envPrefix))
		}
	}
	const kafkaPrefix = envPrefix + "KAFKA_"
	for _, entry := range slices.Sorted(slices.Values(environ)) {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || testVariable(name) {
			continue
		}
		if s, ok := known[name]; ok {
			l.set(name, s.path, s, reflect.ValueOf(&l.e.Config).Elem().FieldByIndex(s.index), text)
			continue
		}
		if rest, ok := strings.CutPrefix(name, kafkaPrefix); ok && rest != "" {
			property := strings.ToLower(strings.ReplaceAll(rest, "_", "."))
			l.e.Kafka[property] = text
			l.e.origin["kafka."+property] = name
			continue
		}
		path := strings.ToLower(strings.TrimPrefix(name, envPrefix))
		if why, ok := notYet[strings.Replace(path, "score_", "score.", 1)]; ok {
			l.fault(name, name+" has no effect: "+why, "unset it")
			continue
		}
		next := "unset it; docs/configuration.md lists every setting"
		// Without the prefix that all share: it would make anything look near.
		if n := nearest(strings.TrimPrefix(name, envPrefix), append(names, "KAFKA_BOOTSTRAP_SERVERS")); n != "" {
			next = "did you mean " + envPrefix + n + "?"
		}
		l.fault("environment", "the variable "+name+" means no setting", next)
	}
}

// flags apply the command line.
func (l *loader) flags(o loadOptions) {
	root := reflect.ValueOf(&l.e.Config).Elem()
	for _, g := range o.flags {
		if property, ok := strings.CutPrefix(g.setting.path, "kafka."); ok {
			l.e.Kafka[property] = g.text
			l.e.origin[g.setting.path] = g.flag
			continue
		}
		l.set(g.flag, g.setting.path, g.setting, root.FieldByIndex(g.setting.index), g.text)
	}
	for _, p := range o.props {
		key, value, ok := strings.Cut(p, "=")
		if !ok || key == "" {
			l.fault("--property", strconv.Quote(p)+" is not KEY=VALUE", "write it as --property security.protocol=SSL")
			continue
		}
		if secretProperty(key) {
			l.fault("--property", key+" is a secret, and a command line can be read by everybody on this machine", "set "+envPrefix+"KAFKA_"+strings.ToUpper(strings.ReplaceAll(key, ".", "_"))+
				", or name a file with --property "+key+secretFile+"=FILE")
			continue
		}
		l.e.Kafka[key] = value
		l.e.origin["kafka."+key] = "--property"
	}
	if len(o.stream) == 0 {
		return
	}
	stream := defaultStream()
	at := reflect.ValueOf(&stream).Elem()
	l.e.Streams = nil
	for key := range l.e.origin {
		if strings.HasPrefix(key, "streams[") {
			delete(l.e.origin, key)
		}
	}
	for _, g := range o.stream {
		l.set(g.flag, "streams[0]."+g.setting.path, g.setting, at.FieldByIndex(g.setting.index), g.text)
	}
	l.e.Streams = []StreamConfig{stream}
	l.e.origin["streams[0]"] = "command line"
}

// check holds rules over several settings.
func (l *loader) check() {
	l.secretFiles()
	l.kafka()
	outputs := map[string]int{}
	for i := range l.e.Streams {
		s := &l.e.Streams[i]
		where, name := l.e.origin[fmt.Sprintf("streams[%d]", i)], fmt.Sprintf("streams[%d]", i)
		if s.Model == "" {
			l.fault(where, name+" names no model", "add model: NAME (--model NAME)")
		}
		l.start(s, where, name)
		if len(s.Input.Topics) == 0 {
			l.fault(where, name+" has no input topic", "add input: {topics: [T]} (--topic T)")
			continue
		}
		if len(s.Input.Topics) > 1 && (s.Output == "" || s.Alerts.Topic == "" || s.DLQ == "") {
			l.fault(where, fmt.Sprintf("%s has %d input topics and leaves output, alerts.topic or dlq to be named after one", name, len(s.Input.Topics)),
				"name all three (--output, --alerts, --dlq); alerts may be none")
			continue
		}
		out := s.withNames().Output
		if j, taken := outputs[out]; taken {
			l.fault(where, fmt.Sprintf("%s writes its scores to %s, as streams[%d] does", name, out, j), "give one of them its own output")
		}
		outputs[out] = i
	}
}

// start checks where a stream begins.
func (l *loader) start(s *StreamConfig, where, name string) {
	words := []string{"earliest", "latest", server.StartAfterTraining}
	if _, err := time.Parse(time.RFC3339, s.Start); err == nil || slices.Contains(words, s.Start) {
		return
	}
	if at := l.e.origin[name+".start"]; at != "" {
		where = at
	}
	next := "give " + strings.Join(words, ", ") + ", or a time such as 2026-11-25T14:00:00Z"
	if n := nearest(s.Start, words); n != "" {
		next = "did you mean " + n + "?"
	}
	l.fault(where, fmt.Sprintf("%s: start is %q", name, s.Start), next)
}

// withNames fills in the topics that are named after the only input topic.
func (s StreamConfig) withNames() StreamConfig {
	if len(s.Input.Topics) != 1 {
		return s
	}
	t := s.Input.Topics[0]
	for _, d := range []struct {
		at     *string
		suffix string
	}{{&s.Output, ".scores"}, {&s.Alerts.Topic, ".alerts"}, {&s.DLQ, ".dlq"}} {
		if *d.at == "" {
			*d.at = t + d.suffix
		}
	}
	return s
}
