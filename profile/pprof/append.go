package pprof

import "github.com/kilndb/kiln/profile"

// Append appends p in wire form, not compressed, to dst: every table as it stands, in its order. Decode
// gives the same profile back, but for what pprof has no place for: times, and the columns Spans and Traces.
func Append(dst []byte, p *profile.Profile) []byte {
	for _, t := range p.SampleTypes {
		dst = appendValueType(dst, 1, t)
	}
	for i := range p.Samples() {
		dst = appendSample(dst, p, i)
	}
	for i, m := range p.Mappings[1:] {
		dst = appendMapping(dst, uint64(i)+1, m)
	}
	for i := range p.Locations {
		dst = appendLocation(dst, uint64(i)+1, &p.Locations[i], p.LinesOf(uint32(i)))
	}
	for i, f := range p.Functions[1:] {
		dst = appendFunction(dst, uint64(i)+1, f)
	}
	for i := range p.Strings {
		dst = appendBytes(dst, 6, p.String(uint32(i)))
	}
	dst = appendVarint(dst, 9, uint64(p.TimeNanos))
	dst = appendVarint(dst, 10, uint64(p.DurationNanos))
	dst = appendValueType(dst, 11, p.PeriodType)
	return appendVarint(dst, 12, uint64(p.Period))
}

func appendValueType(dst []byte, field int, t profile.ValueType) []byte {
	dst, mark := open(dst, field)
	dst = appendVarint(dst, 1, uint64(t.Type))
	dst = appendVarint(dst, 2, uint64(t.Unit))
	return shut(dst, mark)
}

func appendSample(dst []byte, p *profile.Profile, i int) []byte {
	dst, mark := open(dst, 2)
	dst, packed := open(dst, 1)
	for _, l := range p.Stack(i) {
		dst = appendUvarint(dst, uint64(l)+1)
	}
	dst = shut(dst, packed)
	dst = appendValues(dst, p.Row(i))
	for _, l := range p.LabelsOf(i) {
		var label int
		dst, label = open(dst, 3)
		dst = appendVarint(dst, 1, uint64(l.Key))
		dst = appendVarint(dst, 2, uint64(l.Str))
		dst = appendVarint(dst, 3, uint64(l.Num))
		dst = appendVarint(dst, 4, uint64(l.Unit))
		dst = shut(dst, label)
	}
	return shut(dst, mark)
}

// appendValues appends the values of a sample.
func appendValues(dst []byte, row []int64) []byte {
	dst, mark := open(dst, 2)
	for _, v := range row {
		dst = appendUvarint(dst, uint64(v))
	}
	return shut(dst, mark)
}

func appendMapping(dst []byte, id uint64, m profile.Mapping) []byte {
	dst, mark := open(dst, 3)
	dst = appendVarint(dst, 1, id)
	dst = appendVarint(dst, 2, m.Start)
	dst = appendVarint(dst, 3, m.Limit)
	dst = appendVarint(dst, 4, m.Offset)
	dst = appendVarint(dst, 5, uint64(m.File))
	dst = appendVarint(dst, 6, uint64(m.BuildID))
	dst = appendBool(dst, 7, m.HasFunctions)
	dst = appendBool(dst, 8, m.HasFilenames)
	dst = appendBool(dst, 9, m.HasLineNumbers)
	dst = appendBool(dst, 10, m.HasInlineFrames)
	return shut(dst, mark)
}

func appendLocation(dst []byte, id uint64, l *profile.Location, lines []profile.Line) []byte {
	dst, mark := open(dst, 4)
	dst = appendVarint(dst, 1, id)
	dst = appendVarint(dst, 2, uint64(l.Mapping))
	dst = appendVarint(dst, 3, l.Address)
	for _, line := range lines {
		var nested int
		dst, nested = open(dst, 4)
		dst = appendVarint(dst, 1, uint64(line.Function))
		dst = appendVarint(dst, 2, uint64(line.Line))
		dst = appendVarint(dst, 3, uint64(line.Column))
		dst = shut(dst, nested)
	}
	dst = appendBool(dst, 5, l.Folded)
	return shut(dst, mark)
}

func appendFunction(dst []byte, id uint64, f profile.Function) []byte {
	dst, mark := open(dst, 5)
	dst = appendVarint(dst, 1, id)
	dst = appendVarint(dst, 2, uint64(f.Name))
	dst = appendVarint(dst, 3, uint64(f.SystemName))
	dst = appendVarint(dst, 4, uint64(f.File))
	dst = appendVarint(dst, 5, uint64(f.StartLine))
	return shut(dst, mark)
}
