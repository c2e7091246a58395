package main

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
	"google.golang.org/protobuf/proto"
)

// labelsCommand is `kiln query labels`.
type labelsCommand struct {
	selection
	Name string `arg:"" optional:"" help:"Label whose values to list."`
}

// Run prints label names, or the values of one label, a line each.
func (c *labelsCommand) Run(ctx context.Context, out output) error {
	start, end, err := c.millis(time.Now())
	if err != nil {
		return err
	}
	answer, names, err := c.ask(ctx, start, end)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return printJSON(out, answer)
	}
	for _, n := range names {
		fmt.Fprintln(out, clip(n, 0))
	}
	return nil
}

func (c *labelsCommand) ask(ctx context.Context, start, end int64) (proto.Message, []string, error) {
	matchers := []string{c.selector()}
	if c.Name == "" {
		resp, err := c.querier().LabelNames(ctx, connect.NewRequest(&typesv1.LabelNamesRequest{Matchers: matchers, Start: start, End: end}))
		if err != nil {
			return nil, nil, err
		}
		return resp.Msg, resp.Msg.Names, nil
	}
	resp, err := c.querier().LabelValues(ctx, connect.NewRequest(&typesv1.LabelValuesRequest{Name: c.Name, Matchers: matchers, Start: start, End: end}))
	if err != nil {
		return nil, nil, err
	}
	return resp.Msg, resp.Msg.Names, nil
}
