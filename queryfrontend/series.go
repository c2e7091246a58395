package queryfrontend

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"connectrpc.com/connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
)

// SelectSeries returns how the values of a profile type add up over time, per group of series. A point at t covers
// the step that ends with t. The first is at start and so covers the step before it; the last may lie behind end.
// Only steps that have profiles have a point.
func (f *Frontend) SelectSeries(ctx context.Context, req *connect.Request[querierv1.SelectSeriesRequest]) (*connect.Response[querierv1.SelectSeriesResponse], error) {
	return serve(ctx, f, "SelectSeries", req, f.selectSeries)
}

func (f *Frontend) selectSeries(ctx context.Context, c *call, req *querierv1.SelectSeriesRequest) (*querierv1.SelectSeriesResponse, error) {
	value, err := aggregation(req.GetAggregation())
	if err != nil {
		return nil, err
	}
	q, err := seriesQuestion(c, req)
	if err != nil {
		return nil, err
	}
	report, err := f.ask(ctx, c, q)
	if err != nil {
		return nil, err
	}
	series := report.GetTimeSeries()
	if n := req.GetLimit(); n > 0 {
		series = heaviest(series, n)
	}
	res := &querierv1.SelectSeriesResponse{Series: make([]*typesv1.Series, len(series))}
	for i, s := range series {
		if len(s.Sums) != len(s.Times) || len(s.Profiles) != len(s.Times) {
			return nil, fmt.Errorf("time series report: %d sums and %d counts for %d times", len(s.Sums), len(s.Profiles), len(s.Times))
		}
		res.Series[i] = &typesv1.Series{Labels: labelPairs(s.Labels), Points: points(s, value)}
	}
	return res, nil
}

func seriesQuestion(c *call, req *querierv1.SelectSeriesRequest) (*question, error) {
	if err := refuseStacks(req.StackTraceSelector); err != nil {
		return nil, err
	}
	if t := req.ExemplarType; t != typesv1.ExemplarType_EXEMPLAR_TYPE_UNSPECIFIED && t != typesv1.ExemplarType_EXEMPLAR_TYPE_NONE {
		return nil, unimplemented("exemplar_type %s: exemplars are not available yet", t)
	}
	if req.GetLimit() < 0 {
		return nil, invalid("limit is %d: it must not be negative", req.GetLimit())
	}
	if slices.Contains(req.GroupBy, "") {
		return nil, invalid("group_by has an empty label name")
	}
	b, err := parseBuckets(req.Start, req.End, req.Step, c.limits)
	if err != nil {
		return nil, err
	}
	q, err := profileQuestion(b.timeRange, req.ProfileTypeID, req.LabelSelector)
	if err != nil {
		return nil, err
	}
	q.message.Ask = &queryv1.Question_TimeSeries{TimeSeries: &queryv1.AskTimeSeries{GroupBy: req.GroupBy, Step: b.step, Origin: b.origin}}
	return q, nil
}

// aggregation returns the value of a point, given the sum over its profiles and how many there are.
func aggregation(a typesv1.TimeSeriesAggregationType) (func(sum int64, profiles uint64) float64, error) {
	switch a {
	case typesv1.TimeSeriesAggregationType_TIME_SERIES_AGGREGATION_TYPE_SUM:
		return func(sum int64, _ uint64) float64 { return float64(sum) }, nil
	case typesv1.TimeSeriesAggregationType_TIME_SERIES_AGGREGATION_TYPE_AVERAGE:
		return func(sum int64, profiles uint64) float64 { return float64(sum) / float64(profiles) }, nil
	}
	return nil, invalid("aggregation %d is neither SUM nor AVERAGE", a)
}

// heaviest keeps the n series with the largest sums, in their order. Of equal ones the first stay.
func heaviest(series []*queryv1.TimeSeries, n int64) []*queryv1.TimeSeries {
	if int64(len(series)) <= n {
		return series
	}
	totals := make([]float64, len(series)) // a total over time may exceed an int64
	order := make([]int, len(series))
	for i, s := range series {
		order[i] = i
		for _, sum := range s.Sums {
			totals[i] += float64(sum)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(totals[b], totals[a]) })
	order = order[:n]
	slices.Sort(order)
	kept := make([]*queryv1.TimeSeries, n)
	for i, j := range order {
		kept[i] = series[j]
	}
	return kept
}

func points(s *queryv1.TimeSeries, value func(int64, uint64) float64) []*typesv1.Point {
	ps := make([]*typesv1.Point, len(s.Times))
	for i, t := range s.Times {
		ps[i] = &typesv1.Point{Timestamp: millis(t), Value: value(s.Sums[i], s.Profiles[i])}
	}
	return ps
}

func labelPairs(ls []*queryv1.Label) []*typesv1.LabelPair {
	pairs := make([]*typesv1.LabelPair, len(ls))
	for i, l := range ls {
		pairs[i] = &typesv1.LabelPair{Name: l.Name, Value: l.Value}
	}
	return pairs
}
