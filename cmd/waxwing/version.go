package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kong"
)

// The linker sets these (see the Makefile).
var (
	version = ""
	commit  = ""
)

type versionCommand struct{}

// Run prints the line.
func (versionCommand) Run(std streams) error {
	_, err := fmt.Fprintln(std.out, "waxwing", currentBuild())
	return err
}

// versionFlag does what the command does, wherever it stands.
type versionFlag bool

// BeforeReset prints the line and ends the process.
func (versionFlag) BeforeReset(parser *kong.Kong, std streams) error {
	err := versionCommand{}.Run(std)
	parser.Exit(0)
	return err
}

// build identifies this program.
type build struct{ version, commit string }

// currentBuild returns the values set by the linker, or else those that the go command recorded
// about the module and its repository.
func currentBuild() build {
	b := build{version, commit}
	info, ok := debug.ReadBuildInfo()
	if ok && b.commit == "" {
		settings := map[string]string{}
		for _, setting := range info.Settings {
			settings[setting.Key] = setting.Value
		}
		if b.commit = settings["vcs.revision"]; b.commit != "" && settings["vcs.modified"] == "true" {
			b.commit += "-dirty"
		}
	}
	if ok && b.version == "" && info.Main.Version != "(devel)" {
		b.version = info.Main.Version
	}
	if b.version == "" {
		b.version = "development"
	}
	if b.commit == "" {
		b.commit = "unknown"
	}
	return b
}

func (b build) String() string {
	return fmt.Sprintf("%s (commit %s, %s, %s/%s)", b.version, b.commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
