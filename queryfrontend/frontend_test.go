package queryfrontend_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
	"go.uber.org/goleak"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/querybackend/querybackendtest"
	"github.com/kilndb/kiln/queryfrontend"
	"github.com/kilndb/kiln/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backendFunc is a backend of one method.
type backendFunc func(context.Context, *connect.Request[queryv1.InvokeRequest]) (*connect.Response[queryv1.InvokeResponse], error)

func (f backendFunc) Invoke(ctx context.Context, req *connect.Request[queryv1.InvokeRequest]) (*connect.Response[queryv1.InvokeResponse], error) {
	return f(ctx, req)
}

// minute is a scope around epoch.
func minute(selector string) scope {
	return scope{epoch.UnixMilli(), epoch.UnixMilli() + 60_000, selector}
}

func (f fixture) flame(s scope, profileType string) (*querierv1.FlameGraph, error) {
	res, err := f.SelectMergeStacktraces(f.ctx, connect.NewRequest(&querierv1.SelectMergeStacktracesRequest{
		ProfileTypeID: profileType, LabelSelector: s.selector, Start: s.start, End: s.end,
	}))
	if err != nil {
		return nil, err
	}
	return res.Msg.Flamegraph, nil
}

// oneProfile is a store of a single CPU profile at epoch, of tenant "one".
func oneProfile(t *testing.T) *querybackendtest.Store {
	store := querybackendtest.New()
	store.Segment(t, querybackendtest.Push("one", "regexp-cpu-0", epoch, "pod", "a"))
	return store
}

func cpuTotal(files ...string) int64 {
	total := int64(0)
	for _, f := range files {
		total += oracle.Sum("cpu", oracle.Parse(corpus.Get(f).Gzipped)).Total
	}
	return total
}

// TestNothing: a question without data has an empty answer, which is no error.
func TestNothing(t *testing.T) {
	f := open(t, oneProfile(t), "one", 0)
	for name, s := range map[string]struct {
		scope
		id string
	}{
		"other type":    {minute(`{}`), "wall:wall:nanoseconds:wall:nanoseconds"},
		"other time":    {scope{1, 2, `{}`}, cpu},
		"other service": {minute(`{service_name="x"}`), cpu},
		"other pod":     {minute(`{pod="x"}`), cpu},
	} {
		g, err := f.flame(s.scope, s.id)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if g.Total != 0 || g.MaxSelf != 0 || !slices.Equal(g.Names, []string{"total"}) || len(g.Levels) != 1 || !slices.Equal(g.Levels[0].Values, []int64{0, 0, 0, 0}) {
			t.Errorf("%s: flame graph is %v", name, g)
		}
		f.mustEqual(s.scope, s.id, oracle.Answer{})
		if got := f.series(&querierv1.SelectSeriesRequest{ProfileTypeID: s.id, LabelSelector: s.selector, Start: s.start, End: s.end, Step: 1}); len(got) != 0 {
			t.Errorf("%s: series are %v", name, got)
		}
	}
}

// TestTenants: the same services of two tenants never meet, and a tenant without data sees nothing.
func TestTenants(t *testing.T) {
	store := querybackendtest.New()
	store.Segment(t,
		querybackendtest.Push("one", "regexp-cpu-0", epoch, "service_name", "s", "of", "one"),
		querybackendtest.Push("two", "regexp-cpu-1", epoch, "service_name", "s", "of", "two"))
	check := func() {
		t.Helper()
		for as, file := range map[tenant.ID]string{"one": "regexp-cpu-0", "two": "regexp-cpu-1"} {
			f := open(t, store, as, 0)
			f.mustEqual(minute(`{service_name="s"}`), cpu, oracle.Sum("cpu", oracle.Parse(corpus.Get(file).Gzipped)))
			values, err := f.LabelValues(f.ctx, connect.NewRequest(&typesv1.LabelValuesRequest{Name: "of", Start: epoch.UnixMilli(), End: epoch.UnixMilli()}))
			if err != nil || !slices.Equal(values.Msg.Names, []string{string(as)}) {
				t.Errorf("tenant %s sees the values %v, %v", as, values, err)
			}
		}
		f := open(t, store, "three", 0)
		if types, err := f.ProfileTypes(f.ctx, connect.NewRequest(&querierv1.ProfileTypesRequest{})); err != nil || len(types.Msg.ProfileTypes) != 0 {
			t.Errorf("a tenant without data sees %v, %v", types, err)
		}
		if stats, err := f.GetProfileStats(f.ctx, connect.NewRequest(&typesv1.GetProfileStatsRequest{})); err != nil || stats.Msg.DataIngested {
			t.Errorf("a tenant without data sees %v, %v", stats, err)
		}
	}
	check()
	store.Compact(t)
	check()
}

func TestWhoAsks(t *testing.T) {
	f := open(t, oneProfile(t), "one", 0)
	for id, code := range map[tenant.ID]connect.Code{"": connect.CodeUnauthenticated, "one|two": connect.CodeInvalidArgument, "..": connect.CodeInvalidArgument} {
		g := f
		g.ctx = tenant.NewContext(t.Context(), id)
		_, err := g.flame(minute(`{}`), cpu)
		mustFail(t, err, code, string(id))
	}
	f.ctx = t.Context()
	_, err := f.flame(minute(`{}`), cpu)
	mustFail(t, err, connect.CodeUnauthenticated, tenant.Header)
	if got := querybackendtest.Counter(t, f.reg, "kiln_query_frontend_requests_total", "code", "unauthenticated"); got != 2 {
		t.Errorf("%v calls without a tenant were counted, want 2", got)
	}
}

func TestBadQuestions(t *testing.T) {
	f := open(t, oneProfile(t), "one", 0)
	start, end := epoch.UnixMilli(), epoch.UnixMilli()+1000
	limit, many := int64(-1), int64(1<<20+1)
	stacktraces := func(change func(*querierv1.SelectMergeStacktracesRequest)) error {
		req := &querierv1.SelectMergeStacktracesRequest{ProfileTypeID: cpu, LabelSelector: `{}`, Start: start, End: end}
		change(req)
		_, err := f.SelectMergeStacktraces(f.ctx, connect.NewRequest(req))
		return err
	}
	selectSeries := func(change func(*querierv1.SelectSeriesRequest)) error {
		req := &querierv1.SelectSeriesRequest{ProfileTypeID: cpu, LabelSelector: `{}`, Start: start, End: end, Step: 1}
		change(req)
		_, err := f.SelectSeries(f.ctx, connect.NewRequest(req))
		return err
	}
	type traces = querierv1.SelectMergeStacktracesRequest
	type series = querierv1.SelectSeriesRequest
	bad, later := connect.CodeInvalidArgument, connect.CodeUnimplemented
	exemplar := typesv1.TimeSeriesAggregationType(7)
	for name, c := range map[string]struct {
		err  error
		code connect.Code
		says string
	}{
		"type that is none":       {stacktraces(func(r *traces) { r.ProfileTypeID = "cpu" }), bad, `"cpu"`},
		"no type":                 {stacktraces(func(r *traces) { r.ProfileTypeID = "" }), bad, "profile type"},
		"selector syntax":         {stacktraces(func(r *traces) { r.LabelSelector = `{a=` }), bad, `label_selector: invalid selector "{a="`},
		"selector regexp":         {stacktraces(func(r *traces) { r.LabelSelector = `{a=~"("}` }), bad, "("},
		"selector too long":       {stacktraces(func(r *traces) { r.LabelSelector = `{a="` + strings.Repeat("x", 5000) + `"}` }), bad, "4096"},
		"end before start":        {stacktraces(func(r *traces) { r.Start, r.End = 20, 19 }), bad, "end 19 is before start 20"},
		"no range":                {stacktraces(func(r *traces) { r.Start, r.End = 0, 0 }), bad, "start and end"},
		"range beyond the limit":  {stacktraces(func(r *traces) { r.Start = end - (32 * 24 * time.Hour).Milliseconds() }), bad, "744h0m0s"},
		"negative max_nodes":      {stacktraces(func(r *traces) { r.MaxNodes = &limit }), bad, "max_nodes is -1"},
		"too many max_nodes":      {stacktraces(func(r *traces) { r.MaxNodes = &many }), bad, "1048576"},
		"pprof, bad max_nodes":    {stacktraces(func(r *traces) { r.MaxNodes = &many; r.Format = querierv1.ProfileFormat_PROFILE_FORMAT_PPROF }), bad, "1048576"},
		"spans and traces":        {stacktraces(func(r *traces) { r.SpanSelector, r.TraceIdSelector = []string{"a"}, []string{"b"} }), bad, "span_selector"},
		"spans":                   {stacktraces(func(r *traces) { r.SpanSelector = []string{"9a517183f26a089d", "9a51"} }), bad, "span_selector[1]"},
		"no span":                 {stacktraces(func(r *traces) { r.SpanSelector = []string{"0000000000000000"} }), bad, "span_selector[0]"},
		"many spans":              {stacktraces(func(r *traces) { r.SpanSelector = make([]string, 10_001) }), bad, "limit is 10000"},
		"traces":                  {stacktraces(func(r *traces) { r.TraceIdSelector = []string{"7c9e"} }), bad, "trace_id_selector"},
		"profile ids":             {stacktraces(func(r *traces) { r.ProfileIdSelector = []string{"7c9e"} }), bad, "profile_id_selector"},
		"async":                   {stacktraces(func(r *traces) { r.Async = &querierv1.AsyncQueryRequest{Type: 1} }), later, "async"},
		"async poll":              {stacktraces(func(r *traces) { r.Async = &querierv1.AsyncQueryRequest{RequestId: "x"} }), later, "async"},
		"format to come":          {stacktraces(func(r *traces) { r.Format = 9 }), later, "format 9"},
		"go pgo":                  {stacktraces(func(r *traces) { r.StackTraceSelector = &typesv1.StackTraceSelector{GoPgo: &typesv1.GoPGO{}} }), later, "go_pgo"},
		"pprof at a call site":    {stacktraces(func(r *traces) { r.Format = 4; r.StackTraceSelector = callSite("main") }), later, "call_site"},
		"step zero":               {selectSeries(func(r *series) { r.Step = 0 }), bad, "step is 0"},
		"step too small":          {selectSeries(func(r *series) { r.Step = 0.0001 }), bad, "0.001"},
		"negative limit":          {selectSeries(func(r *series) { r.Limit = &limit }), bad, "limit is -1"},
		"empty group_by":          {selectSeries(func(r *series) { r.GroupBy = []string{"a", ""} }), bad, "group_by"},
		"unknown aggregation":     {selectSeries(func(r *series) { r.Aggregation = &exemplar }), bad, "aggregation 7"},
		"series, end first":       {selectSeries(func(r *series) { r.Start, r.End = 2, 1 }), bad, "end 1 is before start 2"},
		"series, bad type":        {selectSeries(func(r *series) { r.ProfileTypeID = "a:b" }), bad, "a:b"},
		"exemplars":               {selectSeries(func(r *series) { r.ExemplarType = typesv1.ExemplarType_EXEMPLAR_TYPE_INDIVIDUAL }), later, "exemplar_type"},
		"series at a call site":   {selectSeries(func(r *series) { r.StackTraceSelector = callSite("main") }), later, "call_site"},
		"names without range":     {second(f.LabelNames(f.ctx, connect.NewRequest(&typesv1.LabelNamesRequest{}))), bad, "start and end"},
		"names, bad matcher":      {second(f.LabelNames(f.ctx, connect.NewRequest(&typesv1.LabelNamesRequest{Start: 1, End: 2, Matchers: []string{`{}`, `{x`}}))), bad, "matchers[1]"},
		"values without range":    {second(f.LabelValues(f.ctx, connect.NewRequest(&typesv1.LabelValuesRequest{Name: "pod"}))), bad, "start and end"},
		"values of no name":       {second(f.LabelValues(f.ctx, connect.NewRequest(&typesv1.LabelValuesRequest{Start: 1, End: 2}))), bad, "name is empty"},
		"sets without range":      {second(f.Series(f.ctx, connect.NewRequest(&querierv1.SeriesRequest{}))), bad, "start and end"},
		"sets, empty label name":  {second(f.Series(f.ctx, connect.NewRequest(&querierv1.SeriesRequest{LabelNames: []string{""}, Start: 1, End: 2}))), bad, "label_names"},
		"types, end before start": {second(f.ProfileTypes(f.ctx, connect.NewRequest(&querierv1.ProfileTypesRequest{Start: 2, End: 1}))), bad, "end 1 is before start 2"},
		"diff of one side":        {second(f.Diff(f.ctx, connect.NewRequest(&querierv1.DiffRequest{Left: &traces{}}))), bad, "right"},
		"diff, bad right":         {second(f.Diff(f.ctx, connect.NewRequest(&querierv1.DiffRequest{Left: diffSide(minute(`{}`)), Right: &traces{ProfileTypeID: "x", Start: 1, End: 2}}))), bad, `"x"`},
		"profile, ids":            {second(f.SelectMergeProfile(f.ctx, connect.NewRequest(&querierv1.SelectMergeProfileRequest{ProfileTypeID: cpu, Start: 1, End: 2, ProfileIdSelector: []string{"x"}}))), bad, "profile_id_selector"},
		"profile, bad type":       {second(f.SelectMergeProfile(f.ctx, connect.NewRequest(&querierv1.SelectMergeProfileRequest{ProfileTypeID: "x", Start: 1, End: 2}))), bad, `"x"`},
		"span profile":            {second(f.SelectMergeSpanProfile(f.ctx, connect.NewRequest(&querierv1.SelectMergeSpanProfileRequest{}))), bad, "span_selector is empty"},
		"heatmap":                 {second(f.SelectHeatmap(f.ctx, connect.NewRequest(&querierv1.SelectHeatmapRequest{}))), later, "heatmap"},
		"analysis":                {second(f.AnalyzeQuery(f.ctx, connect.NewRequest(&querierv1.AnalyzeQueryRequest{}))), later, "AnalyzeQuery"},
	} {
		t.Run(name, func(t *testing.T) { mustFail(t, c.err, c.code, c.says) })
	}
	if _, err := f.flame(minute(`{}`), cpu); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func callSite(names ...string) *typesv1.StackTraceSelector {
	s := &typesv1.StackTraceSelector{}
	for _, n := range names {
		s.CallSite = append(s.CallSite, &typesv1.Location{Name: n})
	}
	return s
}

func diffSide(s scope) *querierv1.SelectMergeStacktracesRequest {
	return &querierv1.SelectMergeStacktracesRequest{ProfileTypeID: cpu, LabelSelector: s.selector, Start: s.start, End: s.end}
}

// TestCallSite narrows a flame graph to the stacks below a call site.
func TestCallSite(t *testing.T) {
	f := open(t, oneProfile(t), "one", 0)
	want := oracle.Sum("cpu", oracle.Parse(corpus.Get("regexp-cpu-0").Gzipped))
	deepest := slices.MaxFunc(slices.Sorted(maps.Keys(want.Stacks)), func(a, b string) int { return strings.Count(a, ";") - strings.Count(b, ";") })
	all := int64(1 << 20)
	names := strings.Split(deepest, ";")
	for depth := 1; depth <= len(names); depth++ {
		site := names[:depth]
		below := int64(0)
		for stack, v := range want.Stacks {
			if strings.HasPrefix(stack+";", strings.Join(site, ";")+";") {
				below += v
			}
		}
		req := diffSide(minute(`{}`))
		req.MaxNodes, req.StackTraceSelector = &all, callSite(site...)
		res, err := f.SelectMergeStacktraces(f.ctx, connect.NewRequest(req))
		if err != nil {
			t.Fatal(err)
		}
		total, functions := flameFunctions(res.Msg.Flamegraph)
		if total != below || functions[site[0]].Total != below {
			t.Errorf("below %v: total %d, %s has %d, want %d", site, total, site[0], functions[site[0]].Total, below)
		}
	}
	req := diffSide(minute(`{}`))
	req.StackTraceSelector = callSite("nobody calls this")
	res, err := f.SelectMergeStacktraces(f.ctx, connect.NewRequest(req))
	if err != nil || res.Msg.Flamegraph.Total != 0 {
		t.Errorf("a call site that is not there: %v, %v", res, err)
	}
}

// TestFormats: what is cut says so, and the total stays.
func TestFormats(t *testing.T) {
	f := open(t, oneProfile(t), "one", 0)
	few := int64(5)
	req := diffSide(minute(`{}`))
	req.MaxNodes = &few
	res, err := f.SelectMergeStacktraces(f.ctx, connect.NewRequest(req))
	if err != nil {
		t.Fatal(err)
	}
	if g := res.Msg.Flamegraph; g.Total != cpuTotal("regexp-cpu-0") || !slices.Contains(g.Names, "other") || len(g.Names) > 7 {
		t.Errorf("five nodes: %v", g)
	}
	req = diffSide(minute(`{}`))
	req.Format = querierv1.ProfileFormat_PROFILE_FORMAT_DOT
	if res, err = f.SelectMergeStacktraces(f.ctx, connect.NewRequest(req)); err != nil || !strings.HasPrefix(res.Msg.Dot, "digraph") || !strings.Contains(res.Msg.Dot, "regexp") {
		t.Errorf("DOT: %v, %v", res, err)
	}
}

// TestPprofHead: period, time and duration of a sum are those of its profiles, each counted once.
func TestPprofHead(t *testing.T) {
	store := querybackendtest.New()
	// Their sample labels make several series of each.
	store.Segment(t, querybackendtest.Push("one", "api-gateway-cpu-0", epoch.Add(time.Second)))
	store.Segment(t, querybackendtest.Push("one", "api-gateway-cpu-1", epoch), querybackendtest.Push("one", "api-gateway-cpu-2", epoch))
	var duration, period int64
	for _, file := range []string{"api-gateway-cpu-0", "api-gateway-cpu-1", "api-gateway-cpu-2"} {
		p := oracle.Parse(corpus.Get(file).Gzipped)
		duration += p.DurationNanos
		period = max(period, p.Period)
	}
	f := open(t, store, "one", 1)
	got := f.stacktraces(minute(`{}`), cpu, querierv1.ProfileFormat_PROFILE_FORMAT_PPROF).Pprof.Profile
	p := f.mustEqualPprof(got, cpu, querybackendtest.Sum(querybackendtest.NewModel(
		querybackendtest.Push("one", "api-gateway-cpu-0", epoch), querybackendtest.Push("one", "api-gateway-cpu-1", epoch), querybackendtest.Push("one", "api-gateway-cpu-2", epoch),
	).Pick("one", 0, 1<<62, `{}`, cpu)))
	if p.DurationNanos != duration || p.Period != period || p.TimeNanos != epoch.UnixNano() {
		t.Errorf("duration %d, period %d, time %d; want %d, %d, %d", p.DurationNanos, p.Period, p.TimeNanos, duration, period, epoch.UnixNano())
	}
}

func TestDiff(t *testing.T) {
	store := querybackendtest.New()
	store.Segment(t,
		querybackendtest.Push("one", "regexp-cpu-0", epoch, "version", "1"),
		querybackendtest.Push("one", "regexp-cpu-1", epoch.Add(time.Second), "version", "2"))
	f := open(t, store, "one", 0)
	one, two := int64(1), int64(100)
	left, right := diffSide(minute(`{version="1"}`)), diffSide(minute(`{version="2"}`))
	left.MaxNodes, right.MaxNodes = &one, &two
	left.Format = querierv1.ProfileFormat_PROFILE_FORMAT_DOT // which does not matter
	res, err := f.Diff(f.ctx, connect.NewRequest(&querierv1.DiffRequest{Left: left, Right: right}))
	if err != nil {
		t.Fatal(err)
	}
	g := res.Msg.Flamegraph
	l, r := cpuTotal("regexp-cpu-0"), cpuTotal("regexp-cpu-1")
	if g.LeftTicks != l || g.RightTicks != r || g.Total != l+r {
		t.Errorf("diff has left %d, right %d, total %d; want %d and %d", g.LeftTicks, g.RightTicks, g.Total, l, r)
	}
	if root := g.Levels[0].Values; len(root) != 7 || root[1] != l || root[4] != r {
		t.Errorf("root of the diff is %v", root)
	}
	if len(g.Names) < 30 {
		t.Errorf("%d names: cut to the smaller max_nodes", len(g.Names))
	}
}

// TestCatalogue: what the index alone answers reads no object.
func TestCatalogue(t *testing.T) {
	s := tell(t)
	unread := backendFunc(func(context.Context, *connect.Request[queryv1.InvokeRequest]) (*connect.Response[queryv1.InvokeResponse], error) {
		t.Error("a backend was asked")
		return nil, errors.New("no")
	})
	f := openWith(t, s.store, unread, "one", 0)
	types, sets := map[string]bool{}, map[string]bool{}
	oldest, newest := int64(1)<<62, int64(0)
	for _, p := range s.model.Pick("one", 0, 1<<62, `{}`, "") {
		types[p.Labels.Get("__profile_type__")] = true
		sets[p.Labels.Project([]string{"service_name", "__profile_type__"}).String()] = true
		oldest, newest = min(oldest, p.Time), max(newest, p.Time)
	}
	for _, req := range []*querierv1.ProfileTypesRequest{{}, {Start: epoch.UnixMilli() - 1, End: epoch.Add(2 * time.Hour).UnixMilli()}} {
		got, err := f.ProfileTypes(f.ctx, connect.NewRequest(req))
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, p := range got.Msg.ProfileTypes {
			ids = append(ids, p.ID)
			if id := strings.Join([]string{p.Name, p.SampleType, p.SampleUnit, p.PeriodType, p.PeriodUnit}, ":"); id != p.ID {
				t.Errorf("type %s has the parts %s", p.ID, id)
			}
		}
		mustEqualSet(f, "types", ids, types)
	}
	// Grafana's health check.
	if got, err := f.ProfileTypes(f.ctx, connect.NewRequest(&querierv1.ProfileTypesRequest{Start: 1000, End: 4000})); err != nil || len(got.Msg.ProfileTypes) != 0 {
		t.Errorf("health check: %v, %v", got, err)
	}
	got, err := f.Series(f.ctx, connect.NewRequest(&querierv1.SeriesRequest{
		LabelNames: []string{"service_name", "__profile_type__"}, Start: epoch.UnixMilli() - 1, End: epoch.Add(time.Hour).UnixMilli(),
	}))
	if err != nil {
		t.Fatal(err)
	}
	mustEqualSet(f, "services and types", labelSetsOf(got.Msg.LabelsSet), sets)
	stats, err := f.GetProfileStats(f.ctx, connect.NewRequest(&typesv1.GetProfileStatsRequest{}))
	if err != nil || !stats.Msg.DataIngested || stats.Msg.OldestProfileTime != oldest/millisecond || stats.Msg.NewestProfileTime != newest/millisecond {
		t.Errorf("stats are %v, %v; want %d to %d ns", stats, err, oldest, newest)
	}
}

// TestOldClients get no label names that are not plain words.
func TestOldClients(t *testing.T) {
	store := querybackendtest.New()
	store.Segment(t,
		querybackendtest.Push("one", "regexp-cpu-0", epoch, "pod", "a", "k8s.node", "1"),
		querybackendtest.Push("one", "regexp-cpu-0", epoch, "pod", "a", "k8s.node", "2"))
	f := open(t, store, "one", 0)
	start, end := epoch.UnixMilli(), epoch.UnixMilli()
	for utf8, wantSets := range map[bool]int{false: 2, true: 4} { // two sample types each
		names, sets := connect.NewRequest(&typesv1.LabelNamesRequest{Start: start, End: end}), connect.NewRequest(&querierv1.SeriesRequest{Start: start, End: end})
		if utf8 {
			names, sets = utf8Request(names.Msg), utf8Request(sets.Msg)
		}
		gotNames, err := f.LabelNames(f.ctx, names)
		if err != nil || slices.Contains(gotNames.Msg.Names, "k8s.node") != utf8 || !slices.Contains(gotNames.Msg.Names, "pod") {
			t.Errorf("utf8 %t: names are %v, %v", utf8, gotNames, err)
		}
		gotSets, err := f.Series(f.ctx, sets)
		if err != nil || len(gotSets.Msg.LabelsSet) != wantSets || strings.Contains(fmt.Sprint(gotSets.Msg), "k8s.node") != utf8 {
			t.Errorf("utf8 %t: sets are %v, %v", utf8, gotSets, err)
		}
	}
}

// TestObjectGone: a compaction that deletes an object between plan and read costs a second plan, not an error and
// not a part of the answer.
func TestObjectGone(t *testing.T) {
	store := querybackendtest.New()
	gone := store.Segment(t, querybackendtest.Push("one", "regexp-cpu-0", epoch))
	store.Segment(t, querybackendtest.Push("one", "regexp-cpu-1", epoch))
	store.OnFind(func(n int) {
		if n == 1 { // the plan names it, the object goes, and a block takes its place
			store.Compact(t)
			if err := store.Bucket.Delete(context.Background(), block.Key(gone)); err != nil {
				t.Error(err)
			}
		}
	})
	f := open(t, store, "one", 1)
	g, err := f.flame(minute(`{}`), cpu)
	if err != nil || g.Total != cpuTotal("regexp-cpu-0", "regexp-cpu-1") {
		t.Errorf("answer is %v, %v", g.GetTotal(), err)
	}
	if store.Found() != 2 {
		t.Errorf("planned %d times, want 2", store.Found())
	}
	if n := querybackendtest.Counter(t, f.reg, "kiln_query_frontend_replans_total"); n != 1 {
		t.Errorf("%v second plans were counted, want 1", n)
	}
}

// TestObjectLost: an object that the index goes on naming is lost, which is an error that gives nothing away.
func TestObjectLost(t *testing.T) {
	store := querybackendtest.New()
	store.Segment(t, querybackendtest.Push("one", "regexp-cpu-0", epoch))
	lost := store.Segment(t, querybackendtest.Push("one", "regexp-cpu-1", epoch))
	if err := store.Bucket.Delete(t.Context(), block.Key(lost)); err != nil {
		t.Fatal(err)
	}
	f := open(t, store, "one", 1)
	_, err := f.flame(minute(`{}`), cpu)
	mustFail(t, err, connect.CodeDataLoss, "missing")
	if strings.Contains(err.Error(), lost.Id) || store.Found() != 2 {
		t.Errorf("planned %d times, the answer is %v", store.Found(), err)
	}
}

// TestErrorsOfOthers: callers see one of a few codes, and nothing of what is behind.
func TestErrorsOfOthers(t *testing.T) {
	secret := "dial tcp 10.1.2.3:9095 segments/0/01J"
	for from, to := range map[connect.Code]connect.Code{
		connect.CodeUnavailable: connect.CodeUnavailable, connect.CodeAborted: connect.CodeUnavailable, connect.CodeFailedPrecondition: connect.CodeUnavailable,
		connect.CodeCanceled: connect.CodeUnavailable, connect.CodeDeadlineExceeded: connect.CodeDeadlineExceeded, connect.CodeDataLoss: connect.CodeDataLoss,
		connect.CodeInternal: connect.CodeInternal, connect.CodeUnknown: connect.CodeInternal, connect.CodeInvalidArgument: connect.CodeInternal,
		connect.CodePermissionDenied: connect.CodeInternal, connect.CodeUnimplemented: connect.CodeInternal,
	} {
		failing := backendFunc(func(context.Context, *connect.Request[queryv1.InvokeRequest]) (*connect.Response[queryv1.InvokeResponse], error) {
			return nil, connect.NewError(from, errors.New(secret))
		})
		_, err := openWith(t, oneProfile(t), failing, "one", 0).flame(minute(`{}`), cpu)
		mustFail(t, err, to)
		if public := (*connect.Error)(nil); errors.As(err, &public) && (public.Meta().Get("Retry-After") != "") != (to == connect.CodeUnavailable) {
			t.Errorf("%s: headers are %v", from, public.Meta())
		}
		if strings.Contains(err.Error(), "10.1.2.3") || strings.Contains(err.Error(), "segments/") {
			t.Errorf("%s: the answer gives away %q", from, err)
		}
	}
	tooMuch := backendFunc(func(context.Context, *connect.Request[queryv1.InvokeRequest]) (*connect.Response[queryv1.InvokeResponse], error) {
		return nil, connect.NewError(connect.CodeResourceExhausted, errors.New("the limit is 7 bytes"))
	})
	_, err := openWith(t, oneProfile(t), tooMuch, "one", 0).flame(minute(`{}`), cpu)
	mustFail(t, err, connect.CodeResourceExhausted, "the limit is 7 bytes")
	liar := backendFunc(func(context.Context, *connect.Request[queryv1.InvokeRequest]) (*connect.Response[queryv1.InvokeResponse], error) {
		return connect.NewResponse(&queryv1.InvokeResponse{Report: &queryv1.Report{
			Tree:   &queryv1.Tree{Parents: []uint32{0, 7}, NodeNames: []uint32{0, 9}, Self: []int64{1, 1}},
			Stacks: &queryv1.Stacks{Parents: []uint32{0, 7}, NodeLocations: []uint32{0, 9}, Self: []int64{1, 1}},
		}}), nil
	})
	f := openWith(t, oneProfile(t), liar, "one", 0)
	_, err = f.flame(minute(`{}`), cpu)
	mustFail(t, err, connect.CodeInternal)
	_, err = f.SelectMergeProfile(f.ctx, connect.NewRequest(&querierv1.SelectMergeProfileRequest{ProfileTypeID: cpu, Start: epoch.UnixMilli(), End: epoch.UnixMilli()}))
	mustFail(t, err, connect.CodeInternal)
}

// TestCallerLeaves: when the caller leaves, the backend is told and the call ends.
func TestCallerLeaves(t *testing.T) {
	ctx, leave := context.WithCancel(tenant.NewContext(t.Context(), "one"))
	told := make(chan struct{})
	waiting := backendFunc(func(ctx context.Context, _ *connect.Request[queryv1.InvokeRequest]) (*connect.Response[queryv1.InvokeResponse], error) {
		leave()
		<-ctx.Done()
		close(told)
		return nil, ctx.Err()
	})
	f := openWith(t, oneProfile(t), waiting, "one", 0)
	f.ctx = ctx
	_, err := f.flame(minute(`{}`), cpu)
	mustFail(t, err, connect.CodeCanceled)
	<-told
}

// TestTimeout: a call that takes too long ends by itself.
func TestTimeout(t *testing.T) {
	waiting := backendFunc(func(ctx context.Context, _ *connect.Request[queryv1.InvokeRequest]) (*connect.Response[queryv1.InvokeResponse], error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	f := openWith(t, oneProfile(t), waiting, "one", 0)
	ctx, cancel := context.WithTimeout(f.ctx, time.Millisecond)
	defer cancel()
	f.ctx = ctx
	_, err := f.flame(minute(`{}`), cpu)
	mustFail(t, err, connect.CodeDeadlineExceeded, "deadline")
}

// TestStatistics: an answer says what it cost.
func TestStatistics(t *testing.T) {
	store := oneProfile(t)
	store.Segment(t, querybackendtest.Push("one", "net-http-cpu-0", epoch))
	f := open(t, store, "one", 1)
	res, err := f.SelectMergeStacktraces(f.ctx, connect.NewRequest(diffSide(minute(`{service_name="regexp"}`))))
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Header().Get(queryfrontend.StatisticsHeader); !strings.HasPrefix(got, "entries=1, datasets=1, profiles=1, samples=") || !strings.HasSuffix(got, "backends=1") {
		t.Errorf("statistics are %q", got)
	}
}
