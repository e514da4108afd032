package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) configSchema() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of lapwing.yaml, for editors",
		Long: `Prints the JSON Schema (draft 2020-12) of lapwing.yaml, made from the same declarations that the
program reads. An editor with a YAML language server completes and checks the file by it, once the
file's first line names it.`,
		Example: `  lapwing config schema > lapwing.schema.json
  # and then the first line of lapwing.yaml:
  #   # yaml-language-server: $schema=lapwing.schema.json`,
		Args: args(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			text, err := configJSONSchema()
			if err != nil {
				return err
			}
			_, err = a.term.Write(text)
			return err
		},
	}
}

// object is a JSON object whose keys stay in order, since the order of the settings tells something.
type object []member

type member struct {
	key   string
	value any
}

// MarshalJSON keeps the order of the members.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	between := "{"
	for _, m := range o {
		b.WriteString(between)
		if err := enc.Encode(m.key); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		if err := enc.Encode(m.value); err != nil {
			return nil, err
		}
		between = ","
	}
	if len(o) == 0 {
		b.WriteByte('{')
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// configJSONSchema describes lapwing.yaml. It refuses only what the program refuses too: rules over several settings, and
// what only librdkafka knows, are the program's. A scalar's null is the exception: the program takes it as not said,
// an editor should not.
func configJSONSchema() ([]byte, error) {
	root := object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"title", "lapwing.yaml"},
		{"description", "Configuration of Lapwing. Made from its declarations by: lapwing config schema"},
	}
	root = append(root, sectionSchema(declared(), "")...)
	root = append(root, member{"$defs", object{{"scalar", object{{"type", []string{"string", "number", "boolean"}}}}}})
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// sectionSchema is what a map of settings may hold: those, and nothing else. A section without a setting below it,
// which YAML reads as null, is empty.
func sectionSchema(all []setting, section string) object {
	properties, required := object{}, []string{}
	for _, s := range all {
		if s.section != section {
			continue
		}
		if s.require {
			required = append(required, lastKey(s.path))
		}
		properties = append(properties, member{lastKey(s.path), settingSchema(s, all)})
	}
	o := object{{"type", []string{"object", "null"}}, {"properties", properties}, {"additionalProperties", false}}
	if len(required) > 0 {
		o[0].value = "object"
		o = append(o, member{"required", required})
	}
	return o
}

func settingSchema(s setting, all []setting) object {
	o := object{{"description", describeSetting(s)}}
	switch {
	case s.path == "alerts" && s.group: // or the word that leaves them out, as loader.node has it
		section := sectionSchema(all, s.path)
		section[0].value = []string{"object", "string", "null"}
		return append(append(o, section...), member{"pattern", "^" + noAlerts + "$"})
	case s.group:
		return append(o, sectionSchema(all, s.path)...)
	case s.list:
		return append(o, object{{"type", []string{"array", "null"}}, {"items", sectionSchema(streamDeclared(), "")}}...)
	case s.typ.Kind() == reflect.Map:
		return append(o, propertiesSchema(s)...)
	}
	o = append(o, valueSchema(s)...)
	if s.def != "" {
		o = append(o, member{"default", defaultJSON(s)})
	}
	return o
}

// propertiesSchema is the kafka map: librdkafka decides what exists, so any key goes; those that are known are offered.
func propertiesSchema(s setting) object {
	scalar := object{{"$ref", "#/$defs/scalar"}}
	known := object{}
	for _, name := range kafkaProperties {
		known = append(known, member{name, scalar})
	}
	defaults := object{}
	for _, part := range splitList(s.def) {
		key, value, _ := strings.Cut(part, "=")
		defaults = append(defaults, member{key, value})
	}
	return object{{"type", []string{"object", "null"}}, {"properties", known}, {"additionalProperties", scalar}, {"default", defaults}}
}

// What a value may look like where it is text: in quotes, or with a unit.
const (
	wholePattern    = `[+-]?[0-9]+`
	numberPattern   = `[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?`
	durationPattern = `[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)d|[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+`
)

// valueSchema says how one value is written. Bounds hold for numbers alone, patterns for text alone, so one schema
// serves both ways of writing.
func valueSchema(s setting) object {
	anchored := func(pattern string) member { return member{"pattern", "^(" + pattern + ")$"} }
	if len(s.oneof) > 0 {
		return object{{"type", "string"}, {"enum", s.oneof}}
	}
	switch s.typ {
	case reflect.TypeFor[Size]():
		var units []string
		for _, u := range sizeUnits {
			units = append(units, u.name)
		}
		return withBounds(object{{"type", []string{"string", "number"}}, anchored(`\s*` + numberPattern + `\s*(` + strings.Join(units, "|") + `)?\s*`)}, s)
	case reflect.TypeFor[Share]():
		return withBounds(object{{"type", []string{"string", "number"}}, anchored(`\s*` + numberPattern + `\s*%?\s*`)}, s)
	case reflect.TypeFor[time.Duration]():
		if s.min == "0" { // the one duration that needs no unit
			return object{{"type", []string{"string", "number"}}, anchored(durationPattern + `|[+-]?0`), {"minimum", 0}, {"maximum", 0}}
		}
		return object{{"type", "string"}, anchored(durationPattern)}
	case reflect.TypeFor[[]string]():
		o := object{{"type", []string{"array", "string", "number", "boolean"}}, {"items", object{{"type", []string{"string", "number", "boolean"}}}}}
		if s.require {
			o = append(o, member{"minItems", 1}, member{"minLength", 1})
		}
		return o
	case reflect.TypeFor[[]int]():
		item := withBounds(object{{"type", []string{"integer", "string"}}, anchored(`\s*` + wholePattern + `\s*`)}, s)
		return withBounds(object{{"type", []string{"array", "integer", "string"}}, {"items", item}, anchored(`[\s,]*(` + wholePattern + `[\s,]*)*`)}, s)
	}
	switch s.typ.Kind() {
	case reflect.Int, reflect.Uint64:
		return withBounds(object{{"type", []string{"integer", "string"}}, anchored(wholePattern)}, s)
	case reflect.Float64:
		return withBounds(object{{"type", []string{"number", "string"}}, anchored(numberPattern)}, s)
	case reflect.Bool:
		return object{{"type", []string{"boolean", "string"}}, {"pattern", "^(true|True|TRUE|false|False|FALSE)$"}}
	}
	o := object{{"type", []string{"string", "number", "boolean"}}} // a name may look like a number
	if s.require {
		o = append(o, member{"minLength", 1})
	}
	return o
}

func withBounds(o object, s setting) object {
	for _, b := range []struct{ key, tag string }{{"minimum", s.min}, {"maximum", s.max}} {
		if b.tag != "" {
			o = append(o, member{b.key, json.Number(b.tag)})
		} else if b.key == "minimum" && s.typ.Kind() == reflect.Uint64 {
			o = append(o, member{b.key, 0})
		}
	}
	return o
}

// describeSetting is what an editor shows beside the key.
func describeSetting(s setting) string {
	text := strings.ToUpper(s.doc[:1]) + s.doc[1:] + "."
	if s.group || s.list {
		return text
	}
	if s.def != "" && s.typ.Kind() != reflect.Map {
		text += " Default: " + s.def + "."
	}
	switch {
	case len(s.oneof) > 0 || s.typ.Kind() == reflect.Map:
	case s.typ.Kind() == reflect.String:
		if s.unit != "" {
			text += " Written as: " + s.unit + "."
		}
	default:
		text += " Written as " + s.allowed()
		for _, b := range []struct{ word, tag string }{{"at least", s.min}, {"at most", s.max}} {
			if b.tag != "" {
				typ := s.typ
				if typ.Kind() == reflect.Slice {
					typ = typ.Elem()
				}
				text += fmt.Sprintf(", %s %s", b.word, formatBound(typ, b.tag))
			}
		}
		if s.unit != "" && !strings.Contains(s.allowed(), s.unit) {
			text += " (" + s.unit + ")"
		}
		text += "."
	}
	if s.env != "" && s.typ.Kind() != reflect.Map {
		text += " Also " + s.env + " and --" + s.flag + "."
	}
	return text
}

// defaultJSON is the default as the file would have it: a number where it is one.
func defaultJSON(s setting) any {
	switch s.typ.Kind() {
	case reflect.Int, reflect.Uint64, reflect.Float64:
		if _, err := strconv.ParseFloat(s.def, 64); err == nil {
			return json.Number(s.def)
		}
	}
	return s.def
}
