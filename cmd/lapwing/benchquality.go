package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lapwing-stream/lapwing/bench/quality"
)

// benchQualityCommand measures how good scores are, where bench itself measures how fast they come.
func (a *app) benchQualityCommand() *cobra.Command {
	var o quality.Options
	var noPeers, markdown bool
	cmd := &cobra.Command{
		Use: "quality", Short: "Measure how good the scores are, on labelled sets next to other detectors",
		Long: `Takes every labelled set of a folder the whole way (file, topic, history, model, scores) with
nothing set, and says how well the scores tell anomalies from the rest: on the 40 % of the rows
that the model has not seen, learnt without labels from at most 20,000 of the others, anomalies
among them. Rows in time order are not shuffled: what comes first is learnt.

The folder has a manifest.json (docs/quality.md says what is in it).

Next to it, on the same rows: ` + strings.Join(quality.Peers(), ", ") + `.
They are Python packages, installed once into a private environment in your cache folder by
pip as you have set it up; the last two need PyTorch, which can be several GB. What cannot be had
or fails is a row that says so.`,
		Example: `  lapwing bench quality --data sets --no-peers
  lapwing bench quality --data sets --sets 'adbench/*' --json
  lapwing bench quality --data sets --sets cardio --splits 1 --peers iforest,hbos`,
		Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "data"); err != nil {
				return err
			}
			if noPeers {
				o.Peers = nil
			}
			if err := a.qualityCache(&o); err != nil {
				return err
			}
			if err := o.Validate(); err != nil {
				return usage(err.Error(), "", "for example: "+firstExample(cmd))
			}
			o.Log = a.stderr
			r, err := quality.Run(cmd.Context(), o)
			switch {
			case err != nil:
				return err
			case a.json:
				return json.NewEncoder(a.term).Encode(r)
			case markdown:
				return r.Markdown(a.term, false)
			}
			return r.Write(a.term)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Data, "data", "", "`FOLDER` with labelled sets and their manifest.json; required")
	f.StringVar(&o.Sets, "sets", "", "`GLOB` over files, names or collections of sets, or several parted by commas; empty: all")
	f.IntVar(&o.Splits, "splits", quality.Options{}.WithDefaults().Splits, "random `SPLITS` of each set whose rows have no order in time")
	f.StringSliceVar(&o.Peers, "peers", quality.Peers(), "`NAMES` of the peers, parted by commas")
	f.BoolVar(&noPeers, "no-peers", false, "measure Lapwing alone")
	f.IntVar(&o.Threads, "threads", 0, "`THREADS` of Lapwing and of each peer; 0: all processors")
	f.DurationVar(&o.Limit, "peer-limit", quality.Options{}.WithDefaults().Limit, "longest `TIME` that a peer may take over a split")
	f.StringVar(&o.Python, "python", "python3", "`PROGRAM` that makes the peers' environment")
	f.BoolVar(&markdown, "markdown", false, "the tables as Markdown, for a page")
	a.jsonFlag(f, "all figures as one JSON object")
	return cmd
}

// qualityCache says where the peers' environment is kept.
func (a *app) qualityCache(o *quality.Options) error {
	if len(o.Peers) == 0 {
		return nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return &fault{what: "there is no cache folder for the peers: " + err.Error(), next: "set XDG_CACHE_HOME, or add --no-peers", cause: err}
	}
	o.Cache = filepath.Join(dir, "lapwing")
	return nil
}
