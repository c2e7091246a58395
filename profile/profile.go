package profile

import (
	"unsafe"

	"github.com/kilndb/kiln/labels"
)

// ValueType names a column of values. Type and Unit are indexes into Symbols.Strings.
type ValueType struct {
	Type, Unit uint32
}

// SampleLabel is a label of one sample. Key, Str and Unit are indexes into Symbols.Strings. A numeric
// label has Str 0.
type SampleLabel struct {
	Key, Str, Unit uint32
	Num            int64
}

// Profile is one capture as decoded from the wire: flat arrays that a decoder fills again and again.
//
// Sample i has the stack Stacks[StackEnds[i-1]:StackEnds[i]] (indexes into Symbols.Locations, leaf first),
// the values Values[i*w:(i+1)*w] with w = len(SampleTypes), and the labels
// SampleLabels[LabelEnds[i-1]:LabelEnds[i]].
//
// A Profile is not safe for concurrent use. Its strings point into Symbols.Data, which lives as long as the
// Profile is not decoded into again.
type Profile struct {
	Symbols
	// Wire is how many bytes of Data, from the first, are the pprof that the profile was decoded from. It is 0 if the
	// profile does not follow from such bytes by Normalise alone: to send it, encode it. Whoever changes a profile, or adds
	// spans, traces or times to it, sets it to 0.
	Wire int

	SampleTypes []ValueType
	PeriodType  ValueType
	Period      int64
	// TimeNanos is when the capture began, Unix nanoseconds; 0 if the sender did not say.
	TimeNanos     int64
	DurationNanos int64

	StackEnds    []uint32
	Stacks       []uint32
	Values       []int64
	LabelEnds    []uint32
	SampleLabels []SampleLabel
	// Times are when a sample was seen, Unix nanoseconds: those of sample i are Times[TimeEnds[i-1]:TimeEnds[i]].
	// Both are empty if the profile does not say. Normalise sorts those of each sample.
	Times    []int64
	TimeEnds []uint32

	// Spans and Traces are filled by Normalise, if not before: of each sample the request that it was taken in. A column is
	// empty if no sample has such an id. A label of a sample wins over what is there before.
	Spans  []SpanID
	Traces []TraceID
	// Series is filled by Normalise: which samples belong to which series.
	Series []SeriesRows
	// Order is filled by Normalise: sample indexes, those of one series next to each other.
	Order []uint32

	// scratch belongs to Normalise.
	scratch normaliser
}

// SeriesRows are the samples of one series: Order[First:First+Count] of the Profile.
type SeriesRows struct {
	// Labels that the samples carried, sorted by name. Whoever adds them to the labels that the profile was
	// sent with lets the latter win where both have a name. They stay as they are when the Profile is
	// decoded into again.
	Labels       labels.Labels
	First, Count int
}

// Reset empties the profile, but for the entries of index 0, and keeps its memory.
func (p *Profile) Reset() {
	p.Symbols.reset()
	p.Wire = 0
	p.SampleTypes = p.SampleTypes[:0]
	p.PeriodType, p.Period, p.TimeNanos, p.DurationNanos = ValueType{}, 0, 0, 0
	p.StackEnds, p.Stacks, p.Values = p.StackEnds[:0], p.Stacks[:0], p.Values[:0]
	p.LabelEnds, p.SampleLabels = p.LabelEnds[:0], p.SampleLabels[:0]
	p.Times, p.TimeEnds = p.Times[:0], p.TimeEnds[:0]
	p.Spans, p.Traces = p.Spans[:0], p.Traces[:0]
	// The labels go, so that nobody's are kept alive.
	clear(p.Series)
	p.Series, p.Order = p.Series[:0], p.Order[:0]
}

// Bytes returns the memory that the profile holds on to, used or not.
func (p *Profile) Bytes() int {
	return p.Symbols.Bytes() + 4*(cap(p.StackEnds)+cap(p.Stacks)+cap(p.LabelEnds)+cap(p.TimeEnds)+cap(p.Order)) +
		8*(cap(p.Values)+cap(p.Times)+cap(p.Spans)) + 16*cap(p.Traces) + cap(p.SampleLabels)*int(unsafe.Sizeof(SampleLabel{})) + p.scratch.bytes()
}

// What the parts of a profile take in wire form, about: a tag, a length, and numbers that are mostly small.
const (
	stringSize, functionSize, locationSize, lineSize, mappingSize = 2, 10, 8, 8, 20
	sampleSize, itemSize, valueSize, labelSize, timeSize          = 6, 2, 3, 6, 9
)

// Size returns about how large the profile is in wire form, for profiles that did not come in it. It is cheap.
func (p *Profile) Size() int {
	return p.Symbols.size() + sampleSize*len(p.StackEnds) + itemSize*len(p.Stacks) + valueSize*len(p.Values) +
		labelSize*len(p.SampleLabels) + timeSize*len(p.Times)
}

func (s *Symbols) size() int {
	return len(s.Data) + stringSize*len(s.Strings) + functionSize*len(s.Functions) + locationSize*len(s.Locations) +
		lineSize*len(s.Lines) + mappingSize*len(s.Mappings)
}

// Samples returns the number of samples.
func (p *Profile) Samples() int { return len(p.StackEnds) }

// TimesOf returns when sample i was seen, nil if the profile does not say.
func (p *Profile) TimesOf(i int) []int64 {
	if len(p.TimeEnds) == 0 {
		return nil
	}
	start := uint32(0)
	if i > 0 {
		start = p.TimeEnds[i-1]
	}
	return p.Times[start:p.TimeEnds[i]]
}

// Stack returns the locations of sample i, leaf first.
func (p *Profile) Stack(i int) []uint32 {
	start := uint32(0)
	if i > 0 {
		start = p.StackEnds[i-1]
	}
	return p.Stacks[start:p.StackEnds[i]]
}

// Row returns the values of sample i, one per sample type.
func (p *Profile) Row(i int) []int64 {
	w := len(p.SampleTypes)
	return p.Values[i*w : (i+1)*w]
}

// LabelsOf returns the labels of sample i as they came.
func (p *Profile) LabelsOf(i int) []SampleLabel {
	start := uint32(0)
	if i > 0 {
		start = p.LabelEnds[i-1]
	}
	return p.SampleLabels[start:p.LabelEnds[i]]
}
