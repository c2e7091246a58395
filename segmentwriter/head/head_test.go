package head_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/segmentwriter/head"
	. "github.com/kilndb/kiln/segmentwriter/segmentwritertest"
)

var (
	cpuTypes = []string{"cpu:nanoseconds"}
	checkout = labels.FromStrings("__name__", "process_cpu", "service_name", "checkout")
)

// read writes a head as a segment and returns its rows.
func read(t interface{ Fatal(...any) }, h *head.Head) []Row {
	var b bytes.Buffer
	w := block.NewWriter(&b, block.Header{ID: "01ARZ3NDEKTSV4RRFFQ69G5FAV"})
	if err := h.Write("acme", w); err != nil {
		t.Fatal(err)
	}
	meta, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	bucket := memory.New()
	if err := bucket.Put(context.Background(), block.Key(meta), b.Bytes()); err != nil {
		t.Fatal(err)
	}
	rows, err := Read(context.Background(), bucket, []*storagev1.BlockMeta{meta})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func push(t testing.TB, h *head.Head, id byte, series labels.Labels, body []byte) {
	t.Helper()
	if err := h.Append(Decode(body), series, profile.ID{id}); err != nil {
		t.Fatal(err)
	}
}

func same(t testing.TB, what string, got, want map[string][]int64) {
	t.Helper()
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestAProfileBecomesARowPerLabelSet(t *testing.T) {
	h := head.New()
	series := checkout.With("region", "eu").With("__delta__", "false").With("__session_id__", "cafe")
	push(t, h, 1, series, Pprof(1000, cpuTypes,
		Sample{Stack: "main;work", Values: []int64{3}},
		Sample{Stack: "main;work", Values: []int64{4}, Labels: map[string]string{"route": "/pay"}},
		Sample{Stack: "main;rest", Values: []int64{5}, Labels: map[string]string{"route": "/pay"}},
		Sample{Stack: "", Values: []int64{6}},
	))
	rows := read(t, h)
	if len(rows) != 2 {
		t.Fatalf("%d rows, want 2: %v", len(rows), rows)
	}
	plain, pay := rows[0], rows[1]
	if want := labels.FromStrings("region", "eu", "service_name", "checkout"); labels.Compare(plain.Labels, want) != 0 {
		t.Errorf("labels %s, want %s", plain.Labels, want)
	}
	if want := labels.FromStrings("region", "eu", "route", "/pay", "service_name", "checkout"); labels.Compare(pay.Labels, want) != 0 {
		t.Errorf("labels %s, want %s", pay.Labels, want)
	}
	same(t, "without labels", plain.Names, map[string][]int64{"main;work": {3}, "": {6}})
	same(t, "with labels", pay.Names, map[string][]int64{"main;work": {4}, "main;rest": {5}})
	for _, r := range rows {
		if r.Time != 1000 || r.ID != (profile.ID{1}) || r.Period != 1 || r.Service != "checkout" || r.Kind.Name != "process_cpu" {
			t.Errorf("row %+v", r)
		}
	}
}

func TestLabelSetsOfOneSeriesAreOneRow(t *testing.T) {
	h := head.New()
	push(t, h, 1, checkout.With("region", "eu"), Pprof(1000, cpuTypes,
		Sample{Stack: "main", Values: []int64{1}},
		Sample{Stack: "main", Values: []int64{2}, Labels: map[string]string{"region": "us"}},                  // what was sent wins
		Sample{Stack: "main", Values: []int64{4}, Labels: map[string]string{"__name__": "x", "__p__": "y"}},   // private
		Sample{Stack: "main", Values: []int64{8}, Labels: map[string]string{"service_name": "not this one"}},  // sent as well
		Sample{Stack: "other", Values: []int64{16}, Labels: map[string]string{"region": "us", "__p__": "zz"}}, // both
	))
	rows := read(t, h)
	if len(rows) != 1 {
		t.Fatalf("%d rows, want 1: %v", len(rows), rows)
	}
	same(t, "all", rows[0].Names, map[string][]int64{"main": {15}, "other": {16}})
}

// What differs in its span or trace stays apart; what does not is one sample, seen whenever its parts were.
func TestSpansOfAStackStayApart(t *testing.T) {
	const one, two, trace = "00f067aa0ba902b7", "00f067aa0ba902b8", "4bf92f3577b34da6a3ce929d0e0e4736"
	h := head.New()
	series := checkout.With("region", "eu")
	p := Profile(1000, cpuTypes,
		Sample{Stack: "main;work", Values: []int64{1}, Labels: map[string]string{"span_id": two}, Times: []int64{40}},
		Sample{Stack: "main", Values: []int64{2}},
		Sample{Stack: "main;work", Values: []int64{4}, Labels: map[string]string{"span_id": one, "trace_id": trace}},
		Sample{Stack: "main;work", Values: []int64{8}, Times: []int64{30, 10}},
		Sample{Stack: "main;work", Values: []int64{16}, Labels: map[string]string{"region": "us", "span_id": two}, Times: []int64{20, 50}},
	)
	if err := h.Append(p, series, profile.ID{1}); err != nil {
		t.Fatal(err)
	}
	push(t, h, 2, series, Pprof(1000, cpuTypes, Sample{Stack: "main", Values: []int64{32}}))
	rows := read(t, h)
	if len(rows) != 2 {
		t.Fatalf("rows %v, want two", rows)
	}
	want := []Stored{
		{Stack: "main;work", Values: []int64{8}, Times: []int64{10, 30}},
		{Stack: "main;work", Values: []int64{4}, Span: one, Trace: trace},
		{Stack: "main;work", Values: []int64{17}, Span: two, Times: []int64{20, 40, 50}},
		{Stack: "main", Values: []int64{2}},
	}
	byStack := func(a, b Stored) int { return strings.Compare(b.Stack, a.Stack) }
	slices.SortStableFunc(rows[0].Samples, byStack)
	if got := fmt.Sprint(rows[0].Samples); got != fmt.Sprint(want) {
		t.Errorf("samples\n%s, want\n%s", got, fmt.Sprint(want))
	}
	if got, want := fmt.Sprint(rows[1].Samples), fmt.Sprint([]Stored{{Stack: "main", Values: []int64{32}}}); got != want {
		t.Errorf("samples of a profile without spans %s, want %s", got, want)
	}
}

func TestKindsAndServicesHaveRowsOfTheirOwn(t *testing.T) {
	h := head.New()
	heapTypes := []string{"alloc:bytes", "inuse:bytes"}
	cart := labels.FromStrings("__name__", "process_cpu", "service_name", "cart")
	push(t, h, 1, checkout, Pprof(30, cpuTypes, Sample{Stack: "a", Values: []int64{1}}))
	push(t, h, 2, cart, Pprof(20, cpuTypes, Sample{Stack: "a", Values: []int64{2}}))
	push(t, h, 3, cart.With("__name__", "memory"), Pprof(40, heapTypes, Sample{Stack: "a", Values: []int64{3, 4}}))
	push(t, h, 4, checkout, Pprof(10, cpuTypes, Sample{Stack: "b", Values: []int64{5}}))
	push(t, h, 5, checkout, Pprof(10, []string{"wall:nanoseconds"}, Sample{Stack: "b", Values: []int64{6}}))
	var got []string
	for _, r := range read(t, h) {
		got = append(got, fmt.Sprint(r.Service, " ", r.Kind.Name, " ", r.Kind.SampleTypes[0].Type, " ", r.Time))
	}
	want := []string{"cart memory alloc 40", "cart process_cpu cpu 20", "checkout process_cpu cpu 10", "checkout process_cpu cpu 30", "checkout process_cpu wall 10"}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
}

func TestCopiesCollapseAndOthersDoNot(t *testing.T) {
	h := head.New()
	body := Pprof(1000, cpuTypes, Sample{Stack: "main", Values: []int64{1}})
	push(t, h, 7, checkout, body)
	push(t, h, 8, checkout, body) // another profile that looks the same
	push(t, h, 7, checkout, body) // sent twice
	rows := read(t, h)
	if len(rows) != 2 || rows[0].ID != (profile.ID{7}) || rows[1].ID != (profile.ID{8}) {
		t.Errorf("rows %v, want those of profiles 7 and 8", rows)
	}
}

func TestARefusedProfileLeavesNothing(t *testing.T) {
	h := head.New()
	push(t, h, 1, checkout, Pprof(1000, cpuTypes, Sample{Stack: "main", Values: []int64{1}}))
	before := read(t, h)
	much := Decode(Pprof(1000, cpuTypes,
		Sample{Stack: "a", Values: []int64{5}, Labels: map[string]string{"a": "b"}},
		Sample{Stack: "b", Values: []int64{math.MaxInt64 - 5}}))
	err := h.Append(much, checkout, profile.ID{2})
	if !errors.Is(err, head.ErrOverflow) || !strings.Contains(err.Error(), "cpu (nanoseconds) of process_cpu") {
		t.Fatalf("%v, want ErrOverflow", err)
	}
	if got := read(t, h); len(got) != len(before) {
		t.Errorf("rows %v, want %v", got, before)
	}
	push(t, h, 3, checkout, Pprof(1000, cpuTypes, Sample{Stack: "a", Values: []int64{math.MaxInt64 - 1}}))
	if got := read(t, h); len(got) != 2 || got[1].Names["a"][0] != math.MaxInt64-1 {
		t.Errorf("the next profile is %v", got)
	}
}

// model is what a head must say, by brute force.
type model map[string]map[string]stored

type stored struct {
	value int64
	times []int64
}

func (s stored) add(value int64, times []int64) stored {
	s.value += value
	s.times = slices.Sorted(slices.Values(append(slices.Clone(s.times), times...)))
	return s
}

func equal(a, b map[string]stored) bool {
	return maps.EqualFunc(a, b, func(a, b stored) bool { return a.value == b.value && slices.Equal(a.times, b.times) })
}

func (m model) add(series labels.Labels, id byte, time int64, samples []Sample) {
	for _, s := range samples {
		set := map[string]string{}
		maps.Copy(set, s.Labels)
		for _, l := range series {
			set[l.Name] = l.Value
		}
		var ls []labels.Label
		for name, value := range set {
			if !strings.HasPrefix(name, "__") && name != "span_id" && name != "trace_id" {
				ls = append(ls, labels.Label{Name: name, Value: value})
			}
		}
		key := fmt.Sprint(series.Get("__name__"), " ", labels.New(ls...), " ", time, " ", id)
		if s.Values[0] != 0 {
			if m[key] == nil {
				m[key] = map[string]stored{}
			}
			of := fmt.Sprint(s.Stack, " ", s.Labels["span_id"], " ", s.Labels["trace_id"])
			m[key][of] = m[key][of].add(s.Values[0], s.Times)
		}
	}
}

func TestAHeadSaysWhatAModelSays(t *testing.T) {
	reused := head.New()
	rapid.Check(t, func(t *rapid.T) {
		reused.Reset()
		want := model{}
		for id := range rapid.IntRange(0, 12).Draw(t, "profiles") {
			series := labels.FromStrings(
				"__name__", rapid.SampledFrom([]string{"process_cpu", "wall"}).Draw(t, "kind"),
				"service_name", rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "service"),
				"pod", rapid.SampledFrom([]string{"1", "2"}).Draw(t, "pod"))
			var samples []Sample
			for range rapid.IntRange(1, 8).Draw(t, "samples") {
				s := Sample{Values: []int64{rapid.Int64Range(0, 100).Draw(t, "value")}, Labels: map[string]string{}}
				s.Stack = strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"f", "g", "h"}), 0, 4).Draw(t, "stack"), ";")
				for _, name := range rapid.SliceOfN(rapid.SampledFrom([]string{"pod", "route", "__x__"}), 0, 2).Draw(t, "labels") {
					s.Labels[name] = rapid.SampledFrom([]string{"1", "2"}).Draw(t, "label")
				}
				if rapid.Bool().Draw(t, "seen") {
					s.Times = rapid.SliceOfN(rapid.Int64(), 0, 3).Draw(t, "times")
				}
				if rapid.IntRange(0, 3).Draw(t, "traced") == 0 {
					s.Labels["trace_id"] = "4bf92f3577b34da6a3ce929d0e0e4736"
				}
				samples = append(samples, s)
				if rapid.Bool().Draw(t, "more spans") { // the same stack again, in spans of its own
					for _, span := range []string{"00f067aa0ba902b7", "00f067aa0ba902b8"} {
						spanned := s
						spanned.Labels = maps.Clone(s.Labels)
						spanned.Labels["span_id"] = span
						samples = append(samples, spanned)
					}
				}
			}
			time := rapid.Int64Range(1, 3).Draw(t, "time")
			if err := reused.Append(Profile(time, cpuTypes, samples...), series, profile.ID{byte(id)}); err != nil {
				t.Fatal(err)
			}
			want.add(series, byte(id), time, samples)
		}
		got := model{}
		for _, r := range read(t, reused) {
			key := fmt.Sprint(r.Kind.Name, " ", r.Labels, " ", r.Time, " ", r.ID[0])
			if got[key] != nil {
				t.Fatalf("two rows of %s", key)
			}
			got[key] = map[string]stored{}
			for _, s := range r.Samples {
				of := fmt.Sprint(s.Stack, " ", s.Span, " ", s.Trace)
				if _, ok := got[key][of]; ok {
					t.Fatalf("two samples of %s", of)
				}
				got[key][of] = stored{s.Values[0], s.Times}
			}
		}
		if !maps.EqualFunc(got, want, equal) {
			t.Fatalf("rows %v, want %v", got, want)
		}
	})
}

func TestCorpusSumsEqualTheOracle(t *testing.T) {
	h := head.New()
	for round := range 2 { // the second time with the memory of the first
		h.Reset()
		var all []corpus.File
		for i, f := range corpus.All() {
			series := labels.FromStrings("__name__", f.Kind(), "service_name", f.Service(), "file", f.Name)
			push(t, h, byte(i), series, f.Gzipped)
			all = append(all, f)
		}
		rows := read(t, h)
		for _, f := range all {
			var of []Row
			for _, r := range rows {
				if r.Labels.Get("file") == f.Name {
					of = append(of, r)
				}
			}
			parsed := oracle.Parse(f.Gzipped)
			for _, st := range parsed.SampleType {
				if got, want := Sum(of, st.Type), oracle.Sum(st.Type, parsed).Locations; !maps.Equal(got, want) {
					t.Errorf("round %d: %s %s: %d stacks differ from the oracle's %d", round, f.Name, st.Type, len(got), len(want))
				}
			}
		}
	}
}

func TestFromBodyToHeadTakesFewAllocations(t *testing.T) {
	var bodies [][]byte
	var series []labels.Labels
	for i := range 20 {
		samples := make([]Sample, 100)
		for j := range samples {
			samples[j] = Sample{Stack: fmt.Sprint("main;f", j%10), Values: []int64{1}, Labels: map[string]string{"span_id": fmt.Sprintf("%016x", i<<8+j+1)}}
		}
		bodies = append(bodies, Pprof(1000, cpuTypes, samples...))
		series = append(series, checkout)
	}
	for _, f := range corpus.All() {
		bodies = append(bodies, f.Gzipped)
		series = append(series, labels.FromStrings("__name__", f.Kind(), "service_name", f.Service(), "__delta__", "false"))
	}
	h, d, p := head.New(), pprof.NewDecoder(), &profile.Profile{}
	segment := func() {
		h.Reset()
		for i, body := range bodies {
			if err := d.Decode(body, pprof.Limits{MaxBytes: 4 << 20, MaxRatio: 200}, p); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Normalise(profile.Limits{MaxStackDepth: 1000, MaxSymbolLength: 65535}); err != nil {
				t.Fatal(err)
			}
			if err := h.Append(p, series[i], profile.ID{byte(i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if perProfile := testing.AllocsPerRun(5, segment) / float64(len(bodies)); perProfile > 10 {
		t.Errorf("%.1f allocations per profile, want at most 10", perProfile)
	}
}
