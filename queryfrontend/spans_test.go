package queryfrontend_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"

	"github.com/kilndb/kiln/flamegraph"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/querybackend/querybackendtest"
)

// spanStory is profiles of which most samples were taken in one of a few spans and traces, beside profiles that know of
// none, in several segments.
func spanStory(t *testing.T) (*querybackendtest.Store, querybackendtest.Model, []querybackendtest.Pushed) {
	store := querybackendtest.New()
	var all []querybackendtest.Pushed
	for i, file := range []string{"api-gateway-cpu-0", "net-http-cpu-0", "api-gateway-cpu-1", "regexp-cpu-0", "api-gateway-cpu-0", "regexp-cpu-1"} {
		push := querybackendtest.Push("one", file, epoch.Add(time.Duration(i)*time.Minute), "pod", fmt.Sprint(i%2))
		if i != 3 {
			p := oracle.Parse(push.Body)
			for j, s := range p.Sample {
				if s.Label == nil {
					s.Label = map[string][]string{}
				}
				if n := (i + j) % 5; n > 0 {
					s.Label["span_id"] = []string{span(n)}
				}
				if i > 0 {
					s.Label["trace_id"] = []string{trace(j%3 + 1)}
				}
			}
			var body bytes.Buffer
			if err := p.WriteUncompressed(&body); err != nil {
				t.Fatal(err)
			}
			push.Body = body.Bytes()
		}
		all = append(all, push)
	}
	store.Segment(t, all[:2]...)
	store.Segment(t, all[2:4]...)
	store.Segment(t, all[4:]...)
	return store, querybackendtest.NewModel(all...), all
}

func span(n int) string  { return fmt.Sprintf("%015xa", n) }
func trace(n int) string { return fmt.Sprintf("%031xb", n) }

// Samples are chosen by their request, and profiles by their id, in segments and in blocks with rollups.
func TestSelectByRequestAndProfile(t *testing.T) {
	store, model, pushed := spanStory(t)
	ask := func(t *testing.T) {
		f := open(t, store, "one", 1)
		for _, selector := range []string{`{}`, `{service_name="api-gateway"}`, `{pod="1"}`} {
			for _, scope := range []scope{
				{epoch.UnixMilli(), epoch.Add(time.Hour).UnixMilli(), selector},
				{epoch.Add(time.Minute).UnixMilli(), epoch.Add(2 * time.Minute).UnixMilli(), selector},
			} {
				start, end := scope.nanos()
				picked := model.Pick("one", start, end, selector, cpu)
				if len(querybackendtest.Requested(picked, "span_id", span(1))) == 0 || len(querybackendtest.Requested(picked, "trace_id", trace(2))) == 0 {
					t.Fatalf("%v has no such samples: this tests nothing", scope)
				}
				for _, spans := range [][]string{{span(1)}, {span(2), span(4)}, {span(9)}} {
					f.mustEqualOf(scope, func(r *querierv1.SelectMergeStacktracesRequest) { r.SpanSelector = spans }, querybackendtest.Requested(picked, "span_id", spans...))
				}
				traces := []string{trace(2), trace(9)}
				f.mustEqualOf(scope, func(r *querierv1.SelectMergeStacktracesRequest) { r.TraceIdSelector = traces }, querybackendtest.Requested(picked, "trace_id", traces...))
				ids := []string{pushed[0].ID.String(), pushed[4].ID.String()}
				ofIDs := slices.DeleteFunc(slices.Clone(picked), func(p querybackendtest.Picked) bool { return !slices.Contains(ids, p.ID.String()) })
				f.mustEqualOf(scope, func(r *querierv1.SelectMergeStacktracesRequest) { r.ProfileIdSelector = ids }, ofIDs)
				f.mustEqualOf(scope, func(r *querierv1.SelectMergeStacktracesRequest) {
					r.ProfileIdSelector, r.SpanSelector = ids[:1], []string{span(3)}
				}, querybackendtest.Requested(slices.DeleteFunc(slices.Clone(ofIDs), func(p querybackendtest.Picked) bool { return p.ID.String() != ids[0] }), "span_id", span(3)))
			}
		}
	}
	t.Run("segments", ask)
	for range 4 {
		store.Compact(t)
	}
	t.Run("blocks", ask)
}

// mustEqualOf asks for some samples in every form and compares with the oracle.
func (f fixture) mustEqualOf(s scope, choose func(*querierv1.SelectMergeStacktracesRequest), picked []querybackendtest.Picked) {
	f.Helper()
	want := querybackendtest.Sum(picked)
	all := int64(1 << 20)
	req := &querierv1.SelectMergeStacktracesRequest{ProfileTypeID: cpu, LabelSelector: s.selector, Start: s.start, End: s.end, MaxNodes: &all}
	choose(req)
	equal := func(what string, flame *querierv1.FlameGraph) {
		f.Helper()
		if total, functions := flameFunctions(flame); total != want.Total || !maps.Equal(functions, weights(want)) {
			f.Errorf("%s, %s %v: total %d of %d functions, want %d of %d", what, s.selector, req, total, len(functions), want.Total, len(want.Functions))
		}
	}
	flame, err := f.SelectMergeStacktraces(f.ctx, connect.NewRequest(req))
	if err != nil {
		f.Fatal(err)
	}
	equal("flame graph", flame.Msg.Flamegraph)
	if len(req.SpanSelector) > 0 && len(req.ProfileIdSelector) == 0 {
		f.mustEqualSpans(req, want, equal)
	}
	req.Format = querierv1.ProfileFormat_PROFILE_FORMAT_PPROF
	res, err := f.SelectMergeStacktraces(f.ctx, connect.NewRequest(req))
	if err != nil {
		f.Fatal(err)
	}
	p := f.mustEqualPprof(res.Msg.Pprof.Profile, cpu, want)
	first := int64(0)
	for _, row := range picked {
		if first == 0 || row.Time < first {
			first = row.Time
		}
	}
	if p.TimeNanos != first {
		f.Errorf("pprof of %v is of %d, want %d", req, p.TimeNanos, first)
	}
	if len(req.SpanSelector) > 0 {
		return
	}
	merged, err := f.SelectMergeProfile(f.ctx, connect.NewRequest(&querierv1.SelectMergeProfileRequest{
		ProfileTypeID: cpu, LabelSelector: s.selector, Start: s.start, End: s.end, ProfileIdSelector: req.ProfileIdSelector, TraceIdSelector: req.TraceIdSelector,
	}))
	if err != nil {
		f.Fatal(err)
	}
	f.mustEqualPprof(merged.Msg, cpu, want)
}

// mustEqualSpans asks in the way of old clients.
func (f fixture) mustEqualSpans(req *querierv1.SelectMergeStacktracesRequest, want oracle.Answer, equal func(string, *querierv1.FlameGraph)) {
	f.Helper()
	old := &querierv1.SelectMergeSpanProfileRequest{
		ProfileTypeID: req.ProfileTypeID, LabelSelector: req.LabelSelector, SpanSelector: req.SpanSelector, Start: req.Start, End: req.End, MaxNodes: req.MaxNodes,
	}
	res, err := f.SelectMergeSpanProfile(f.ctx, connect.NewRequest(old))
	if err != nil {
		f.Fatal(err)
	}
	equal("span profile", res.Msg.Flamegraph)
	old.Format = querierv1.ProfileFormat_PROFILE_FORMAT_TREE
	if res, err = f.SelectMergeSpanProfile(f.ctx, connect.NewRequest(old)); err != nil {
		f.Fatal(err)
	}
	tree, err := flamegraph.DecodeTreeBytes(res.Msg.Tree)
	if err != nil || tree.Total() != want.Total {
		f.Errorf("tree of spans %v: total %d, want %d, error %v", req.SpanSelector, tree.Total(), want.Total, err)
	}
	old.Format = querierv1.ProfileFormat_PROFILE_FORMAT_DOT
	_, err = f.SelectMergeSpanProfile(f.ctx, connect.NewRequest(old))
	mustFail(f.T, err, connect.CodeUnimplemented, "span_selector")
}

// A question about spans opens only objects that know of some, and of these no rollups.
func TestSpanQuestionsReadLittle(t *testing.T) {
	store, _, _ := spanStory(t)
	var plain []querybackendtest.Pushed
	for i := range 3 {
		plain = append(plain, querybackendtest.Push("one", "api-gateway-cpu-0", epoch.Add(time.Duration(i)*time.Minute)))
	}
	store.Segment(t, plain...)
	f := open(t, store, "one", 0)
	cost := func(choose func(*querierv1.SelectMergeStacktracesRequest)) string {
		req := &querierv1.SelectMergeStacktracesRequest{ProfileTypeID: cpu, LabelSelector: `{}`, Start: epoch.UnixMilli(), End: epoch.Add(time.Hour).UnixMilli()}
		choose(req)
		res, err := f.SelectMergeStacktraces(f.ctx, connect.NewRequest(req))
		if err != nil {
			t.Fatal(err)
		}
		return res.Header().Get("Kiln-Statistics")
	}
	var entries, profiles, samples int
	read := func(header string) {
		if _, err := fmt.Sscanf(header, "entries=%d, datasets=%d, profiles=%d, samples=%d", &entries, new(int), &profiles, &samples); err != nil {
			t.Fatal(header, err)
		}
	}
	if read(cost(func(*querierv1.SelectMergeStacktracesRequest) {})); entries != 4 {
		t.Errorf("%d objects read without a selector, want all four", entries)
	}
	if read(cost(func(r *querierv1.SelectMergeStacktracesRequest) { r.SpanSelector = []string{span(7)} })); entries != 3 || profiles != 0 || samples != 0 {
		t.Errorf("a span that is nowhere: %d objects, %d profiles, %d samples", entries, profiles, samples)
	}
}
