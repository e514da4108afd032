package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// completionPatience is how long a key press may wait for the broker. What is not there by then is not offered.
const completionPatience = 1500 * time.Millisecond

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Print a script that completes commands, models and topics in a shell", GroupID: groupAbout,
		Long: `Prints the completion script of a shell. With it the Tab key completes commands and flags, and names
of models, versions, aliases and topics as they stand in the configured Kafka. A broker that does
not answer within 1.5 seconds offers nothing, without a word.

  ~/.bashrc   source <(lapwing completion bash)     (needs the package bash-completion)
  ~/.zshrc    source <(lapwing completion zsh)      (after compinit)
  fish        lapwing completion fish > ~/.config/fish/completions/lapwing.fish
  $PROFILE    lapwing completion powershell | Out-String | Invoke-Expression`,
		Example: `  source <(lapwing completion bash)
  lapwing completion fish > ~/.config/fish/completions/lapwing.fish`,
		Args:      args(1, 1, "the name of a shell"),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			var b bytes.Buffer
			var err error
			switch root := cmd.Root(); args[0] {
			case "bash":
				err = root.GenBashCompletionV2(&b, true)
				b = *bytes.NewBuffer(wholeReferences(b.Bytes()))
			case "zsh":
				err = root.GenZshCompletion(&b)
			case "fish":
				err = root.GenFishCompletion(&b, true)
			case "powershell":
				err = root.GenPowerShellCompletionWithDesc(&b)
			default:
				return usage(fmt.Sprintf("there is no completion for %q", args[0]), "", "use one of "+strings.Join(shells, ", "))
			}
			if err != nil {
				return err
			}
			_, err = a.term.Write(b.Bytes())
			return err
		},
	}
}

// wholeReferences makes bash see cars@live as one word: by default it breaks words at @, as for user@host.
func wholeReferences(script []byte) []byte {
	script = bytes.ReplaceAll(script, []byte("init_completion -n =: ||"), []byte("init_completion -n =:@ ||"))
	const colon = `    __lapwing_handle_special_char "$cur" :` + "\n"
	return bytes.Replace(script, []byte(colon), []byte(colon+strings.Replace(colon, " :", " @", 1)), 1)
}

// offer gives what may be typed, each with a description after a tab.
type offer func(cmd *cobra.Command, typed []string) []string

// addCompletion gives every flag and argument below root what can be completed, by what its name and its usage say.
func (a *app) addCompletion(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		a.addCompletion(cmd)
	}
	if cmd := root; cmd.ValidArgs == nil && cmd.ValidArgsFunction == nil && cmd.HasParent() {
		cmd.ValidArgsFunction = completion(a.argumentOffer(cmd), takesFile(cmd.Use))
	}
	root.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if root.HasParent() && root.InheritedFlags().Lookup(f.Name) != nil {
			return // its own command has it
		}
		if _, taken := root.GetFlagCompletionFunc(f.Name); taken {
			return
		}
		give, file := a.flagOffer(f)
		root.RegisterFlagCompletionFunc(f.Name, completion(give, file)) // fails only for a flag that is not there
	})
}

// completion is an offer as cobra takes it; file: names of files too.
func completion(give offer, file bool) cobra.CompletionFunc {
	directive := cobra.ShellCompDirectiveNoFileComp
	if file {
		directive = cobra.ShellCompDirectiveDefault
	}
	return func(cmd *cobra.Command, typed []string, word string) ([]string, cobra.ShellCompDirective) {
		if give == nil {
			return nil, directive
		}
		list := ""
		if i := strings.LastIndexByte(word, ','); i >= 0 { // the last of several, parted by commas
			list, word = word[:i+1], word[i+1:]
		}
		var fitting []string
		d := directive
		for _, o := range give(cmd, typed) {
			if strings.HasPrefix(o, word) {
				fitting = append(fitting, list+o)
				if strings.HasSuffix(o, "=") {
					d |= cobra.ShellCompDirectiveNoSpace
				}
			}
		}
		return fitting, d | cobra.ShellCompDirectiveKeepOrder
	}
}

var fileWord = regexp.MustCompile(`\b(FILE|DIR|FOLDER|PATH)\b`)

func takesFile(usage string) bool { return fileWord.MatchString(usage) }

var plainWord = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)

// words gives the words of a usage such as earliest|latest|TIME that are typed as they are.
func words(usage string) offer {
	var list []string
	for w := range strings.SplitSeq(usage, "|") {
		if plainWord.MatchString(w) {
			list = append(list, w)
		}
	}
	if len(list) == 0 || !strings.Contains(usage, "|") {
		return nil
	}
	return fixed(list...)
}

func fixed(list ...string) offer { return func(*cobra.Command, []string) []string { return list } }

// flagOffer is what the value of a flag may be.
func (a *app) flagOffer(f *pflag.Flag) (give offer, file bool) {
	value, _ := pflag.UnquoteUsage(f)
	if v, ours := f.Value.(*settingValue); ours {
		value = v.typ
	}
	switch f.Name {
	case "topic", "output", "alerts", "dlq", "models-topic":
		return a.topics(), false
	case "model":
		if strings.Contains(value, "@") {
			return a.references(nil), false
		}
		return a.models(), false
	case "alias":
		return a.aliases(), false
	case "property":
		var keys []string
		for _, k := range kafkaProperties {
			keys = append(keys, k+"=")
		}
		return fixed(keys...), false
	}
	return words(value), takesFile(value)
}

// argumentOffer is what may stand as the next argument of a command.
func (a *app) argumentOffer(cmd *cobra.Command) offer {
	form := strings.Fields(cmd.Use)[1:]
	if len(form) == 0 || cmd.HasSubCommands() {
		return nil
	}
	offers := make([]offer, len(form))
	for i, f := range form {
		name, _, _ := strings.Cut(strings.TrimSuffix(f, "..."), "[")
		switch {
		case strings.HasPrefix(f, "NAME/VERSION"):
			offers[i] = a.references(func(kind string) bool { return kind == "/" })
		case name == "NAME" && strings.Contains(f, "/"), name == "A" || name == "B":
			offers[i] = a.references(nil)
		case name == "NAME" && strings.Contains(f, "@"):
			offers[i] = a.references(func(kind string) bool { return kind != "/" })
		case name == "NAME":
			offers[i] = a.models()
		case name == "VERSION":
			offers[i] = a.versions()
		case strings.Contains(f, "TOPIC"):
			plain, topics := words(f), a.topics()
			offers[i] = func(cmd *cobra.Command, typed []string) []string {
				return append(plain(cmd, typed), topics(cmd, typed)...)
			}
		default:
			offers[i] = words(strings.Trim(f, "[]"))
		}
	}
	if !slices.ContainsFunc(offers, func(o offer) bool { return o != nil }) {
		return nil
	}
	more := strings.HasSuffix(form[len(form)-1], "...")
	return func(cmd *cobra.Command, typed []string) []string {
		i := len(typed)
		if i >= len(offers) {
			if !more {
				return nil
			}
			i = len(offers) - 1
		}
		if offers[i] == nil {
			return nil
		}
		return slices.DeleteFunc(offers[i](cmd, typed), func(o string) bool {
			word, _, _ := strings.Cut(o, "\t")
			return slices.Contains(typed, word)
		})
	}
}

// ask runs do against the configured cluster, within what a key press may take and in silence: a fault of the
// configuration or of the broker offers nothing.
func (a *app) ask(cmd *cobra.Command, do func(context.Context, *stream.Client, *effective)) {
	e, err := a.configure(cmd)
	if err != nil {
		return
	}
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithTimeout(parent, completionPatience)
	defer cancel()
	client, err := stream.Connect(ctx, stream.Options{Properties: e.Kafka, Log: slog.New(slog.DiscardHandler), ConnectTimeout: completionPatience})
	if err != nil {
		return
	}
	defer client.Close()
	do(ctx, client, e)
}

// entries are the models of the model topic.
func (a *app) entries(cmd *cobra.Command) (list []registry.Entry) {
	a.ask(cmd, func(ctx context.Context, c *stream.Client, e *effective) {
		list, _ = registry.Open(c, registry.Options{Topic: e.ModelsTopic, Log: slog.New(slog.DiscardHandler)}).List(ctx)
	})
	return list
}

func (a *app) topics() offer {
	return func(cmd *cobra.Command, _ []string) (names []string) {
		a.ask(cmd, func(ctx context.Context, c *stream.Client, _ *effective) {
			list, _ := c.Topics(ctx)
			for _, t := range list {
				names = append(names, fmt.Sprintf("%s\t%d partitions", t.Name, t.Partitions))
			}
		})
		return names
	}
}

func (a *app) models() offer {
	return func(cmd *cobra.Command, _ []string) (names []string) {
		for _, it := range a.entries(cmd) {
			names = append(names, it.Name+"\t"+plainAliases(it.Aliases))
		}
		return names
	}
}

// references are NAME, NAME@ALIAS and NAME/VERSION, newest version first; kinds: which of "", "@" and "/" (nil: all).
func (a *app) references(kinds func(string) bool) offer {
	return func(cmd *cobra.Command, _ []string) (refs []string) {
		for _, it := range a.entries(cmd) {
			add := func(kind, ref, text string) {
				if kinds == nil || kinds(kind) {
					refs = append(refs, ref+"\t"+text)
				}
			}
			add("", it.Name, plainAliases(it.Aliases))
			for _, alias := range slices.Sorted(maps.Keys(it.Aliases)) {
				add("@", it.Name+"@"+alias, fmt.Sprintf("version %d", it.Aliases[alias].Version))
			}
			for _, v := range slices.Backward(it.Versions) {
				add("/", registry.Ref{Name: it.Name, Version: v.Version}.String(), describeVersion(v))
			}
		}
		return refs
	}
}

// versions are the numbers of the model that stands as the first argument.
func (a *app) versions() offer {
	return func(cmd *cobra.Command, typed []string) (numbers []string) {
		if len(typed) == 0 {
			return nil
		}
		ref, err := registry.ParseRef(typed[0])
		if err != nil {
			return nil
		}
		for _, it := range a.entries(cmd) {
			if it.Name == ref.Name {
				for _, v := range slices.Backward(it.Versions) {
					numbers = append(numbers, fmt.Sprintf("%d\t%s", v.Version, describeVersion(v)))
				}
			}
		}
		return numbers
	}
}

// aliases are those of the model that --model names, and the usual ones.
func (a *app) aliases() offer {
	return func(cmd *cobra.Command, _ []string) []string {
		names := slices.Clone(usualAliases)
		model := ""
		if f := cmd.Flag("model"); f != nil {
			model = f.Value.String()
		}
		if model == "" {
			return names
		}
		for _, it := range a.entries(cmd) {
			for _, alias := range slices.Sorted(maps.Keys(it.Aliases)) {
				if it.Name == model && !slices.Contains(names, alias) {
					names = append(names, alias)
				}
			}
		}
		return names
	}
}

func plainAliases(aliases map[string]registry.Alias) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(aliases)) {
		parts = append(parts, fmt.Sprintf("%s is %d", name, aliases[name].Version))
	}
	return strings.Join(parts, ", ")
}

func describeVersion(v registry.Version) string {
	if v.Fault != "" {
		return "damaged"
	}
	return v.Created.UTC().Format("2006-01-02 15:04") + " by " + clean(v.By)
}
