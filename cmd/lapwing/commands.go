package main

import "github.com/spf13/cobra"

// commands are all of them, in the order of `lapwing --help`.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.brokerCommand(),
		a.configCommand(),
		a.versionCommand(),
	}
}
