// Command kiln is the whole of kiln: the server in every shape, and the client for people. `kiln --help`
// lists what it can do.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
)

// commands is the command line, as kong reads it.
type commands struct {
	Server  serverCommand   `cmd:"" help:"Run kiln: the whole system in one process, or some of its roles."`
	Push    pushCommand     `cmd:"" help:"Send pprof files to a server."`
	Query   queryCommands   `cmd:"" help:"Ask a server for flame graphs, top functions, profiles, time series and labels."`
	Cluster clusterCommands `cmd:"" help:"Show the cluster, and change the members of the metastore's group."`
	Jobs    jobsCommand     `cmd:"" help:"Show compaction: jobs, levels, and objects that wait for deletion."`
	Delete  deleteCommands  `cmd:"" help:"Delete a tenant or a service, for good."`
	Block   blockCommands   `cmd:"" help:"Inspect, verify and export an object of the bucket."`
	Config  configCommands  `cmd:"" help:"Check configuration before a server reads it."`
	Bucket  bucketCommands  `cmd:"" help:"Rebuild the index from the bucket, and check one against the other."`
	Version versionCommand  `cmd:"" help:"Print the version."`
}

// output is where commands print; tests replace it.
type output struct{ io.Writer }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parser := kong.Must(&commands{}, kong.Name("kiln"),
		kong.Description("A continuous-profiling database."),
		kong.UsageOnError(), kong.DefaultEnvars("KILN"),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(output{os.Stdout}))
	call, err := parser.Parse(os.Args[1:])
	parser.FatalIfErrorf(err)
	if err := call.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "kiln:", readable(err))
		os.Exit(1)
	}
}

type versionCommand struct{}

// Run prints what the Go linker knows of this build.
func (versionCommand) Run(out output) error {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				version += " " + s.Value
			}
		}
	}
	_, err := fmt.Fprintln(out, "kiln", version)
	return err
}
