package node_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	gprofile "github.com/google/pprof/profile"
	googlev1 "github.com/grafana/pyroscope/api/gen/proto/go/google/v1"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/block/inspect"
	"github.com/kilndb/kiln/block/inspect/inspecttest"
	"github.com/kilndb/kiln/distributor"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/querybackend/querybackendtest"
	"github.com/kilndb/kiln/queryfrontend"
	"github.com/kilndb/kiln/segmentwriter/head"
	"github.com/kilndb/kiln/tenant"
)

// FuzzAcceptImpliesQueryable: what the distributor accepts can be encoded, merged and asked for, and the answers are
// the sums of what was accepted. A profile that fails only later would take others with it.
func FuzzAcceptImpliesQueryable(f *testing.F) {
	for _, p := range seeds() {
		var b bytes.Buffer
		if err := p.WriteUncompressed(&b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	for _, name := range []string{"regexp-mutex-0", "compress-block-0"} {
		f.Add(corpus.Get(name).Gzipped)
	}
	f.Fuzz(func(t *testing.T, body []byte) { mustBeQueryable(t, body) })
}

// TestAnyProfileIsQueryable is FuzzAcceptImpliesQueryable for profiles that are in order but strange: few changes of
// bytes lead to one.
func TestAnyProfileIsQueryable(t *testing.T) {
	accepted, tried := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		var b bytes.Buffer
		if err := draw(rt).WriteUncompressed(&b); err != nil {
			rt.Skip(err)
		}
		tried++
		if mustBeQueryable(t, b.Bytes()) {
			accepted++
		}
	})
	if accepted < tried/2 {
		t.Errorf("%d of %d profiles were accepted: this tests too little", accepted, tried)
	}
}

// mustBeQueryable tells whether a profile is accepted, and takes one that is all the way.
func mustBeQueryable(t *testing.T, body []byte) bool {
	t.Helper()
	accepted := newAccepted(t)
	if !accepted.push(t, body, "fuzz", 0, 1) {
		return false
	}
	accepted.compareWithGoogle(t, body)
	if !accepted.push(t, corpus.Get("regexp-mutex-0").Gzipped, "corpus", 2) {
		t.Fatal("a real profile is refused")
	}
	accepted.store(t)
	return true
}

// draw draws a profile: names that repeat, stacks that recurse, tables with entries alike, values up to the largest.
func draw(t *rapid.T) *gprofile.Profile {
	name := rapid.SampledFrom([]string{"", "a", "b", "main", "0x1f", "runtime.mallocgc", "é✓", "a;b", "a:b", "\x00", strings.Repeat("long", 50), "__name__", "pod"})
	number := rapid.SampledFrom([]int64{0, 1, 2, 0x1f, 1 << 31, 1 << 40, math.MaxInt64, -1})
	kind := func() *gprofile.ValueType {
		return &gprofile.ValueType{Type: rapid.SampledFrom([]string{"samples", "cpu", "contentions", "delay", "x/y z"}).Draw(t, "type"), Unit: rapid.SampledFrom([]string{"count", "nanoseconds"}).Draw(t, "unit")}
	}
	p := &gprofile.Profile{
		TimeNanos: rapid.SampledFrom([]int64{0, 1, 999_999, 1_700_000_000_000_000_000}).Draw(t, "time"), DurationNanos: number.Draw(t, "duration"),
		PeriodType: kind(), Period: number.Draw(t, "period"), DefaultSampleType: name.Draw(t, "default"), KeepFrames: name.Draw(t, "keep"),
	}
	for range rapid.IntRange(1, 4).Draw(t, "types") {
		p.SampleType = append(p.SampleType, kind())
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "mappings") {
		p.Mapping = append(p.Mapping, &gprofile.Mapping{
			ID: uint64(i + 1), Start: uint64(number.Draw(t, "start")), Limit: uint64(number.Draw(t, "limit")), Offset: uint64(number.Draw(t, "offset")),
			File: name.Draw(t, "file"), BuildID: name.Draw(t, "build"), HasFunctions: rapid.Bool().Draw(t, "has"), HasInlineFrames: rapid.Bool().Draw(t, "inline"),
		})
	}
	for i := range rapid.IntRange(1, 5).Draw(t, "functions") {
		p.Function = append(p.Function, &gprofile.Function{
			ID: uint64(i + 1), Name: name.Draw(t, "name"), SystemName: name.Draw(t, "system"), Filename: name.Draw(t, "source"), StartLine: number.Draw(t, "line"),
		})
	}
	for i := range rapid.IntRange(1, 6).Draw(t, "locations") {
		l := &gprofile.Location{ID: uint64(i + 1), Address: uint64(number.Draw(t, "address")), IsFolded: rapid.Bool().Draw(t, "folded")}
		if len(p.Mapping) > 0 {
			l.Mapping = rapid.SampledFrom(p.Mapping).Draw(t, "mapping")
		}
		for range rapid.IntRange(0, 3).Draw(t, "lines") {
			l.Line = append(l.Line, gprofile.Line{Function: rapid.SampledFrom(p.Function).Draw(t, "function"), Line: number.Draw(t, "at"), Column: number.Draw(t, "column")})
		}
		p.Location = append(p.Location, l)
	}
	for range rapid.IntRange(0, 8).Draw(t, "samples") {
		p.Sample = append(p.Sample, drawSample(t, p))
	}
	return p
}

func drawSample(t *rapid.T, p *gprofile.Profile) *gprofile.Sample {
	s := &gprofile.Sample{Location: rapid.SliceOfN(rapid.SampledFrom(p.Location), 0, 6).Draw(t, "stack")}
	value := rapid.SampledFrom([]int64{0, 0, 1, 1, 2, 3, 100, 127, 128, 1 << 20, 1 << 40, 1 << 55, 1 << 62, -1})
	for range p.SampleType {
		s.Value = append(s.Value, value.Draw(t, "value"))
	}
	if rapid.Bool().Draw(t, "labelled") {
		name := rapid.SampledFrom([]string{"endpoint", "pod", "service_name", "__name__", "profile_id", "with space", "é"}).Draw(t, "label")
		s.Label = map[string][]string{name: {rapid.SampledFrom([]string{"", "x", "fuzz", "é✓"}).Draw(t, "of")}}
	}
	return s
}

// seeds are small profiles that together have everything.
func seeds() []*gprofile.Profile {
	mapping := &gprofile.Mapping{ID: 1, Start: 0x1000, Limit: 0x9000, Offset: 0x10, File: "/bin/api", BuildID: "abc", HasFunctions: true, HasInlineFrames: true}
	functions := []*gprofile.Function{{ID: 1, Name: "main", Filename: "main.go", StartLine: 1}, {ID: 2, Name: "work", SystemName: "_work"}, {ID: 3}}
	locations := []*gprofile.Location{
		{ID: 1, Mapping: mapping, Address: 0x1010, Line: []gprofile.Line{{Function: functions[1], Line: 7}, {Function: functions[0], Line: 9, Column: 3}}},
		{ID: 2, Mapping: mapping, Address: 0x1020, IsFolded: true}, {ID: 3, Line: []gprofile.Line{{Function: functions[2]}}},
	}
	made := func(types []*gprofile.ValueType, samples ...*gprofile.Sample) *gprofile.Profile {
		return &gprofile.Profile{
			SampleType: types, Sample: samples, Mapping: []*gprofile.Mapping{mapping}, Function: functions, Location: locations, TimeNanos: 1_700_000_000_123_456_789,
			DurationNanos: 1e10, PeriodType: &gprofile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 1e7, Comments: []string{"a comment"},
		}
	}
	stack := func(ids ...int) (stack []*gprofile.Location) {
		for _, id := range ids {
			stack = append(stack, locations[id-1])
		}
		return stack
	}
	cpu := []*gprofile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}}
	var almost []*gprofile.Sample // a column that is a multiple of the other but for its first value
	for i := range 20 {
		almost = append(almost, &gprofile.Sample{Location: slices.Repeat(stack(1), i+1), Value: []int64{int64(i + 1), int64(min(i, 1) * (i + 1))}})
	}
	return []*gprofile.Profile{
		made(cpu,
			&gprofile.Sample{Location: stack(1, 2, 3), Value: []int64{1, 1e7}, Label: map[string][]string{"endpoint": {"/a"}, "pod": {"mine"}}},
			&gprofile.Sample{Location: stack(1, 1, 1, 2), Value: []int64{2, 2e7}, NumLabel: map[string][]int64{"bytes": {7}}},
			&gprofile.Sample{Value: []int64{3, 3e7}}, &gprofile.Sample{Location: stack(2), Value: []int64{-1, 1e7}}, &gprofile.Sample{Location: stack(3), Value: []int64{0, 0}}),
		made(cpu[:1], &gprofile.Sample{Location: stack(2), Value: []int64{math.MaxInt64 - 5}}, &gprofile.Sample{Location: stack(3), Value: []int64{5}}),
		made(cpu[:1], &gprofile.Sample{Location: stack(2), Value: []int64{math.MaxInt64}}, &gprofile.Sample{Location: stack(2), Value: []int64{1}}),
		made(cpu, almost...), made(cpu), {SampleType: []*gprofile.ValueType{{Type: "wall", Unit: "ms"}}},
	}
}

// accepted is one profile that was accepted, on its way: it is twice in store, in two segments, beside a real one.
type accepted struct {
	distributor *distributor.Distributor
	heads       [3]*head.Head
	// into are the heads that take what is pushed, and number is which profile it is.
	into   []int
	number byte
	// Of the profile that came first: its types, the sum of its values for each, and its time.
	types  []profile.Type
	totals []int64
	time   int64
}

const fuzzTenant = tenant.ID("fuzz")

func newAccepted(t *testing.T) *accepted {
	a := &accepted{}
	for i := range a.heads {
		a.heads[i] = head.New()
	}
	cfg := distributor.DefaultConfig()
	cfg.Now = func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }
	cfg.Limits = func(tenant.ID) tenant.Limits {
		lim := tenant.DefaultLimits()
		lim.MaxAge = 0
		return lim
	}
	var err error
	if a.distributor, err = distributor.New(cfg, a, slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	return a
}

// push tells whether a profile is accepted, into the heads of these numbers. Any error but a refusal is a mistake.
func (a *accepted) push(t *testing.T, body []byte, pod string, into ...int) bool {
	t.Helper()
	a.into = into
	_, err := a.distributor.Push(tenant.NewContext(t.Context(), fuzzTenant), connect.NewRequest(&pushv1.PushRequest{Series: []*pushv1.RawProfileSeries{{
		Labels:  []*typesv1.LabelPair{{Name: "__name__", Value: "mutex"}, {Name: "service_name", Value: "api"}, {Name: "pod", Value: pod}},
		Samples: []*pushv1.RawSample{{RawProfile: body}},
	}}}))
	switch {
	case err == nil:
		return true
	case connect.CodeOf(err) != connect.CodeInvalidArgument:
		t.Fatalf("an error of another kind: %v", err)
	}
	return false
}

// Append is the segment-writer.
func (a *accepted) Append(_ context.Context, _ tenant.ID, _ uint32, series labels.Labels, _ profile.ID, p *profile.Profile) (func(context.Context) error, error) {
	for _, i := range a.into {
		a.number++
		if err := a.heads[i].Append(p, series, profile.ID{a.number}); errors.Is(err, head.ErrOverflow) {
			return nil, connect.NewError(connect.CodeInvalidArgument, err)
		} else if err != nil {
			return nil, connect.NewError(connect.CodeInternal, err)
		}
	}
	if a.totals == nil {
		kind := p.Kind(series.Get(labels.Name))
		a.time, a.totals = p.TimeNanos, make([]int64, len(kind.SampleTypes))
		for c := range a.totals {
			a.types = append(a.types, kind.Type(c))
			for i := range p.Samples() {
				a.totals[c] += p.Row(i)[c]
			}
		}
	}
	return func(context.Context) error { return nil }, nil
}

// compareWithGoogle compares the sums of what was accepted with those that google/pprof finds in it, if it finds any.
func (a *accepted) compareWithGoogle(t *testing.T, body []byte) {
	t.Helper()
	p, err := gprofile.ParseData(body)
	if err != nil || p.CheckValid() != nil {
		return
	}
	if len(p.SampleType) != len(a.types) {
		t.Fatalf("%d sample types, google/pprof has %d", len(a.types), len(p.SampleType))
	}
	want := make([]int64, len(a.types))
	for _, s := range p.Sample {
		if !slices.ContainsFunc(s.Value, func(v int64) bool { return v < 0 }) {
			for c, v := range s.Value {
				want[c] += v
			}
		}
	}
	if !slices.Equal(a.totals, want) {
		t.Fatalf("sums %d, google/pprof has %d", a.totals, want)
	}
}

// store writes and merges what was accepted and asks for it.
func (a *accepted) store(t *testing.T) {
	t.Helper()
	var segments [][]byte
	for i, h := range a.heads {
		segments = append(segments, write(t, block.Header{ID: "01SEGMENT" + string(rune('A'+i)), Writer: "fuzz"}, func(w *block.Writer) error {
			return h.Write(string(fuzzTenant), w)
		}))
	}
	merged := merge(t, 1, segments[0], segments[0], segments[1], segments[2])
	merged = verified(t, merged)
	higher := merge(t, 4, merged, segments[0])
	if slices.ContainsFunc(a.totals, func(v int64) bool { return v > math.MaxInt64/2 }) {
		return // the sum of both is beyond int64
	}
	store := querybackendtest.New()
	f := queryfrontend.New(queryfrontend.Config{Limits: func(tenant.ID) tenant.Limits { return tenant.DefaultLimits() }}, store, store.Backend(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	for _, stage := range [][][]byte{segments, {merged}, {higher}} {
		for _, b := range stage {
			verified(t, b)
		}
		store.Replace(t, stage...)
		for c, id := range a.types {
			a.ask(t, f, id.String(), 2*a.totals[c])
		}
	}
}

// write writes an object.
func write(t *testing.T, h block.Header, contents func(w *block.Writer) error) []byte {
	t.Helper()
	var out bytes.Buffer
	w := block.NewWriter(&out, h)
	if err := contents(w); err != nil {
		t.Fatalf("write an object of level %d: %v", h.Level, err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatalf("finish an object of level %d: %v", h.Level, err)
	}
	return out.Bytes()
}

func merge(t *testing.T, level uint32, sources ...[]byte) []byte {
	t.Helper()
	var readers []*block.Reader
	for _, b := range sources {
		readers = append(readers, inspecttest.Open(t, b))
	}
	h := block.Header{ID: "01BLOCK" + string(rune('A'+level)), Tenant: string(fuzzTenant), Level: level, Sources: []string{"01SEGMENTA"}, Writer: "fuzz"}
	return write(t, h, func(w *block.Writer) error { return block.Merge(t.Context(), string(fuzzTenant), readers, w) })
}

// verified is an object with which nothing is wrong.
func verified(t *testing.T, b []byte) []byte {
	t.Helper()
	problems, err := inspect.Verify(t.Context(), inspecttest.Object(b))
	if err != nil || len(problems) > 0 {
		t.Fatalf("problems %v, error %v", problems, err)
	}
	return b
}

// ask wants a total from a flame graph, a time series and a pprof.
func (a *accepted) ask(t *testing.T, f *queryfrontend.Frontend, id string, want int64) {
	t.Helper()
	ctx := tenant.NewContext(t.Context(), fuzzTenant)
	const selector = `{pod="fuzz"}`
	start := a.time / 1e6
	end := start + 1
	trees, err := f.SelectMergeStacktraces(ctx, connect.NewRequest(&querierv1.SelectMergeStacktracesRequest{
		ProfileTypeID: id, LabelSelector: selector, Start: start, End: end,
	}))
	if err != nil {
		t.Fatalf("flame graph of %q: %v", id, err)
	}
	if got := trees.Msg.Flamegraph.GetTotal(); got != want {
		t.Fatalf("flame graph of %q: total %d, want %d", id, got, want)
	}
	series, err := f.SelectSeries(ctx, connect.NewRequest(&querierv1.SelectSeriesRequest{
		ProfileTypeID: id, LabelSelector: selector, Start: start, End: end, Step: 15,
	}))
	if err != nil {
		t.Fatalf("time series of %q: %v", id, err)
	}
	sum := 0.0
	for _, s := range series.Msg.Series {
		for _, p := range s.Points {
			sum += p.Value
		}
	}
	if sum != float64(want) {
		t.Fatalf("time series of %q: sum %f, want %d", id, sum, want)
	}
	merged, err := f.SelectMergeProfile(ctx, connect.NewRequest(&querierv1.SelectMergeProfileRequest{
		ProfileTypeID: id, LabelSelector: selector, Start: start, End: end,
	}))
	if err != nil {
		t.Fatalf("pprof of %q: %v", id, err)
	}
	if got := sumOf(merged.Msg); got != want {
		t.Fatalf("pprof of %q: sum %d, want %d", id, got, want)
	}
}

func sumOf(p *googlev1.Profile) (sum int64) {
	for _, s := range p.Sample {
		sum += s.Value[0]
	}
	return sum
}
