package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore"
	"github.com/kilndb/kiln/metastore/fsck"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/open"
	"github.com/kilndb/kiln/objstore/retried"
)

// bucketCommands is `kiln bucket`: the index and the objects that it is an index of.
type bucketCommands struct {
	RebuildIndex rebuildCommand `cmd:"" help:"Make a new index from the bucket alone, in an empty data directory. Nothing else may write to the bucket meanwhile."`
	Fsck         fsckCommand    `cmd:"" help:"Check that every object of the index is in the bucket as the index says, and list objects that nobody names. Exit code 1 if there is a problem."`
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

// fsckCommand is `kiln bucket fsck`.
type fsckCommand struct {
	bucketFlags
	Server    string        `help:"URL of a server that runs; its metastore is asked. Default: the index in --data-dir, whose server must not run." placeholder:"URL"`
	Deep      bool          `help:"Read every object and check all that is in it."`
	OrphanAge time.Duration `default:"1h" help:"An object that nobody names is an orphan when it is this old. Default: ${default}."`
}

// Run checks, prints what it found, and fails if an entry has no sound object.
func (c *fsckCommand) Run(ctx context.Context, out output) (err error) {
	bucket, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bucket.Close()) }()
	var index fsck.Index = metastore.Offline{DataDir: c.DataDir}
	if c.Server != "" {
		index = remoteIndex{metastorev1connect.NewBucketServiceClient(http.DefaultClient, c.Server)}
	}
	report, err := fsck.Check(ctx, index, bucket, fsck.Options{Deep: c.Deep, OrphanAge: c.OrphanAge, Now: time.Now()})
	if err != nil {
		return err
	}
	if c.Output == "json" {
		err = printIndented(out, report)
	} else {
		err = printFsck(out, report)
	}
	if err == nil && len(report.Problems) > 0 {
		err = fmt.Errorf("%d problem(s)", len(report.Problems))
	}
	return err
}

func printFsck(out io.Writer, r fsck.Report) error {
	fmt.Fprintf(out, "index      %d entries, %d objects to delete\n", r.Entries, r.Tombstones)
	fmt.Fprintf(out, "bucket     %d objects, %s\n", r.Objects, quantity(float64(r.Bytes), "bytes"))
	fmt.Fprintf(out, "orphans    %d, and %d young objects that nobody names\n", len(r.Orphans), r.Young)
	for _, o := range r.Orphans {
		fmt.Fprintf(out, "  %s  %s  %s\n", o.Modified.UTC().Format("2006-01-02 15:04:05Z"), quantity(float64(o.Size), "bytes"), clip(o.Key, 0))
	}
	var problems []metastore.BucketProblem
	for _, p := range r.Problems {
		problems = append(problems, metastore.BucketProblem(p))
	}
	return listProblems(out, problems)
}

// remoteIndex is the index of a server.
type remoteIndex struct {
	metastorev1connect.BucketServiceClient
}

// Walk reads the stream of entries.
func (r remoteIndex) Walk(ctx context.Context, entry func(*storagev1.BlockMeta) error, tombstone func(key string) error) (err error) {
	stream, err := r.Entries(ctx, connect.NewRequest(&metastorev1.EntriesRequest{}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	for stream.Receive() {
		for _, m := range stream.Msg().GetEntries() {
			if err := entry(m); err != nil {
				return err
			}
		}
		for _, t := range stream.Msg().GetTombstones() {
			if err := tombstone(t.GetKey()); err != nil {
				return err
			}
		}
	}
	return stream.Err()
}
