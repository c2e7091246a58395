package pprof_test

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sort"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/profile/pprof"
)

// modelled computes by maps and text what Normalise must leave: values by series and stack, and the report.
func modelled(p *profile.Profile, lim profile.Limits) (sums map[string][]*big.Int, r profile.Report) {
	cut := func(i uint32) string {
		s := string(p.String(i))
		if len(s) > lim.MaxSymbolLength {
			s = strings.ToValidUTF8(s[len(s)-lim.MaxSymbolLength:], "")
		}
		return s
	}
	for i := range p.Strings {
		if int(p.Strings[i].Len) > lim.MaxSymbolLength {
			r.TruncatedSymbols++
		}
	}
	sums = map[string][]*big.Int{}
	for i := range p.Samples() {
		row := p.Row(i)
		if slices.Min(row) < 0 {
			r.NegativeSamples++
			continue
		}
		if slices.Max(row) == 0 {
			r.ZeroSamples++
			continue
		}
		stack, frames := []uint32{}, 0
		for _, l := range slices.Backward(p.Stack(i)) {
			if frames += max(1, len(p.LinesOf(l))); frames > lim.MaxStackDepth {
				r.TruncatedStacks++
				break
			}
			stack = append([]uint32{l}, stack...)
		}
		// Of several values the last one, in the order of the numbers of the keys' strings.
		ls := slices.Clone(p.LabelsOf(i))
		sort.SliceStable(ls, func(a, b int) bool { return ls[a].Key < ls[b].Key })
		text, ids := []labels.Label{}, map[string]string{}
		for _, l := range p.LabelsOf(i) {
			key, value := cut(l.Key), cut(l.Str)
			switch digits := map[string]int{"span_id": 16, "profile_id": 16, "trace_id": 32}[key]; {
			case key == "" || value == "":
				r.DroppedLabels++
			case digits > 0 && (len(value) != digits || strings.Trim(value, "0123456789abcdefABCDEF") != "" || strings.Trim(value, "0") == ""):
				r.MalformedIDs++
			case digits > 0:
				ids[key] = strings.ToLower(value)
			}
		}
		for _, l := range ls {
			if key, value := cut(l.Key), cut(l.Str); key != "" && value != "" && key != "span_id" && key != "profile_id" && key != "trace_id" {
				text = append(text, labels.Label{Name: key, Value: value})
			}
		}
		if ids["span_id"] == "" {
			ids["span_id"] = ids["profile_id"]
		}
		k := fmt.Sprint(labels.New(text...), stack, ids["span_id"], ids["trace_id"])
		if sums[k] == nil {
			sums[k] = make([]*big.Int, len(row))
			for j := range row {
				sums[k][j] = new(big.Int)
			}
		} else {
			r.MergedSamples++
		}
		for j, v := range row {
			sums[k][j].Add(sums[k][j], big.NewInt(v))
		}
	}
	return sums, r
}

// span and trace return what the columns say of a sample as text, empty if nothing.
func span(p *profile.Profile, sample uint32) string {
	if len(p.Spans) == 0 {
		return ""
	}
	return p.Spans[sample].String()
}

func trace(p *profile.Profile, sample uint32) string {
	if len(p.Traces) == 0 {
		return ""
	}
	return p.Traces[sample].String()
}

func TestNormaliseAnyProfile(t *testing.T) {
	d, p := pprof.NewDecoder(), new(profile.Profile)
	rapid.Check(t, func(rt *rapid.T) {
		if err := d.Decode(drawProfile(rt), limits, p); err != nil {
			rt.Fatal(err)
		}
		lim := profile.Limits{MaxStackDepth: rapid.IntRange(0, 12).Draw(rt, "depth"), MaxSymbolLength: rapid.IntRange(10, 40).Draw(rt, "length")}
		want, wantReport := modelled(p, lim)
		overflow := false
		for _, row := range want {
			for _, v := range row {
				overflow = overflow || !v.IsInt64()
			}
		}
		report, err := p.Normalise(lim)
		if overflow {
			if !errors.Is(err, profile.ErrOverflow) {
				rt.Fatalf("error %v, want an overflow", err)
			}
			return
		}
		if err != nil {
			rt.Fatal(err)
		}
		if report != wantReport {
			rt.Fatalf("report %+v, want %+v", report, wantReport)
		}
		sound(t, p)
		got := 0
		for i, s := range p.Series {
			if s.Count == 0 {
				rt.Fatalf("series %d has no samples", i)
			}
			for _, sample := range p.Order[s.First : s.First+s.Count] {
				got++
				k := fmt.Sprint(s.Labels, p.Stack(int(sample)), span(p, sample), trace(p, sample))
				if fmt.Sprint(p.Row(int(sample))) != fmt.Sprint(want[k]) {
					rt.Fatalf("%s: %d, want %v", k, p.Row(int(sample)), want[k])
				}
			}
		}
		if got != len(want) || got != p.Samples() || got != len(p.Order) {
			rt.Fatalf("%d samples in series, %d in all, want %d", got, p.Samples(), len(want))
		}
		again, err := p.Normalise(lim)
		if err != nil || again != (profile.Report{}) || p.Samples() != got {
			rt.Fatalf("normalising twice: %+v, %v, %d samples of %d", again, err, p.Samples(), got)
		}
	})
}

func TestNormaliseKeepsTheCorpusExact(t *testing.T) {
	d, p := pprof.NewDecoder(), new(profile.Profile)
	for _, f := range corpus.All() {
		if err := d.Decode(f.Gzipped, limits, p); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Normalise(normal); err != nil {
			t.Fatal(err)
		}
		got, want := oracle.Parse(pprof.Append(nil, p)), oracle.Parse(f.Gzipped)
		for _, st := range want.SampleType {
			sameSums(t, f.Name+" "+st.Type, oracle.Sum(st.Type, got), oracle.Sum(st.Type, want))
		}
	}
}

// Series of the API server's samples, by hand: every label set that the file has, no more.
func TestNormaliseFindsEverySeries(t *testing.T) {
	f := corpus.Get("api-gateway-cpu-0")
	want := map[string]int64{}
	for _, s := range oracle.Parse(f.Gzipped).Sample {
		var ls []labels.Label
		for k, vs := range s.Label {
			ls = append(ls, labels.Label{Name: k, Value: vs[len(vs)-1]})
		}
		want[labels.New(ls...).Without("span_id", "trace_id", "profile_id").String()] += s.Value[1]
	}
	p := new(profile.Profile)
	if err := pprof.NewDecoder().Decode(f.Gzipped, limits, p); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Normalise(normal); err != nil {
		t.Fatal(err)
	}
	if len(want) < 3 || len(p.Series) != len(want) {
		t.Fatalf("%d series, want %d (the file must have several)", len(p.Series), len(want))
	}
	for _, s := range p.Series {
		var sum int64
		for _, i := range p.Order[s.First : s.First+s.Count] {
			sum += p.Row(int(i))[1]
		}
		if want[s.Labels.String()] != sum {
			t.Errorf("%s: %d, want %d", s.Labels, sum, want[s.Labels.String()])
		}
	}
}

// What Normalise leaves can be sent on: decoded, with its columns, and normalised again it says the same.
func TestANormalisedProfileTravels(t *testing.T) {
	d, p, q := pprof.NewDecoder(), new(profile.Profile), new(profile.Profile)
	rapid.Check(t, func(rt *rapid.T) {
		if err := d.Decode(drawProfile(rt), limits, p); err != nil {
			rt.Fatal(err)
		}
		if _, err := p.Normalise(normal); err != nil {
			return
		}
		if err := d.Decode(pprof.Append(nil, p), limits, q); err != nil {
			rt.Fatal(err)
		}
		q.Spans, q.Traces = append(q.Spans, p.Spans...), append(q.Traces, p.Traces...)
		if r, err := q.Normalise(normal); err != nil || r != (profile.Report{}) {
			rt.Fatalf("normalised on arrival: %+v, %v", r, err)
		}
		if a, b := rowsOf(p), rowsOf(q); !slices.Equal(a, b) {
			rt.Fatalf("sent\n%s\narrived\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
		}
	})
}

// rowsOf writes down the samples of a normalised profile.
func rowsOf(p *profile.Profile) (all []string) {
	for _, s := range p.Series {
		for _, i := range p.Order[s.First : s.First+s.Count] {
			all = append(all, fmt.Sprint(s.Labels, p.Stack(int(i)), p.Row(int(i)), span(p, i), trace(p, i)))
		}
	}
	slices.Sort(all)
	return all
}
