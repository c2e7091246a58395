package queryfrontend

import (
	"context"

	"connectrpc.com/connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
)

// SelectHeatmap is refused: kiln does not draw heatmaps yet.
func (f *Frontend) SelectHeatmap(ctx context.Context, req *connect.Request[querierv1.SelectHeatmapRequest]) (*connect.Response[querierv1.SelectHeatmapResponse], error) {
	return serve(ctx, f, "SelectHeatmap", req, func(context.Context, *call, *querierv1.SelectHeatmapRequest) (*querierv1.SelectHeatmapResponse, error) {
		return nil, unimplemented("SelectHeatmap: heatmaps are not available yet")
	})
}

// AnalyzeQuery is refused: kiln does not estimate what a query would cost yet.
func (f *Frontend) AnalyzeQuery(ctx context.Context, req *connect.Request[querierv1.AnalyzeQueryRequest]) (*connect.Response[querierv1.AnalyzeQueryResponse], error) {
	return serve(ctx, f, "AnalyzeQuery", req, func(context.Context, *call, *querierv1.AnalyzeQueryRequest) (*querierv1.AnalyzeQueryResponse, error) {
		return nil, unimplemented("AnalyzeQuery: the cost of a query is not estimated yet; the header %s of an answer says what it did cost", StatisticsHeader)
	})
}

// refuseStacks refuses what would choose among stacks in ways that kiln does not know yet. Whatever is set here must not
// be left out silently: the answer would be about more than was asked.
func refuseStacks(stacks *typesv1.StackTraceSelector) error {
	switch {
	case stacks.GetGoPgo() != nil:
		return unimplemented("stack_trace_selector.go_pgo: profiles for Go PGO are not available yet")
	case len(stacks.GetCallSite()) > 0:
		return unimplemented("stack_trace_selector.call_site: this answer cannot be narrowed to a call site yet")
	}
	return nil
}
