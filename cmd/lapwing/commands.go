package main

import "github.com/spf13/cobra"

// commands are all of them, in the order of `lapwing --help`.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.demoCommand(),
		a.trainCommand(),
		a.serveCommand(),
		a.scoreCommand(),
		a.modelsCommand(),
		a.brokerCommand(),
		a.loadCommand(),
		a.generateCommand(),
		a.tailCommand(),
		a.benchCommand(),
		a.doctorCommand(),
		a.simCommand(),
		a.configCommand(),
		a.completionCommand(),
		a.versionCommand(),
	}
}
