package node_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	gprofile "github.com/google/pprof/profile"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
	"google.golang.org/protobuf/proto"

	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	"github.com/kilndb/kiln/flamegraph"
	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/tenant"
)

// The words that the stories of this package are told in.

// series makes the labels and the one profile of a push.
func series(kind, service string, body []byte, nameValue ...string) *pushv1.RawProfileSeries {
	s := &pushv1.RawProfileSeries{
		Labels:  []*typesv1.LabelPair{{Name: "__name__", Value: kind}, {Name: "service_name", Value: service}},
		Samples: []*pushv1.RawSample{{RawProfile: body}},
	}
	for i := 0; i+1 < len(nameValue); i += 2 {
		s.Labels = append(s.Labels, &typesv1.LabelPair{Name: nameValue[i], Value: nameValue[i+1]})
	}
	return s
}

// push pushes and returns the error of the call.
func push(n *nodetest.Node, t tenant.ID, list ...*pushv1.RawProfileSeries) error {
	_, err := n.Pusher(t).Push(context.Background(), connect.NewRequest(&pushv1.PushRequest{Series: list}))
	return err
}

func mustPush(t testing.TB, n *nodetest.Node, list ...*pushv1.RawProfileSeries) {
	t.Helper()
	if err := push(n, "", list...); err != nil {
		t.Fatalf("push: %v", err)
	}
}

// scope is where a question looks: milliseconds, both inclusive.
type scope struct {
	tenant     tenant.ID
	selector   string
	start, end int64
}

// around is the milliseconds that hold every given profile. One that does not say when it was captured was
// stored with the time of its push.
func around(selector string, profiles ...*gprofile.Profile) scope {
	s := scope{selector: selector, start: math.MaxInt64}
	for _, p := range profiles {
		first, last := p.TimeNanos/1e6, p.TimeNanos/1e6
		if p.TimeNanos == 0 {
			first, last = time.Now().Add(-10*time.Minute).UnixMilli(), time.Now().UnixMilli()
		}
		s.start, s.end = min(s.start, first), max(s.end, last)
	}
	return s
}

// typeID is the profile type of column i of a profile.
func typeID(kind string, p *gprofile.Profile, i int) string {
	period := &gprofile.ValueType{}
	if p.PeriodType != nil {
		period = p.PeriodType
	}
	return strings.Join([]string{kind, p.SampleType[i].Type, p.SampleType[i].Unit, period.Type, period.Unit}, ":")
}

func tree(t testing.TB, n *nodetest.Node, s scope, profileType string) *flamegraph.Tree {
	t.Helper()
	nodes := int64(1 << 20)
	resp, err := n.Querier(s.tenant).SelectMergeStacktraces(context.Background(), connect.NewRequest(&querierv1.SelectMergeStacktracesRequest{
		ProfileTypeID: profileType, LabelSelector: s.selector, Start: s.start, End: s.end, MaxNodes: &nodes, Format: querierv1.ProfileFormat_PROFILE_FORMAT_TREE,
	}))
	if err != nil {
		t.Fatalf("SelectMergeStacktraces %s %s: %v", profileType, s.selector, err)
	}
	tree, err := flamegraph.DecodeTreeBytes(resp.Msg.Tree)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// flameTotal asks for the flame graph that clients draw and returns its total.
func flameTotal(t testing.TB, n *nodetest.Node, s scope, profileType string) int64 {
	t.Helper()
	resp, err := n.Querier(s.tenant).SelectMergeStacktraces(context.Background(), connect.NewRequest(&querierv1.SelectMergeStacktracesRequest{
		ProfileTypeID: profileType, LabelSelector: s.selector, Start: s.start, End: s.end,
	}))
	if err != nil {
		t.Fatalf("SelectMergeStacktraces %s %s: %v", profileType, s.selector, err)
	}
	return resp.Msg.Flamegraph.Total
}

// seriesSum adds up all points of the range.
func seriesSum(t testing.TB, n *nodetest.Node, s scope, profileType string, groupBy ...string) map[string]int64 {
	t.Helper()
	// The first point covers the step that ends at start: with steps of a millisecond, start and nothing before.
	step := 0.001
	if s.end-s.start > 1e6 {
		step = 1
	}
	resp, err := n.Querier(s.tenant).SelectSeries(context.Background(), connect.NewRequest(&querierv1.SelectSeriesRequest{
		ProfileTypeID: profileType, LabelSelector: s.selector, Start: s.start, End: s.end, Step: step, GroupBy: groupBy,
	}))
	if err != nil {
		t.Fatalf("SelectSeries %s %s: %v", profileType, s.selector, err)
	}
	sums := map[string]int64{}
	for _, one := range resp.Msg.Series {
		var key []string
		for _, l := range one.Labels {
			key = append(key, l.Name+"="+l.Value)
		}
		for _, p := range one.Points {
			sums[strings.Join(key, ",")] += int64(p.Value)
		}
	}
	return sums
}

// returned asks for the merged pprof and reads it as a stranger would.
func returned(t testing.TB, n *nodetest.Node, s scope, profileType string) *gprofile.Profile {
	t.Helper()
	//lint:ignore SA1019 the published API calls it deprecated, and Grafana calls it
	resp, err := n.Querier(s.tenant).SelectMergeProfile(context.Background(), connect.NewRequest(&querierv1.SelectMergeProfileRequest{
		ProfileTypeID: profileType, LabelSelector: s.selector, Start: s.start, End: s.end,
	}))
	if err != nil {
		t.Fatalf("SelectMergeProfile %s %s: %v", profileType, s.selector, err)
	}
	body, err := proto.Marshal(resp.Msg)
	if err != nil {
		t.Fatal(err)
	}
	p, err := gprofile.ParseData(body)
	if err != nil {
		t.Fatalf("google/pprof refuses what came back: %v", err)
	}
	return p
}

// expectation is what google/pprof computes from some profiles: one answer per sample type.
type expectation struct {
	scope
	ids     []string
	answers []oracle.Answer
}

func expect(s scope, kind string, profiles ...*gprofile.Profile) expectation {
	e := expectation{scope: s}
	for column, sampleType := range profiles[0].SampleType {
		e.ids = append(e.ids, typeID(kind, profiles[0], column))
		e.answers = append(e.answers, oracle.Sum(sampleType.Type, profiles...))
	}
	return e
}

// verify compares every way of asking with what is expected.
func (e expectation) verify(t testing.TB, n *nodetest.Node) {
	t.Helper()
	for column, id := range e.ids {
		want := e.answers[column]
		what := fmt.Sprintf("%s %s", id, e.selector)
		if got := flameTotal(t, n, e.scope, id); got != want.Total {
			t.Errorf("%s: flame graph total %d, want %d", what, got, want.Total)
		}
		mustEqualFunctions(t, what, tree(t, n, e.scope, id), want)
		if got := seriesSum(t, n, e.scope, id)[""]; got != want.Total {
			t.Errorf("%s: time series sum %d, want %d", what, got, want.Total)
		}
		if want.Total == 0 {
			continue // google/pprof has no way to say "nothing of this type"
		}
		back := oracle.Sum(strings.Split(id, ":")[1], returned(t, n, e.scope, id))
		if !maps.Equal(back.Locations, want.Locations) {
			t.Errorf("%s: the pprof that came back has %d stacks, want %d, or other values", what, len(back.Locations), len(want.Locations))
		}
	}
}

// mustEqual asks in every way for what google/pprof computes from the same profiles.
func mustEqual(t testing.TB, n *nodetest.Node, s scope, kind string, profiles ...*gprofile.Profile) {
	t.Helper()
	expect(s, kind, profiles...).verify(t, n)
}

func mustEqualFunctions(t testing.TB, what string, tree *flamegraph.Tree, want oracle.Answer) {
	t.Helper()
	got := map[string]oracle.Weight{}
	for _, f := range flamegraph.Functions(tree) {
		got[f.Name] = oracle.Weight{Self: f.Self, Total: f.Total}
	}
	if !maps.Equal(got, want.Functions) {
		for _, name := range want.Names() {
			if got[name] != want.Functions[name] {
				t.Errorf("%s: function %s weighs %+v, want %+v", what, name, got[name], want.Functions[name])
				return
			}
		}
		t.Errorf("%s: %d functions, want %d", what, len(got), len(want.Functions))
	}
}

// scaled is a profile whose values are multiplied and whose time is moved, as a client would send it.
func scaled(p *gprofile.Profile, factor int64, at time.Time) (*gprofile.Profile, []byte) {
	c := p.Copy()
	c.TimeNanos = at.UnixNano()
	for _, s := range c.Sample {
		for i := range s.Value {
			s.Value[i] *= factor
		}
	}
	var b bytes.Buffer
	if err := c.Write(&b); err != nil {
		panic(err)
	}
	return c, b.Bytes()
}

func labelValues(t testing.TB, n *nodetest.Node, id tenant.ID, name string, s scope) []string {
	t.Helper()
	resp, err := n.Querier(id).LabelValues(context.Background(), connect.NewRequest(&typesv1.LabelValuesRequest{Name: name, Start: s.start, End: s.end}))
	if err != nil {
		t.Fatalf("LabelValues %s: %v", name, err)
	}
	return resp.Msg.Names
}

// waitCompacted waits until no segment is left and no job waits or runs.
func waitCompacted(t testing.TB, n *nodetest.Node) {
	t.Helper()
	waitCompactedAs(t, n, "")
}

func waitCompactedAs(t testing.TB, n *nodetest.Node, id tenant.ID) {
	t.Helper()
	var last *compactionv1.ListResponse
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		resp, err := n.Jobs(id).List(context.Background(), connect.NewRequest(&compactionv1.ListRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		last = resp.Msg
		segments := slices.ContainsFunc(last.Levels, func(l *compactionv1.LevelStats) bool { return l.Level == 0 && l.Entries > 0 })
		open := slices.ContainsFunc(last.Jobs, func(j *compactionv1.Job) bool { return j.State != compactionv1.JobState_JOB_STATE_DONE })
		if !segments && !open {
			return
		}
	}
	t.Fatalf("not compacted: %v", last)
}

// levels returns the number of objects per level.
func levels(t testing.TB, n *nodetest.Node) map[uint32]uint64 {
	t.Helper()
	resp, err := n.Jobs("").List(context.Background(), connect.NewRequest(&compactionv1.ListRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	entries := map[uint32]uint64{}
	for _, l := range resp.Msg.Levels {
		if l.Entries > 0 {
			entries[l.Level] = l.Entries
		}
	}
	return entries
}
