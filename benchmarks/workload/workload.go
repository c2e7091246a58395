// Package workload is what benchmarks send: real profiles, as clients compress them, and the yardstick that the cost of taking
// them is compared with.
//
// Perturbed copies of the corpus are what many programs send that run the same code; they flatter interning, as every such data set
// does. The corpus itself, each file once ("hard"), hardly repeats a stack. Everything here is deterministic.
package workload

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/klauspost/compress/gzip"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/pprof"
)

// Sent is a profile as a client sends it.
type Sent struct {
	Series labels.Labels
	Body   []byte // gzipped pprof
	Raw    int    // bytes once inflated
}

func seriesOf(f corpus.File, pod int) labels.Labels {
	return labels.FromStrings("__name__", f.Kind(), "service_name", f.Service(), "__delta__", "false", "pod", fmt.Sprint(pod))
}

// Hard is each file of the corpus once.
func Hard() (all []Sent) {
	for i, f := range corpus.All() {
		all = append(all, Sent{seriesOf(f, i), f.Gzipped, len(f.Raw())})
	}
	return all
}

// Perturbed is n profiles made of the corpus: a quarter of the samples dropped, values scaled by 0.5 to 2, compressed
// as Go's runtime does. Each file takes its turn.
func Perturbed(n int) (all []Sent) {
	rnd := rand.New(rand.NewPCG(1, 2))
	d, base := pprof.NewDecoder(), new(profile.Profile)
	files := corpus.All()
	for i := range n {
		f := files[i*7%len(files)] // 7: neighbours are of different programs
		if err := d.Decode(f.Gzipped, pprof.Limits{MaxBytes: 64 << 20, MaxRatio: 10_000}, base); err != nil {
			panic(err) // the corpus is ours
		}
		all = append(all, sent(seriesOf(f, i), perturb(rnd, base)))
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

// Small is one small profile of each of n services: seven stacks of ten frames in a program that all share.
func Small(n int) (all []Sent) {
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
		all = append(all, sent(labels.FromStrings("__name__", "process_cpu", "service_name", fmt.Sprintf("service-%05d", i)), p))
	}
	return all
}

func sent(series labels.Labels, p *profile.Profile) Sent {
	raw := pprof.Append(nil, p)
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is one
	}
	_, _ = w.Write(raw)
	_ = w.Close() // into memory: neither fails
	return Sent{series, b.Bytes(), len(raw)}
}

// Gunzipper is the yardstick: klauspost/compress with a reader and a buffer that are reused.
type Gunzipper struct {
	source bytes.Reader
	reader gzip.Reader
	raw    bytes.Buffer
}

// All inflates the profiles, one after the other.
func (g *Gunzipper) All(profiles []Sent) error {
	for _, p := range profiles {
		g.raw.Reset()
		g.source.Reset(p.Body)
		if err := g.reader.Reset(&g.source); err != nil {
			return err
		}
		if _, err := io.Copy(&g.raw, &g.reader); err != nil {
			return err
		}
	}
	return nil
}
