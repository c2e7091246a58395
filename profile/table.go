package profile

import (
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"unsafe"
)

// Table collects the symbols of many profiles: each distinct string, mapping, function and location gets
// one number, in order of arrival. The embedded Symbols are what has been collected so far, readable at any
// time between two calls.
//
// A Table is not safe for concurrent use. Its strings are copies, so sources may be reused. Offsets are 32
// bits wide: it panics when its strings pass 4 GiB; owners watch Bytes and stop long before.
type Table struct {
	Symbols

	seed                                    maphash.Seed
	strings, mappings, functions, locations index
	// hashes is scratch of Add.
	hashes []uint32
}

// Remap says which number of a table each number of a source became. Add overwrites it; reuse it.
type Remap struct {
	Strings, Mappings, Functions, Locations []uint32
}

// NewTable returns a table with nothing in it but the entries of index 0.
func NewTable() *Table {
	t := &Table{seed: maphash.MakeSeed()}
	for _, x := range []*index{&t.strings, &t.mappings, &t.functions, &t.locations} {
		x.init()
	}
	t.Reset()
	return t
}

// Reset empties the table and keeps its memory.
func (t *Table) Reset() {
	for _, x := range []*index{&t.strings, &t.mappings, &t.functions, &t.locations} {
		x.reset()
	}
	t.Symbols.reset()
	// The mapping and the function 0 are not in their indexes: a mapping whose fields are all zero is
	// still a mapping, "none" is not.
	h := t.hashString(nil)
	_, slot := t.strings.seek(h, h)
	t.strings.put(slot, h, 0)
}

// reset leaves nothing but the entries of index 0.
func (s *Symbols) reset() {
	s.Data = s.Data[:0]
	s.Strings = append(s.Strings[:0], Span{})
	s.Mappings = append(s.Mappings[:0], Mapping{})
	s.Functions = append(s.Functions[:0], Function{})
	s.Locations = s.Locations[:0]
	s.Lines = s.Lines[:0]
}

// Bytes returns the memory that the table holds on to, used or not.
func (t *Table) Bytes() int {
	return t.Symbols.Bytes() + t.strings.bytes() + t.mappings.bytes() + t.functions.bytes() + t.locations.bytes() + 4*cap(t.hashes)
}

// Bytes returns the memory that the tables hold on to, used or not.
func (s *Symbols) Bytes() int {
	return cap(s.Data) + cap(s.Strings)*int(unsafe.Sizeof(Span{})) + cap(s.Mappings)*int(unsafe.Sizeof(Mapping{})) +
		cap(s.Functions)*int(unsafe.Sizeof(Function{})) + cap(s.Locations)*int(unsafe.Sizeof(Location{})) +
		cap(s.Lines)*int(unsafe.Sizeof(Line{}))
}

// Add takes every name of src into the table and writes into r which numbers they have here. The
// references inside src must be valid; whoever decoded it has checked them.
func (t *Table) Add(src *Symbols, r *Remap) {
	t.hashes = t.hashes[:0]
	for i := range src.Strings {
		t.hashes = append(t.hashes, t.hashString(src.String(uint32(i))))
	}
	t.strings.warm(t.hashes)
	r.Strings = slices.Grow(r.Strings[:0], len(src.Strings))
	for i, h := range t.hashes {
		r.Strings = append(r.Strings, t.addString(src.String(uint32(i)), h))
	}

	r.Mappings = append(slices.Grow(r.Mappings[:0], len(src.Mappings)), 0)
	for _, m := range src.Mappings[1:] {
		m.File, m.BuildID = r.Strings[m.File], r.Strings[m.BuildID]
		r.Mappings = append(r.Mappings, t.addMapping(m))
	}

	t.hashes = t.hashes[:0]
	for i := range src.Functions[1:] {
		t.hashes = append(t.hashes, t.hashFunction(r.function(&src.Functions[i+1])))
	}
	t.functions.warm(t.hashes)
	r.Functions = append(slices.Grow(r.Functions[:0], len(src.Functions)), 0)
	for i, h := range t.hashes {
		r.Functions = append(r.Functions, t.addFunction(r.function(&src.Functions[i+1]), h))
	}

	t.hashes = t.hashes[:0]
	for i := range src.Locations {
		t.hashes = append(t.hashes, t.hashLocation(&src.Locations[i], src.LinesOf(uint32(i)), r))
	}
	t.locations.warm(t.hashes)
	r.Locations = slices.Grow(r.Locations[:0], len(src.Locations))
	for i, h := range t.hashes {
		r.Locations = append(r.Locations, t.addLocation(src.Locations[i], src.LinesOf(uint32(i)), r, h))
	}
}

// function returns f with the numbers of strings that the table has.
func (r *Remap) function(f *Function) Function {
	return Function{Name: r.Strings[f.Name], SystemName: r.Strings[f.SystemName], File: r.Strings[f.File], StartLine: f.StartLine}
}

// AddString takes one string into the table and returns its number.
func (t *Table) AddString(b []byte) uint32 { return t.addString(b, t.hashString(b)) }

func (t *Table) addString(b []byte, h uint32) uint32 {
	n, slot := t.strings.seek(h, h)
	for ; n != 0; n, slot = t.strings.seek(h, slot+1) {
		if string(t.String(n-1)) == string(b) {
			return n - 1
		}
	}
	if len(t.Data)+len(b) > math.MaxUint32 {
		panic(fmt.Sprintf("profile: strings of a table pass 4 GiB (%d strings)", len(t.Strings)))
	}
	id := uint32(len(t.Strings))
	t.Strings = append(t.Strings, Span{uint32(len(t.Data)), uint32(len(b))})
	t.Data = append(t.Data, b...)
	t.strings.put(slot, h, id)
	return id
}

func (t *Table) hashString(b []byte) uint32 { return fold(maphash.Bytes(t.seed, b)) }

func (t *Table) addMapping(m Mapping) uint32 {
	h := mix(mix(t.mappings.seed, m.Start), m.Limit)
	h = mix(mix(h, m.Offset), uint64(m.File)<<32|uint64(m.BuildID))
	h32 := fold(h)
	n, slot := t.mappings.seek(h32, h32)
	for ; n != 0; n, slot = t.mappings.seek(h32, slot+1) {
		if t.Mappings[n-1] == m {
			return n - 1
		}
	}
	id := uint32(len(t.Mappings))
	t.Mappings = append(t.Mappings, m)
	t.mappings.put(slot, h32, id)
	return id
}

func (t *Table) hashFunction(f Function) uint32 {
	h := mix(t.functions.seed, uint64(f.Name)<<32|uint64(f.File))
	return fold(mix(mix(h, uint64(f.StartLine)), uint64(f.SystemName)))
}

func (t *Table) addFunction(f Function, h uint32) uint32 {
	n, slot := t.functions.seek(h, h)
	for ; n != 0; n, slot = t.functions.seek(h, slot+1) {
		if t.Functions[n-1] == f {
			return n - 1
		}
	}
	id := uint32(len(t.Functions))
	t.Functions = append(t.Functions, f)
	t.functions.put(slot, h, id)
	return id
}

// hashLocation hashes a location of a source as the one that it becomes here.
func (t *Table) hashLocation(l *Location, lines []Line, r *Remap) uint32 {
	h := mix(mix(t.locations.seed, l.Address), uint64(r.Mappings[l.Mapping])<<32|uint64(l.Lines))
	for i := range lines {
		line := &lines[i]
		h = mix(mix(h, uint64(r.Functions[line.Function])), uint64(line.Line)^uint64(line.Column)<<32)
	}
	return fold(h)
}

func (t *Table) addLocation(l Location, lines []Line, r *Remap, h uint32) uint32 {
	l.Mapping = r.Mappings[l.Mapping]
	l.FirstLine = uint32(len(t.Lines))
	for _, line := range lines {
		line.Function = r.Functions[line.Function]
		t.Lines = append(t.Lines, line)
	}
	n, slot := t.locations.seek(h, h)
	for ; n != 0; n, slot = t.locations.seek(h, slot+1) {
		o := &t.Locations[n-1]
		if o.Address == l.Address && o.Mapping == l.Mapping && o.Folded == l.Folded &&
			slices.Equal(t.LinesOf(n-1), t.Lines[l.FirstLine:]) {
			t.Lines = t.Lines[:l.FirstLine]
			return n - 1
		}
	}
	id := uint32(len(t.Locations))
	t.Locations = append(t.Locations, l)
	t.locations.put(slot, h, id)
	return id
}
