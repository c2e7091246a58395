package queryfrontend_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	gprofile "github.com/google/pprof/profile"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/querybackend/querybackendtest"
	"github.com/kilndb/kiln/queryfrontend"
)

// TestRollups asks blocks that carry rollups for all of their time, for parts that no bucket covers, and for some of
// their series, and wants what the rows say; also when some series were deleted, which are in the rollups still.
func TestRollups(t *testing.T) {
	store := querybackendtest.New()
	random := rand.New(rand.NewPCG(3, 4))
	var all, segment []querybackendtest.Pushed
	for i := range 160 {
		file := []string{"regexp-mem-0", "regexp-cpu-1"}[i/2%2]
		p := querybackendtest.Push("one", file, epoch.Add(time.Duration(i)*20*time.Second), "pod", fmt.Sprint(i%2), "zone", []string{"a", "b"}[i/4%2])
		p.Body = varied(p.Body, random)
		segment = append(segment, p)
		if len(segment) == 40 {
			all = append(all, segment...)
			store.Segment(t, segment...)
			segment = nil
		}
	}
	model := querybackendtest.NewModel(all...)
	f := open(t, store, "one", 0)
	start, end := epoch.UnixMilli(), epoch.Add(time.Hour).UnixMilli()
	ask := func() {
		t.Helper()
		for range 6 {
			f.mustEqualRows(model, random)
		}
		for _, selector := range []string{`{}`, `{pod="1"}`, `{pod="nobody"}`} {
			for _, s := range []scope{{start, end, selector}, {start + 61_000, end, selector}, {start, start + 31*60_000, selector}, {start + 301_000, start + 1_207_000, selector}} {
				from, until := s.nanos()
				for _, id := range []string{cpu, allocSpace} {
					f.mustEqual(s, id, querybackendtest.Sum(model.Pick("one", from, until, selector, id)))
				}
			}
		}
	}
	deleted := []string{1: `{pod="nobody"}`, 2: `{pod="1",zone="a"}`, 3: `{__name__="memory",zone="b"}`, 4: `{__name__="process_cpu",pod="1"}`}
	for level := 1; level <= 4; level++ {
		kinds := rollups(store.Compact(t))
		if level >= 2 && !(kinds[false] && kinds[true]) {
			t.Fatalf("a block of level %d has no rollup of all series, or of each: this would test too little", level)
		}
		ask()
		store.Exclude("one", deleted[level])
		model = model.Without("one", deleted[level])
		ask()
	}
	// Of all the time rollups are all it takes; of some series in a part of it they say nothing, and are not asked.
	for _, c := range []struct {
		scope
		cost string
	}{
		{scope{start, end, `{}`}, "profiles=0, samples=0, rollups=1,"},
		{scope{start, end, `{pod!="0"}`}, "profiles=0, samples=0, rollups=1,"},
		{scope{start + 61_000, end, `{pod="0"}`}, "rollups=0,"},
	} {
		res, err := f.SelectMergeStacktraces(f.ctx, connect.NewRequest(&querierv1.SelectMergeStacktracesRequest{
			ProfileTypeID: cpu, LabelSelector: c.selector, Start: c.start, End: c.end,
		}))
		if err != nil {
			t.Fatal(err)
		}
		if cost := res.Header().Get(queryfrontend.StatisticsHeader); !strings.Contains(cost, c.cost) {
			t.Errorf("the answer of %+v cost %s, want %s", c.scope, cost, c.cost)
		}
	}
}

// mustEqualRows asks for a random range and selector.
func (f fixture) mustEqualRows(model querybackendtest.Model, random *rand.Rand) {
	f.Helper()
	edge := func() int64 { // in milliseconds, some of them where a bucket begins
		at := epoch.Add(time.Duration(random.Int64N(int64(70*time.Minute))) - 5*time.Minute)
		return at.Truncate([]time.Duration{time.Millisecond, 5 * time.Minute, time.Hour}[random.IntN(3)]).UnixMilli()
	}
	selectors := []string{`{}`, `{pod="0"}`, `{pod!="0"}`, `{pod=~"1|2"}`, `{zone!~"a.*",pod=~".+"}`, `{zone="b",pod="1"}`, `{pod=""}`, `{zone=~"a|b"}`}
	a, b := edge(), edge()
	s := scope{min(a, b), max(a, b) + 1, selectors[random.IntN(len(selectors))]}
	if random.IntN(3) == 0 {
		s.start, s.end = epoch.UnixMilli(), epoch.Add(time.Hour).UnixMilli()
	}
	id := []string{cpu, allocSpace}[random.IntN(2)]
	from, until := s.nanos()
	f.mustEqual(s, id, querybackendtest.Sum(model.Pick("one", from, until, s.selector, id)))
}

// varied is a profile with a quarter of its samples left out and the values of the others changed, as one capture
// differs from the next.
func varied(body []byte, random *rand.Rand) []byte {
	p := oracle.Parse(body)
	p.Sample = slices.DeleteFunc(p.Sample, func(s *gprofile.Sample) bool {
		for i := range s.Value {
			s.Value[i] = s.Value[i] * (50 + random.Int64N(150)) / 100
		}
		return random.IntN(4) == 0
	})
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// rollups tells whether entries have rollups of all series, and of each.
func rollups(entries []*storagev1.BlockMeta) map[bool]bool {
	kinds := map[bool]bool{}
	for _, e := range entries {
		for _, d := range e.Datasets {
			for _, r := range d.Rows {
				for _, rollup := range r.Rollups {
					kinds[rollup.PerSeries] = true
				}
			}
		}
	}
	return kinds
}
