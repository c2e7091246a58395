package profile

// DropZeros drops the samples of a normalised profile whose values are all zero, as Normalise does, for whoever has
// changed values since. Series of which nothing is left go with them.
func (p *Profile) DropZeros() {
	numbers := cleared(p.scratch.seriesOf, p.Samples()) // what each sample becomes, plus one; 0: dropped
	p.scratch.seriesOf = numbers
	kept := 0
	for i := range numbers {
		for _, v := range p.Row(i) {
			if v != 0 {
				kept++
				numbers[i] = uint32(kept)
				break
			}
		}
	}
	if kept == len(numbers) {
		return
	}
	p.keepSamples(numbers)
	p.keepOrder(numbers)
}

// keepSamples moves the samples that have a number to the front. What it writes never passes what it still has to read.
func (p *Profile) keepSamples(numbers []uint32) {
	width := len(p.SampleTypes)
	values, stacks, ends, labelEnds, kept := p.Values[:0], p.Stacks[:0], p.StackEnds[:0], p.LabelEnds[:0], p.SampleLabels[:0]
	times, timeEnds := p.Times[:0], p.TimeEnds[:0]
	stackStart, labelStart, timeStart, at := uint32(0), uint32(0), uint32(0), 0
	for i, number := range numbers {
		stackEnd, labelEnd, timeEnd := p.StackEnds[i], p.LabelEnds[i], uint32(0)
		if len(p.TimeEnds) > 0 {
			timeEnd = p.TimeEnds[i]
		}
		if number > 0 {
			values = append(values, p.Values[i*width:(i+1)*width]...)
			stacks, kept, times = append(stacks, p.Stacks[stackStart:stackEnd]...), append(kept, p.SampleLabels[labelStart:labelEnd]...), append(times, p.Times[timeStart:timeEnd]...)
			ends, labelEnds = append(ends, uint32(len(stacks))), append(labelEnds, uint32(len(kept)))
			if len(p.TimeEnds) > 0 {
				timeEnds = append(timeEnds, uint32(len(times)))
			}
			if len(p.Spans) > 0 {
				p.Spans[at] = p.Spans[i]
			}
			if len(p.Traces) > 0 {
				p.Traces[at] = p.Traces[i]
			}
			at++
		}
		stackStart, labelStart, timeStart = stackEnd, labelEnd, timeEnd
	}
	p.Values, p.Stacks, p.StackEnds, p.LabelEnds, p.SampleLabels = values, stacks, ends, labelEnds, kept
	p.Times, p.TimeEnds = times, timeEnds
	p.cutRequests(at)
}

// keepOrder brings Series and Order up to date.
func (p *Profile) keepOrder(numbers []uint32) {
	order, series := p.Order[:0], p.Series[:0]
	for _, s := range p.Series {
		first := len(order)
		for _, sample := range p.Order[s.First : s.First+s.Count] {
			if numbers[sample] > 0 {
				order = append(order, numbers[sample]-1)
			}
		}
		if n := len(order) - first; n > 0 {
			series = append(series, SeriesRows{Labels: s.Labels, First: first, Count: n})
		}
	}
	clear(p.Series[len(series):])
	p.Order, p.Series = order, series
}
