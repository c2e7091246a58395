package profile

import (
	"fmt"
	"math"
	"slices"
)

// Builder makes a profile of stacks of names, for formats that have no tables of their own. Names, functions and
// locations are interned, and samples with the same stack and labels are summed as they come, so that its memory grows
// with what is distinct. It keeps its memory from one profile to the next; not safe for concurrent use.
//
//	b.Reset()
//	b.AddSampleType("samples", "count")
//	frames := []uint32{b.Frame(leaf), b.Frame(root)}
//	err := b.Add(frames, nil, 12)
//	b.Fill(&p)
type Builder struct {
	table      *Table
	types      []ValueType
	periodType ValueType
	period     int64

	// A sample is a pair of numbers: of its stack, and of its labels, two numbers for each. The values of sample i
	// are values[i*w:(i+1)*w].
	stacks, labels, samples StackSet
	values                  []int64
	// frames and labelled count the frames and labels of all samples: a stack that samples share is written for each.
	frames, labelled int
	// flat is scratch of Add.
	flat []uint32
}

// NewBuilder returns an empty builder.
func NewBuilder() *Builder { return &Builder{table: NewTable()} }

// Reset forgets everything and keeps the memory.
func (b *Builder) Reset() {
	b.table.Reset()
	b.types, b.values = b.types[:0], b.values[:0]
	b.periodType, b.period = ValueType{}, 0
	b.frames, b.labelled = 0, 0
	for _, s := range []*StackSet{&b.stacks, &b.labels, &b.samples} {
		s.Reset()
	}
}

// AddSampleType adds a column of values. All columns come before the first sample.
func (b *Builder) AddSampleType(name, unit string) {
	b.types = append(b.types, ValueType{b.String([]byte(name)), b.String([]byte(unit))})
}

// SetPeriod says what a period is, and how long.
func (b *Builder) SetPeriod(name, unit string, period int64) {
	b.periodType, b.period = ValueType{b.String([]byte(name)), b.String([]byte(unit))}, period
}

// String returns the number of a string. The builder keeps a copy.
func (b *Builder) String(s []byte) uint32 { return b.table.AddString(s) }

// Function returns the number of a function, given the numbers of its name and its file.
func (b *Builder) Function(name, file uint32) uint32 {
	f := Function{Name: name, File: file}
	return b.table.addFunction(f, b.table.hashFunction(f))
}

// Location returns the number of a line in a function.
func (b *Builder) Location(function uint32, line int64) uint32 {
	t := b.table
	h := fold(mix(mix(t.locations.seed, uint64(function)), uint64(line)))
	n, slot := t.locations.seek(h, h)
	for ; n != 0; n, slot = t.locations.seek(h, slot+1) {
		if l := t.Lines[n-1]; l.Function == function && l.Line == line {
			return n - 1
		}
	}
	id := uint32(len(t.Locations))
	t.Locations = append(t.Locations, Location{FirstLine: id, Lines: 1}) // one line each, so their numbers agree
	t.Lines = append(t.Lines, Line{Function: function, Line: line})
	t.locations.put(slot, h, id)
	return id
}

// Frame returns the number of the location of a function that is known by its name alone.
func (b *Builder) Frame(name []byte) uint32 { return b.Location(b.Function(b.String(name), 0), 0) }

// Add adds a sample: the locations of its stack, leaf first, its labels, and a value for each sample type. The error
// wraps ErrOverflow. It keeps no reference to its arguments.
func (b *Builder) Add(stack []uint32, labels []SampleLabel, values ...int64) error {
	b.flat = b.flat[:0]
	for _, l := range labels {
		b.flat = append(b.flat, l.Key, l.Str)
	}
	pair := [2]uint32{b.stacks.Add(stack), b.labels.Add(b.flat)}
	i := int(b.samples.Add(pair[:]))
	if i*len(values) == len(b.values) {
		b.values = append(b.values, values...)
		b.frames, b.labelled = b.frames+len(stack), b.labelled+len(labels)
		return nil
	}
	row := b.values[i*len(values):][:len(values)]
	for j, v := range values {
		sum := row[j] + v
		if v > 0 && sum < row[j] || v < 0 && sum > row[j] {
			return fmt.Errorf("%w: %s: %d + %d", ErrOverflow, b.table.String(b.types[j].Type), row[j], v)
		}
		row[j] = sum
	}
	return nil
}

// Scale multiplies every value of the samples added so far. The error wraps ErrOverflow.
func (b *Builder) Scale(factor int64) error {
	for i, v := range b.values {
		if factor != 0 && (v > math.MaxInt64/factor || v < math.MinInt64/factor) {
			return fmt.Errorf("%w: %d * %d", ErrOverflow, v, factor)
		}
		b.values[i] = v * factor
	}
	return nil
}

// Samples returns the number of samples so far.
func (b *Builder) Samples() int { return b.samples.Len() }

// Size returns what Size of the profile would say now.
func (b *Builder) Size() int {
	return b.table.Symbols.size() + sampleSize*b.Samples() + itemSize*b.frames + valueSize*len(b.values) + labelSize*b.labelled
}

// Fill writes what has been built into p, which was Reset. The builder can go on.
func (b *Builder) Fill(p *Profile) {
	s := &b.table.Symbols
	p.Data = append(p.Data[:0], s.Data...)
	p.Strings = append(p.Strings[:0], s.Strings...)
	p.Mappings = append(p.Mappings[:0], s.Mappings...)
	p.Functions = append(p.Functions[:0], s.Functions...)
	p.Locations = append(p.Locations[:0], s.Locations...)
	p.Lines = append(p.Lines[:0], s.Lines...)
	p.SampleTypes = append(p.SampleTypes[:0], b.types...)
	p.PeriodType, p.Period = b.periodType, b.period
	p.Values = append(p.Values[:0], b.values...)
	p.StackEnds = slices.Grow(p.StackEnds, b.Samples())
	p.LabelEnds = slices.Grow(p.LabelEnds, b.Samples())
	for i := range uint32(b.Samples()) {
		pair := b.samples.Stack(i)
		p.Stacks = append(p.Stacks, b.stacks.Stack(pair[0])...)
		p.StackEnds = append(p.StackEnds, uint32(len(p.Stacks)))
		labels := b.labels.Stack(pair[1])
		for j := 0; j < len(labels); j += 2 {
			p.SampleLabels = append(p.SampleLabels, SampleLabel{Key: labels[j], Str: labels[j+1]})
		}
		p.LabelEnds = append(p.LabelEnds, uint32(len(p.SampleLabels)))
	}
}
