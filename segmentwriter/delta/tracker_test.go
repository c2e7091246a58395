package delta_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/segmentwriter/delta"
	. "github.com/kilndb/kiln/segmentwriter/segmentwritertest"
	"github.com/kilndb/kiln/tenant"
)

const second = int64(time.Second)

var (
	memory = labels.FromStrings("__name__", "memory", "service_name", "checkout", "__delta__", "true")
	types  = []string{"alloc_space:bytes", "inuse_space:bytes"}
	noon   = time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
)

// tracker is a Tracker and what it measures.
type tracker struct {
	*delta.Tracker
	metrics *prometheus.Registry
	now     time.Time
}

func track(t testing.TB, edit ...func(*delta.Config)) *tracker {
	t.Helper()
	cfg := delta.DefaultConfig()
	for _, e := range edit {
		e(&cfg)
	}
	reg := prometheus.NewRegistry()
	tr, err := delta.New(cfg, reg)
	if err != nil {
		t.Fatal(err)
	}
	return &tracker{tr, reg, noon}
}

// values are what a profile says: by stack, alloc_space and inuse_space.
type values map[string][2]int64

// sent is one profile on its way.
type sent struct {
	change *delta.Change
	// counts is what is left of the profile, as text.
	counts string
}

func (tr *tracker) take(t testing.TB, series labels.Labels, id byte, at int64, v values) sent {
	t.Helper()
	return tr.takeOf(t, "acme", series, id, at, v)
}

func (tr *tracker) takeOf(t testing.TB, of tenant.ID, series labels.Labels, id byte, at int64, v values) sent {
	t.Helper()
	p := Decode(encode(at*second, v))
	change, err := tr.Take(of, series, profile.ID{id}, p, tr.now)
	if err != nil {
		t.Fatal(err)
	}
	return sent{change, fmt.Sprint(read(p))}
}

// counted takes a profile, stores it and returns what it counted for.
func (tr *tracker) counted(t testing.TB, id byte, at int64, v values) string {
	t.Helper()
	s := tr.take(t, memory, id, at, v)
	s.change.Settle(true)
	return s.counts
}

func encode(at int64, v values) []byte {
	var samples []Sample
	for stack, row := range v {
		stack, pool, _ := strings.Cut(stack, "@")
		s := Sample{Stack: stack, Values: row[:]}
		if pool != "" {
			s.Labels = map[string]string{"pool": pool}
		}
		samples = append(samples, s)
	}
	return Pprof(at, types, samples...)
}

// read returns what a profile says, by the rows of its series.
func read(p *profile.Profile) values {
	v := values{}
	for _, s := range p.Series {
		for _, i := range p.Order[s.First : s.First+s.Count] {
			var names []string
			for _, l := range p.Stack(int(i)) {
				names = append([]string{string(p.String(p.Functions[p.LinesOf(l)[0].Function].Name))}, names...)
			}
			stack := strings.Join(names, ";")
			if pool := s.Labels.Get("pool"); pool != "" {
				stack += "@" + pool
			}
			row := p.Row(int(i))
			v[stack] = [2]int64{row[0], row[1]}
		}
	}
	return v
}

func want(t testing.TB, what, got string, v values) {
	t.Helper()
	if got != fmt.Sprint(v) {
		t.Errorf("%s counts %s, want %s", what, got, fmt.Sprint(v))
	}
}

// wantMetric compares the values of a metric that has one label.
func (tr *tracker) wantMetric(t testing.TB, name string, want map[string]float64) {
	t.Helper()
	families, err := tr.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				got[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("%s is %v, want %v", name, got, want)
	}
}

func TestProfilesCountWhatHappenedSince(t *testing.T) {
	tr := track(t)
	want(t, "the first", tr.counted(t, 1, 0, values{"a": {10, 5}, "a;b": {3, 0}}), values{"a": {0, 5}})
	want(t, "the second", tr.counted(t, 2, 15, values{"a": {12, 4}, "a;b": {3, 0}, "c": {7, 0}}), values{"a": {2, 4}, "c": {7, 0}})
	want(t, "one in which nothing happened", tr.counted(t, 3, 30, values{"a": {12, 4}, "a;b": {3, 0}, "c": {7, 0}}), values{"a": {0, 4}})
	want(t, "the fourth", tr.counted(t, 4, 45, values{"a": {12, 0}, "a;b": {4, 0}, "c": {8, 0}}), values{"a;b": {1, 0}, "c": {1, 0}})
}

func TestASmallerValueIsANewRun(t *testing.T) {
	tr := track(t)
	tr.counted(t, 1, 0, values{"a": {10, 0}, "b": {10, 0}})
	want(t, "smaller", tr.counted(t, 2, 15, values{"a": {20, 0}, "b": {9, 0}}), values{"a": {20, 0}, "b": {9, 0}})
	want(t, "gone", tr.counted(t, 3, 30, values{"a": {30, 0}}), values{"a": {30, 0}})
	want(t, "growing", tr.counted(t, 4, 45, values{"a": {31, 0}}), values{"a": {1, 0}})
}

func TestWhatHasBeenOvertakenCountsNothing(t *testing.T) {
	tr := track(t)
	tr.counted(t, 1, 0, values{"a": {10, 0}})
	want(t, "the newer", tr.counted(t, 3, 30, values{"a": {30, 0}}), values{"a": {20, 0}})
	want(t, "the older", tr.counted(t, 2, 15, values{"a": {20, 7}}), values{"a": {0, 7}})
	want(t, "one of the same time", tr.counted(t, 9, 30, values{"a": {31, 0}}), values{})
	want(t, "the next", tr.counted(t, 4, 45, values{"a": {35, 0}}), values{"a": {5, 0}})
}

func TestACopyCountsTheSame(t *testing.T) {
	tr := track(t)
	profiles := []values{{"a": {10, 1}}, {"a": {20, 1}, "b": {5, 0}}, {"a": {2, 1}}, {"a": {3, 1}}}
	var counts []string
	for i, v := range profiles {
		counts = append(counts, tr.counted(t, byte(i), int64(i), v))
	}
	for i, v := range profiles {
		if got := tr.counted(t, byte(i), int64(i), v); got != counts[i] {
			t.Errorf("copy of profile %d counts %s, the first %s", i, got, counts[i])
		}
	}
	want(t, "the next", tr.counted(t, 9, 5, values{"a": {4, 1}}), values{"a": {1, 1}})
	tr.wantMetric(t, "kiln_segment_writer_delta_profiles_total", map[string]float64{
		"baseline": 1, "copied": 4, "difference": 3, "late": 0, "restart": 1, "stale": 0,
	})
}

func TestAFailedPushLosesNothing(t *testing.T) {
	for name, v := range map[string]values{
		"difference": {"a": {15, 0}, "b": {10, 0}, "c": {1, 0}}, "run": {"a": {1, 0}}, "gone": {"b": {10, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			tr := track(t)
			tr.counted(t, 1, 0, values{"a": {10, 0}, "b": {10, 0}})
			first := tr.take(t, memory, 2, 15, v)
			first.change.Settle(false)
			again := tr.take(t, memory, 77, 15, v) // the client does not know ids
			again.change.Settle(false)
			want(t, "one later than the failed", tr.counted(t, 3, 30, values{"a": {16, 0}, "b": {11, 0}}), values{"a": {6, 0}, "b": {1, 0}})
			if again.counts != first.counts {
				t.Errorf("the second attempt counts %s, the first %s", again.counts, first.counts)
			}
		})
	}
}

func TestAFailureIsMadeUpForAfterANewerProfile(t *testing.T) {
	tr := track(t)
	tr.counted(t, 1, 0, values{"a": {10, 0}})
	second := tr.take(t, memory, 2, 15, values{"a": {20, 0}})
	third := tr.take(t, memory, 3, 30, values{"a": {35, 0}})
	second.change.Settle(false)
	third.change.Settle(true)
	want(t, "the second", second.counts, values{"a": {10, 0}})
	want(t, "the third", third.counts, values{"a": {15, 0}})
	want(t, "the second again", tr.counted(t, 99, 15, values{"a": {20, 0}}), values{"a": {10, 0}})
	want(t, "the second once more", tr.counted(t, 98, 15, values{"a": {20, 0}}), values{})
	want(t, "the fourth", tr.counted(t, 4, 45, values{"a": {36, 0}}), values{"a": {1, 0}})
}

func TestFailuresOneAfterTheOtherGoBackToTheLastStored(t *testing.T) {
	tr := track(t)
	tr.counted(t, 1, 0, values{"a": {10, 0}})
	second := tr.take(t, memory, 2, 15, values{"a": {20, 0}})
	third := tr.take(t, memory, 3, 20, values{"a": {35, 0}, "b": {1, 0}})
	second.change.Settle(false)
	third.change.Settle(false)
	want(t, "the fourth", tr.counted(t, 4, 25, values{"a": {40, 0}, "b": {2, 0}}), values{"a": {30, 0}, "b": {2, 0}})

	// What only the failed one knew is forgotten.
	tr.take(t, memory, 5, 30, values{"a": {50, 0}, "b": {2, 0}, "gone": {100, 0}}).change.Settle(false)
	want(t, "the sixth", tr.counted(t, 6, 35, values{"a": {50, 0}, "b": {2, 0}, "c": {7, 0}}), values{"a": {10, 0}, "c": {7, 0}})
	want(t, "the seventh", tr.counted(t, 7, 40, values{"a": {50, 0}, "b": {2, 0}, "c": {8, 0}}), values{"c": {1, 0}})

	lone := track(t)
	lone.take(t, memory, 1, 0, values{"a": {10, 0}}).change.Settle(false)
	want(t, "a baseline after one that failed", lone.counted(t, 2, 15, values{"a": {20, 0}}), values{})
}

func TestOneStoredCopyIsEnough(t *testing.T) {
	tr := track(t)
	tr.counted(t, 1, 0, values{"a": {10, 0}})
	first, second := tr.take(t, memory, 2, 15, values{"a": {20, 0}}), tr.take(t, memory, 2, 15, values{"a": {20, 0}})
	first.change.Settle(false)
	second.change.Settle(true)
	want(t, "the copy", second.counts, values{"a": {10, 0}})
	want(t, "the third", tr.counted(t, 3, 30, values{"a": {25, 0}}), values{"a": {5, 0}})
}

func TestAGapBeginsAnew(t *testing.T) {
	tr := track(t)
	at := int64(0)
	count := byte(0)
	push := func(gap int64) string {
		at += gap
		count++
		return tr.counted(t, count, at, values{"a": {int64(count), 0}})
	}
	one, none := values{"a": {1, 0}}, values{}
	push(0)
	want(t, "the second, in 5 minutes", push(300), one)
	want(t, "after more than twice as long", push(700), one)
	want(t, "soon", push(15), one)
	want(t, "in turn again, for intervals shrink slowly", push(600), one)
	for range 20 {
		push(15)
	}
	want(t, "after two lost", push(45), none)
	want(t, "the next", push(15), one)
	want(t, "the next but one", push(37), one)

	slow := track(t)
	slow.counted(t, 1, 0, values{"a": {1, 0}})
	want(t, "after 10 minutes", slow.counted(t, 2, 600, values{"a": {2, 0}}), none)
	want(t, "after 10 minutes more", slow.counted(t, 3, 1200, values{"a": {3, 0}}), one)
	want(t, "a day later", slow.counted(t, 4, 86400, values{"a": {4, 0}}), none)
	want(t, "in time after the gap", slow.counted(t, 5, 86400+200, values{"a": {5, 0}}), one)
}

func TestSeriesAndTenantsAreApart(t *testing.T) {
	tr := track(t)
	other := memory.With("pod", "b")
	tr.counted(t, 1, 0, values{"a": {10, 0}, "a@x": {100, 0}})
	tr.take(t, other, 1, 0, values{"a": {1000, 0}}).change.Settle(true)
	tr.takeOf(t, "globex", memory, 1, 0, values{"a": {5, 0}}).change.Settle(true)
	want(t, "two series of one profile", tr.counted(t, 2, 15, values{"a": {11, 0}, "a@x": {102, 0}}), values{"a": {1, 0}, "a@x": {2, 0}})
	want(t, "another pod", tr.take(t, other, 2, 15, values{"a": {1003, 0}}).counts, values{"a": {3, 0}})
	want(t, "another tenant", tr.takeOf(t, "globex", memory, 2, 15, values{"a": {9, 0}}).counts, values{"a": {4, 0}})
	// One series starts anew, the other goes on: a label tells them apart, as two threads.
	want(t, "one of two", tr.counted(t, 3, 30, values{"a": {1, 0}, "a@x": {103, 0}}), values{"a": {1, 0}, "a@x": {1, 0}})
}

func TestOnlyCountersOfCumulativeProfilesAreTouched(t *testing.T) {
	for _, c := range []struct {
		series labels.Labels
		types  []string
		want   string // what is left of the second of two equal profiles
	}{
		{labels.FromStrings("__name__", "memory", "__delta__", "true"), types, "[0 2]"},
		{labels.FromStrings("__name__", "memory", "__delta__", "false"), types, "[1 2]"},
		{labels.FromStrings("__name__", "memory"), types, "[1 2]"},
		{labels.FromStrings("__name__", "memory", "__delta__", "true"), []string{"inuse_objects:count", "inuse_space:bytes"}, "[1 2]"},
		{labels.FromStrings("__name__", "mutex", "__delta__", "true"), []string{"contentions:count", "delay:nanoseconds"}, "[]"},
		{labels.FromStrings("__name__", "block", "__delta__", "true"), []string{"contentions:count", "delay:nanoseconds"}, "[]"},
		{labels.FromStrings("__name__", "block"), []string{"contentions:count", "delay:nanoseconds"}, "[1 2]"},
		{labels.FromStrings("__name__", "process_cpu", "__delta__", "true"), []string{"samples:count", "cpu:nanoseconds"}, "[1 2]"},
	} {
		tr := track(t)
		for i := range byte(2) {
			p := Decode(Pprof(int64(i)*second, c.types, Sample{Stack: "a", Values: []int64{1, 2}}))
			change, err := tr.Take("acme", c.series, profile.ID{i}, p, noon)
			if err != nil {
				t.Fatal(err)
			}
			change.Settle(true)
			if got := fmt.Sprint(p.Values); i == 1 && got != c.want {
				t.Errorf("%s of %s: %s, want %s", c.types, c.series, got, c.want)
			}
		}
	}
}

// The numbers of a profile's tables change from one to the next, and two locations may be the same.
func TestStacksAreComparedByContent(t *testing.T) {
	tr := track(t)
	tr.counted(t, 1, 0, values{"a": {10, 0}, "a;b": {20, 0}})
	p := Decode(Pprof(15*second, types,
		Sample{Stack: "new", Values: []int64{1, 0}}, Sample{Stack: "a;b", Values: []int64{7, 0}}, Sample{Stack: "a", Values: []int64{12, 0}},
		Sample{Stack: "c;d", Values: []int64{18, 3}}))
	// c;d is another copy of a;b.
	name := func(i int) *uint32 { return &p.Functions[p.LinesOf(p.Stack(3)[i])[0].Function].Name }
	*name(0), *name(1) = p.Functions[p.LinesOf(p.Stack(1)[0])[0].Function].Name, p.Functions[p.LinesOf(p.Stack(1)[1])[0].Function].Name
	if _, err := tr.Take("acme", memory, profile.ID{2}, p, noon); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(p.Values); got != "[1 0 5 0 2 0 0 3]" {
		t.Errorf("counted %s", got)
	}
}

func TestAnOverflowChangesNothing(t *testing.T) {
	tr := track(t)
	tr.counted(t, 1, 0, values{"a": {10, 0}})
	p := Decode(Pprof(second, types, Sample{Stack: "a", Values: []int64{math.MaxInt64, 0}}, Sample{Stack: "b", Values: []int64{1, 0}}))
	p.Functions[p.LinesOf(p.Stack(1)[0])[0].Function].Name = p.Functions[p.LinesOf(p.Stack(0)[0])[0].Function].Name
	if _, err := tr.Take("acme", memory, profile.ID{2}, p, noon); !errors.Is(err, delta.ErrOverflow) {
		t.Errorf("error %v, want an overflow", err)
	}
	want(t, "the next", tr.counted(t, 3, 2, values{"a": {11, 0}}), values{"a": {1, 0}})
}

func evicted(tenant, all, idle float64) map[string]float64 {
	return map[string]float64{"tenant_memory": tenant, "memory": all, "idle": idle}
}

func TestMemoryIsBounded(t *testing.T) {
	pod := func(i int) labels.Labels { return memory.With("pod", fmt.Sprint(i)) }
	tr := track(t, func(c *delta.Config) { c.MaxTenantBytes, c.MaxBytes = 20_000, 50_000 })
	for i := range 100 {
		tr.take(t, pod(i), 1, 0, values{"a": {1, 0}}).change.Settle(true)
	}
	want(t, "the newest", tr.take(t, pod(99), 2, 15, values{"a": {3, 0}}).counts, values{"a": {2, 0}})
	want(t, "the oldest", tr.take(t, pod(0), 2, 15, values{"a": {3, 0}}).counts, values{})
	large := values{}
	for i := range 1000 {
		large[fmt.Sprint(i)] = [2]int64{1, 0}
	}
	open := tr.take(t, pod(1000), 1, 0, large) // more than a tenant may have
	want(t, "one beside a large one", tr.take(t, pod(98), 2, 15, values{"a": {3, 0}}).counts, values{"a": {2, 0}})
	open.change.Settle(false)
	for i := range 10 {
		for j := range 100 {
			tr.takeOf(t, tenant.ID(fmt.Sprint("t", i)), pod(j), 1, 0, values{"a": {1, 0}}).change.Settle(j%2 == 0)
		}
	}
	families, err := tr.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if n := f.GetMetric()[0].GetGauge().GetValue(); f.GetName() == "kiln_segment_writer_delta_bytes" && (n > 50_000 || n < 25_000) {
			t.Errorf("%g bytes are remembered, the bound is 50000", n)
		}
	}
}

func TestIdleSeriesAreForgotten(t *testing.T) {
	tr := track(t)
	tr.take(t, memory.With("pod", "a"), 1, 0, values{"a": {1, 0}}).change.Settle(true)
	open := tr.take(t, memory.With("pod", "b"), 1, 0, values{"a": {1, 0}})
	tr.now = tr.now.Add(time.Hour)
	tr.counted(t, 1, 0, values{"a": {1, 0}})
	tr.wantMetric(t, "kiln_segment_writer_delta_evicted_series_total", evicted(0, 0, 0))
	tr.now = tr.now.Add(time.Second)
	tr.counted(t, 2, 1, values{"a": {2, 0}})
	tr.wantMetric(t, "kiln_segment_writer_delta_evicted_series_total", evicted(0, 0, 2))
	open.change.Settle(false)
	want(t, "one that was forgotten", tr.take(t, memory.With("pod", "b"), 2, 1, values{"a": {5, 0}}).counts, values{})
	want(t, "one that was not", tr.counted(t, 3, 2, values{"a": {4, 0}}), values{"a": {2, 0}})
}

// Whatever the order in which they arrive, profiles of one series that are all stored add up.
func TestPushesAtTheSameTimeAddUp(t *testing.T) {
	tr := track(t, func(c *delta.Config) { c.GapRatio = 1000 })
	tr.counted(t, 0, 0, values{"a": {100, 0}})
	const pushes = 40
	var mu sync.Mutex
	var g sync.WaitGroup
	sum := values{}
	for i := range pushes {
		g.Go(func() {
			p := Decode(encode(int64(i+1)*second, values{"a": {int64(101 + i), 0}}))
			change, err := tr.Take("acme", memory, profile.ID{byte(i)}, p, noon)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for stack, v := range read(p) {
				sum[stack] = [2]int64{sum[stack][0] + v[0], 0}
			}
			change.Settle(true)
		})
	}
	g.Wait()
	if !maps.Equal(sum, values{"a": {pushes, 0}}) {
		t.Errorf("all pushes counted %v, want %d", sum, pushes)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for field, edit := range map[string]func(*delta.Config){
		"memory of a tenant": func(c *delta.Config) { c.MaxTenantBytes = 0 },
		"memory of":          func(c *delta.Config) { c.MaxBytes = c.MaxTenantBytes - 1 },
		"longest gap":        func(c *delta.Config) { c.MaxGap = 0 },
		"gap ratio":          func(c *delta.Config) { c.GapRatio = 1 },
		"idle timeout":       func(c *delta.Config) { c.IdleTimeout = -1 },
	} {
		cfg := delta.DefaultConfig()
		edit(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: error %v", field, err)
		}
	}
}
