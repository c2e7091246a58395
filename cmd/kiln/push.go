package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"connectrpc.com/connect"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/push/v1/pushv1connect"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
)

// pushCommand is `kiln push`.
type pushCommand struct {
	target
	Files   []string          `arg:"" type:"existingfile" help:"pprof files, gzipped or not." name:"file"`
	Service string            `required:"" help:"Name of the program that was profiled." placeholder:"NAME"`
	Label   map[string]string `help:"Further labels." placeholder:"NAME=VALUE"`
	At      string            `help:"When the profiles were captured: now, an age such as 30m, RFC 3339, or Unix seconds. Default: what the file says." placeholder:"TIME"`
	Name    string            `help:"What the profile is (process_cpu, memory, mutex, block, goroutine). Default: told by its sample types and file name." placeholder:"KIND"`
}

// Run pushes all files in one request, so that each is stored or named in the error.
func (c *pushCommand) Run(ctx context.Context, out output) error {
	req := &pushv1.PushRequest{}
	var kinds []string
	for _, file := range c.Files {
		body, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		body, kind, captured, err := c.inspect(file, body)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		req.Series = append(req.Series, &pushv1.RawProfileSeries{
			Labels:  c.labels(kind),
			Samples: []*pushv1.RawSample{{RawProfile: body, ID: profile.NewID().String()}},
		})
		kinds = append(kinds, fmt.Sprintf("%s  %s, captured %s", file, kind, captured.Format(time.RFC3339)))
	}
	client := pushv1connect.NewPusherServiceClient(c.client(), c.Server, c.options())
	if _, err := client.Push(ctx, connect.NewRequest(req)); err != nil {
		return err
	}
	for _, line := range kinds {
		fmt.Fprintln(out, line)
	}
	_, err := fmt.Fprintf(out, "stored %d profile(s) of service %s\n", len(c.Files), c.Service)
	return err
}

// inspect decodes a profile far enough to name its kind and say when it was captured. It returns the profile
// to push: what was read, or with another time.
func (c *pushCommand) inspect(file string, body []byte) (_ []byte, kind string, captured time.Time, err error) {
	var p profile.Profile
	if err := pprof.NewDecoder().Decode(body, pprof.Limits{MaxBytes: 1 << 30}, &p); err != nil {
		return nil, "", time.Time{}, err
	}
	captured = time.Now()
	switch {
	case c.At != "":
		if captured, err = parseTime(c.At, captured); err != nil {
			return nil, "", time.Time{}, fmt.Errorf("--at: %w", err)
		}
		// Of a field that comes twice the last one counts.
		body = protowire.AppendTag(slices.Clone(p.Data), timeNanosField, protowire.VarintType)
		body = protowire.AppendVarint(body, uint64(captured.UnixNano()))
	case p.TimeNanos != 0:
		captured = time.Unix(0, p.TimeNanos)
	}
	if c.Name != "" {
		return body, c.Name, captured, nil
	}
	return body, kindOf(file, &p), captured, nil
}

// timeNanosField is the number of time_nanos in pprof's Profile message.
const timeNanosField = 9

// kindOf tells from sample types what a profile is. Go's mutex and block profiles look alike: there the
// file name decides.
func kindOf(file string, p *profile.Profile) string {
	types := make([]string, len(p.SampleTypes))
	for i, t := range p.SampleTypes {
		types[i] = string(p.String(t.Type))
	}
	has := func(part string) bool {
		for _, t := range types {
			if strings.Contains(t, part) {
				return true
			}
		}
		return false
	}
	switch {
	case has("wall"):
		return "wall"
	case has("cpu"):
		return "process_cpu"
	case has("alloc_"), has("inuse_"):
		return "memory"
	case has("goroutine"):
		return "goroutine"
	case has("contentions") && strings.Contains(filepath.Base(file), "block"):
		return "block"
	case has("contentions"):
		return "mutex"
	}
	return types[len(types)-1]
}

func (c *pushCommand) labels(kind string) []*typesv1.LabelPair {
	pairs := []*typesv1.LabelPair{{Name: labels.Name, Value: kind}, {Name: labels.ServiceName, Value: c.Service}}
	for name, value := range c.Label {
		pairs = append(pairs, &typesv1.LabelPair{Name: name, Value: value})
	}
	sort.Slice(pairs, func(i, j int) bool { return pairs[i].Name < pairs[j].Name })
	return pairs
}
