package block

import (
	"slices"

	"github.com/kilndb/kiln/profile"
)

// subset takes the names of one service out of those that many share. It is reused.
type subset struct {
	strings, mappings, functions chosen
	sweep                        sweep
}

// chosen are the entries of one table that are used, and their numbers among these.
type chosen struct {
	numbers sparse
	entries []uint32
}

func (c *chosen) reset(n int) {
	c.numbers.reset(n)
	c.entries = c.entries[:0]
}

// add chooses an entry; it reports false if it was chosen before.
func (c *chosen) add(i uint32) bool {
	if _, ok := c.numbers.get(i); ok {
		return false
	}
	c.numbers.set(i, 0)
	c.entries = append(c.entries, i)
	return true
}

// number numbers the entries in the order they have in their table.
func (c *chosen) number(s *sweep, n int) {
	c.entries = s.sort(c.entries, n)
	for at, i := range c.entries {
		c.numbers.set(i, uint32(at))
	}
}

func (c *chosen) at(i uint32) uint32 {
	n, _ := c.numbers.get(i)
	return n
}

// of makes sub the part of a group's names that locations are made of; they are its Locations, in that order, and
// whatever they refer to stands in the order it has in s. With the names of locations without lines, which have to be among
// the strings of sorted groups, if that is asked for. Sub shares the bytes of strings with s, and nothing else.
func (x *subset) of(s *profile.Symbols, locations []uint32, bareNames bool, sub *profile.Symbols) error {
	x.choose(s, locations)
	if bareNames {
		finder := bareFinder{symbols: s}
		for _, l := range locations {
			if s.Locations[l].Lines > 0 {
				continue
			}
			name, err := finder.find(s.Locations[l].Address)
			if err != nil {
				return err
			}
			x.strings.add(name)
		}
	}
	x.strings.number(&x.sweep, len(s.Strings))
	x.mappings.number(&x.sweep, len(s.Mappings))
	x.functions.number(&x.sweep, len(s.Functions))
	x.build(s, locations, sub)
	return nil
}

// choose chooses all that locations refer to, and the entries 0.
func (x *subset) choose(s *profile.Symbols, locations []uint32) {
	x.strings.reset(len(s.Strings))
	x.mappings.reset(len(s.Mappings))
	x.functions.reset(len(s.Functions))
	for _, c := range []*chosen{&x.strings, &x.mappings, &x.functions} {
		c.add(0)
	}
	for _, l := range locations {
		if m := s.Locations[l].Mapping; x.mappings.add(m) {
			x.strings.add(s.Mappings[m].File)
			x.strings.add(s.Mappings[m].BuildID)
		}
		for _, line := range s.LinesOf(l) {
			if x.functions.add(line.Function) {
				f := &s.Functions[line.Function]
				x.strings.add(f.Name)
				x.strings.add(f.SystemName)
				x.strings.add(f.File)
			}
		}
	}
}

// build copies what was chosen.
func (x *subset) build(s *profile.Symbols, locations []uint32, sub *profile.Symbols) {
	sub.Data = s.Data
	sub.Strings = slices.Grow(sub.Strings[:0], len(x.strings.entries))
	for _, i := range x.strings.entries {
		sub.Strings = append(sub.Strings, s.Strings[i])
	}
	sub.Mappings = slices.Grow(sub.Mappings[:0], len(x.mappings.entries))
	for _, i := range x.mappings.entries {
		m := s.Mappings[i]
		m.File, m.BuildID = x.strings.at(m.File), x.strings.at(m.BuildID)
		sub.Mappings = append(sub.Mappings, m)
	}
	sub.Functions = slices.Grow(sub.Functions[:0], len(x.functions.entries))
	for _, i := range x.functions.entries {
		f := s.Functions[i]
		f.Name, f.SystemName, f.File = x.strings.at(f.Name), x.strings.at(f.SystemName), x.strings.at(f.File)
		sub.Functions = append(sub.Functions, f)
	}
	sub.Locations, sub.Lines = slices.Grow(sub.Locations[:0], len(locations)), sub.Lines[:0]
	for _, l := range locations {
		loc := s.Locations[l]
		loc.Mapping, loc.FirstLine = x.mappings.at(loc.Mapping), uint32(len(sub.Lines))
		for _, line := range s.LinesOf(l) {
			line.Function = x.functions.at(line.Function)
			sub.Lines = append(sub.Lines, line)
		}
		sub.Locations = append(sub.Locations, loc)
	}
}
