package main

import (
	"encoding/json"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker for releases: -ldflags "-X main.version=1.2.3".
var version = ""

type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from a changed checkout
	Time     string `json:"time,omitempty"`     // of the revision
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Engine   string `json:"engine"` // what computes where there is no GPU
	Level    string `json:"level"`  // instruction set or device

	GPU []string `json:"gpu,omitempty"` // of a build for GPUs: each that is visible, or why there is none
}

// thisVersion reads what the linker and the Go toolchain left in the binary.
func thisVersion() versionInfo {
	e := bestEngine()
	v := versionInfo{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Engine: e.Name(), Level: e.Level(), GPU: visibleGPUs()}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v.Version == "" {
			v.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Revision = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			case "vcs.time":
				v.Time = s.Value
			}
		}
	}
	if v.Version == "" || v.Version == "(devel)" {
		v.Version = "devel"
	}
	return v
}

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "Show version, compute engine and SIMD level", GroupID: groupAbout,
		Example: `  lapwing version
  lapwing version --json`,
		Args: args(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			v := thisVersion()
			if a.json {
				return json.NewEncoder(a.term).Encode(v)
			}
			a.printf("lapwing %s\n", v.Version)
			if v.Revision != "" {
				changed := ""
				if v.Modified {
					changed = ", changed since"
				}
				a.printf("  revision  %.12s of %s%s\n", v.Revision, v.Time, changed)
			}
			a.printf("  built     %s, %s\n", v.Go, v.Platform)
			a.printf("  engine    %s, level %s\n", v.Engine, v.Level)
			for _, gpu := range v.GPU {
				a.printf("  gpu       %s\n", clean(gpu))
			}
			return nil
		},
	}
	a.jsonFlag(cmd.Flags(), "print one JSON object")
	return cmd
}
