package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lapwing-stream/lapwing/bench"
)

func (a *app) benchCommand() *cobra.Command {
	var o bench.Options
	var jsonFile, htmlFile string
	var install []string
	var python string
	var about strings.Builder
	for _, s := range bench.Suites() {
		fmt.Fprintf(&about, "  %-8s %s\n", s.Name, s.About)
	}
	cmd := &cobra.Command{
		Use: "bench [SUITE…]", Short: "Measure this machine: Lapwing next to a peer or a limit, in one run", GroupID: groupAbout,
		Long: `Measures Lapwing on this machine, next to a peer where there is one: both in turn in one run,
warmed, with results checked equal. Ratios travel to other machines, absolute numbers do not.
Kafka is a real broker where the peers are installed, on loopback and on the same processors.

Peers are other programs, put once by package name into a private folder in your cache folder:
` + "`lapwing bench --install-peers`" + ` takes the standard ones and ends; --install-peers=torch others.
` + peersAbout() + `What is missing or fails is a row that says so.

Suites:
` + about.String(),
		Example: `  lapwing bench
  lapwing bench decode train
  lapwing bench --install-peers
  lapwing bench score --json before.json
  lapwing bench compare before.json after.json
  lapwing bench memory --soak 200000 --json memory.json
  lapwing-gpu bench gpu --json gpu.json
  lapwing bench quality --data sets --no-peers`,
		RunE: func(cmd *cobra.Command, suites []string) error {
			if cmd.Flags().Changed("install-peers") && len(suites) > 0 { // a name after a blank is a suite's
				return usage("--install-peers measures nothing, and is given "+strings.Join(suites, " "), "", "name peers behind an equals sign: --install-peers=python,kafka")
			}
			o.Suites = suites
			if err := o.Validate(); err != nil {
				return usage(err.Error(), "", "for example: "+firstExample(cmd))
			}
			config, err := a.configure(cmd)
			if err != nil {
				return err
			}
			if o.Peers == "" {
				if o.Peers, err = peersFolder(); err != nil {
					return err
				}
			}
			if cmd.Flags().Changed("install-peers") {
				i := bench.Installation{Folder: o.Peers, Names: install, Python: python, Log: a.stderr}
				if err := i.Validate(); err != nil {
					return usage(err.Error(), "", "for example: lapwing bench --install-peers=python,kafka")
				}
				return bench.InstallPeers(cmd.Context(), i)
			}
			if slices.ContainsFunc(bench.Suites(), func(s bench.Suite) bool { return s.Name == jsonFile }) {
				return usage("--json is given the name of a suite, "+jsonFile, "", "name a file, or - for standard output: --json bench.json")
			}
			if slices.Contains(suites, "gpu") {
				g, release, err := a.benchGPU(config.GPU)
				if err != nil {
					return err
				}
				defer release()
				o.GPU, o.Smoke = g, o.Smoke || g.Emulated
			}
			if htmlFile == "" && !o.Smoke && jsonFile != "-" {
				htmlFile = "lapwing-bench.html"
			}
			// What cannot be written should not be found out after a quarter of an hour.
			var files [2]reportFile
			for i, name := range []string{jsonFile, htmlFile} {
				defer files[i].discard()
				if name == "" || name == "-" || name == "none" {
					continue
				}
				if err := files[i].open(name); err != nil {
					return &fault{what: "the report cannot be written: " + err.Error(), next: "name another file with --json or --html; --html none writes no page", cause: err}
				}
			}
			if o.Binary, err = os.Executable(); err != nil {
				return err
			}
			o.Log = a.stderr
			r, err := bench.Run(cmd.Context(), o)
			if r == nil {
				return err
			}
			r.Lapwing, r.Command = thisVersion().Version, benchCalled(cmd, suites)
			return errors.Join(err, a.writeBench(r, jsonFile == "-", &files[0], &files[1]))
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Rounds, "rounds", 0, "`TIMES` that each side runs, after one that is not counted; 0: 5, or 1 with --smoke")
	f.IntVar(&o.Records, "records", 0, "`RECORDS` of the topics that are read and scored; 0: 1,000,000, or 5,000 with --smoke")
	f.DurationVar(&o.LatencyFor, "latency-for", 0, "measured `TIME` of latency; 0: 20s, or 1s with --smoke")
	f.IntVar(&o.Soak, "soak", 1_000_000, "`RECORDS` of the memory suite")
	f.IntVar(&o.History, "history", 0, "`RECORDS` of the topic that the gpu suite trains from; 0: 10,000,000, or 5,000 with --smoke")
	f.DurationVar(&o.Sample, "sample", bench.Options{}.WithDefaults().Sample, "`TIME` that each side computes in process in a round")
	f.StringVar(&o.Peers, "peers", "", "`FOLDER` of the peers; empty: lapwing/peers in your cache folder")
	f.StringSliceVar(&install, "install-peers", nil, "put peers into that folder and end: `NAMES` parted by commas, empty: "+strings.Join(bench.StandardPeers(), ","))
	f.Lookup("install-peers").NoOptDefVal = strings.Join(bench.StandardPeers(), ",")
	f.StringVar(&python, "python", "python3", "`PROGRAM` that makes the peers' environments")
	f.BoolVar(&o.Smoke, "smoke", false, "only see whether results agree with the peers', on small counts: no figure means anything")
	f.StringVar(&jsonFile, "json", "", "write rows and targets as JSON to `FILE`; - for standard output, in place of the table")
	f.StringVar(&htmlFile, "html", "", "write tables and plots as one page to `FILE`; empty: lapwing-bench.html, but not with --smoke or --json -; none: no page")
	a.bind(f, "gpu.device")
	cmd.AddCommand(a.benchCompareCommand(), a.benchQualityCommand(), a.benchPassThroughCommand())
	return cmd
}

// benchCalled is the command line but for where its files go: properties of clusters, which may be secret, are no part of it.
func benchCalled(cmd *cobra.Command, suites []string) string {
	words := append([]string{"lapwing", "bench"}, suites...)
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Changed && !slices.Contains([]string{"json", "html", "peers", "python"}, f.Name) {
			words = append(words, "--"+f.Name+"="+f.Value.String())
		}
	})
	return strings.Join(words, " ")
}

// peersAbout says what can be installed.
func peersAbout() (text string) {
	_, about := bench.Installable()
	for _, p := range about {
		text += "  " + p + "\n"
	}
	return text
}

// peersFolder is where peers are kept unless --peers says otherwise.
func peersFolder() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", &fault{what: "there is no cache folder for the peers: " + err.Error(), next: "set XDG_CACHE_HOME, or name a folder with --peers", cause: err}
	}
	return filepath.Join(dir, "lapwing", "peers"), nil
}

// benchCompareCommand holds one run to another.
func (a *app) benchCompareCommand() *cobra.Command {
	return &cobra.Command{
		Use: "compare A.json B.json", Short: "Show what a change did to each figure of two runs",
		Long: `Holds each figure of two files that --json wrote to the other, by benchstat's method: medians, and
whether the single rounds differ by more than chance (Mann-Whitney U test, 0.05). At least 4 rounds
in each are needed for a verdict; 6 or more find smaller differences.`,
		Example: `  lapwing bench compare before.json after.json`,
		Args:    args(2, 2, "two files that lapwing bench --json wrote"),
		RunE: func(_ *cobra.Command, files []string) error {
			var reports [2]*bench.Report
			for i, name := range files {
				data, err := os.ReadFile(name)
				if err != nil {
					return &fault{what: "a report cannot be read: " + err.Error(), next: "lapwing bench --json FILE writes one", cause: err}
				}
				if reports[i], err = bench.ReadReport(data); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			return bench.WriteComparison(a.term, reports[0], reports[1], a.benchStyle())
		},
	}
}

// writeBench writes the files, and prints the tables, or the JSON in their place.
func (a *app) writeBench(r *bench.Report, jsonOut bool, jsonFile, htmlFile *reportFile) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if htmlFile.f != nil {
		var page bytes.Buffer
		if err := r.HTML(&page); err != nil {
			return err
		}
		if err := htmlFile.finish(page.Bytes()); err != nil {
			return err
		}
		fmt.Fprintf(a.stderr, "the page with plots: %s\n", htmlFile.name)
	}
	if jsonOut {
		_, err = a.term.Write(data)
		return err
	}
	if jsonFile.f != nil {
		if err := jsonFile.finish(data); err != nil {
			return err
		}
	}
	return r.Write(a.term, a.benchStyle())
}

// reportFile is opened before a run and filled after it: its name appears, or holds anything else than before, only once all of
// the report is in it. What is no regular file, such as a pipe, is written to as it is.
type reportFile struct {
	name string
	f    *os.File // nil: no file is asked for
	temp bool
}

func (r *reportFile) open(name string) (err error) {
	r.name = name
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		r.f, err = os.OpenFile(name, os.O_WRONLY, 0)
		return err
	}
	if err == nil {
		f, err := os.OpenFile(name, os.O_WRONLY, 0) // one that may not be written may not be replaced
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		if r.name, err = filepath.EvalSymlinks(name); err != nil {
			return err
		}
	}
	r.f, err = os.CreateTemp(filepath.Dir(r.name), "."+filepath.Base(r.name)+".*")
	r.temp = err == nil
	return err
}

func (r *reportFile) finish(data []byte) error {
	_, err := r.f.Write(data)
	if r.temp {
		err = errors.Join(err, r.f.Chmod(0o644))
	}
	err = errors.Join(err, r.f.Close())
	if !r.temp || err != nil {
		return err
	}
	if err := os.Rename(r.f.Name(), r.name); err != nil {
		return err
	}
	r.temp = false
	return nil
}

// discard removes what was not finished.
func (r *reportFile) discard() {
	if r.temp {
		r.f.Close()
		os.Remove(r.f.Name())
	}
}

// benchStyle paints the tables where the terminal can.
func (a *app) benchStyle() bench.Style {
	with := func(style colour) func(string) string {
		return func(text string) string { return a.term.paint(style, text) }
	}
	return bench.Style{Bold: with(bold), Good: with(green), Bad: with(red), Faint: with(faint)}
}
