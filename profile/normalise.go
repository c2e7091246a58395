package profile

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/kilndb/kiln/labels"
)

// ErrOverflow is returned when the values of equal samples add up to more than an int64 holds.
var ErrOverflow = errors.New("sum of values overflows")

// Limits bound what Normalise leaves of a profile.
type Limits struct {
	// MaxStackDepth bounds the frames of a stack: one per line of a location, and one for a location without lines.
	MaxStackDepth int
	// MaxSymbolLength bounds every string, in bytes.
	MaxSymbolLength int
}

// Report counts what Normalise took away.
type Report struct {
	// NegativeSamples and ZeroSamples were dropped, MergedSamples were added to an equal one.
	NegativeSamples, ZeroSamples, MergedSamples int
	// DroppedLabels are numeric labels and labels without a value.
	DroppedLabels int
	// MalformedIDs are labels span_id, trace_id and profile_id that are not the hexadecimal digits of an id.
	MalformedIDs int
	// TruncatedStacks and TruncatedSymbols were longer than the limits.
	TruncatedStacks, TruncatedSymbols int
}

// Normalise prepares a decoded profile for storage, in place:
//
//   - samples with a negative value are dropped, and those whose values are all zero;
//   - span_id (profile_id in old clients) and trace_id become the columns Spans and Traces: as labels they would make a
//     series per request;
//   - of the other labels of samples only those with a text remain; of several values for one name the last remains;
//   - names of Go's functions lose their type arguments;
//   - stacks and names longer than the limits are cut, stacks at the leaf and names at the front: a flame graph
//     stays whole near its root, and the end of a name says more than its package;
//   - samples with equal stack, labels, span and trace become one, the sum of their values with the times of all;
//   - Series and Order say which samples belong to which label set, in order of arrival; a stack may occur in a series
//     more than once, for spans differ;
//   - strings that nothing refers to any more become "", so that a Table does not keep them.
//
// The errors wrap ErrOverflow; the profile is of no use after one.
func (p *Profile) Normalise(lim Limits) (Report, error) {
	var r Report
	n := &p.scratch
	n.begin(p)
	n.dropTypeArguments(p)
	p.truncateSymbols(lim.MaxSymbolLength, &r)
	if err := n.mergeSamples(p, lim.MaxStackDepth, &r); err != nil {
		return r, err
	}
	n.mergeTimes(p)
	n.groupSeries(p)
	n.dropStrings(p)
	return r, nil
}

// truncateSymbols keeps the tail of long strings, from the first whole rune on.
func (p *Profile) truncateSymbols(limit int, r *Report) {
	for i := range p.Strings {
		sp := &p.Strings[i]
		if int(sp.Len) <= limit {
			continue
		}
		r.TruncatedSymbols++
		cut := sp.Len - uint32(limit)
		b := p.Data[sp.Off : sp.Off+sp.Len]
		for cut < sp.Len && !utf8.RuneStart(b[cut]) {
			cut++
		}
		*sp = Span{sp.Off + cut, sp.Len - cut}
	}
}

// normaliser is the memory that Normalise uses again and again.
type normaliser struct {
	// samples finds the samples that remain by stack and series; seriesOf is the series of each.
	samples  index
	seriesOf []uint32
	// sets finds label sets by the numbers of their strings; setFirst is a sample that has the set, setSeries
	// the series that it is: different numbers can spell the same text.
	sets                index
	setFirst, setSeries []uint32
	// series are found by the hash of their labels, which stand in texts: those of series i end at textEnds[i].
	byHash   map[uint64]uint32
	texts    labels.Labels
	textEnds []int
	// strings are label names and values that were seen before, in this or another profile.
	strings map[string]string
	used    []bool
	// shortened is for some strings the number of the one that takes its place as a name; empty if there are none.
	shortened []uint32
	times     timesMerger
}

// A client's label values repeat from profile to profile. The bounds keep one that sends ever new ones
// from filling our memory.
const (
	maxStrings      = 4096
	maxStringLength = 256
)

func (n *normaliser) begin(p *Profile) {
	if n.strings == nil {
		n.strings = map[string]string{}
		n.byHash = map[uint64]uint32{}
	}
	if len(n.strings) > maxStrings {
		clear(n.strings)
	}
	clear(n.byHash)
	clear(n.texts)
	n.texts, n.textEnds = n.texts[:0], n.textEnds[:0]
	n.times.begin(p)
	n.samples.init()
	n.samples.reset()
	n.sets.init()
	n.sets.reset()
	n.seriesOf, n.setFirst, n.setSeries = n.seriesOf[:0], n.setFirst[:0], n.setSeries[:0]
	p.Series, p.Order = p.Series[:0], p.Order[:0]
}

func (n *normaliser) bytes() int {
	return n.samples.bytes() + n.sets.bytes() + 4*(cap(n.seriesOf)+cap(n.setFirst)+cap(n.setSeries)+cap(n.shortened)) + 8*cap(n.textEnds) +
		cap(n.used) + cap(n.texts)*int(unsafe.Sizeof(labels.Label{})) + n.times.bytes()
}

// mergeSamples moves the samples that remain to the front, one after the other. What it writes never
// passes what it still has to read.
func (n *normaliser) mergeSamples(p *Profile, depth int, r *Report) error {
	width, count, longest := len(p.SampleTypes), p.Samples(), p.longestLocation()
	stackStart, labelStart := uint32(0), uint32(0)
	values, stacks, ends, labelEnds, kept := p.Values[:0], p.Stacks[:0], p.StackEnds[:0], p.LabelEnds[:0], p.SampleLabels[:0]
	for i := range count {
		row := p.Values[i*width : (i+1)*width]
		stack, ls := p.Stacks[stackStart:p.StackEnds[i]], p.SampleLabels[labelStart:p.LabelEnds[i]]
		stackStart, labelStart = p.StackEnds[i], p.LabelEnds[i]
		if !worthKeeping(row, r) {
			n.times.drop()
			continue
		}
		if len(stack)*longest > depth {
			stack = p.truncateStack(stack, depth, r)
		}
		of := p.requestOf(i)
		ls = n.filterLabels(p, ls, &of, r)

		// Added at the end first, so that it can be compared with the others, and taken back if it is equal to one.
		at := len(ends)
		values, stacks, kept = append(values, row...), append(stacks, stack...), append(kept, ls...)
		ends, labelEnds = append(ends, uint32(len(stacks))), append(labelEnds, uint32(len(kept)))
		p.setRequest(at, count, of)
		series := n.seriesNumber(p, uint32(at))
		same, found := n.sampleNumber(p, uint32(at), series)
		n.times.became(same)
		if !found {
			n.seriesOf = append(n.seriesOf, series)
			continue
		}
		r.MergedSamples++
		if err := p.sum(int(same), values[at*width:]); err != nil {
			return err
		}
		values, ends, labelEnds = values[:at*width], ends[:at], labelEnds[:at]
		stacks, kept = stacks[:len(stacks)-len(stack)], kept[:len(kept)-len(ls)]
	}
	p.Values, p.Stacks, p.StackEnds, p.LabelEnds, p.SampleLabels = values, stacks, ends, labelEnds, kept
	p.cutRequests(len(ends))
	return nil
}

func worthKeeping(row []int64, r *Report) bool {
	var all int64
	for _, v := range row {
		if v < 0 {
			r.NegativeSamples++
			return false
		}
		all |= v
	}
	if all == 0 {
		r.ZeroSamples++
	}
	return all != 0
}

// sum adds a row of values to sample i.
func (p *Profile) sum(i int, row []int64) error {
	to := p.Row(i)
	for j, v := range row {
		if to[j] > math.MaxInt64-v {
			return fmt.Errorf("%w: sample %d, %s: %d + %d", ErrOverflow, i, p.String(p.SampleTypes[j].Type), to[j], v)
		}
		to[j] += v
	}
	return nil
}

// longestLocation returns the frames of the location that has most.
func (p *Profile) longestLocation() int {
	longest := uint32(1)
	for i := range p.Locations {
		longest = max(longest, p.Locations[i].Lines)
	}
	return int(longest)
}

// truncateStack drops locations at the leaf until the frames fit.
func (p *Profile) truncateStack(stack []uint32, depth int, r *Report) []uint32 {
	frames := 0
	for i := len(stack) - 1; i >= 0; i-- {
		frames += max(1, int(p.Locations[stack[i]].Lines))
		if frames > depth {
			r.TruncatedStacks++
			return stack[i+1:]
		}
	}
	return stack
}

// filterLabels moves the labels that make a series to the front of ls, sorted by the numbers of their strings. What
// they say about the request goes into of.
func (n *normaliser) filterLabels(p *Profile, ls []SampleLabel, of *request, r *Report) []SampleLabel {
	kept := ls[:0]
	for _, l := range ls {
		key, value := p.String(l.Key), p.String(l.Str)
		if len(value) == 0 || len(key) == 0 {
			r.DroppedLabels++
			continue
		}
		is, valid := of.read(key, value)
		switch {
		case !is:
			kept = append(kept, SampleLabel{Key: l.Key, Str: l.Str})
		case !valid:
			r.MalformedIDs++
		}
	}
	// Stable, and by key only: of several values the last must stay the last.
	if len(kept) > 1 {
		slices.SortStableFunc(kept, func(a, b SampleLabel) int { return int(a.Key) - int(b.Key) })
	}
	return kept
}

// seriesNumber returns the number of the series of a sample.
func (n *normaliser) seriesNumber(p *Profile, sample uint32) uint32 {
	ls := p.LabelsOf(int(sample))
	h := n.sets.seed
	for _, l := range ls {
		h = mix(h, uint64(l.Key)<<32|uint64(l.Str))
	}
	h32 := fold(h)
	num, slot := n.sets.seek(h32, h32)
	for ; num != 0; num, slot = n.sets.seek(h32, slot+1) {
		if slices.Equal(p.LabelsOf(int(n.setFirst[num-1])), ls) {
			return n.setSeries[num-1]
		}
	}
	series := n.seriesByText(p, ls)
	n.sets.put(slot, h32, uint32(len(n.setFirst)))
	n.setFirst = append(n.setFirst, sample)
	n.setSeries = append(n.setSeries, series)
	return series
}

// seriesByText returns the number of the series with the labels ls, a new one if there is none.
func (n *normaliser) seriesByText(p *Profile, ls []SampleLabel) uint32 {
	start := len(n.texts)
	for _, l := range ls {
		name, value := n.string(p.String(l.Key)), n.string(p.String(l.Str))
		i, found := slices.BinarySearchFunc(n.texts[start:], name, byName)
		if found {
			n.texts[start+i].Value = value
			continue
		}
		n.texts = slices.Insert(n.texts, start+i, labels.Label{Name: name, Value: value})
	}
	set := n.texts[start:]
	h := set.Hash()
	series, ok := n.byHash[h]
	for ok && labels.Compare(n.textsOf(series), set) != 0 {
		// Two sets of one hash: the second lives under the next.
		h++
		series, ok = n.byHash[h]
	}
	if ok {
		n.texts = n.texts[:start]
		return series
	}
	series = uint32(len(n.textEnds))
	n.byHash[h] = series
	n.textEnds = append(n.textEnds, len(n.texts))
	return series
}

func (n *normaliser) textsOf(series uint32) labels.Labels {
	start := 0
	if series > 0 {
		start = n.textEnds[series-1]
	}
	return n.texts[start:n.textEnds[series]]
}

func byName(l labels.Label, name string) int { return strings.Compare(l.Name, name) }

// string returns b as a string, the one made earlier if there is one.
func (n *normaliser) string(b []byte) string {
	if len(b) > maxStringLength {
		return string(b)
	}
	if s, ok := n.strings[string(b)]; ok {
		return s
	}
	s := string(b)
	n.strings[s] = s
	return s
}

// sampleNumber returns an earlier sample with the stack, series and request of this one, or takes this one in.
func (n *normaliser) sampleNumber(p *Profile, sample, series uint32) (same uint32, found bool) {
	stack, of := p.Stack(int(sample)), p.requestOf(int(sample))
	h := mix(n.samples.seed, uint64(series))
	if of != (request{}) {
		h = of.hash(h)
	}
	h32 := fold(hashStack(h, stack))
	num, slot := n.samples.seek(h32, h32)
	for ; num != 0; num, slot = n.samples.seek(h32, slot+1) {
		if n.seriesOf[num-1] == series && slices.Equal(p.Stack(int(num-1)), stack) && p.requestOf(int(num-1)) == of {
			return num - 1, true
		}
	}
	n.samples.put(slot, h32, sample)
	return sample, false
}

// groupSeries fills Series and Order.
func (n *normaliser) groupSeries(p *Profile) {
	// One array for the labels of all series, made anew: they outlive the profile.
	all := slices.Clone(n.texts)
	start := 0
	for _, end := range n.textEnds {
		p.Series = append(p.Series, SeriesRows{Labels: all[start:end:end]})
		start = end
	}
	for _, series := range n.seriesOf {
		p.Series[series].Count++
	}
	first := 0
	for i := range p.Series {
		p.Series[i].First = first
		first += p.Series[i].Count
		p.Series[i].Count = 0
	}
	p.Order = slices.Grow(p.Order, first)[:first]
	for i, series := range n.seriesOf {
		s := &p.Series[series]
		p.Order[s.First+s.Count] = uint32(i)
		s.Count++
	}
}

// dropStrings makes strings empty that nothing refers to.
func (n *normaliser) dropStrings(p *Profile) {
	n.used = slices.Grow(n.used[:0], len(p.Strings))[:len(p.Strings)]
	clear(n.used)
	for _, m := range p.Mappings {
		n.used[m.File], n.used[m.BuildID] = true, true
	}
	for _, f := range p.Functions {
		n.used[f.Name], n.used[f.SystemName], n.used[f.File] = true, true, true
	}
	for _, t := range p.SampleTypes {
		n.used[t.Type], n.used[t.Unit] = true, true
	}
	n.used[p.PeriodType.Type], n.used[p.PeriodType.Unit] = true, true
	for _, l := range p.SampleLabels {
		n.used[l.Key], n.used[l.Str] = true, true
	}
	for i, used := range n.used {
		if !used {
			p.Strings[i] = Span{}
		}
	}
}
