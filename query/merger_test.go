package query_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/flamegraph"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/query"
)

var (
	askTree       = &queryv1.Question{Ask: &queryv1.Question_Tree{}}
	askStacks     = &queryv1.Question{Ask: &queryv1.Question_Stacks{}}
	askTimeSeries = &queryv1.Question{Ask: &queryv1.Question_TimeSeries{}}
	askNames      = &queryv1.Question{Ask: &queryv1.Question_LabelNames{}}
	askValues     = &queryv1.Question{Ask: &queryv1.Question_LabelValues{}}
	askSeries     = &queryv1.Question{Ask: &queryv1.Question_Series{}}
)

func merge(t rapid.TB, q *queryv1.Question, reports ...*queryv1.Report) *queryv1.Report {
	t.Helper()
	m, err := query.NewMerger(q)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reports {
		if err := m.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	return m.Report()
}

// overNetwork is what arrives at the other end.
func overNetwork(t rapid.TB, r *queryv1.Report) *queryv1.Report {
	t.Helper()
	b, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back queryv1.Report
	if err := proto.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	return &back
}

// law checks that reports mean the same merged in any order and grouping, and here or over a network.
func law[M any](t *testing.T, q *queryv1.Question, draw func(*rapid.T) *queryv1.Report, mean func(rapid.TB, []*queryv1.Report) M, equal func(a, b M) bool) {
	rapid.Check(t, func(t *rapid.T) {
		reports := rapid.SliceOfN(rapid.Custom(draw), 0, 6).Draw(t, "reports")
		want := mean(t, reports)
		untouched := make([]*queryv1.Report, len(reports))
		for i, r := range reports {
			untouched[i] = proto.CloneOf(r)
		}
		check := func(how string, r *queryv1.Report) {
			t.Helper()
			if got := mean(t, []*queryv1.Report{r}); !equal(got, want) {
				t.Fatalf("%s:\n got %v\nwant %v", how, got, want)
			}
		}
		check("in order", merge(t, q, reports...))
		shuffled := rapid.Permutation(reports).Draw(t, "order")
		check("shuffled", merge(t, q, shuffled...))
		cut := rapid.IntRange(0, len(shuffled)).Draw(t, "cut")
		left, right := merge(t, q, shuffled[:cut]...), merge(t, q, shuffled[cut:]...)
		check("grouped", merge(t, q, left, nil, right))
		check("over a network", overNetwork(t, merge(t, q, overNetwork(t, right), overNetwork(t, left))))
		for i, r := range reports {
			if !proto.Equal(r, untouched[i]) {
				t.Fatalf("report %d was changed", i)
			}
		}
	})
}

func TestMergeTrees(t *testing.T) {
	names := rapid.SampledFrom([]string{"", "a", "b", "c"})
	draw := func(t *rapid.T) *queryv1.Report {
		// Any tree bytes with few names make a tree.
		b := []byte{0, byte(rapid.IntRange(0, 9).Draw(t, "root")), 0}
		n := rapid.IntRange(0, 4).Draw(t, "chains")
		for range n {
			depth := rapid.IntRange(1, 4).Draw(t, "depth")
			for d := range depth {
				name := names.Draw(t, "name")
				child := byte(1)
				if d == depth-1 {
					child = 0
				}
				b = append(append(append(b, byte(len(name))), name...), byte(rapid.IntRange(0, 9).Draw(t, "self")), child)
			}
		}
		b[2] = byte(n)
		tree, err := flamegraph.DecodeTreeBytes(b)
		if err != nil {
			t.Fatal(err)
		}
		return &queryv1.Report{Tree: query.TreeToProto(tree)}
	}
	mean := func(t rapid.TB, reports []*queryv1.Report) map[string]int64 {
		m := map[string]int64{}
		for _, r := range reports {
			tree, err := query.TreeFromProto(r.GetTree())
			if err != nil {
				t.Fatal(err)
			}
			paths := make([]string, len(tree.Self))
			for i, v := range tree.Self {
				if i > 0 {
					paths[i] = paths[tree.Parents[i]] + "/" + tree.Names[tree.NodeNames[i]]
				}
				m[paths[i]] += v
			}
		}
		maps.DeleteFunc(m, func(_ string, v int64) bool { return v == 0 })
		return m
	}
	law(t, askTree, draw, mean, maps.Equal[map[string]int64])
}

func TestMergeTimeSeries(t *testing.T) {
	type point struct {
		series string
		time   int64
	}
	type value struct {
		sum      int64
		profiles uint64
	}
	draw := func(t *rapid.T) *queryv1.Report {
		r := &queryv1.Report{}
		for range rapid.IntRange(0, 4).Draw(t, "series") {
			ls := labels.FromStrings("a", rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "a"))
			if rapid.Bool().Draw(t, "more") {
				ls = ls.With("b", "x")
			}
			s := &queryv1.TimeSeries{Labels: query.LabelsToProto(ls)}
			times := rapid.SliceOfNDistinct(rapid.Int64Range(-3, 3), 0, 5, rapid.ID[int64]).Draw(t, "times")
			slices.Sort(times)
			for _, at := range times {
				s.Times = append(s.Times, at)
				s.Sums = append(s.Sums, rapid.Int64Range(0, 9).Draw(t, "sum"))
				s.Profiles = append(s.Profiles, rapid.Uint64Range(1, 3).Draw(t, "profiles"))
			}
			r.TimeSeries = append(r.TimeSeries, s)
		}
		return r
	}
	mean := func(t rapid.TB, reports []*queryv1.Report) map[point]value {
		m := map[point]value{}
		for _, r := range reports {
			for _, s := range r.GetTimeSeries() {
				ls, err := query.LabelsFromProto(s.Labels)
				if err != nil {
					t.Fatal(err)
				}
				for i := range s.Times {
					at := point{ls.String(), s.Times[i]}
					m[at] = value{m[at].sum + s.Sums[i], m[at].profiles + s.Profiles[i]}
				}
			}
		}
		return m
	}
	law(t, askTimeSeries, draw, mean, maps.Equal[map[point]value])
}

func TestTimeSeriesComeInOrder(t *testing.T) {
	one := func(value string, times ...int64) *queryv1.Report {
		n := len(times)
		return &queryv1.Report{TimeSeries: []*queryv1.TimeSeries{{
			Labels: query.LabelsToProto(labels.FromStrings("a", value)), Times: times, Sums: make([]int64, n), Profiles: make([]uint64, n),
		}}}
	}
	r := merge(t, askTimeSeries, one("2", 5, 9), one("1", 3), one("2", 1, 7))
	if len(r.TimeSeries) != 2 || r.TimeSeries[0].Labels[0].Value != "1" || !slices.Equal(r.TimeSeries[1].Times, []int64{1, 5, 7, 9}) {
		t.Fatalf("got %v", r)
	}
}

func TestMergeNames(t *testing.T) {
	draw := func(t *rapid.T) *queryv1.Report {
		names := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"", "a", "b", "c", "pod"}), rapid.ID[string]).Draw(t, "names")
		slices.Sort(names)
		return &queryv1.Report{Names: names}
	}
	mean := func(t rapid.TB, reports []*queryv1.Report) []string {
		set := map[string]bool{}
		for _, r := range reports {
			for _, n := range r.GetNames() {
				set[n] = true
			}
		}
		want := slices.Sorted(maps.Keys(set))
		if len(reports) == 1 && !slices.Equal(reports[0].GetNames(), want) {
			t.Fatalf("%q is not sorted and distinct", reports[0].GetNames())
		}
		return want
	}
	law(t, askNames, draw, mean, slices.Equal[[]string])
	law(t, askValues, draw, mean, slices.Equal[[]string])
}

func TestMergeSeries(t *testing.T) {
	draw := func(t *rapid.T) *queryv1.Report {
		r := &queryv1.Report{}
		// Values with what separates labels elsewhere must not be confused.
		for _, v := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"", "1", `1",b="2`, "\x01b\x012"}), rapid.ID[string]).Draw(t, "values") {
			ls := labels.FromStrings("a", v)
			if rapid.Bool().Draw(t, "more") {
				ls = ls.With("b", "2")
			}
			r.Series = append(r.Series, &queryv1.LabelSet{Labels: query.LabelsToProto(ls)})
		}
		slices.SortFunc(r.Series, func(a, b *queryv1.LabelSet) int {
			return labels.Compare(mustLabels(t, a), mustLabels(t, b))
		})
		return r
	}
	mean := func(t rapid.TB, reports []*queryv1.Report) []string {
		var all []labels.Labels
		for _, r := range reports {
			for _, s := range r.GetSeries() {
				all = append(all, mustLabels(t, s))
			}
		}
		if len(reports) != 1 {
			slices.SortFunc(all, labels.Compare)
			all = slices.CompactFunc(all, func(a, b labels.Labels) bool { return labels.Compare(a, b) == 0 })
		}
		var sets []string
		for _, ls := range all {
			sets = append(sets, ls.String())
		}
		return sets
	}
	law(t, askSeries, draw, mean, slices.Equal[[]string])
}

func mustLabels(t rapid.TB, s *queryv1.LabelSet) labels.Labels {
	t.Helper()
	ls, err := query.LabelsFromProto(s.GetLabels())
	if err != nil {
		t.Fatal(err)
	}
	return ls
}

func TestMergerWithoutReports(t *testing.T) {
	for _, q := range []*queryv1.Question{askTree, askStacks, askTimeSeries, askNames, askValues, askSeries} {
		if r := merge(t, q, nil, &queryv1.Report{}); !proto.Equal(r, &queryv1.Report{}) {
			t.Errorf("%v: got %v", q, r)
		}
	}
	if _, err := query.NewMerger(&queryv1.Question{}); !errors.Is(err, query.ErrQuestion) {
		t.Errorf("got %v", err)
	}
}

func TestMergerConcurrently(t *testing.T) {
	m, err := query.NewMerger(askTree)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				tree := &queryv1.Tree{Names: []string{"a", fmt.Sprintf("f%d", i)}, Parents: []uint32{0, 0, 0}, NodeNames: []uint32{0, 0, 1}, Self: []int64{0, 1, 1}}
				if err := m.Add(&queryv1.Report{Tree: tree}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	tree, err := query.TreeFromProto(m.Report().Tree)
	if err != nil || tree.Total() != 800 || tree.Self[1] != 400 || len(tree.Self) != 10 {
		t.Fatalf("got %+v, %v", tree, err)
	}
}

func TestMergerRefuses(t *testing.T) {
	tree := func(parents, names []uint32, self ...int64) *queryv1.Report {
		return &queryv1.Report{Tree: &queryv1.Tree{Names: []string{"a", "b"}, Parents: parents, NodeNames: names, Self: self}}
	}
	series := func(s *queryv1.TimeSeries) *queryv1.Report {
		return &queryv1.Report{TimeSeries: []*queryv1.TimeSeries{s}}
	}
	full := series(&queryv1.TimeSeries{Times: []int64{1}, Sums: []int64{math.MaxInt64}, Profiles: []uint64{1}})
	many := series(&queryv1.TimeSeries{Times: []int64{1}, Sums: []int64{0}, Profiles: []uint64{math.MaxUint64}})
	one := series(&queryv1.TimeSeries{Times: []int64{1}, Sums: []int64{1}, Profiles: []uint64{1}})
	heavy := &queryv1.Report{Stacks: root(math.MaxInt64)}
	for name, test := range map[string]struct {
		q       *queryv1.Question
		want    error
		reports []*queryv1.Report
	}{
		"a tree with a parent to come":   {askTree, query.ErrReport, []*queryv1.Report{tree([]uint32{0, 2, 0}, []uint32{0, 0, 1}, 0, 1, 1)}},
		"a tree with a short column":     {askTree, query.ErrReport, []*queryv1.Report{tree([]uint32{0, 0}, []uint32{0, 0}, 1)}},
		"a tree with an unknown name":    {askTree, query.ErrReport, []*queryv1.Report{tree([]uint32{0, 0}, []uint32{0, 2}, 0, 1)}},
		"an unsorted tree":               {askTree, query.ErrReport, []*queryv1.Report{tree([]uint32{0, 0, 0}, []uint32{0, 1, 0}, 0, 1, 1)}},
		"a tree too heavy":               {askTree, query.ErrOverflow, []*queryv1.Report{tree([]uint32{0, 0}, []uint32{0, 0}, 1, math.MaxInt64)}},
		"trees too heavy together":       {askTree, query.ErrOverflow, []*queryv1.Report{tree([]uint32{0}, []uint32{0}, 1), tree([]uint32{0}, []uint32{0}, math.MaxInt64)}},
		"stacks too heavy together":      {askStacks, query.ErrOverflow, []*queryv1.Report{heavy, {Stacks: root(1)}}},
		"a negative duration":            {askStacks, query.ErrReport, []*queryv1.Report{lasting(1), lasting(-1)}},
		"time series too heavy":          {askTimeSeries, query.ErrOverflow, []*queryv1.Report{full, one}},
		"time series with many profiles": {askTimeSeries, query.ErrReport, []*queryv1.Report{many, one}},
		"a time series without sums":     {askTimeSeries, query.ErrReport, []*queryv1.Report{series(&queryv1.TimeSeries{Times: []int64{1}, Profiles: []uint64{1}})}},
		"a time series without counts":   {askTimeSeries, query.ErrReport, []*queryv1.Report{series(&queryv1.TimeSeries{Times: []int64{1}, Sums: []int64{1}})}},
		"an unsorted time series": {askTimeSeries, query.ErrReport, []*queryv1.Report{
			series(&queryv1.TimeSeries{Times: []int64{2, 2}, Sums: []int64{1, 1}, Profiles: []uint64{1, 1}})}},
		"time series with wrong labels": {askTimeSeries, query.ErrReport, []*queryv1.Report{series(&queryv1.TimeSeries{Labels: []*queryv1.Label{{Name: "b"}, {Name: "a"}}})}},
		"series with wrong labels":      {askSeries, query.ErrReport, []*queryv1.Report{{Series: []*queryv1.LabelSet{{Labels: []*queryv1.Label{{Name: "b"}, {Name: "a"}}}}}}},
		"an answer to something else":   {askNames, query.ErrReport, []*queryv1.Report{one}},
		"names for a tree":              {askTree, query.ErrReport, []*queryv1.Report{{Names: []string{"a"}}}},
		"a tree for stacks":             {askStacks, query.ErrReport, []*queryv1.Report{tree([]uint32{0}, []uint32{0}, 1)}},
		"stacks for time series":        {askTimeSeries, query.ErrReport, []*queryv1.Report{heavy}},
		"series for values":             {askValues, query.ErrReport, []*queryv1.Report{{Series: []*queryv1.LabelSet{{}}}}},
	} {
		m, err := query.NewMerger(test.q)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range test.reports {
			err := m.Add(r)
			if last := i == len(test.reports)-1; !last && err != nil || last && !errors.Is(err, test.want) {
				t.Errorf("%s: report %d: got %v, want %v", name, i, err, test.want)
			}
		}
	}
}

// TestDurationsStopAtTheLargest wants a profile that claims to have lasted for ever not to spoil the answer.
func TestDurationsStopAtTheLargest(t *testing.T) {
	m, err := query.NewMerger(askStacks)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*queryv1.Report{lasting(1), lasting(math.MaxInt64), lasting(7)} {
		if err := m.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.Report().GetStacks().GetDuration(); got != math.MaxInt64 {
		t.Errorf("duration %d, want the largest there is", got)
	}
}
