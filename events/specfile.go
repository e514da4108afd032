package events

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/lapwing-stream/lapwing/model"
)

// WriteSpec writes a spec as YAML made for editing: one line a field, notes as comments, and the fields left out as
// lines that can be switched on by taking their # away. ReadSpec reads it back exactly.
func WriteSpec(w io.Writer, spec model.Spec, notes []model.ColumnNote) error {
	var b strings.Builder
	b.WriteString("# Feature spec: how a record becomes a row of numbers. Edit it and give it back to train.\n")
	fmt.Fprintf(&b, "format: %s\n", scalar(spec.Format))
	if spec.Key != "" {
		fmt.Fprintf(&b, "key: %s\n", scalar(spec.Key))
	}
	if t := spec.Time; t != nil {
		fmt.Fprintf(&b, "time: {field: %s", scalar(t.Field))
		if t.Unit != "" {
			fmt.Fprintf(&b, ", unit: %s", scalar(t.Unit))
		}
		if t.Layout != "" {
			fmt.Fprintf(&b, ", layout: %s", scalar(t.Layout))
		}
		if t.Zone != "" {
			fmt.Fprintf(&b, ", zone: %s", scalar(t.Zone))
		}
		b.WriteString("}\n")
	}
	if spec.Delimiter != "" {
		fmt.Fprintf(&b, "delimiter: %s\n", scalar(spec.Delimiter))
	}
	if len(spec.Header) > 0 {
		fmt.Fprintf(&b, "header: %s\n", list(spec.Header))
	}
	if n := spec.Rolling; n != 0 {
		fmt.Fprintf(&b, "rolling: %d  # columns NAME.mean%d and NAME.sd%d of every number and boolean, over the last %d records of a key\n", n, n, n, n)
	}
	b.WriteString("# type: number (log1p: true, clip: [low, high], missing: value), boolean (missing: 0 or 1),\n")
	b.WriteString("# or category (categories: […], in column order; any other value goes to the column NAME=?).\n")
	if len(spec.Fields) == 0 {
		b.WriteString("fields: []\n")
	} else {
		b.WriteString("fields:\n")
	}
	said := map[int]bool{}
	for _, f := range spec.Fields {
		for i, n := range notes {
			if n.Name == f.Name || spec.Rolling > 0 && (n.Name == spec.MeanColumn(f.Name) || n.Name == spec.DeviationColumn(f.Name)) {
				said[i] = true
				fmt.Fprintf(&b, "  # %s: %s\n", oneLine(n.Name), oneLine(n.Note))
			}
		}
		b.WriteString("  - " + fieldLine(f) + "\n")
	}
	var rest []model.ColumnNote
	for i, n := range notes {
		if !said[i] {
			rest = append(rest, n)
		}
	}
	if len(rest) > 0 {
		b.WriteString("# Not features; take the # away to make one of a field:\n")
	}
	for _, n := range rest {
		switch {
		case strings.HasPrefix(n.Note, leftOutText):
			fmt.Fprintf(&b, "#  - {name: %s, type: category, categories: []}  # %s\n", scalar(n.Name), oneLine(n.Note))
		case strings.HasPrefix(n.Note, leftOut):
			fmt.Fprintf(&b, "#  - {name: %s, type: number}  # %s\n", scalar(n.Name), oneLine(n.Note))
		default:
			fmt.Fprintf(&b, "# %s: %s\n", oneLine(n.Name), oneLine(n.Note))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func fieldLine(f model.Field) string {
	var b strings.Builder
	fmt.Fprintf(&b, "{name: %s, type: %s", scalar(f.Name), scalar(string(f.Type)))
	if f.Log1p {
		b.WriteString(", log1p: true")
	}
	if len(f.Clip) > 0 {
		var nums []string
		for _, v := range f.Clip {
			nums = append(nums, number(v))
		}
		fmt.Fprintf(&b, ", clip: [%s]", strings.Join(nums, ", "))
	}
	if f.Missing != nil {
		fmt.Fprintf(&b, ", missing: %s", number(*f.Missing))
	}
	if len(f.Categories) > 0 {
		fmt.Fprintf(&b, ", categories: %s", list(f.Categories))
	}
	b.WriteByte('}')
	return b.String()
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func list(items []string) string {
	out := make([]string, len(items))
	for i, s := range items {
		out[i] = scalar(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// scalar writes a text as a YAML flow scalar: bare where nothing could read it as something else, else in double
// quotes. What a reader takes for a number, a boolean or null is quoted, since all values here are text.
func scalar(s string) string {
	bare := s != "" && (s[0]|0x20 >= 'a' && s[0]|0x20 <= 'z' || s[0] == '_')
	for i := 0; bare && i < len(s); i++ {
		c := s[i]
		bare = c|0x20 >= 'a' && c|0x20 <= 'z' || c-'0' <= 9 || c == '_' || c == '-' || c == '.' || c == '/'
	}
	switch strings.ToLower(s) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n":
		bare = false
	}
	if bare {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f || r == 0x85 || r == 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff || r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// oneLine keeps a comment on its line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, s)
}

// ReadSpec reads a spec from a file. It is strict: unknown keys, wrong types and specs that do not compile are all
// reported at once, each with file:line.
func ReadSpec(path string) (model.Spec, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return model.Spec{}, fmt.Errorf("feature spec: %w", err)
	}
	return ParseSpec(path, data)
}

// ParseSpec is ReadSpec on bytes; name stands for the file in messages.
func ParseSpec(name string, data []byte) (model.Spec, error) {
	p := &specParser{file: name}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return model.Spec{}, fmt.Errorf("%s: empty; a feature spec has at least format and fields", name)
		}
		return model.Spec{}, fmt.Errorf("%s: not YAML: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	spec := p.spec(&doc)
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		p.errs = append(p.errs, fmt.Errorf("%s: more than one YAML document", name))
	}
	if len(p.errs) > 0 {
		return model.Spec{}, errors.Join(p.errs...)
	}
	if _, err := Compile(spec); err != nil {
		return model.Spec{}, p.located(spec, err)
	}
	return spec, nil
}

type specParser struct {
	file    string
	errs    []error
	fields  []int // the line of each field
	rolling int   // the line of rolling
}

func (p *specParser) bad(n *yaml.Node, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s:%d: "+format, append([]any{p.file, n.Line}, args...)...))
}

// located puts the line of the field, or of rolling, in front of each of Compile's faults.
func (p *specParser) located(spec model.Spec, err error) error {
	var out []error
	faults := []error{err}
	if m, ok := err.(interface{ Unwrap() []error }); ok {
		faults = m.Unwrap()
	}
	for _, e := range faults {
		text := strings.TrimPrefix(e.Error(), "feature spec: ")
		var at int
		if _, err := fmt.Sscanf(text, "field %d ", &at); err == nil && at >= 1 && at <= len(p.fields) {
			out = append(out, fmt.Errorf("%s:%d: %s", p.file, p.fields[at-1], text))
		} else if strings.HasPrefix(text, "rolling ") {
			out = append(out, fmt.Errorf("%s:%d: %s", p.file, p.rolling, text))
		} else {
			out = append(out, fmt.Errorf("%s: %s", p.file, text))
		}
	}
	return errors.Join(out...)
}

// mapping visits the pairs of a mapping; a key that is not known names the nearest, a doubled one both lines.
func (p *specParser) mapping(n *yaml.Node, what string, known map[string]func(*yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		p.bad(n, "%s should be a mapping (key: value)", what)
		return
	}
	names := make([]string, 0, len(known))
	for k := range known {
		names = append(names, k)
	}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if line, ok := first[k.Value]; ok {
			p.bad(k, "%s: key %q stands twice, first on line %d", what, k.Value, line)
			continue
		}
		first[k.Value] = k.Line
		take, ok := known[k.Value]
		if !ok {
			p.bad(k, "%s: unknown key %q; %s", what, k.Value, suggest(k.Value, sorted(names)))
			continue
		}
		if v.Kind == yaml.AliasNode {
			p.bad(v, "%s: %s: aliases are not read here; write the value out", what, k.Value)
			continue
		}
		take(v)
	}
}

func (p *specParser) spec(doc *yaml.Node) (s model.Spec) {
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		p.errs = append(p.errs, fmt.Errorf("%s: not a feature spec", p.file))
		return s
	}
	p.mapping(doc.Content[0], "feature spec", map[string]func(*yaml.Node){
		"format":    p.text(&s.Format, "format"),
		"key":       p.text(&s.Key, "key"),
		"delimiter": p.text(&s.Delimiter, "delimiter"),
		"header":    p.texts(&s.Header, "header"),
		"rolling": func(n *yaml.Node) {
			p.rolling = n.Line
			if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || n.Decode(&s.Rolling) != nil {
				p.bad(n, "rolling should be a number of records, %d to %d, or 0 for none, not %q", model.MinRolling, model.MaxRolling, n.Value)
			}
		},
		"time": func(n *yaml.Node) {
			s.Time = &model.Time{}
			p.mapping(n, "time", map[string]func(*yaml.Node){
				"field": p.text(&s.Time.Field, "time field"), "unit": p.text(&s.Time.Unit, "unit"),
				"layout": p.text(&s.Time.Layout, "layout"), "zone": p.text(&s.Time.Zone, "zone"),
			})
		},
		"fields": func(n *yaml.Node) {
			if n.Kind != yaml.SequenceNode {
				p.bad(n, "fields should be a list")
				return
			}
			for _, item := range n.Content {
				s.Fields = append(s.Fields, p.field(item))
				p.fields = append(p.fields, item.Line)
			}
		},
	})
	return s
}

func (p *specParser) field(n *yaml.Node) (f model.Field) {
	var kind string
	p.mapping(n, "field", map[string]func(*yaml.Node){
		"name": p.text(&f.Name, "name"),
		"type": p.text(&kind, "type"),
		"log1p": func(n *yaml.Node) {
			if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || n.Decode(&f.Log1p) != nil {
				p.bad(n, "log1p should be true or false, not %q", n.Value)
			}
		},
		"clip": func(n *yaml.Node) {
			if n.Kind != yaml.SequenceNode {
				p.bad(n, "clip should be [low, high]")
				return
			}
			for _, item := range n.Content {
				f.Clip = append(f.Clip, p.float(item, "clip"))
			}
		},
		"missing": func(n *yaml.Node) {
			v := p.float(n, "missing")
			f.Missing = &v
		},
		"categories": p.texts(&f.Categories, "categories"),
	})
	f.Type = model.FieldType(kind)
	return f
}

func (p *specParser) float(n *yaml.Node, what string) float64 {
	v, err := strconv.ParseFloat(n.Value, 64)
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" && n.Tag != "!!float" || err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		p.bad(n, "%s should be a finite number, not %q", what, n.Value)
	}
	return v
}

// text takes a scalar as it is written: a key named 1e5 or on keeps its spelling.
func (p *specParser) text(dst *string, what string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			p.bad(n, "%s should be a text", what)
			return
		}
		*dst = n.Value
	}
}

func (p *specParser) texts(dst *[]string, what string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			p.bad(n, "%s should be a list of texts", what)
			return
		}
		for _, item := range n.Content {
			var s string
			p.text(&s, what)(item)
			*dst = append(*dst, s)
		}
	}
}
