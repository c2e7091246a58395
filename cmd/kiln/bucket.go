package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/kilndb/kiln/metastore"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/open"
	"github.com/kilndb/kiln/objstore/retried"
)

// bucketCommands is `kiln bucket`: the index and the objects that it is an index of.
type bucketCommands struct {
	RebuildIndex rebuildCommand `cmd:"" help:"Make a new index from the bucket alone, in an empty data directory. Nothing else may write to the bucket meanwhile."`
}

// bucketFlags say which bucket.
type bucketFlags struct {
	DataDir string `default:"data" help:"Data directory of the server. Default: ${default}." placeholder:"DIR"`
	Bucket  string `help:"Object store: file:///dir or s3://bucket?endpoint=... Default: the directory that a server keeps under --data-dir." placeholder:"URL"`
	Output  string `short:"o" enum:"text,json" default:"text" help:"text or json."`
}

// open opens the bucket.
func (f bucketFlags) open(ctx context.Context) (objstore.Bucket, error) {
	url := f.Bucket
	if url == "" {
		dir, err := filepath.Abs(filepath.Join(f.DataDir, "bucket"))
		if err != nil {
			return nil, fmt.Errorf("--data-dir: %w", err)
		}
		url = "file://" + filepath.ToSlash(dir)
	}
	bucket, err := open.Bucket(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("--bucket: %w", err)
	}
	return retried.New(bucket, retried.DefaultConfig()), nil
}

// rebuildCommand is `kiln bucket rebuild-index`.
type rebuildCommand struct {
	bucketFlags
}

// Run rebuilds, and prints what it found.
func (c *rebuildCommand) Run(ctx context.Context, out output) (err error) {
	bucket, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bucket.Close()) }()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	report, err := metastore.Rebuild(ctx, metastore.DefaultConfig(c.DataDir), bucket, log)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return printIndented(out, report)
	}
	fmt.Fprintf(out, "cluster %s in %s\n\n", report.Cluster, filepath.Join(c.DataDir, "metastore"))
	if report.Snapshot == "" {
		fmt.Fprintln(out, "There is no sound snapshot in the bucket: the index is made from the objects alone.")
	} else {
		fmt.Fprintf(out, "snapshot    %s of %s\n", report.Snapshot, report.SnapshotTaken.UTC().Format("2006-01-02 15:04:05Z"))
	}
	fmt.Fprintf(out, "entries     %d: %d are newer than the snapshot, %d of the snapshot were replaced since\n", report.Entries, report.Added, report.Replaced)
	fmt.Fprintf(out, "to delete   %d replaced objects\n", report.Tombstones)
	fmt.Fprintf(out, "left out    %d objects whose profiles are in others\n", len(report.Left))
	return listProblems(out, report.Problems)
}

func listProblems(out io.Writer, problems []metastore.BucketProblem) error {
	if len(problems) == 0 {
		return nil
	}
	fmt.Fprintf(out, "\n%d problem(s):\n", len(problems))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, p := range problems {
		fmt.Fprintf(w, "%s\t%s\n", clip(p.Key, 0), clip(p.Text, 0))
	}
	return w.Flush()
}
