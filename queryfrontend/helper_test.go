package queryfrontend_test

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	gprofile "github.com/google/pprof/profile"
	googlev1 "github.com/grafana/pyroscope/api/gen/proto/go/google/v1"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/kilndb/kiln/api/kiln/query/v1/queryv1connect"
	"github.com/kilndb/kiln/flamegraph"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/querybackend/querybackendtest"
	"github.com/kilndb/kiln/queryfrontend"
	"github.com/kilndb/kiln/tenant"
)

const (
	millisecond = int64(time.Millisecond)
	cpu         = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"
	allocSpace  = "memory:alloc_space:bytes:space:bytes"
)

// epoch is when the stories begin.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fixture is a frontend over a store, and one tenant who asks it.
type fixture struct {
	*testing.T
	*queryfrontend.Frontend
	ctx context.Context
	reg *prometheus.Registry
}

func open(t *testing.T, store *querybackendtest.Store, as tenant.ID, leafBytes int64) fixture {
	return openWith(t, store, store.Backend(), as, leafBytes)
}

func openWith(t *testing.T, store *querybackendtest.Store, b queryv1connect.QueryBackendServiceClient, as tenant.ID, leafBytes int64) fixture {
	cfg := queryfrontend.Config{Limits: func(tenant.ID) tenant.Limits { return tenant.DefaultLimits() }, LeafBytes: leafBytes}
	reg := prometheus.NewRegistry()
	f := queryfrontend.New(cfg, store, b, slog.New(slog.DiscardHandler), reg)
	return fixture{t, f, tenant.NewContext(t.Context(), as), reg}
}

// scope is what most questions say: milliseconds, both included.
type scope struct {
	start, end int64
	selector   string
}

func (s scope) nanos() (start, end int64) { return s.start * millisecond, (s.end + 1) * millisecond }

func (f fixture) stacktraces(s scope, profileType string, format querierv1.ProfileFormat) *querierv1.SelectMergeStacktracesResponse {
	f.Helper()
	all := int64(1 << 20)
	res, err := f.SelectMergeStacktraces(f.ctx, connect.NewRequest(&querierv1.SelectMergeStacktracesRequest{
		ProfileTypeID: profileType, LabelSelector: s.selector, Start: s.start, End: s.end, MaxNodes: &all, Format: format,
	}))
	if err != nil {
		f.Fatal(err)
	}
	return res.Msg
}

// mustEqual asks for profiles in every form and compares with the oracle.
func (f fixture) mustEqual(s scope, profileType string, want oracle.Answer) {
	f.Helper()
	flame := f.stacktraces(s, profileType, querierv1.ProfileFormat_PROFILE_FORMAT_FLAMEGRAPH).Flamegraph
	total, functions := flameFunctions(flame)
	if total != want.Total || flame.Total != want.Total {
		f.Errorf("%s %s: flame graph totals %d and %d, want %d", profileType, s.selector, flame.Total, total, want.Total)
	}
	if !maps.Equal(functions, weights(want)) {
		f.Errorf("%s %s: functions of the flame graph differ: %d, want %d", profileType, s.selector, len(functions), len(want.Functions))
	}
	tree, err := flamegraph.DecodeTreeBytes(f.stacktraces(s, profileType, querierv1.ProfileFormat_PROFILE_FORMAT_TREE).Tree)
	if err != nil {
		f.Fatal(err)
	}
	functions = map[string]oracle.Weight{}
	for _, fn := range flamegraph.Functions(tree) {
		functions[fn.Name] = oracle.Weight{Self: fn.Self, Total: fn.Total}
	}
	if tree.Total() != want.Total || !maps.Equal(functions, weights(want)) {
		f.Errorf("%s %s: tree has total %d, want %d", profileType, s.selector, tree.Total(), want.Total)
	}
	merged, err := f.SelectMergeProfile(f.ctx, connect.NewRequest(&querierv1.SelectMergeProfileRequest{
		ProfileTypeID: profileType, LabelSelector: s.selector, Start: s.start, End: s.end,
	}))
	if err != nil {
		f.Fatal(err)
	}
	f.mustEqualPprof(merged.Msg, profileType, want)
}

func (f fixture) mustEqualPprof(got *googlev1.Profile, profileType string, want oracle.Answer) *gprofile.Profile {
	f.Helper()
	b, err := proto.Marshal(got)
	if err != nil {
		f.Fatal(err)
	}
	p, err := gprofile.ParseData(b)
	if err != nil {
		f.Fatalf("%s: pprof cannot be parsed: %v", profileType, err)
	}
	if err := p.CheckValid(); err != nil {
		f.Fatalf("%s: pprof is not valid: %v", profileType, err)
	}
	parts := strings.Split(profileType, ":")
	if len(p.SampleType) != 1 || p.SampleType[0].Type != parts[1] || p.SampleType[0].Unit != parts[2] || p.PeriodType.Type != parts[3] || p.PeriodType.Unit != parts[4] {
		f.Errorf("%s: pprof has sample types %v and period %v", profileType, p.SampleType, p.PeriodType)
	}
	answer := oracle.Sum(parts[1], p)
	if answer.Total != want.Total || !maps.Equal(answer.Locations, nonZero(want.Locations)) {
		f.Errorf("%s: pprof totals %d with %d stacks, want %d with %d", profileType, answer.Total, len(answer.Locations), want.Total, len(want.Locations))
	}
	return p
}

// weights are the functions of an answer, never nil.
func weights(a oracle.Answer) map[string]oracle.Weight {
	if a.Functions == nil {
		return map[string]oracle.Weight{}
	}
	return a.Functions
}

func nonZero(m map[string]int64) map[string]int64 {
	some := maps.Clone(m)
	maps.DeleteFunc(some, func(_ string, v int64) bool { return v == 0 })
	return some
}

// flameFunctions reads a flame graph as a client draws it: a node lies below the one that spans its place.
func flameFunctions(g *querierv1.FlameGraph) (total int64, functions map[string]oracle.Weight) {
	type span struct {
		from, to int64
		names    []string
	}
	functions = map[string]oracle.Weight{}
	var above []span
	for depth, level := range g.Levels {
		var row []span
		at, parent := int64(0), 0
		for i := 0; i+3 < len(level.Values); i += 4 {
			from := at + level.Values[i]
			at = from + level.Values[i+1]
			self, name := level.Values[i+2], g.Names[level.Values[i+3]]
			if depth == 0 {
				total = level.Values[i+1]
				row = append(row, span{from, at, nil})
				continue
			}
			for above[parent].to <= from {
				parent++
			}
			w := functions[name]
			w.Self += self
			if !slices.Contains(above[parent].names, name) {
				w.Total += level.Values[i+1]
			}
			functions[name] = w
			row = append(row, span{from, at, append(slices.Clip(above[parent].names), name)})
		}
		above = row
	}
	return total, functions
}

// series asks for a time series and returns its points by labels and time.
func (f fixture) series(req *querierv1.SelectSeriesRequest) map[string]map[int64]float64 {
	f.Helper()
	res, err := f.SelectSeries(f.ctx, connect.NewRequest(req))
	if err != nil {
		f.Fatal(err)
	}
	all := map[string]map[int64]float64{}
	var last labels.Labels
	for i, s := range res.Msg.Series {
		ls := labelsOf(s.Labels)
		if i > 0 && labels.Compare(last, ls) >= 0 {
			f.Errorf("series %s after %s", ls, last)
		}
		last = ls
		points := map[int64]float64{}
		for j, p := range s.Points {
			if j > 0 && p.Timestamp <= s.Points[j-1].Timestamp {
				f.Errorf("point at %d after %d", p.Timestamp, s.Points[j-1].Timestamp)
			}
			points[p.Timestamp] = p.Value
		}
		all[ls.String()] = points
	}
	return all
}

func labelsOf(pairs []*typesv1.LabelPair) labels.Labels {
	ls := make(labels.Labels, len(pairs))
	for i, p := range pairs {
		ls[i] = labels.Label{Name: p.Name, Value: p.Value}
	}
	return ls
}

// mustFail compares code and message of an error.
func mustFail(t *testing.T, err error, code connect.Code, says ...string) {
	t.Helper()
	if err == nil || connect.CodeOf(err) != code {
		t.Errorf("error is %v, want %s", err, code)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q does not say %q", err, s)
		}
	}
}

func labelSetsOf(sets []*typesv1.Labels) []string {
	all := make([]string, len(sets))
	for i, s := range sets {
		all[i] = labelsOf(s.Labels).String()
	}
	return all
}
