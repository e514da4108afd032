package main

import (
	"os"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestMain lets the test binary be the program itself, for tests that need a process: a pseudo-terminal, signals.
func TestMain(m *testing.M) {
	if os.Getenv("LAPWING_TEST_MAIN") == "1" {
		main()
		return
	}
	if how := os.Getenv("LAPWING_TEST_LIVE"); how != "" {
		liveProgram(how)
		return
	}
	os.Exit(m.Run())
}

type pflagFlag = pflag.Flag

// walk gives all commands by their path.
func walk(root *cobra.Command) map[string]*cobra.Command {
	all := map[string]*cobra.Command{root.CommandPath(): root}
	for _, c := range root.Commands() {
		for path, sub := range walk(c) {
			all[path] = sub
		}
	}
	return all
}
