package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

func isNoTopic(err error) bool { return errors.Is(err, stream.ErrNoTopic) }

func (a *app) modelsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "models", Annotations: map[string]string{groupsOthers: "all"}, Short: "List, show, move, roll back, import, export and delete models", GroupID: groupModel,
		Long: `Models live in a Kafka topic (models_topic): each has numbered versions, and aliases that mean one
of them. A scorer follows an alias, live unless told otherwise, so moving the alias is how a
version goes into service, and back out of it.`,
		Example: `  lapwing models list
  lapwing models show cars
  lapwing models rollback cars`,
		Args: a.noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	a.bind(cmd.PersistentFlags(), "models_topic")
	cmd.AddCommand(a.modelsList(), a.modelsShow(), a.modelsDiff(), a.modelsMove(), a.modelsRollback(), a.modelsImport(), a.modelsExport(), a.modelsDelete(), a.modelsThreshold())
	return cmd
}

// withRegistry runs do with the model topic of the configuration.
func (a *app) withRegistry(cmd *cobra.Command, do func(r *registry.Registry, e *effective) error) error {
	e, err := a.configure(cmd)
	if err != nil {
		return err
	}
	client, err := a.connect(cmd.Context(), e)
	if err != nil {
		return err
	}
	defer client.Close()
	return do(a.registry(client, e), e)
}

// encodeJSON prints one object.
func (a *app) encodeJSON(v any) error {
	enc := json.NewEncoder(a.term)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func (a *app) modelsList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the models with their versions and aliases",
		Example: `  lapwing models list
  lapwing models list --json`,
		Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withRegistry(cmd, func(r *registry.Registry, e *effective) error {
				list, err := r.List(cmd.Context())
				if err != nil && !isNoTopic(err) {
					return err
				}
				if a.json {
					return a.encodeJSON(entriesJSON(list))
				}
				if len(list) == 0 {
					a.printf("no models yet in topic %s; train one: lapwing train --topic TOPIC --model NAME\n", clean(e.ModelsTopic))
					return nil
				}
				for _, it := range list {
					a.listEntry(it)
				}
				return nil
			})
		},
	}
	a.jsonFlag(cmd.Flags(), "print one JSON array")
	return cmd
}

func (a *app) listEntry(it registry.Entry) {
	t := a.term
	a.printf("%s  %s\n", t.paint(bold, it.Name), aliasText(t, it.Aliases))
	for i, v := range slices.Backward(it.Versions) {
		if len(it.Versions)-i > 5 {
			a.printf("  %s\n", t.paint(faint, fmt.Sprintf("and %d older: lapwing models show %s", i+1, it.Name)))
			break
		}
		a.printf("  %s\n", versionText(t, v))
	}
}

// aliasText lists aliases: live → 3.
func aliasText(t *terminal, aliases map[string]registry.Alias) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(aliases)) {
		parts = append(parts, fmt.Sprintf("%s → %d", t.paint(cyan, name), aliases[name].Version))
	}
	if len(parts) == 0 {
		return t.paint(faint, "no alias")
	}
	return strings.Join(parts, ", ")
}

func versionText(t *terminal, v registry.Version) string {
	if v.Fault != "" {
		return fmt.Sprintf("%4d  %s", v.Version, t.paint(red, "damaged: "+clean(v.Fault)))
	}
	return fmt.Sprintf("%4d  %s  %.8s  %9s  by %s", v.Version, v.Created.UTC().Format("2006-01-02 15:04"), v.Digest, count(v.Bytes)+" B", clean(v.By))
}

type versionJSON struct {
	Version int `json:"version"`
	registry.Manifest
	Fault string `json:"fault,omitempty"`
}

type entryJSON struct {
	Name     string                    `json:"name"`
	Versions []versionJSON             `json:"versions"`
	Aliases  map[string]registry.Alias `json:"aliases"`
}

func entriesJSON(list []registry.Entry) []entryJSON {
	out := []entryJSON{}
	for _, it := range list {
		one := entryJSON{Name: it.Name, Versions: []versionJSON{}, Aliases: it.Aliases}
		for _, v := range it.Versions {
			one.Versions = append(one.Versions, versionJSON{v.Version, v.Manifest, v.Fault})
		}
		out = append(out, one)
	}
	return out
}

// moved prints where an alias points now.
func (a *app) moved(name, alias string, now registry.Alias) error {
	if a.json {
		return a.encodeJSON(map[string]any{"name": name, "alias": alias, "now": now})
	}
	from := ""
	if n := len(now.History); n > 0 && now.History[n-1].From > 0 {
		from = fmt.Sprintf(" (before: version %d)", now.History[n-1].From)
	}
	a.printf("%s@%s means version %s now%s\n", name, alias, a.term.paint(bold, strconv.Itoa(now.Version)), from)
	return nil
}

func (a *app) modelsMove() *cobra.Command {
	var why string
	var generation int64
	var fresh bool
	cmd := &cobra.Command{
		Use: "move NAME[@ALIAS] VERSION", Short: "Point an alias at a version; scorers that follow it change over",
		Long: `Points an alias at a version. Every scorer that follows the alias changes over between two batches,
within about a second. The version that it meant before is what rollback goes back to.`,
		Example: `  lapwing models move cars@live 3 --why "fewer false alarms"
  lapwing models move cars@canary 4`,
		Args: args(2, 2, "NAME@ALIAS and a version"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseRef(args[0])
			if err != nil {
				return err
			}
			version, verr := strconv.Atoi(args[1])
			if ref.Alias == "" || verr != nil || version < 1 {
				return usage("models move takes an alias and the number of a version", strings.Join(args, " "), "for example: "+firstExample(cmd))
			}
			return a.withRegistry(cmd, func(r *registry.Registry, e *effective) error {
				if err := knownAlias(cmd.Context(), r, ref, fresh); err != nil {
					return noModelTopic(err, e)
				}
				now, err := r.Move(cmd.Context(), ref.Name, ref.Alias, version, generation, registry.Whoami(), why)
				if err != nil {
					return noModelTopic(err, e)
				}
				return a.moved(ref.Name, ref.Alias, now)
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "`REASON`, for the alias's history")
	cmd.Flags().Int64Var(&generation, "generation", registry.AnyGeneration, "move only if the alias is still at this `GENERATION`; -1: whatever it is")
	cmd.Flags().BoolVar(&fresh, "new-alias", false, "make the alias if the model has none of that name; live, canary and shadow need no leave")
	a.jsonFlag(cmd.Flags(), "print the alias as one JSON object")
	return cmd
}

// usualAliases are made without being asked for.
var usualAliases = []string{"live", "canary", "shadow"}

// knownAlias refuses an alias that is most likely mistyped: a scorer would go on with the version it has.
func knownAlias(ctx context.Context, r *registry.Registry, ref registry.Ref, fresh bool) error {
	if fresh || slices.Contains(usualAliases, ref.Alias) {
		return nil
	}
	list, err := r.List(ctx)
	if err != nil {
		return err
	}
	names := slices.Clone(usualAliases)
	for _, it := range list {
		if it.Name == ref.Name {
			names = append(names, slices.Sorted(maps.Keys(it.Aliases))...)
		}
	}
	if slices.Contains(names, ref.Alias) {
		return nil
	}
	next := "add --new-alias if it is meant"
	if n := nearest(ref.Alias, names); n != "" {
		next = "did you mean " + n + "? --new-alias makes another"
	}
	return usage(fmt.Sprintf("model %s has no alias %s", ref.Name, ref.Alias), "", next)
}

func (a *app) modelsRollback() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use: "rollback NAME[@ALIAS]", Short: "Point an alias back at the version that it meant before",
		Long: `Points an alias back at the version that it meant before the last move; done again, at the one
before that. Versions that were deleted since are left out. Every scorer that follows the alias
changes over between two batches, within about a second.`,
		Example: `  lapwing models rollback cars
  lapwing models rollback cars@canary --why "too many alerts"`,
		Args: args(1, 1, "the name of a model"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseRef(args[0])
			if err != nil {
				return err
			}
			if ref.Alias == "" {
				return usage("a version cannot be rolled back, an alias can", args[0], "for example: "+firstExample(cmd))
			}
			return a.withRegistry(cmd, func(r *registry.Registry, e *effective) error {
				now, err := r.Rollback(cmd.Context(), ref.Name, ref.Alias, registry.Whoami(), why)
				if err != nil {
					return noModelTopic(err, e)
				}
				return a.moved(ref.Name, ref.Alias, now)
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "`REASON`, for the alias's history")
	a.jsonFlag(cmd.Flags(), "print the alias as one JSON object")
	return cmd
}

func (a *app) modelsImport() *cobra.Command {
	var name, alias, why string
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Publish a model file that Lapwing wrote",
		Long: `Publishes a file that lapwing train left or lapwing models export wrote. The model is decoded and
held to its own self-test on this machine first; a file that other tools have changed is refused.`,
		Example: `  lapwing models import cars-1f2e3d4c.onnx --model cars
  lapwing models import cars.onnx --model cars --alias none`,
		Args: args(1, 1, "one FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := required(cmd, "model"); err != nil {
				return err
			}
			if err := registry.ValidName(name); err != nil {
				return err
			}
			return a.importModel(cmd, args[0], name, alias, why)
		},
	}
	cmd.Flags().StringVar(&name, "model", "", "`NAME` to publish under; required")
	cmd.Flags().StringVar(&alias, "alias", "live", "`ALIAS` that moves to it; none leaves all alone")
	cmd.Flags().StringVar(&why, "why", "", "`REASON`, for the alias's history")
	a.jsonFlag(cmd.Flags(), "print the new version as one JSON object")
	return cmd
}

// maxModelFile is what an ONNX file can hold, since protobuf ends there.
const maxModelFile = 2 << 30

func (a *app) importModel(cmd *cobra.Command, file, name, alias, why string) error {
	if info, err := os.Stat(file); err == nil && info.Size() > maxModelFile {
		return &fault{what: "the file is larger than a model can be", where: fmt.Sprintf("%s: %s bytes", file, count(info.Size())), next: "give a file that lapwing models export wrote"}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return fileFault(file, err)
	}
	m, err := model.Decode(data)
	if err != nil {
		return &fault{what: "this is no model that Lapwing wrote: " + err.Error(), where: file, next: "give a file that lapwing train left or lapwing models export wrote", cause: err}
	}
	engine := bestEngine()
	scorer, err := engine.Scorer(m.Program)
	if err == nil {
		err = m.Verify(scorer, m.Lineage.Engine == engineLine(engine))
	}
	if err != nil {
		return &fault{what: "the model does not reproduce its own self-test here: " + err.Error(), where: file, next: "train it again on this kind of machine", cause: err}
	}
	if why == "" {
		why = "imported from " + filepath.Base(file)
	}
	if alias == "none" {
		alias = ""
	}
	return a.withRegistry(cmd, func(r *registry.Registry, _ *effective) error {
		made, err := r.Publish(cmd.Context(), registry.Publication{Name: name, Data: data, Alias: alias, Why: why, Parent: m.Lineage.Parent})
		if err != nil {
			return importFault(err, file, name)
		}
		if a.json {
			return a.encodeJSON(map[string]any{"name": name, "version": made.Version, "manifest": made, "alias": alias})
		}
		a.printf("%s is published from %s: %s bytes, digest %.8s\n", a.term.paint(bold, made.String()), clean(file), count(made.Bytes), made.Digest)
		return nil
	})
}

// importFault names the file where another publisher came first: it is where it was.
func importFault(err error, file, name string) error {
	if !errors.Is(err, registry.ErrOvertaken) {
		return err
	}
	return &fault{what: err.Error(), where: file, cause: err,
		next: "compare the two, then publish yours as the next version: lapwing models import " + shellWord(file) + " --model " + name}
}

func (a *app) modelsExport() *cobra.Command {
	var to string
	var outputs []string
	cmd := &cobra.Command{
		Use: "export NAME[@ALIAS|/VERSION]", Short: "Write a model as an ONNX file that any ONNX runtime can score with",
		Long: `Writes the very bytes in the topic: raw features in; score, reconstruction and contributions out.
With --outputs the graph is pruned to those, which is faster where nobody asks for the rest; such
a file is for other programs, and cannot be imported again.`,
		Example: `  lapwing models export cars --to cars.onnx
  lapwing models export cars/3 --to cars-score.onnx --outputs score`,
		Args: args(1, 1, "the name of a model"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := required(cmd, "to"); err != nil {
				return err
			}
			ref, err := parseRef(args[0])
			if err != nil {
				return err
			}
			for _, o := range outputs {
				if slices.Contains(model.Outputs, o) {
					continue
				}
				next := "use some of " + strings.Join(model.Outputs, ", ")
				if n := nearest(o, model.Outputs); n != "" {
					next = "did you mean " + n + "?"
				}
				return usage(fmt.Sprintf("--outputs: a model has no output %q", o), "", next)
			}
			return a.withRegistry(cmd, func(r *registry.Registry, e *effective) error {
				m, data, err := r.Get(cmd.Context(), ref)
				if err != nil {
					return noModelTopic(err, e)
				}
				if len(outputs) > 0 {
					if data, err = model.Prune(data, outputs...); err != nil {
						return err
					}
				}
				return a.writeModel(to, m, data)
			})
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "`FILE` to write, or - for standard output; required")
	cmd.Flags().StringSliceVar(&outputs, "outputs", nil, "keep only these `OUTPUTS`: score, reconstruction, contributions")
	a.jsonFlag(cmd.Flags(), "print what was written as one JSON object")
	return cmd
}

func (a *app) writeModel(to string, m registry.Manifest, data []byte) error {
	if to == "-" {
		_, err := a.out.Write(data)
		return err
	}
	if err := os.WriteFile(to, data, 0o644); err != nil {
		return fileFault(to, err)
	}
	if a.json {
		return a.encodeJSON(map[string]any{"model": m.Name, "version": m.Version, "digest": model.Digest(data), "bytes": len(data), "file": to})
	}
	a.printf("%s is in %s: %s bytes\n", a.term.paint(bold, m.String()), clean(to), count(len(data)))
	return nil
}
