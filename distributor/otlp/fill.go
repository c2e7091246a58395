package otlp

import (
	"fmt"
	"math"
	"slices"
	"unsafe"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/tenant"
)

// filler fills profiles from requests. It keeps its memory from one to the next; not safe for concurrent use.
type filler struct {
	e   *export
	p   *profile.Profile
	lim tenant.Limits

	// Numbers in p of the entries of the request's tables. A stack is numbered by the sample that had it first, an
	// attribute by its place in texts.
	strings, mappings, functions, locations, stacks, attributes numbering
	texts                                                       []profile.SampleLabel
}

// begin makes p and the numbers of the last profile empty.
func (f *filler) begin(e *export, p *profile.Profile, lim tenant.Limits) {
	f.e, f.p, f.lim = e, p, lim
	f.strings.begin(e.nStrings)
	f.mappings.begin(e.nMappings)
	f.functions.begin(e.nFunctions)
	f.locations.begin(e.nLocations)
	f.stacks.begin(e.nStacks)
	f.attributes.begin(len(e.attributes))
	f.texts = f.texts[:0]
}

// end lets go of the request.
func (f *filler) end() { f.e, f.p = nil, nil }

// bytes returns the memory that the filler holds on to.
func (f *filler) bytes() int {
	n := cap(f.texts) * int(unsafe.Sizeof(profile.SampleLabel{}))
	for _, of := range []*numbering{&f.strings, &f.mappings, &f.functions, &f.locations, &f.stacks, &f.attributes} {
		n += cap(of.marks) * int(unsafe.Sizeof(mark{}))
	}
	return n
}

// fill fills p, which was Reset, with a part of a profile.
func (f *filler) fill(e *export, from otlpProfile, h header, k kind, of part, lim tenant.Limits, p *profile.Profile) error {
	f.begin(e, p, lim)
	defer f.end()
	p.SampleTypes = append(p.SampleTypes, profile.ValueType{})
	for _, s := range []struct {
		number *uint32
		text   string
	}{
		{&p.SampleTypes[0].Type, k.sample.Type}, {&p.SampleTypes[0].Unit, k.sample.Unit},
		{&p.PeriodType.Type, k.period.Type}, {&p.PeriodType.Unit, k.period.Unit},
	} {
		var err error
		if *s.number, err = f.text(s.text); err != nil {
			return err
		}
	}
	if err := f.samples(from, of, k.factor); err != nil {
		return err
	}
	p.Period, p.DurationNanos, p.TimeNanos = h.every, h.duration, h.time
	if p.TimeNanos == 0 && len(p.Times) > 0 {
		p.TimeNanos = slices.Min(p.Times)
	}
	return nil
}

// samples fills in the samples of a part. Each value is multiplied by factor.
func (f *filler) samples(p otlpProfile, of part, factor int64) error {
	all := p.Samples()
	count := all.Len()
	if of.samples != nil {
		count = len(of.samples)
	}
	if count > f.lim.MaxSamples {
		return &pprof.LimitError{What: "samples", Limit: f.lim.MaxSamples}
	}
	if f.e.nLinks > 1 {
		f.p.Spans = slices.Grow(f.p.Spans, count)
		f.p.Traces = slices.Grow(f.p.Traces, count)
	}
	for i := range count {
		number := i
		if of.samples != nil {
			number = int(of.samples[i])
		}
		if err := f.sample(all.At(number), factor); err != nil {
			return fmt.Errorf("sample %d: %w", number, err)
		}
	}
	f.dropEmpty()
	return nil
}

// dropEmpty leaves no column that says nothing.
func (f *filler) dropEmpty() {
	p := f.p
	if len(p.Times) == 0 {
		p.TimeEnds = p.TimeEnds[:0]
	}
	if !slices.ContainsFunc(p.Spans, func(id profile.SpanID) bool { return id != profile.SpanID{} }) {
		p.Spans = p.Spans[:0]
	}
	if !slices.ContainsFunc(p.Traces, func(id profile.TraceID) bool { return id != profile.TraceID{} }) {
		p.Traces = p.Traces[:0]
	}
}

func (f *filler) sample(s pprofile.Sample, factor int64) error {
	p, times := f.p, s.TimestampsUnixNano()
	value, err := weigh(s.Values(), times.Len(), factor)
	if err != nil {
		return err
	}
	if err := f.stack(s.StackIndex()); err != nil {
		return err
	}
	for i := range times.Len() {
		t := times.At(i)
		if t > math.MaxInt64 {
			return malformed("timestamp %d exceeds 63 bits", t)
		}
		p.Times = append(p.Times, int64(t))
	}
	if err := f.labels(s.AttributeIndices()); err != nil {
		return err
	}
	if err := f.link(s.LinkIndex()); err != nil {
		return err
	}
	p.Values = append(p.Values, value)
	p.StackEnds = append(p.StackEnds, uint32(len(p.Stacks)))
	p.LabelEnds = append(p.LabelEnds, uint32(len(p.SampleLabels)))
	p.TimeEnds = append(p.TimeEnds, uint32(len(p.Times)))
	return nil
}

// weigh returns the value of a sample.
func weigh(values pcommon.Int64Slice, moments int, factor int64) (int64, error) {
	n := values.Len()
	if n == 0 {
		return multiply(int64(moments), factor)
	}
	sum := values.At(0)
	for i := 1; i < n; i++ {
		v := values.At(i)
		if v > 0 && sum > math.MaxInt64-v || v < 0 && sum < math.MinInt64-v {
			return 0, malformed("the sum of its %d values overflows", n)
		}
		sum += v
	}
	return multiply(sum, factor)
}

// stack appends the locations of a stack.
func (f *filler) stack(i int32) error {
	if err := inTable("stack", i, f.e.nStacks); err != nil || f.e.nStacks == 0 {
		return err
	}
	p := f.p
	if first, ok := f.stacks.get(i); ok {
		known := p.Stack(int(first))
		if err := f.room(len(known)); err != nil {
			return err
		}
		p.Stacks = append(p.Stacks, known...)
		return nil
	}
	locations := f.e.stacks.At(int(i)).LocationIndices()
	if err := f.room(locations.Len()); err != nil {
		return err
	}
	for j := range locations.Len() {
		number, ok, err := f.location(locations.At(j))
		if err != nil {
			return fmt.Errorf("stack %d: %w", i, err)
		}
		if ok {
			p.Stacks = append(p.Stacks, number)
		}
	}
	f.stacks.set(i, uint32(len(p.StackEnds)))
	return nil
}

// room refuses a stack with which the profile would be too large: short messages can name long stacks often.
func (f *filler) room(locations int) error {
	if f.p.Size()+2*locations > f.lim.MaxProfileBytes { // two bytes: what Size says of a location
		return &pprof.LimitError{What: "bytes", Limit: f.lim.MaxProfileBytes}
	}
	return nil
}

// location returns the number of a location; false if it stands for nothing.
func (f *filler) location(i int32) (uint32, bool, error) {
	if number, ok := f.locations.get(i); ok {
		return number, true, nil
	}
	if err := inTable("location", i, f.e.nLocations); err != nil || f.e.nLocations == 0 {
		return 0, false, err
	}
	from, p := f.e.locations.At(int(i)), f.p
	lines := from.Lines()
	if i == 0 && lines.Len() == 0 && from.Address() == 0 {
		return 0, false, nil
	}
	l := profile.Location{Address: from.Address(), FirstLine: uint32(len(p.Lines))}
	var err error
	if l.Mapping, err = f.mapping(from.MappingIndex()); err != nil {
		return 0, false, fmt.Errorf("location %d: %w", i, err)
	}
	for j := range lines.Len() {
		line := lines.At(j)
		function, err := f.function(line.FunctionIndex())
		if err != nil {
			return 0, false, fmt.Errorf("location %d: %w", i, err)
		}
		if function != 0 { // a line of nowhere says nothing
			p.Lines = append(p.Lines, profile.Line{Function: function, Line: line.Line(), Column: line.Column()})
		}
	}
	l.Lines = uint32(len(p.Lines)) - l.FirstLine
	if l.Lines > 0 && l.Mapping != 0 {
		p.Mappings[l.Mapping].HasFunctions = true
	}
	number := uint32(len(p.Locations))
	p.Locations = append(p.Locations, l)
	f.locations.set(i, number)
	return number, true, nil
}

// function returns the number of a function. One that has no name but a system name is called by that.
func (f *filler) function(i int32) (uint32, error) {
	if number, ok := f.functions.get(i); ok {
		return number, nil
	}
	if err := inTable("function", i, f.e.nFunctions); err != nil || f.e.nFunctions == 0 {
		return 0, err
	}
	from := f.e.functions.At(int(i))
	to := profile.Function{StartLine: from.StartLine()}
	for _, s := range []struct {
		number *uint32
		index  int32
	}{{&to.Name, from.NameStrindex()}, {&to.SystemName, from.SystemNameStrindex()}, {&to.File, from.FilenameStrindex()}} {
		var err error
		if *s.number, err = f.string(s.index); err != nil {
			return 0, fmt.Errorf("function %d: %w", i, err)
		}
	}
	if to.Name == 0 {
		to.Name = to.SystemName
	}
	number := uint32(0)
	if i != 0 || to != (profile.Function{}) {
		number = uint32(len(f.p.Functions))
		f.p.Functions = append(f.p.Functions, to)
	}
	f.functions.set(i, number)
	return number, nil
}

// mapping returns the number of a mapping.
func (f *filler) mapping(i int32) (uint32, error) {
	if number, ok := f.mappings.get(i); ok {
		return number, nil
	}
	if err := inTable("mapping", i, f.e.nMappings); err != nil || f.e.nMappings == 0 {
		return 0, err
	}
	from := f.e.mappings.At(int(i))
	to := profile.Mapping{Start: from.MemoryStart(), Limit: from.MemoryLimit(), Offset: from.FileOffset()}
	var err error
	if to.File, err = f.string(from.FilenameStrindex()); err != nil {
		return 0, fmt.Errorf("mapping %d: %w", i, err)
	}
	for _, a := range from.AttributeIndices().All() {
		known, err := f.attribute(a)
		if err != nil {
			return 0, fmt.Errorf("mapping %d: %w", i, err)
		}
		if known.key == buildIDAttribute && to.BuildID == 0 {
			if to.BuildID, err = f.text(known.text); err != nil {
				return 0, err
			}
		}
	}
	number := uint32(0)
	if i != 0 || to != (profile.Mapping{}) {
		number = uint32(len(f.p.Mappings))
		f.p.Mappings = append(f.p.Mappings, to)
	}
	f.mappings.set(i, number)
	return number, nil
}

// attribute returns an attribute of the request; one without a key stands for nothing.
func (f *filler) attribute(i int32) (attribute, error) {
	if err := inTable("attribute", i, len(f.e.attributes)); err != nil || len(f.e.attributes) == 0 {
		return attribute{}, err
	}
	a := f.e.attributes[i]
	return a, a.err
}

// labels appends the attributes of a sample that have a text, but for its service.
func (f *filler) labels(indices pcommon.Int32Slice) error {
	if n := indices.Len(); n > f.lim.MaxSampleLabels {
		return &pprof.LimitError{What: "labels of a sample", Limit: f.lim.MaxSampleLabels}
	}
	for j := range indices.Len() {
		i := indices.At(j)
		place, ok := f.attributes.get(i)
		if !ok {
			a, err := f.attribute(i)
			if err != nil {
				return err
			}
			var l profile.SampleLabel // without a text: nothing
			if a.text != "" && a.key != "" && a.key != serviceAttribute {
				if l.Key, err = f.text(a.key); err != nil {
					return err
				}
				if l.Str, err = f.text(a.text); err != nil {
					return err
				}
			}
			if len(f.e.attributes) == 0 {
				continue
			}
			place = uint32(len(f.texts))
			f.texts = append(f.texts, l)
			f.attributes.set(i, place)
		}
		if l := f.texts[place]; l.Str != 0 {
			f.p.SampleLabels = append(f.p.SampleLabels, l)
		}
	}
	return nil
}

// link appends the span and the trace of a sample.
func (f *filler) link(i int32) error {
	if err := inTable("link", i, f.e.nLinks); err != nil || f.e.nLinks <= 1 {
		return err // a table of one has only the link that stands for none
	}
	l := f.e.links.At(int(i))
	f.p.Spans = append(f.p.Spans, profile.SpanID(l.SpanID()))
	f.p.Traces = append(f.p.Traces, profile.TraceID(l.TraceID()))
	return nil
}

// string returns the number of a string of the string table.
func (f *filler) string(i int32) (uint32, error) {
	if number, ok := f.strings.get(i); ok {
		return number, nil
	}
	s, err := f.e.string(i)
	if err != nil {
		return 0, err
	}
	number, err := f.text(s)
	if err == nil && f.e.nStrings > 0 {
		f.strings.set(i, number)
	}
	return number, err
}

// text adds a string.
func (f *filler) text(s string) (uint32, error) {
	p := f.p
	if s == "" {
		return 0, nil
	}
	if len(p.Data)+len(s) > f.lim.MaxProfileBytes {
		return 0, &pprof.LimitError{What: "bytes", Limit: f.lim.MaxProfileBytes}
	}
	p.Strings = append(p.Strings, profile.Span{Off: uint32(len(p.Data)), Len: uint32(len(s))})
	p.Data = append(p.Data, s...)
	return uint32(len(p.Strings) - 1), nil
}

// numbering says which number the entries of a table have in the profile that is being filled. Its memory is used
// again without being cleared: an entry counts in one generation only.
type numbering struct {
	generation uint32
	marks      []mark
}

type mark struct{ generation, number uint32 }

func (n *numbering) begin(entries int) {
	n.generation++
	if entries > cap(n.marks) || n.generation == 0 {
		n.marks, n.generation = make([]mark, entries), 1
	}
	n.marks = n.marks[:entries]
}

// get returns the number of an entry. There is none for an index outside of the table.
func (n *numbering) get(i int32) (uint32, bool) {
	if uint(i) >= uint(len(n.marks)) {
		return 0, false
	}
	m := n.marks[i]
	return m.number, m.generation == n.generation
}

func (n *numbering) set(i int32, number uint32) { n.marks[i] = mark{n.generation, number} }
