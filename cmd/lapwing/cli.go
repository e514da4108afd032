package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// world is what a command may touch of the process it runs in.
type world struct {
	in       io.Reader
	out, err io.Writer
	environ  []string
}

func (w world) getenv(name string) string {
	for _, e := range w.environ {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}

// app is one run of the command line.
type app struct {
	world
	term   *terminal // stdout
	stderr io.Writer // what the user sees beside it
	log    *slog.Logger
	scrub  *scrubber
	logs   *holder
	args   []string

	configFile string
	properties []string
	json       bool
	given      map[*pflag.Flag]boundFlag
}

// boundFlag ties a flag to the setting that it gives.
type boundFlag struct {
	setting setting
	stream  bool // of the one stream that the command line makes
	value   *settingValue
}

// run is the whole program: it parses args, runs one command, and says on w.err what went wrong.
func run(ctx context.Context, args []string, w world) (err error) {
	a := &app{world: w, term: newTerminal(w.out, w.getenv), given: map[*pflag.Flag]boundFlag{}}
	a.scrub = &scrubber{w: a.term.beside(w.err)}
	a.stderr = a.scrub
	a.logs = &holder{w: a.stderr}
	a.log = newLog(a.logs, isTerminal(w.err), slog.LevelInfo)
	a.args = args
	defer a.term.restore() // also on a panic: the trace must be readable, on a screen with a cursor
	root := a.root()
	root.SetArgs(args)
	root.SetOut(a.term)
	root.SetErr(a.stderr)
	root.SetIn(w.in)
	err = root.ExecuteContext(ctx)
	a.term.restore()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		var f *fault
		if !errors.As(err, &f) {
			err = &fault{what: "interrupted", cause: err, code: exitInterrupted}
		}
	}
	if err == nil {
		a.logs.release()
	}
	printError(a.stderr, err)
	return err
}

func isTerminal(w io.Writer) bool {
	t := newTerminal(w, func(string) string { return "" })
	return t.isTerminal()
}

// Command groups, in the order of `lapwing --help`.
const (
	groupRun   = "run"
	groupData  = "data"
	groupModel = "models"
	groupAbout = "about"
)

// setUpCobra sets what cobra keeps for the whole process, once: a test runs several command lines side by side.
var setUpCobra = sync.OnceFunc(func() {
	cobra.EnableCommandSorting = false
	cobra.AddTemplateFunc("flagHelp", flagHelp)
	cobra.AddTemplateFunc("groupsOthers", func(c *cobra.Command) bool { return c.Annotations[groupsOthers] != "" })
})

func (a *app) root() *cobra.Command {
	setUpCobra()
	root := &cobra.Command{
		Use:   "lapwing",
		Short: "Learn what normal looks like from a Kafka topic, and score every new record against it",
		Long: `Lapwing learns what normal looks like from a Kafka topic's history, and scores every
new record against it. Models travel through a Kafka topic of their own; a running scorer
picks a new one up without dropping a record.

Settings come from flags, from LAPWING_… variables and from lapwing.yaml, in this order;
lapwing config shows what holds and where it came from, lapwing doctor what is amiss.

Exit status: 0 done, 1 failed, 2 mistyped (nothing was tried), 3 another trainer published first,
130 interrupted.`,
		Example: `  # A broker to try things with, then a history, a model and live scores:
  lapwing broker --listen 127.0.0.1:9092 &
  lapwing load cars.csv --topic cars --key car --time time
  lapwing train --topic cars --model cars
  lapwing serve --topic cars --model cars`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Annotations:       map[string]string{groupsOthers: "all"},
		Args:              a.noCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		// lapwing trian --topic cars: the flag is unknown only because the command is.
		// Not so where it comes after the flag, which then it may be the value of: lapwing config --max-memory 1.
		var unknown *pflag.NotExistError
		// Nor where the word may stand there: lapwing bench decode --records 1000.
		if word := a.firstWord(cmd); cmd.HasSubCommands() && word != "" && cmd.ValidateArgs([]string{word}) != nil &&
			(!errors.As(err, &unknown) || a.before(word, unknown.GetSpecifiedName())) {
			return unknownCommand(cmd, word)
		}
		return flagError(cmd, err)
	})
	root.SetUsageTemplate(a.usageTemplate())
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "From history to scores:"},
		&cobra.Group{ID: groupData, Title: "Data:"},
		&cobra.Group{ID: groupModel, Title: "Models:"},
		&cobra.Group{ID: groupAbout, Title: "About:"},
	)
	p := root.PersistentFlags()
	p.StringVar(&a.configFile, "config", "", "configuration `FILE` (default ./lapwing.yaml where it exists)")
	a.bindBrokers(p)
	p.StringArrayVarP(&a.properties, "property", "X", nil, "a librdkafka property, `KEY=VALUE`; may be repeated")
	a.bind(p, "log_level")
	for _, c := range a.commands() {
		root.AddCommand(c)
	}
	root.SetHelpCommand(&cobra.Command{
		Use: "help [COMMAND]", Short: "Help about a command", GroupID: groupAbout,
		Example: "  lapwing help train",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := root.Find(args)
			if err != nil || found == nil || len(rest) > 0 {
				return unknownCommand(root, strings.Join(args, " "))
			}
			return found.Help()
		},
		ValidArgsFunction: func(_ *cobra.Command, typed []string, word string) ([]string, cobra.ShellCompDirective) {
			var names []string
			if of, rest, err := root.Find(typed); err == nil && len(rest) == 0 {
				for _, c := range of.Commands() {
					if c.IsAvailableCommand() && strings.HasPrefix(c.Name(), word) {
						names = append(names, c.Name()+"\t"+c.Short)
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	})
	asDeclared(root)
	a.addCompletion(root)
	return root
}

// usageTemplate is what stands below a command's description: how it is called, examples, commands, flags.
func (a *app) usageTemplate() string {
	width, _ := a.term.size()
	flags := fmt.Sprintf("%d | trimTrailingWhitespaces", max(min(width, 100), 60))
	return `Usage:
{{- if and .Runnable (not (groupsOthers .))}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{if not .Groups}}

Commands:{{range $cmds}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{range $group := .Groups}}

{{.Title}}{{range $cmds}}{{if and (eq .GroupID $group.ID) .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{end}}{{with flagHelp .LocalFlags "own" ` + flags + `}}

Flags:
{{.}}{{end}}{{with flagHelp .LocalFlags "setting" ` + flags + `}}

Settings, which may also stand in lapwing.yaml or the environment (lapwing config):
{{.}}{{end}}{{with flagHelp .InheritedFlags "" ` + flags + `}}

Flags of every command:
{{.}}{{end}}{{if .HasAvailableSubCommands}}

{{.CommandPath}} COMMAND --help tells more about a command.{{end}}
`
}

// groupsOthers marks a command that does nothing but group others.
const groupsOthers = "groups"

// asDeclared makes help list the flags of cmd and all below it in the order of their declaration: what a command cannot do
// without comes first.
func asDeclared(cmd *cobra.Command) {
	cmd.Flags().SortFlags = false
	cmd.PersistentFlags().SortFlags = false
	for _, c := range cmd.Commands() {
		asDeclared(c)
	}
}

// flagHelp lists flags in the order in which they were declared: name, value and default on a line, what it
// does below it, since values and texts of ours leave no room for two columns. kind: "own" flags, those that give a
// "setting", or "" for all.
func flagHelp(flags *pflag.FlagSet, kind string, width int) string {
	var b strings.Builder
	flags.SortFlags = false
	flags.VisitAll(func(f *pflag.Flag) {
		_, gives := f.Value.(*settingValue)
		if f.Hidden || f.Name == "help" || kind == "own" && gives || kind == "setting" && !gives {
			return
		}
		typ, doc := pflag.UnquoteUsage(f)
		if _, ours := f.Value.(*settingValue); ours {
			doc = f.Usage
		}
		head := "  --" + f.Name
		if f.Shorthand != "" {
			head = "  -" + f.Shorthand + ", --" + f.Name
		}
		switch {
		case typ == "":
		case f.NoOptDefVal != "": // a word after it would not be its value
			head += "[=" + typ + "]"
		default:
			head += " " + typ
		}
		if d := f.DefValue; d != "" && d != "false" && d != "[]" && d != "0" {
			doc += " (default " + d + ")"
		}
		b.WriteString(head + "\n")
		line := "      "
		for word := range strings.FieldsSeq(doc) {
			if len(line) > 6 && cells(line)+1+cells(word) > width {
				b.WriteString(line + "\n")
				line = "      "
			}
			if len(line) > 6 {
				line += " "
			}
			line += word
		}
		b.WriteString(line + "\n")
	})
	return b.String()
}

// noCommand refuses a word after the name of a command that only groups others.
func (a *app) noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return unknownCommand(cmd, args[0])
}

// firstWord is the first argument after cmd's own name that is neither a flag nor a flag's value.
func (a *app) firstWord(cmd *cobra.Command) string {
	skip := strings.Count(cmd.CommandPath(), " ") // names of cmd and its parents among the arguments
	for i := 0; i < len(a.args); i++ {
		word := a.args[i]
		if strings.HasPrefix(word, "-") {
			name := strings.TrimLeft(word, "-")
			f := cmd.Flag(name)
			if f == nil && len(name) == 1 {
				f = cmd.Flags().ShorthandLookup(name)
			}
			if f != nil && f.NoOptDefVal == "" {
				i++
			}
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		return word
	}
	return ""
}

// before: the word stands in front of the flag.
func (a *app) before(word, flag string) bool {
	for _, arg := range a.args {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case arg == word:
			return true
		case strings.HasPrefix(arg, "-") && name == strings.TrimLeft(flag, "-"):
			return false
		}
	}
	return true
}

func unknownCommand(parent *cobra.Command, name string) error {
	var names []string
	for _, c := range parent.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	next := parent.CommandPath() + " --help lists the commands"
	if n := nearest(name, names); n != "" {
		next = "did you mean " + parent.CommandPath() + " " + n + "?"
	}
	return usage(fmt.Sprintf("%s has no command %q", parent.CommandPath(), name), "", next)
}

// flagError words what pflag refuses, with the nearest flag.
func flagError(cmd *cobra.Command, err error) error {
	help := cmd.CommandPath() + " --help lists the flags"
	var unknown *pflag.NotExistError
	var bare *pflag.ValueRequiredError
	var bad *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		typed := "--" + name
		if unknown.GetSpecifiedShortnames() != "" {
			typed = "-" + name
		} else if strings.HasPrefix(name, "-") {
			typed = name
		}
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
		next := help
		if n := nearest(typed, names); n != "" && strings.HasPrefix(typed, "--") {
			next = "did you mean " + n + "?"
		}
		for _, c := range cmd.Commands() {
			if strings.HasPrefix(typed, "--") && c.Flags().Lookup(name) != nil {
				next = "did you mean " + c.CommandPath() + " " + typed + "?"
				break
			}
		}
		return usage(cmd.CommandPath()+" has no flag "+typed, "", next)
	case errors.As(err, &bare):
		return usage("--"+bare.GetFlag().Name+" needs a value", "", help)
	case errors.As(err, &bad):
		kind := map[string]string{
			"int": "a whole number", "int64": "a whole number", "uint64": "a whole number from 0", "float64": "a number",
			"duration": "a duration, such as 250ms, 10s or 1h30m", "days": "a duration above 0, such as 30d, 12h or 90m", "bool": "true or false",
		}[bad.GetFlag().Value.Type()]
		if kind == "" {
			kind = "what it takes"
		}
		return usage(fmt.Sprintf("--%s: %q is not %s", bad.GetFlag().Name, bad.GetValue(), kind), "", help)
	}
	return usage(err.Error(), "", help)
}

// args checks the number of arguments, in words. most < 0 = any number.
func args(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usage(cmd.CommandPath()+" needs "+what, "", "for example: "+firstExample(cmd))
		case most == 0 && len(args) > 0:
			return usage(fmt.Sprintf("%s takes no argument %q", cmd.CommandPath(), args[0]), "", "for example: "+firstExample(cmd))
		case most >= 0 && len(args) > most:
			return usage(fmt.Sprintf("%s takes %s, and not %q too", cmd.CommandPath(), what, args[most]), "", "for example: "+firstExample(cmd))
		}
		return nil
	}
}

// firstExample is the first line of a command's examples that is no comment.
func firstExample(cmd *cobra.Command) string {
	for line := range strings.SplitSeq(cmd.Example, "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return line
		}
	}
	return cmd.CommandPath() + " --help"
}

// required reports the flags that a command cannot do without, all at once.
func required(cmd *cobra.Command, names ...string) error {
	var missing []string
	for _, n := range names {
		if f := cmd.Flags().Lookup(n); f != nil && !f.Changed {
			missing = append(missing, "--"+n)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return usage(cmd.CommandPath()+" needs "+strings.Join(missing, " and "), "", "for example: "+firstExample(cmd))
}

// settingValue holds a setting's text from the command line until all sources are read together, so that its
// faults are reported with theirs.
type settingValue struct {
	text string
	typ  string
	list bool
}

func (v *settingValue) String() string { return v.text }
func (v *settingValue) Type() string   { return v.typ }
func (v *settingValue) Set(s string) error {
	if v.list && v.text != "" {
		s = v.text + "," + s
	}
	v.text = s
	return nil
}

// bind adds flags for settings: single ones by path, or all of a section.
func (a *app) bind(flags *pflag.FlagSet, paths ...string) {
	for _, p := range paths {
		for _, s := range declared() {
			if !s.group && !s.list && (s.path == p || s.section == p) {
				a.bindOne(flags, s, false)
			}
		}
	}
}

// bindBrokers adds --brokers, the one property of the kafka map with a flag of its own.
func (a *app) bindBrokers(flags *pflag.FlagSet) {
	a.bindOne(flags, setting{
		path: "kafka.bootstrap.servers", flag: "brokers", unit: "HOST:PORT,…", def: "localhost:9092", doc: "the Kafka brokers to start from",
	}, false)
}

// bindStream adds the flags that make one stream in place of the file's.
func (a *app) bindStream(flags *pflag.FlagSet) {
	for _, s := range streamDeclared() {
		if !s.group {
			a.bindOne(flags, s, true)
		}
	}
}

func (a *app) bindOne(flags *pflag.FlagSet, s setting, stream bool) {
	v := &settingValue{list: s.typ != nil && s.typ.Kind().String() == "slice"}
	v.typ = strings.Join(s.oneofShown(), "|")
	if v.typ == "" {
		v.typ = s.unit
	}
	if v.typ == "" {
		v.typ = "value"
	}
	if len(s.oneofShown()) == 0 && !strings.Contains(v.typ, "|") {
		v.typ = strings.ToUpper(v.typ) // as every name of a value is written in help
	}
	doc := s.doc
	if s.def != "" {
		doc += " (default " + s.def + ")"
	}
	f := flags.VarPF(v, s.flag, "", doc)
	if s.typ != nil && s.typ.Kind() == reflect.Bool {
		f.NoOptDefVal = "true" // the flag alone says yes
	}
	f.DefValue = "" // the text has it: the environment or the file may hold another
	a.given[f] = boundFlag{setting: s, stream: stream, value: v}
}

func (s *setting) oneofShown() []string {
	var shown []string
	for _, o := range s.oneof {
		if o != "" {
			shown = append(shown, o)
		}
	}
	return shown
}

// configure reads the configuration as cmd sees it, and sets up the log.
func (a *app) configure(cmd *cobra.Command) (*effective, error) {
	o := loadOptions{file: a.configFile, environ: a.environ, props: a.properties}
	var first *pflag.Flag
	cmd.Flags().Visit(func(f *pflag.Flag) {
		b, ok := a.given[f]
		if !ok {
			return
		}
		g := given{setting: b.setting, flag: "--" + f.Name, text: b.value.text}
		if b.stream {
			if first == nil {
				first = f
			}
			o.stream = append(o.stream, g)
		} else {
			o.flags = append(o.flags, g)
		}
	})
	if len(o.stream) > 0 && !cmd.Flags().Changed("topic") {
		return nil, usage("--"+first.Name+" belongs to a stream, and no --topic is given", "", "add --topic T and --model NAME, or set it in the file's streams")
	}
	e, err := loadConfig(o)
	if e != nil {
		a.scrub.secrets = e.secrets()
	}
	if err != nil {
		return nil, err
	}
	level, err := parseLevel(e.LogLevel)
	if err != nil {
		return nil, err
	}
	a.log = newLog(a.logs, isTerminal(a.world.err), level)
	if e.origin["log_level"] != "" { // asked for
		a.logs.release()
	}
	return e, nil
}

// jsonFlag adds --json.
func (a *app) jsonFlag(flags *pflag.FlagSet, doc string) {
	flags.BoolVar(&a.json, "json", false, doc)
}

// printf writes to stdout.
func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.term, format, args...) }
