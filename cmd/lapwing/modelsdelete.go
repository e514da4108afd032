package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/lapwing-stream/lapwing/registry"
)

func (a *app) modelsDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete NAME/VERSION...", Short: "Delete versions that no alias means, for good",
		Long: `Deletes versions of models: the broker's compaction then frees their space. It cannot be undone;
the numbers are not used again. A version that an alias means is refused, with the command that
moves the alias first; then nothing of that model is deleted.

It asks before it deletes. A script, which nobody watches, says --yes.`,
		Example: `  lapwing models delete cars/1
  lapwing models delete cars/1 cars/2 --yes`,
		Args: args(1, -1, "NAME/VERSION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			refs, err := versionRefs(cmd, args)
			if err != nil {
				return err
			}
			return a.withRegistry(cmd, func(r *registry.Registry, e *effective) error {
				return a.deleteVersions(cmd, r, e, refs, yes)
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "delete without asking")
	a.jsonFlag(cmd.Flags(), "print what was deleted as one JSON object")
	return cmd
}

// versionRefs reads NAME/VERSION…; an alias is refused, since what it means may change before the answer.
func versionRefs(cmd *cobra.Command, words []string) ([]registry.Ref, error) {
	var refs []registry.Ref
	for _, word := range words {
		ref, err := parseRef(word)
		if err != nil {
			return nil, err
		}
		if ref.Version == 0 {
			return nil, usage("models delete takes the numbers of versions", word, "for example: "+firstExample(cmd)+"; lapwing models show "+ref.Name+" lists them")
		}
		if !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	return refs, nil
}

func (a *app) deleteVersions(cmd *cobra.Command, r *registry.Registry, e *effective, refs []registry.Ref, yes bool) error {
	list, err := r.List(cmd.Context())
	if err != nil {
		return noModelTopic(err, e)
	}
	if !yes {
		if err := a.askToDelete(cmd.Context(), list, refs); err != nil {
			return err
		}
	}
	deleted := []string{}
	var names []string
	for _, ref := range refs {
		if !slices.Contains(names, ref.Name) {
			names = append(names, ref.Name)
		}
	}
	for _, name := range names {
		var versions []int
		for _, ref := range refs {
			if ref.Name == name {
				versions = append(versions, ref.Version)
			}
		}
		if err := r.Delete(cmd.Context(), name, versions...); err != nil {
			if len(deleted) > 0 {
				a.log.Warn("deleted before the fault", "versions", strings.Join(deleted, " "))
			}
			return err
		}
		for _, v := range versions {
			deleted = append(deleted, registry.Ref{Name: name, Version: v}.String())
		}
	}
	if a.json {
		return a.encodeJSON(map[string]any{"deleted": deleted, "topic": r.Topic()})
	}
	for _, d := range deleted {
		a.printf("%s is deleted\n", a.term.paint(bold, d))
	}
	return nil
}

// askToDelete shows what would go, on stderr since stdout may be JSON, and waits for a yes. Where nobody can answer,
// nothing is deleted.
func (a *app) askToDelete(ctx context.Context, list []registry.Entry, refs []registry.Ref) error {
	if !isTerminal(a.world.err) || !readsTerminal(a.in) {
		return usage("models delete asks before it deletes, and there is no terminal to ask on", "", "add --yes where nobody watches")
	}
	for _, ref := range refs {
		text := ref.String() + "  is not there"
		for _, it := range list {
			for _, v := range it.Versions {
				if it.Name == ref.Name && v.Version == ref.Version {
					text = it.Name + versionText(a.term, v)
					for _, alias := range slices.Sorted(maps.Keys(it.Aliases)) {
						if it.Aliases[alias].Version == v.Version {
							text += a.term.paint(red, "  "+alias+" means it: it will be refused")
						}
					}
				}
			}
		}
		fmt.Fprintf(a.stderr, "  %s\n", text)
	}
	what := "it"
	if len(refs) > 1 {
		what = fmt.Sprintf("these %d versions", len(refs))
	}
	fmt.Fprintf(a.stderr, "Delete %s for good? Type yes: ", what)
	// A read of a terminal cannot be called off: after an interrupt it ends with the process, which ends next.
	type line struct {
		text string
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := bufio.NewReader(a.in).ReadString('\n')
		read <- line{text, err}
	}()
	var answer line
	select {
	case answer = <-read:
	case <-ctx.Done():
		fmt.Fprintln(a.stderr)
		return &fault{what: "interrupted: nothing was deleted", cause: ctx.Err(), code: exitInterrupted}
	}
	if answer.err != nil && answer.err != io.EOF {
		return answer.err
	}
	if strings.TrimSpace(strings.ToLower(answer.text)) != "yes" {
		return &fault{what: "nothing was deleted: the answer was not yes", next: "repeat the command if you do want it"}
	}
	return nil
}

func readsTerminal(in io.Reader) bool {
	file, ok := in.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
