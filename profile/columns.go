package profile

import "slices"

// KeepColumns leaves some columns of a normalised profile, in the order of columns, under the names that they are given
// from now on. Samples of which nothing is left are dropped.
func (p *Profile) KeepColumns(columns []int, names []SampleType) {
	p.Wire = 0
	was, types := len(p.SampleTypes), make([]ValueType, len(columns))
	for i, c := range columns {
		types[i] = p.SampleTypes[c]
		if s := (SampleType{string(p.String(types[i].Type)), string(p.String(types[i].Unit))}); s != names[i] {
			types[i] = ValueType{p.addString(names[i].Type), p.addString(names[i].Unit)}
		}
	}
	values := make([]int64, 0, p.Samples()*len(columns))
	for i := range p.Samples() {
		for _, c := range columns {
			values = append(values, p.Values[i*was+c])
		}
	}
	p.SampleTypes, p.Values = types, values
	p.DropZeros()
}

// addString appends a string and returns its number.
func (s *Symbols) addString(text string) uint32 {
	if text == "" {
		return 0
	}
	s.Strings = append(s.Strings, Span{uint32(len(s.Data)), uint32(len(text))})
	s.Data = append(s.Data, text...)
	return uint32(len(s.Strings) - 1)
}

// Clone returns a copy that shares nothing with p but what never changes.
func (p *Profile) Clone() *Profile {
	c := *p
	c.scratch = normaliser{}
	c.Data, c.Strings, c.Mappings = slices.Clone(p.Data), slices.Clone(p.Strings), slices.Clone(p.Mappings)
	c.Functions, c.Locations, c.Lines = slices.Clone(p.Functions), slices.Clone(p.Locations), slices.Clone(p.Lines)
	c.SampleTypes, c.StackEnds, c.Stacks = slices.Clone(p.SampleTypes), slices.Clone(p.StackEnds), slices.Clone(p.Stacks)
	c.Values, c.LabelEnds, c.SampleLabels = slices.Clone(p.Values), slices.Clone(p.LabelEnds), slices.Clone(p.SampleLabels)
	c.Times, c.TimeEnds = slices.Clone(p.Times), slices.Clone(p.TimeEnds)
	c.Spans, c.Traces = slices.Clone(p.Spans), slices.Clone(p.Traces)
	c.Series, c.Order = slices.Clone(p.Series), slices.Clone(p.Order)
	return &c
}
