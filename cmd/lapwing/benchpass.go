package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/lapwing-stream/lapwing/bench/passthrough"
)

// benchPassThroughCommand is how the bench runs a bare client as its own process. It is no command of a user's.
func (a *app) benchPassThroughCommand() *cobra.Command {
	var o passthrough.Options
	cmd := &cobra.Command{
		Use: "pass-through", Short: "Copy one topic to another with a bare client, until SIGTERM", Hidden: true,
		Example: "  lapwing bench pass-through --brokers 127.0.0.1:9092 --in cars --out copy --group pass --how calls",
		Args:    args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Brokers = cmd.Flag("brokers").Value.String()
			return passthrough.Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.In, "in", "", "`TOPIC` to read")
	f.StringVar(&o.Out, "out", "", "`TOPIC` to write")
	f.StringVar(&o.Group, "group", "", "consumer `GROUP`")
	f.StringVar(&o.How, "how", "", "calls, batches or stream")
	f.BoolVar(&o.ExactlyOnce, "exactly-once", false, "transactions")
	f.DurationVar(&o.Linger, "linger", 0, "`TIME` that the producer waits for company")
	f.DurationVar(&o.Commit, "commit", 100*time.Millisecond, "`TIME` between commits")
	return cmd
}
