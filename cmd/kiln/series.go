package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
)

// seriesCommand is `kiln query series`.
type seriesCommand struct {
	typedSelection
	GroupBy []string      `help:"Labels to keep apart." placeholder:"NAMES"`
	Step    time.Duration `help:"Width of a point. Default: a sixtieth of the range."`
}

// Run prints points as JSON, or a line and its sum per series.
func (c *seriesCommand) Run(ctx context.Context, out output) error {
	q, err := c.question(ctx)
	if err != nil {
		return err
	}
	step := c.Step
	if step == 0 {
		step = max(time.Second, time.Duration(q.end-q.start)*time.Millisecond/60).Truncate(time.Second)
	}
	resp, err := c.querier().SelectSeries(ctx, connect.NewRequest(&querierv1.SelectSeriesRequest{
		ProfileTypeID: q.profileType, LabelSelector: q.selector, Start: q.start, End: q.end, GroupBy: c.GroupBy, Step: step.Seconds(),
	}))
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return printJSON(out, resp.Msg)
	}
	fmt.Fprintf(out, "%s  %s  %s per point\n\n", q.profileType, q.selector, step)
	columns := int((q.end-q.start)/step.Milliseconds()) + 2
	for _, s := range resp.Msg.Series {
		values, sum := make([]float64, columns), 0.0
		for _, p := range s.Points {
			sum += p.Value
			if i := int((p.Timestamp - q.start) / step.Milliseconds()); i >= 0 && i < columns {
				values[i] += p.Value
			}
		}
		fmt.Fprintf(out, "%10s  %s  %s\n", quantity(sum, q.unit), sparkline(values, 60), labelsText(s.Labels))
	}
	return nil
}

func labelsText(pairs []*typesv1.LabelPair) string {
	texts := make([]string, len(pairs))
	for i, p := range pairs {
		texts[i] = fmt.Sprintf("%s=%q", p.Name, p.Value)
	}
	return "{" + strings.Join(texts, ", ") + "}"
}
