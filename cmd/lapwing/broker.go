package main

import (
	"encoding/json"
	"net"

	"github.com/spf13/cobra"

	"github.com/lapwing-stream/lapwing/stream"
)

func (a *app) brokerCommand() *cobra.Command {
	var o stream.EmbeddedOptions
	cmd := &cobra.Command{
		Use: "broker", Short: "Run a Kafka broker for development, in memory or kept in a folder", GroupID: groupData,
		Long: `Runs a Kafka broker inside this process, for development and tests: any Kafka client can talk
to it. In memory, nothing survives its end; with --data topics are kept in a folder. It does not
compact or delete old records, and it is no place for data that matters.

It runs until it is interrupted.`,
		Example: `  lapwing broker --listen 127.0.0.1:9092
  lapwing broker --listen 127.0.0.1:0 --data ./kafka --json`,
		Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := a.configure(cmd); err != nil {
				return err
			}
			if o.Listen == "" {
				o.Listen = "127.0.0.1:9092"
			}
			if _, _, err := net.SplitHostPort(o.Listen); err != nil {
				return usage("--listen takes HOST:PORT", o.Listen, "for example: "+firstExample(cmd))
			}
			b, err := stream.Embed(o)
			if err != nil {
				return err
			}
			if a.json {
				json.NewEncoder(a.term).Encode(map[string]string{"brokers": b.Addr(), "data": o.Dir})
			} else {
				kept := "nothing survives a restart; --data DIR keeps topics in a folder"
				if o.Dir != "" {
					kept = "topics are kept in " + o.Dir
				}
				a.printf("broker at %s (for development: %s)\n", a.term.paint(bold, b.Addr()), kept)
				a.printf("use it with   --brokers %s\n", b.Addr())
			}
			a.logs.release()
			<-cmd.Context().Done()
			return b.Close()
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Listen, "listen", "127.0.0.1:9092", "`HOST:PORT` to listen on; port 0 takes a free one")
	f.StringVar(&o.Dir, "data", "", "keep topics in the folder `DIR` across restarts")
	a.jsonFlag(f, "print the address as one JSON object")
	return cmd
}
