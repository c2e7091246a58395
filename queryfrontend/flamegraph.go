package queryfrontend

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	"golang.org/x/sync/errgroup"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/flamegraph"
	"github.com/kilndb/kiln/query"
)

// SelectMergeStacktraces returns the sum of all matching profiles as a flame graph, as the bytes of a tree, as a DOT
// graph or as pprof. The first three are cut to max_nodes; pprof is whole.
func (f *Frontend) SelectMergeStacktraces(ctx context.Context, req *connect.Request[querierv1.SelectMergeStacktracesRequest]) (*connect.Response[querierv1.SelectMergeStacktracesResponse], error) {
	return serve(ctx, f, "SelectMergeStacktraces", req, f.selectMergeStacktraces)
}

func (f *Frontend) selectMergeStacktraces(ctx context.Context, c *call, req *querierv1.SelectMergeStacktracesRequest) (*querierv1.SelectMergeStacktracesResponse, error) {
	byDefault := c.limits.DefaultNodes
	switch req.Format {
	case querierv1.ProfileFormat_PROFILE_FORMAT_UNSPECIFIED, querierv1.ProfileFormat_PROFILE_FORMAT_FLAMEGRAPH, querierv1.ProfileFormat_PROFILE_FORMAT_TREE:
	case querierv1.ProfileFormat_PROFILE_FORMAT_DOT:
		byDefault = defaultDOTNodes
	case querierv1.ProfileFormat_PROFILE_FORMAT_PPROF:
		return f.stacktracesPprof(ctx, c, req)
	default:
		return nil, unimplemented("format %d is not available", req.Format)
	}
	maxNodes, err := parseMaxNodes(req.MaxNodes, byDefault, c.limits)
	if err != nil {
		return nil, err
	}
	tree, err := f.tree(ctx, c, req)
	if err != nil {
		return nil, err
	}
	switch req.Format {
	case querierv1.ProfileFormat_PROFILE_FORMAT_TREE:
		return &querierv1.SelectMergeStacktracesResponse{Tree: flamegraph.TreeBytes(tree, maxNodes)}, nil
	case querierv1.ProfileFormat_PROFILE_FORMAT_DOT:
		return &querierv1.SelectMergeStacktracesResponse{Dot: flamegraph.DOT(tree, maxNodes)}, nil
	}
	names, levels, total, maxSelf := flamegraph.FlameGraph(tree, maxNodes)
	return &querierv1.SelectMergeStacktracesResponse{
		Flamegraph: &querierv1.FlameGraph{Names: names, Levels: wireLevels(levels), Total: total, MaxSelf: maxSelf},
	}, nil
}

// SelectMergeSpanProfile is SelectMergeStacktraces of the samples of some spans, by which clients asked before that had
// a span selector.
func (f *Frontend) SelectMergeSpanProfile(ctx context.Context, req *connect.Request[querierv1.SelectMergeSpanProfileRequest]) (*connect.Response[querierv1.SelectMergeSpanProfileResponse], error) {
	return serve(ctx, f, "SelectMergeSpanProfile", req, f.selectMergeSpanProfile)
}

func (f *Frontend) selectMergeSpanProfile(ctx context.Context, c *call, req *querierv1.SelectMergeSpanProfileRequest) (*querierv1.SelectMergeSpanProfileResponse, error) {
	switch req.Format {
	case querierv1.ProfileFormat_PROFILE_FORMAT_UNSPECIFIED, querierv1.ProfileFormat_PROFILE_FORMAT_FLAMEGRAPH, querierv1.ProfileFormat_PROFILE_FORMAT_TREE:
	default:
		return nil, unimplemented("format %s is not available here: ask SelectMergeStacktraces with a span_selector", req.Format)
	}
	if len(req.SpanSelector) == 0 {
		return nil, invalid("span_selector is empty: give the spans, 16 hexadecimal digits each")
	}
	res, err := f.selectMergeStacktraces(ctx, c, &querierv1.SelectMergeStacktracesRequest{
		ProfileTypeID: req.ProfileTypeID, LabelSelector: req.LabelSelector, Start: req.Start, End: req.End,
		MaxNodes: req.MaxNodes, Format: req.Format, SpanSelector: req.SpanSelector,
	})
	if err != nil {
		return nil, err
	}
	return &querierv1.SelectMergeSpanProfileResponse{Flamegraph: res.Flamegraph, Tree: res.Tree}, nil
}

func (f *Frontend) stacktracesPprof(ctx context.Context, c *call, req *querierv1.SelectMergeStacktracesRequest) (*querierv1.SelectMergeStacktracesResponse, error) {
	if err := refuseStacktraces(req); err != nil {
		return nil, err
	}
	if err := refuseStacks(req.StackTraceSelector); err != nil {
		return nil, err
	}
	if _, err := parseMaxNodes(req.MaxNodes, c.limits.DefaultNodes, c.limits); err != nil {
		return nil, err
	}
	ids, err := parseIDs(req.ProfileIdSelector, req.TraceIdSelector, req.SpanSelector)
	if err != nil {
		return nil, err
	}
	p, err := f.pprof(ctx, c, req.ProfileTypeID, req.LabelSelector, req.Start, req.End, ids)
	if err != nil {
		return nil, err
	}
	return &querierv1.SelectMergeStacktracesResponse{Pprof: &querierv1.PprofProfile{Profile: p}}, nil
}

// Diff returns two sums side by side, as one flame graph. Both sides are cut alike, to the larger of the two
// max_nodes; their formats do not matter.
func (f *Frontend) Diff(ctx context.Context, req *connect.Request[querierv1.DiffRequest]) (*connect.Response[querierv1.DiffResponse], error) {
	return serve(ctx, f, "Diff", req, f.diff)
}

func (f *Frontend) diff(ctx context.Context, c *call, req *querierv1.DiffRequest) (*querierv1.DiffResponse, error) {
	if req.Left == nil || req.Right == nil {
		return nil, invalid("left and right are both required")
	}
	maxLeft, err := parseMaxNodes(req.Left.MaxNodes, c.limits.DefaultNodes, c.limits)
	if err != nil {
		return nil, err
	}
	maxRight, err := parseMaxNodes(req.Right.MaxNodes, c.limits.DefaultNodes, c.limits)
	if err != nil {
		return nil, err
	}
	var left, right *flamegraph.Tree
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) { left, err = f.tree(ctx, c, req.Left); return err })
	g.Go(func() (err error) { right, err = f.tree(ctx, c, req.Right); return err })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	d, err := flamegraph.Diff(left, right, max(maxLeft, maxRight))
	if errors.Is(err, flamegraph.ErrOverflow) {
		return nil, connect.NewError(connect.CodeResourceExhausted, errors.New("the sum of left and right does not fit 64 bits: ask for a shorter time range"))
	}
	if err != nil {
		return nil, err
	}
	return &querierv1.DiffResponse{Flamegraph: &querierv1.FlameGraphDiff{
		Names: d.Names, Levels: wireLevels(d.Levels), Total: d.Total, MaxSelf: d.MaxSelf, LeftTicks: d.LeftTotal, RightTicks: d.RightTotal,
	}}, nil
}

// tree asks for the sum of profiles as one tree, whole.
func (f *Frontend) tree(ctx context.Context, c *call, req *querierv1.SelectMergeStacktracesRequest) (*flamegraph.Tree, error) {
	if err := refuseStacktraces(req); err != nil {
		return nil, err
	}
	if pgo := req.StackTraceSelector.GetGoPgo(); pgo != nil {
		return nil, unimplemented("stack_trace_selector.go_pgo: profiles for Go PGO are not available yet")
	}
	r, err := parseLimitedRange(req.Start, req.End, c.limits)
	if err != nil {
		return nil, err
	}
	q, err := profileQuestion(r, req.ProfileTypeID, req.LabelSelector)
	if err != nil {
		return nil, err
	}
	ids, err := parseIDs(req.ProfileIdSelector, req.TraceIdSelector, req.SpanSelector)
	if err != nil {
		return nil, err
	}
	ids.narrow(q.message)
	q.message.Ask = &queryv1.Question_Tree{Tree: &queryv1.AskTree{}}
	report, err := f.ask(ctx, c, q)
	if err != nil {
		return nil, err
	}
	t, err := query.TreeFromProto(report.GetTree())
	if site := req.StackTraceSelector.GetCallSite(); err == nil && len(site) > 0 {
		t = atCallSite(t, site)
	}
	return t, err
}

// refuseStacktraces refuses the parts of a request that kiln does not know yet.
func refuseStacktraces(req *querierv1.SelectMergeStacktracesRequest) error {
	if a := req.Async; a.GetRequestId() != "" || a.GetType() != querierv1.AsyncQueryType_ASYNC_QUERY_TYPE_DISABLED {
		return unimplemented("async: queries are answered in the call that asks them")
	}
	return nil
}

func wireLevels(levels [][]int64) []*querierv1.Level {
	wire := make([]*querierv1.Level, len(levels))
	for i, values := range levels {
		wire[i] = &querierv1.Level{Values: values}
	}
	return wire
}
