package queryfrontend

import (
	"context"

	"connectrpc.com/connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
)

// SelectMergeSpanProfile is refused: kiln does not store spans yet.
func (f *Frontend) SelectMergeSpanProfile(ctx context.Context, req *connect.Request[querierv1.SelectMergeSpanProfileRequest]) (*connect.Response[querierv1.SelectMergeSpanProfileResponse], error) {
	return serve(ctx, f, "SelectMergeSpanProfile", req, func(context.Context, *call, *querierv1.SelectMergeSpanProfileRequest) (*querierv1.SelectMergeSpanProfileResponse, error) {
		return nil, unimplemented("SelectMergeSpanProfile: profiles cannot be selected by span yet")
	})
}

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

// refuseSelectors refuses what would choose among profiles or samples in ways that kiln does not know yet. Whatever
// is set here must not be left out silently: the answer would be about more than was asked.
func refuseSelectors(profileIDs, traceIDs, spans []string, stacks *typesv1.StackTraceSelector) error {
	switch {
	case len(profileIDs) > 0:
		return unimplemented("profile_id_selector: profiles cannot be selected by id yet")
	case len(traceIDs) > 0:
		return unimplemented("trace_id_selector: samples cannot be selected by trace yet")
	case len(spans) > 0:
		return unimplemented("span_selector: samples cannot be selected by span yet")
	case stacks.GetGoPgo() != nil:
		return unimplemented("stack_trace_selector.go_pgo: profiles for Go PGO are not available yet")
	case len(stacks.GetCallSite()) > 0:
		return unimplemented("stack_trace_selector.call_site: this answer cannot be narrowed to a call site yet")
	}
	return nil
}
