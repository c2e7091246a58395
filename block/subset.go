package block

import "github.com/kilndb/kiln/profile"

// subset takes the names of one service out of those that many share. It is reused.
type subset struct {
	names                        profile.Symbols
	strings, mappings, functions sparse
}

// of returns the part of a group's names that locations are made of; they are its Locations, in that order.
// The result lives until the next call and shares the bytes of strings with s.
func (x *subset) of(s *profile.Symbols, locations []uint32) *profile.Symbols {
	sub := &x.names
	sub.Data = s.Data
	sub.Strings = append(sub.Strings[:0], profile.Span{})
	sub.Mappings = append(sub.Mappings[:0], profile.Mapping{})
	sub.Functions = append(sub.Functions[:0], profile.Function{})
	sub.Locations, sub.Lines = sub.Locations[:0], sub.Lines[:0]
	x.strings.reset(len(s.Strings))
	x.mappings.reset(len(s.Mappings))
	x.functions.reset(len(s.Functions))
	for _, entries := range []*sparse{&x.strings, &x.mappings, &x.functions} {
		entries.set(0, 0)
	}
	for _, l := range locations {
		loc := s.Locations[l]
		loc.Mapping = x.mapping(s, loc.Mapping)
		lines := s.LinesOf(l)
		loc.FirstLine = uint32(len(sub.Lines))
		for _, line := range lines {
			line.Function = x.function(s, line.Function)
			sub.Lines = append(sub.Lines, line)
		}
		sub.Locations = append(sub.Locations, loc)
	}
	return sub
}

func (x *subset) text(s *profile.Symbols, i uint32) uint32 {
	n, ok := x.strings.get(i)
	if !ok {
		n = uint32(len(x.names.Strings))
		x.strings.set(i, n)
		x.names.Strings = append(x.names.Strings, s.Strings[i])
	}
	return n
}

func (x *subset) mapping(s *profile.Symbols, i uint32) uint32 {
	n, ok := x.mappings.get(i)
	if !ok {
		n = uint32(len(x.names.Mappings))
		x.mappings.set(i, n)
		m := s.Mappings[i]
		m.File, m.BuildID = x.text(s, m.File), x.text(s, m.BuildID)
		x.names.Mappings = append(x.names.Mappings, m)
	}
	return n
}

func (x *subset) function(s *profile.Symbols, i uint32) uint32 {
	n, ok := x.functions.get(i)
	if !ok {
		n = uint32(len(x.names.Functions))
		x.functions.set(i, n)
		f := s.Functions[i]
		f.Name, f.SystemName, f.File = x.text(s, f.Name), x.text(s, f.SystemName), x.text(s, f.File)
		x.names.Functions = append(x.names.Functions, f)
	}
	return n
}
