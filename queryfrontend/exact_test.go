package queryfrontend_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"

	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/querybackend/querybackendtest"
)

// TestEveryFile stores each real profile as a service of its own and asks for every one of its types.
func TestEveryFile(t *testing.T) {
	store := querybackendtest.New()
	files := corpus.All()
	for some := range slices.Chunk(files, 9) {
		var pushed []querybackendtest.Pushed
		for _, f := range some {
			pushed = append(pushed, querybackendtest.Push("one", f.Name, epoch, "service_name", f.Name))
		}
		store.Segment(t, pushed...)
	}
	type question struct {
		scope
		id   string
		want oracle.Answer
	}
	var questions []question
	for _, file := range files {
		p := oracle.Parse(file.Gzipped)
		for _, st := range p.SampleType {
			id := strings.Join([]string{file.Kind(), st.Type, st.Unit, p.PeriodType.Type, p.PeriodType.Unit}, ":")
			questions = append(questions, question{scope{epoch.UnixMilli(), epoch.UnixMilli(), fmt.Sprintf(`{service_name=%q}`, file.Name)}, id, oracle.Sum(st.Type, p)})
		}
	}
	f := open(t, store, "one", 0)
	for _, q := range questions {
		f.mustEqual(q.scope, q.id, q.want)
	}
	store.Compact(t)
	for _, q := range questions {
		f.mustEqual(q.scope, q.id, q.want)
	}
}

// story is two tenants, three services, four pods, an hour of profiles that share times, in segments of both.
type story struct {
	store *querybackendtest.Store
	model querybackendtest.Model
}

const storyPushes = 36

func tell(t *testing.T) story {
	files := []string{
		"api-gateway-cpu-0", "net-http-cpu-0", "api-gateway-heap-0", "regexp-cpu-0", "api-gateway-cpu-1", "net-http-mem-0", "api-gateway-mutex-0",
	}
	random := rand.New(rand.NewPCG(1, 2))
	s := story{store: querybackendtest.New()}
	var all, segment []querybackendtest.Pushed
	for i := range storyPushes {
		// Some times are equal, and some are a nanosecond beside a whole minute.
		at := epoch.Add(time.Duration(i/3) * 3 * time.Minute).Add([]time.Duration{0, -1, 1, 0, time.Millisecond - 1, time.Millisecond}[random.IntN(6)])
		p := querybackendtest.Push([]string{"one", "one", "two"}[random.IntN(3)], files[random.IntN(len(files))], at, "pod", fmt.Sprint(random.IntN(4)))
		if random.IntN(2) == 0 {
			p.Labels = p.Labels.With("region", "eu").With("odd.name", "x")
		}
		all, segment = append(all, p), append(segment, p)
		if len(segment) == 1+random.IntN(12) || i == storyPushes-1 {
			s.store.Segment(t, segment...)
			segment = nil
		}
	}
	s.model = querybackendtest.NewModel(all...)
	return s
}

var storySelectors = []string{
	`{}`, `{service_name="api-gateway"}`, `{service_name!="api-gateway"}`, `{pod="1"}`, `{pod=~"1|2", service_name=~"net.*|api.*"}`, `{region=""}`,
	`{region="eu", pod!="0"}`, `{endpoint!=""}`, `{endpoint=~".*a.*"}`, `{__name__="process_cpu"}`, `{__profile_type__="` + cpu + `", pod="3"}`,
	`{__type__!="cpu"}`, `{__service_name__="regexp"}`, `{service_name="nobody"}`, `{pod="nobody"}`,
}

func storyScopes(selector string) []scope {
	start, end := epoch.UnixMilli(), epoch.Add(time.Hour).UnixMilli()
	return []scope{
		{start - 1000, end, selector},
		{start + 3*60_000, start + 30*60_000, selector}, // cuts runs of one time by a nanosecond
		{start + 9*60_000, start + 9*60_000, selector},
	}
}

// TestStory asks for sums over many profiles, whatever the plan, before and after a compaction.
func TestStory(t *testing.T) {
	s := tell(t)
	type question struct {
		scope
		id   string
		want oracle.Answer
	}
	var questions []question
	for _, selector := range storySelectors {
		for i, scope := range storyScopes(selector) {
			start, end := scope.nanos()
			id := []string{cpu, allocSpace, cpu}[i]
			questions = append(questions, question{scope, id, querybackendtest.Sum(s.model.Pick("one", start, end, selector, id))})
		}
	}
	ask := func(t *testing.T, f fixture, stride int) {
		some := 0
		for i := 0; i < len(questions); i += stride {
			f.mustEqual(questions[i].scope, questions[i].id, questions[i].want)
			some += min(1, len(questions[i].want.Functions))
		}
		if some < 4 {
			t.Fatalf("%d questions had an answer: this tested too little", some)
		}
	}
	for i, leafBytes := range []int64{1, 200_000, 1 << 40} {
		t.Run(fmt.Sprint("leaf bytes ", leafBytes), func(t *testing.T) { ask(t, open(t, s.store, "one", leafBytes), 2+i) })
	}
	s.store.Compact(t)
	t.Run("compacted", func(t *testing.T) { ask(t, open(t, s.store, "one", 0), 1) })
}

// modelSeries computes a time series by brute force: a profile counts at the point that the whole millisecond of its
// time does not exceed.
func modelSeries(m querybackendtest.Model, s scope, id string, step int64, groupBy []string, average bool) map[string]map[int64]float64 {
	type cell struct {
		sum      int64
		profiles map[string]bool
	}
	cells := map[string]map[int64]*cell{}
	start := (s.start - step + 1) * millisecond
	_, end := s.nanos()
	for _, p := range m.Pick("one", start, end, s.selector, id) {
		at := p.Time / millisecond
		point := s.start
		for point < at {
			point += step
		}
		for point-step >= at {
			point -= step
		}
		key := p.Labels.Project(groupBy).String()
		if cells[key] == nil {
			cells[key] = map[int64]*cell{}
		}
		c := cells[key][point]
		if c == nil {
			c = &cell{profiles: map[string]bool{}}
			cells[key][point] = c
		}
		c.sum += p.Value()
		c.profiles[p.ID.String()] = true
	}
	series := map[string]map[int64]float64{}
	for key, points := range cells {
		series[key] = map[int64]float64{}
		for at, c := range points {
			series[key][at] = float64(c.sum)
			if average {
				series[key][at] = float64(c.sum) / float64(len(c.profiles))
			}
		}
	}
	return series
}

func TestSelectSeries(t *testing.T) {
	s := tell(t)
	sum, average := typesv1.TimeSeriesAggregationType_TIME_SERIES_AGGREGATION_TYPE_SUM, typesv1.TimeSeriesAggregationType_TIME_SERIES_AGGREGATION_TYPE_AVERAGE
	ask := func(f fixture) {
		some := false
		for _, selector := range storySelectors {
			for _, scope := range storyScopes(selector) {
				for _, groupBy := range [][]string{nil, {"pod"}, {"service_name", "endpoint"}, {"nothing", "__type__"}} {
					for _, step := range []float64{15, 180, 100, 7200} {
						for _, aggregation := range []*typesv1.TimeSeriesAggregationType{nil, &sum, &average} {
							got := f.series(&querierv1.SelectSeriesRequest{
								ProfileTypeID: cpu, LabelSelector: selector, Start: scope.start, End: scope.end, Step: step, GroupBy: groupBy, Aggregation: aggregation,
							})
							want := modelSeries(s.model, scope, cpu, int64(step*1000), groupBy, aggregation == &average)
							if !maps.EqualFunc(got, want, maps.Equal[map[int64]float64]) {
								t.Fatalf("%v group by %v step %v: series are\n%v, want\n%v", scope, groupBy, step, got, want)
							}
							some = some || len(got) > 2
						}
					}
				}
			}
		}
		if !some {
			t.Fatal("no answer had several series: this tested nothing")
		}
	}
	ask(open(t, s.store, "one", 1))
	s.store.Compact(t)
	ask(open(t, s.store, "one", 0))
}

// TestSeriesLimit keeps the series with the largest sums.
func TestSeriesLimit(t *testing.T) {
	s := tell(t)
	f := open(t, s.store, "one", 0)
	all := storyScopes(`{}`)[0]
	req := &querierv1.SelectSeriesRequest{ProfileTypeID: cpu, LabelSelector: `{}`, Start: all.start, End: all.end, Step: 180, GroupBy: []string{"pod"}}
	whole := f.series(req)
	two := int64(2)
	req.Limit = &two
	kept := f.series(req)
	total := func(points map[int64]float64) (sum float64) {
		for _, v := range points {
			sum += v
		}
		return sum
	}
	heaviest := slices.SortedFunc(maps.Keys(whole), func(a, b string) int { return int(total(whole[b]) - total(whole[a])) })
	if len(heaviest) < 3 || len(kept) != 2 || kept[heaviest[0]] == nil || kept[heaviest[1]] == nil {
		t.Errorf("limit 2 of %v kept %v", heaviest, slices.Collect(maps.Keys(kept)))
	}
}

// TestTotalsAgree: the sum over a time series is the total of the flame graph over the same range.
func TestTotalsAgree(t *testing.T) {
	s := tell(t)
	f := open(t, s.store, "one", 0)
	for _, selector := range storySelectors {
		for _, scope := range storyScopes(selector) {
			if scope.start == scope.end {
				continue // shorter than the step
			}
			const step = 60
			flame := f.stacktraces(scope, cpu, querierv1.ProfileFormat_PROFILE_FORMAT_FLAMEGRAPH).Flamegraph
			sum := 0.0
			// The first point covers the step that ends with it.
			for _, points := range f.series(&querierv1.SelectSeriesRequest{
				ProfileTypeID: cpu, LabelSelector: selector, Start: scope.start + step - 1, End: scope.end, Step: step / 1000.0, GroupBy: []string{"pod"},
			}) {
				for _, v := range points {
					sum += v
				}
			}
			if sum != float64(flame.Total) {
				t.Errorf("%v: points add up to %v, the flame graph to %d", scope, sum, flame.Total)
			}
		}
	}
}

func TestLabels(t *testing.T) {
	s := tell(t)
	ask := func(f fixture) {
		for _, selector := range storySelectors {
			for _, scope := range storyScopes(selector) {
				mustEqualLabels(f, s.model, scope)
			}
		}
	}
	ask(open(t, s.store, "one", 1))
	s.store.Compact(t)
	ask(open(t, s.store, "one", 0))
}

func mustEqualLabels(f fixture, m querybackendtest.Model, s scope) {
	f.Helper()
	start, end := s.nanos()
	names, values := map[string]bool{}, map[string]map[string]bool{"pod": {}, "service_name": {}, "__profile_type__": {}, "region": {}, "nothing": {}}
	project := []string{"service_name", "pod", "__type__", "region"}
	picked := m.Pick("one", start, end, s.selector, "")
	for _, p := range picked {
		for _, l := range p.Labels {
			names[l.Name] = true
			if values[l.Name] != nil {
				values[l.Name][l.Value] = true
			}
		}
	}
	matchers := []string{s.selector}
	gotNames, err := f.LabelNames(f.ctx, utf8Request(&typesv1.LabelNamesRequest{Matchers: matchers, Start: s.start, End: s.end}))
	if err != nil {
		f.Fatal(err)
	}
	mustEqualSet(f, fmt.Sprint("names ", s), gotNames.Msg.Names, names)
	for name, want := range values {
		got, err := f.LabelValues(f.ctx, connect.NewRequest(&typesv1.LabelValuesRequest{Name: name, Matchers: matchers, Start: s.start, End: s.end}))
		if err != nil {
			f.Fatal(err)
		}
		mustEqualSet(f, fmt.Sprint("values of ", name, s), got.Msg.Names, want)
		if !slices.IsSorted(got.Msg.Names) {
			f.Errorf("values of %s are not sorted: %v", name, got.Msg.Names)
		}
	}
	for _, labelNames := range [][]string{nil, project, {"service_name", "__profile_type__"}} {
		series, err := f.Series(f.ctx, utf8Request(&querierv1.SeriesRequest{Matchers: matchers, LabelNames: labelNames, Start: s.start, End: s.end}))
		if err != nil {
			f.Fatal(err)
		}
		want := map[string]bool{}
		for _, p := range picked {
			ls := p.Labels
			if labelNames != nil {
				ls = ls.Project(labelNames)
			}
			want[ls.String()] = true
		}
		mustEqualSet(f, fmt.Sprint("series ", labelNames, s), labelSetsOf(series.Msg.LabelsSet), want)
	}
}

// utf8Request is one of a client that takes label names of any characters.
func utf8Request[T any](msg *T) *connect.Request[T] {
	req := connect.NewRequest(msg)
	req.Header().Set("Accept", "application/proto; allow-utf8-labelnames=true")
	return req
}

// mustEqualSet wants exactly these strings, each once.
func mustEqualSet(t fixture, what string, got []string, want map[string]bool) {
	t.Helper()
	missing := maps.Clone(want)
	for _, g := range got {
		if !missing[g] {
			t.Errorf("%s: %s is there twice or should not be", what, g)
		}
		delete(missing, g)
	}
	if len(missing) > 0 {
		t.Errorf("%s: %v are missing of %d", what, slices.Collect(maps.Keys(missing)), len(want))
	}
}
