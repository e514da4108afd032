package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config [train|serve|score]", Short: "Show the effective configuration, secrets hidden", GroupID: groupAbout,
		Long: `Shows every setting with the value that holds, and where it came from: a flag, a LAPWING_…
variable, the file or the default. Secrets are hidden. With the name of a command it takes
that command's flags too, and shows what they would do.

Every fault of the configuration is reported at once, with its line and the nearest setting.`,
		Example: `  lapwing config
  lapwing config --json
  LAPWING_SCORE_MAX_BATCH=512 lapwing config serve --queue 8192`,
		Args: a.noCommand,
		RunE: a.showConfig,
	}
	a.jsonFlag(cmd.PersistentFlags(), "print one JSON object: config, and the origin of each value that is no default")
	for _, of := range []struct {
		name  string
		flags func(*cobra.Command)
	}{{"train", a.trainSettings}, {"serve", a.serveSettings}, {"score", a.scoreSettings}} {
		sub := &cobra.Command{
			Use: of.name, Short: "Show the configuration as lapwing " + of.name + " would see it",
			Example: "  lapwing config " + of.name,
			Args:    args(0, 0, ""),
			RunE:    a.showConfig,
		}
		of.flags(sub)
		cmd.AddCommand(sub)
	}
	cmd.AddCommand(a.configSchema())
	return cmd
}

// The flags that give settings, one list for each command that has them.

func (a *app) trainSettings(cmd *cobra.Command) {
	a.bind(cmd.Flags(), "models_topic", "pyroscope", "gpu", "train")
}
func (a *app) serveSettings(cmd *cobra.Command) {
	a.bindStream(cmd.Flags())
	a.bind(cmd.Flags(), "models_topic", "http", "delivery", "pyroscope", "gpu", "score")
}
func (a *app) scoreSettings(cmd *cobra.Command) {
	a.bind(cmd.Flags(), "models_topic", "gpu", "score.engine", "score.max_batch", "score.rolling_rewind", "score.rolling_keys")
}

func (a *app) showConfig(cmd *cobra.Command, _ []string) error {
	e, err := a.configure(cmd)
	if err != nil {
		return err
	}
	if a.json {
		return e.writeJSON(a.term)
	}
	text, err := e.yaml()
	if err != nil {
		return err
	}
	_, err = a.term.Write(text)
	return err
}

// shown is a setting's value as it may be printed.
func shown(s setting, v reflect.Value) string {
	if s.secret && !v.IsZero() {
		return hidden
	}
	return hideURLs(formatValue(v))
}

// yaml is the configuration as a file that could be given back, but for the secrets; a comment names where
// each value came from.
func (e *effective) yaml() ([]byte, error) {
	root := &yaml.Node{Kind: yaml.MappingNode}
	from := "no file"
	if e.file != "" {
		from = e.file
	}
	root.HeadComment = "The effective configuration (" + from + "), secrets hidden."
	e.nodes(root, declared(), "", "", reflect.ValueOf(&e.Config).Elem())
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}

// nodes appends the settings of a section to a mapping.
func (e *effective) nodes(into *yaml.Node, all []setting, section, prefix string, root reflect.Value) {
	add := func(key string, value *yaml.Node) {
		into.Content = append(into.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, value)
	}
	for _, s := range all {
		if s.section != section {
			continue
		}
		v := root.FieldByIndex(s.index)
		switch {
		case s.group:
			m := &yaml.Node{Kind: yaml.MappingNode}
			e.nodes(m, all, s.path, prefix, root)
			add(lastKey(s.path), m)
		case s.list:
			list := &yaml.Node{Kind: yaml.SequenceNode}
			for i, stream := range e.Streams {
				m := &yaml.Node{Kind: yaml.MappingNode}
				stream = stream.withNames()
				e.nodes(m, streamDeclared(), "", fmt.Sprintf("streams[%d].", i), reflect.ValueOf(&stream).Elem())
				list.Content = append(list.Content, m)
			}
			if len(list.Content) == 0 {
				list.Style = yaml.FlowStyle
			}
			add(s.path, list)
		case v.Kind() == reflect.Map:
			m := &yaml.Node{Kind: yaml.MappingNode}
			for _, k := range slices.Sorted(maps.Keys(e.Kafka)) {
				value := &yaml.Node{Kind: yaml.ScalarNode, Value: shownProperty(k, e.Kafka[k]), LineComment: e.comment("kafka." + k)}
				m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: k}, value)
			}
			add(s.path, m)
		default:
			n := &yaml.Node{Kind: yaml.ScalarNode, Value: shown(s, v), LineComment: e.comment(prefix + s.path)}
			if v.Kind() == reflect.Slice {
				n.Kind, n.Value, n.Style = yaml.SequenceNode, "", yaml.FlowStyle
				for _, item := range splitList(shown(s, v)) {
					n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: item})
				}
				add(lastKey(s.path), n)
				continue
			}
			if n.Value == "" {
				n.Style = yaml.DoubleQuotedStyle
			}
			add(lastKey(s.path), n)
		}
	}
}

// comment says where a value came from; nothing for a default.
func (e *effective) comment(path string) string { return e.origin[path] }

func shownProperty(key, value string) string {
	if secretProperty(key) && value != "" {
		return hidden
	}
	return hideURLs(value)
}

// writeJSON prints {"config": …, "origin": {path: where}}.
func (e *effective) writeJSON(w interface{ Write([]byte) (int, error) }) error {
	object := struct {
		Config any               `json:"config"`
		Origin map[string]string `json:"origin"`
		File   string            `json:"file,omitempty"`
	}{e.object(declared(), "", reflect.ValueOf(&e.Config).Elem()), map[string]string{}, e.file}
	for path, from := range e.origin {
		if !strings.HasSuffix(path, "]") { // the entry itself has no value
			object.Origin[path] = from
		}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(object)
}

// object gives a section as a JSON object: numbers as numbers (bytes for sizes, seconds for durations would
// need a unit in the name, so both are text as the file has them).
func (e *effective) object(all []setting, section string, root reflect.Value) map[string]any {
	m := map[string]any{}
	for _, s := range all {
		if s.section != section {
			continue
		}
		v := root.FieldByIndex(s.index)
		key := lastKey(s.path)
		switch {
		case s.group:
			m[key] = e.object(all, s.path, root)
		case s.list:
			list := []any{}
			for _, stream := range e.Streams {
				stream = stream.withNames()
				list = append(list, e.object(streamDeclared(), "", reflect.ValueOf(&stream).Elem()))
			}
			m[key] = list
		case v.Kind() == reflect.Map:
			props := map[string]string{}
			for k, value := range e.Kafka {
				props[k] = shownProperty(k, value)
			}
			m[key] = props
		default:
			m[key] = e.jsonValue(s, v)
		}
	}
	return m
}

func (e *effective) jsonValue(s setting, v reflect.Value) any {
	switch x := v.Interface().(type) {
	case int, uint64, float64, bool:
		return x
	case []string:
		return append([]string{}, x...)
	case []int:
		return append([]int{}, x...)
	}
	return shown(s, v)
}
