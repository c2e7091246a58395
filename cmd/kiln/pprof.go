package main

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"

	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	"google.golang.org/protobuf/proto"
)

// pprofCommand is `kiln query pprof`.
type pprofCommand struct {
	typedSelection
	File string `short:"f" default:"kiln.pb.gz" help:"File to write; - for standard output." placeholder:"FILE"`
}

// Run writes the merged profile, gzipped, or prints it as JSON.
func (c *pprofCommand) Run(ctx context.Context, out output) error {
	resp, q, err := c.mergeStacktraces(ctx, querierv1.ProfileFormat_PROFILE_FORMAT_PPROF, 0)
	if err != nil {
		return err
	}
	merged := resp.GetPprof().GetProfile()
	if c.Output == "json" {
		return printJSON(out, merged)
	}
	body, err := proto.Marshal(merged)
	if err != nil {
		return err
	}
	if c.File == "-" {
		return compress(out, body)
	}
	file, err := os.Create(c.File)
	if err != nil {
		return err
	}
	if err := compress(file, body); err != nil {
		return fmt.Errorf("write %s: %w", c.File, err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("write %s: %w", c.File, err)
	}
	_, err = fmt.Fprintf(out, "%s: %s, %d samples; open it with\n  go tool pprof -http=: %s\n", c.File, q.profileType, len(merged.GetSample()), c.File)
	return err
}

func compress(w io.Writer, body []byte) error {
	zw := gzip.NewWriter(w)
	if _, err := zw.Write(body); err != nil {
		return err
	}
	return zw.Close()
}
