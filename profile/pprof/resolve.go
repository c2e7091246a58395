package pprof

import (
	"encoding/binary"
	"errors"
	"math"
	"unicode/utf8"

	"github.com/kilndb/kiln/profile"
)

// resolve checks the arrays that the pass over the input has filled and turns ids into indexes.
func (d *Decoder) resolve() error {
	if err := d.checkStrings(); err != nil {
		return err
	}
	if err := d.checkTypes(); err != nil {
		return err
	}
	if err := d.checkMappings(); err != nil {
		return err
	}
	if err := d.checkFunctions(); err != nil {
		return err
	}
	if err := d.checkLocations(); err != nil {
		return err
	}
	return d.checkSamples()
}

func (d *Decoder) checkStrings() error {
	p := d.p
	if len(p.Strings) == 0 {
		return malformed("string_table: there is none")
	}
	if n := p.Strings[0].Len; n != 0 {
		return malformed("string_table: string 0 must be empty and has %d bytes", n)
	}
	for i := range p.Strings {
		if b := p.String(uint32(i)); !ascii(b) && !utf8.Valid(b) {
			return malformed("string_table: string %d is not UTF-8: %.40q", i, b)
		}
	}
	d.strings = uint32(len(p.Strings))
	return nil
}

// ascii tells whether b is ASCII, eight bytes at a time: nearly all names are.
func ascii(b []byte) bool {
	var all uint64
	if len(b) < 8 {
		for _, c := range b {
			all |= uint64(c)
		}
		return all < 0x80
	}
	for i := 0; i+8 <= len(b); i += 8 {
		all |= binary.LittleEndian.Uint64(b[i:])
	}
	// The last eight once more, some of them for the second time.
	all |= binary.LittleEndian.Uint64(b[len(b)-8:])
	return all&0x8080808080808080 == 0
}

// outside says that a string is not in the table.
func (d *Decoder) outside(what string, i int, name string, s uint32) error {
	if s == math.MaxUint32 {
		return malformed("%s %d: %s: the string is negative or far outside of the string table of %d", what, i, name, d.strings)
	}
	return malformed("%s %d: %s: string %d is outside of the string table of %d", what, i, name, s, d.strings)
}

func (d *Decoder) checkTypes() error {
	if len(d.p.SampleTypes) == 0 {
		return malformed("sample_type: there is none")
	}
	check := func(what string, i int, t profile.ValueType) error {
		if t.Type >= d.strings {
			return d.outside(what, i, "type", t.Type)
		}
		if t.Unit >= d.strings {
			return d.outside(what, i, "unit", t.Unit)
		}
		return nil
	}
	for i, t := range d.p.SampleTypes {
		if err := check("sample_type", i, t); err != nil {
			return err
		}
	}
	return check("period_type", 0, d.p.PeriodType)
}

func (d *Decoder) checkMappings() error {
	if err := d.mappings.index(); err != nil {
		return inTable("mapping", err)
	}
	for i := range d.p.Mappings[1:] {
		m := &d.p.Mappings[i+1]
		if m.File >= d.strings {
			return d.outside("mapping", i, "filename", m.File)
		}
		if m.BuildID >= d.strings {
			return d.outside("mapping", i, "build_id", m.BuildID)
		}
	}
	return nil
}

func (d *Decoder) checkFunctions() error {
	if err := d.functions.index(); err != nil {
		return inTable("function", err)
	}
	for i := range d.p.Functions[1:] {
		f := &d.p.Functions[i+1]
		if f.Name >= d.strings {
			return d.outside("function", i, "name", f.Name)
		}
		if f.SystemName >= d.strings {
			return d.outside("function", i, "system_name", f.SystemName)
		}
		if f.File >= d.strings {
			return d.outside("function", i, "filename", f.File)
		}
	}
	return nil
}

func (d *Decoder) checkLocations() error {
	if err := d.locations.index(); err != nil {
		return inTable("location", err)
	}
	for i := range d.p.Locations {
		l := &d.p.Locations[i]
		if id := l.Mapping; id != 0 {
			if l.Mapping = d.mappings.resolve(id); l.Mapping == 0 {
				return malformed("location %d: mapping_id: there is no mapping %d", i, d.mappings.original(id))
			}
		}
	}
	for i := range d.p.Lines {
		id := d.p.Lines[i].Function
		if d.p.Lines[i].Function = d.functions.resolve(id); d.p.Lines[i].Function == 0 {
			return malformed("location line %d: function_id: there is no function %d", i, d.functions.original(id))
		}
	}
	return nil
}

func (d *Decoder) checkSamples() error {
	p := d.p
	width := len(p.SampleTypes)
	before := 0
	for i, end := range d.valueEnds {
		if int(end)-before != width {
			return malformed("sample %d: value: there are %d for %d sample types", i, int(end)-before, width)
		}
		before = int(end)
	}
	if d.locations.position == nil {
		// Dense: an id is its index + 1, and 0 becomes the largest number.
		limit, stacks := uint32(len(p.Locations)), p.Stacks
		for i, id := range stacks {
			if id-1 >= limit {
				return d.noLocation(i, id)
			}
			stacks[i] = id - 1
		}
	} else {
		for i, id := range p.Stacks {
			at := d.locations.resolve(id)
			if at == 0 {
				return d.noLocation(i, id)
			}
			p.Stacks[i] = at - 1
		}
	}
	for i := range p.SampleLabels {
		l := &p.SampleLabels[i]
		if l.Key >= d.strings {
			return d.outside("sample label", i, "key", l.Key)
		}
		if l.Str >= d.strings {
			return d.outside("sample label", i, "str", l.Str)
		}
		if l.Unit >= d.strings {
			return d.outside("sample label", i, "num_unit", l.Unit)
		}
	}
	return nil
}

// noLocation says which sample refers to a location that does not exist; at is a place in Profile.Stacks.
func (d *Decoder) noLocation(at int, id uint32) error {
	for i, end := range d.p.StackEnds {
		if at < int(end) {
			return malformed("sample %d: location_id: there is no location %d", i, d.locations.original(id))
		}
	}
	return malformed("location_id: there is no location %d", d.locations.original(id))
}

func inTable(table string, err error) error {
	if errors.Is(err, errWide) {
		return err
	}
	return malformed("%s: %w", table, err)
}
