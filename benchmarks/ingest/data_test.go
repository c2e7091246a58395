package ingest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/pprof"
)

var (
	limits = pprof.Limits{MaxBytes: 4 << 20, MaxRatio: 200, MaxSamples: 16_000, MaxSampleTypes: 32, MaxSampleLabels: 100}
	normal = profile.Limits{MaxStackDepth: 1000, MaxSymbolLength: 65_535}
)

// sent is a profile as a client sends it.
type sent struct {
	series labels.Labels
	body   []byte
}

func seriesOf(f corpus.File, pod int) labels.Labels {
	return labels.FromStrings("__name__", f.Kind(), "service_name", f.Service(), "__delta__", "false", "pod", fmt.Sprint(pod))
}

// hard is each file of the corpus once.
func hard() (all []sent) {
	for i, f := range corpus.All() {
		all = append(all, sent{seriesOf(f, i), f.Gzipped})
	}
	return all
}

// perturbed is n profiles made of the corpus: a quarter of the samples dropped, values scaled by 0.5 to 2, compressed
// as Go's runtime does. Each file takes its turn.
func perturbed(tb testing.TB, n int) (all []sent) {
	tb.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	d, base := pprof.NewDecoder(), new(profile.Profile)
	files := corpus.All()
	for i := range n {
		f := files[i*7%len(files)] // 7: neighbours are of different programs
		if err := d.Decode(f.Gzipped, limits, base); err != nil {
			tb.Fatal(err)
		}
		all = append(all, sent{seriesOf(f, i), zip(tb, pprof.Append(nil, perturb(rnd, base)))})
	}
	return all
}

func perturb(rnd *rand.Rand, base *profile.Profile) *profile.Profile {
	p := *base
	p.Values, p.Stacks, p.StackEnds, p.SampleLabels, p.LabelEnds = nil, nil, nil, nil, nil
	for i := range base.Samples() {
		if rnd.IntN(4) == 0 {
			continue
		}
		factor := 0.5 + 1.5*rnd.Float64()
		for _, v := range base.Row(i) {
			p.Values = append(p.Values, int64(float64(v)*factor))
		}
		p.Stacks = append(p.Stacks, base.Stack(i)...)
		p.StackEnds = append(p.StackEnds, uint32(len(p.Stacks)))
		p.SampleLabels = append(p.SampleLabels, base.LabelsOf(i)...)
		p.LabelEnds = append(p.LabelEnds, uint32(len(p.SampleLabels)))
	}
	return &p
}

// small is one small profile of each of n services: seven stacks of ten frames in a program that all share.
func small(tb testing.TB, n int) (all []sent) {
	tb.Helper()
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range n {
		p := new(profile.Profile)
		p.Reset()
		str := func(s string) uint32 {
			p.Strings = append(p.Strings, profile.Span{Off: uint32(len(p.Data)), Len: uint32(len(s))})
			p.Data = append(p.Data, s...)
			return uint32(len(p.Strings) - 1)
		}
		p.SampleTypes = []profile.ValueType{{Type: str("cpu"), Unit: str("nanoseconds")}}
		p.PeriodType, p.Period = p.SampleTypes[0], 10_000_000
		file := str("main.go")
		for range 70 {
			function := rnd.IntN(2000)
			p.Functions = append(p.Functions, profile.Function{Name: str(fmt.Sprintf("example.com/shop/module%d.function%d", function/50, function)), File: file})
			p.Lines = append(p.Lines, profile.Line{Function: uint32(len(p.Functions) - 1), Line: int64(function)})
			p.Locations = append(p.Locations, profile.Location{FirstLine: uint32(len(p.Lines) - 1), Lines: 1, Address: 0x400000 + 64*uint64(function)})
		}
		for stack := range 7 {
			for frame := range 10 {
				p.Stacks = append(p.Stacks, uint32(stack*10+frame))
			}
			p.StackEnds = append(p.StackEnds, uint32(len(p.Stacks)))
			p.Values = append(p.Values, 10_000_000*int64(1+rnd.IntN(20)))
			p.LabelEnds = append(p.LabelEnds, 0)
		}
		series := labels.FromStrings("__name__", "process_cpu", "service_name", fmt.Sprintf("service-%05d", i))
		all = append(all, sent{series, zip(tb, pprof.Append(nil, p))})
	}
	return all
}

func zip(tb testing.TB, raw []byte) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(raw); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// segments cuts profiles into lots of n; what is left over is not used.
func segments(all []sent, n int) (cut [][]sent) {
	for lot := range slices.Chunk(all, n) {
		if len(lot) == n {
			cut = append(cut, lot)
		}
	}
	return cut
}
