package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/block/export"
	"github.com/kilndb/kiln/block/inspect"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/open"
)

// blockCommands is `kiln block`. It reads objects where they are and needs no server.
type blockCommands struct {
	Inspect inspectCommand `cmd:"" help:"Show what an object holds and what each part of it takes."`
	Verify  verifyCommand  `cmd:"" help:"Check everything in an object; exit code 1 if there is a problem."`
	Export  exportCommand  `cmd:"" help:"Write an object's tables as Parquet files for DuckDB, pandas and others."`
}

// located is an object that is named on the command line.
type located struct {
	Object string `arg:"" help:"The object: a file, or its key where --bucket is given." name:"object"`
	// Without a variable of the environment: the server's would turn every file into a key.
	Bucket string `env:"-" help:"Object store that the object is in: file:///dir or s3://bucket?endpoint=..." placeholder:"URL"`
}

// use opens the object and closes it when do has returned.
func (l located) use(ctx context.Context, do func(block.Source) error) (err error) {
	if l.Bucket == "" {
		f, err := os.Open(l.Object)
		if err != nil {
			return err
		}
		defer f.Close() // only read from
		info, err := f.Stat()
		if err != nil {
			return err
		}
		return do(objectFile{f, info.Size()})
	}
	bucket, err := open.Bucket(ctx, l.Bucket)
	if err != nil {
		return fmt.Errorf("--bucket: %w", err)
	}
	defer func() { err = errors.Join(err, bucket.Close()) }()
	attributes, err := bucket.Attributes(ctx, l.Object)
	if err != nil {
		return err
	}
	return do(objstore.Object(bucket, l.Object, attributes.Size))
}

// objectFile is an object in a file.
type objectFile struct {
	file *os.File
	size int64
}

// ReadRange reads a part of the file.
func (f objectFile) ReadRange(_ context.Context, off, n int64) ([]byte, error) {
	b := make([]byte, n)
	_, err := f.file.ReadAt(b, off)
	return b, err
}

// Size returns the file's size when it was opened.
func (f objectFile) Size() int64 { return f.size }

// verifyCommand is `kiln block verify`.
type verifyCommand struct {
	located
	Output string `short:"o" enum:"text,json" default:"text" help:"text or json."`
}

// Run prints every problem, and fails if there is one.
func (c *verifyCommand) Run(ctx context.Context, out output) error {
	return c.use(ctx, func(src block.Source) error {
		problems, err := inspect.Verify(ctx, src)
		if err != nil {
			return err
		}
		if c.Bucket != "" && len(problems) == 0 {
			problems, err = c.checkKey(ctx, src)
			if err != nil {
				return err
			}
		}
		if c.Output == "json" {
			if err := printIndented(out, append([]inspect.Problem{}, problems...)); err != nil {
				return err
			}
		} else {
			for _, p := range problems {
				fmt.Fprintln(out, clip(p.String(), 0))
			}
		}
		if len(problems) > 0 {
			return fmt.Errorf("%s has %d problem(s)", c.Object, len(problems))
		}
		if c.Output != "json" {
			_, err = fmt.Fprintf(out, "%s is good\n", c.Object)
		}
		return err
	})
}

// checkKey compares the key of an object in a bucket with the one that it should have.
func (c *verifyCommand) checkKey(ctx context.Context, src block.Source) ([]inspect.Problem, error) {
	meta, err := block.ReadMeta(ctx, src)
	if err != nil {
		return nil, err
	}
	if want := block.Key(meta); want != c.Object {
		return []inspect.Problem{{Section: "key", Text: fmt.Sprintf("the object should be at %q", want)}}, nil
	}
	return nil, nil
}

// exportCommand is `kiln block export`.
type exportCommand struct {
	located
	Dir     string `required:"" help:"Folder to write the files into; made if need be." placeholder:"DIR"`
	Tenant  string `help:"Only this tenant's data." placeholder:"ID"`
	Service string `help:"Only this service's data." placeholder:"NAME"`
}

// Run writes the tables and says what it wrote.
func (c *exportCommand) Run(ctx context.Context, out output) error {
	return c.use(ctx, func(src block.Source) error {
		files, err := export.Object(ctx, src, c.Dir, export.Selection{Tenant: c.Tenant, Service: c.Service})
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, "rows\tsize\t  file")
		for _, f := range files {
			fmt.Fprintf(w, "%d\t%s\t  %s\n", f.Rows, quantity(float64(f.Size), "bytes"), f.Path)
		}
		return w.Flush()
	})
}

func printIndented(out output, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
