package pprof

import "github.com/kilndb/kiln/profile"

// Stacks are sums over a stack tree: what a query for a whole profile adds up to.
type Stacks struct {
	Symbols *profile.Symbols
	Tree    *profile.StackTree
	// Values holds one column per sample type; a column has the value of each node of the tree.
	Values        [][]int64
	SampleTypes   []profile.SampleType
	PeriodType    profile.SampleType
	Period        int64
	TimeNanos     int64
	DurationNanos int64
}

// AppendStacks appends s in wire form, not compressed, to dst: one sample per node that has a value, in the
// order of the tree, and only the locations, mappings, functions and strings that those need. Equal
// Stacks give equal bytes. A value of the root becomes a sample without locations.
func AppendStacks(dst []byte, s *Stacks) []byte {
	w := stacksWriter{Stacks: s}
	w.number()
	for _, t := range s.SampleTypes {
		dst = appendValueType(dst, 1, w.valueType(t))
	}
	dst = w.appendSamples(dst)
	for i, n := range w.mappings {
		if n != 0 {
			m := s.Symbols.Mappings[i]
			m.File, m.BuildID = w.string(m.File), w.string(m.BuildID)
			dst = appendMapping(dst, uint64(n), m)
		}
	}
	dst = w.appendLocations(dst)
	for i, n := range w.functions {
		if n != 0 {
			f := s.Symbols.Functions[i]
			f.Name, f.SystemName, f.File = w.string(f.Name), w.string(f.SystemName), w.string(f.File)
			dst = appendFunction(dst, uint64(n), f)
		}
	}
	// The type of the period takes its strings before the table is written.
	period := w.valueType(s.PeriodType)
	for _, b := range w.table {
		dst = appendBytes(dst, 6, b)
	}
	dst = appendVarint(dst, 9, uint64(s.TimeNanos))
	dst = appendVarint(dst, 10, uint64(s.DurationNanos))
	dst = appendValueType(dst, 11, period)
	return appendVarint(dst, 12, uint64(s.Period))
}

// stacksWriter knows which names are live and what their ids are in the output.
type stacksWriter struct {
	*Stacks
	// Ids by index; 0 is not live. Ids ascend with the index.
	locations, mappings, functions []uint32
	// strings holds the number in table of each string of the symbols, 0 if it has none yet; byText finds
	// those of the sample types, which may be among them.
	strings []uint32
	table   [][]byte
	byText  map[string]uint32
}

// number finds the names that live nodes need and gives them ids.
func (w *stacksWriter) number() {
	sym, tree := w.Symbols, w.Tree
	w.locations = make([]uint32, len(sym.Locations))
	w.mappings = make([]uint32, len(sym.Mappings))
	w.functions = make([]uint32, len(sym.Functions))
	w.strings = make([]uint32, len(sym.Strings))
	w.table, w.byText = [][]byte{nil}, map[string]uint32{"": 0}

	live := make([]bool, len(tree.Parents))
	for n := len(tree.Parents) - 1; n > 0; n-- {
		if live[n] = live[n] || w.hasValue(n); live[n] {
			live[tree.Parents[n]] = true
			w.locations[tree.Locations[n]] = 1
		}
	}
	for i, mark := range w.locations {
		if mark == 0 {
			continue
		}
		w.mappings[sym.Locations[i].Mapping] = 1
		for _, l := range sym.LinesOf(uint32(i)) {
			w.functions[l.Function] = 1
		}
	}
	// Index 0 is "none", which has no entry.
	w.mappings[0], w.functions[0] = 0, 0
	for _, marks := range [][]uint32{w.locations, w.mappings, w.functions} {
		next := uint32(0)
		for i, mark := range marks {
			if mark != 0 {
				next++
				marks[i] = next
			}
		}
	}
}

func (w *stacksWriter) hasValue(node int) bool {
	for _, column := range w.Values {
		if column[node] != 0 {
			return true
		}
	}
	return false
}

func (w *stacksWriter) appendSamples(dst []byte) []byte {
	row := make([]int64, len(w.Values))
	for n := range w.Tree.Parents {
		if !w.hasValue(n) {
			continue
		}
		for i, column := range w.Values {
			row[i] = column[n]
		}
		var mark, packed int
		dst, mark = open(dst, 2)
		dst, packed = open(dst, 1)
		for at := uint32(n); at != 0; at = w.Tree.Parents[at] {
			dst = appendUvarint(dst, uint64(w.locations[w.Tree.Locations[at]]))
		}
		dst = shut(dst, packed)
		dst = shut(appendValues(dst, row), mark)
	}
	return dst
}

func (w *stacksWriter) appendLocations(dst []byte) []byte {
	var lines []profile.Line
	for i, id := range w.locations {
		if id == 0 {
			continue
		}
		l := w.Symbols.Locations[i]
		l.Mapping = w.mappings[l.Mapping]
		lines = lines[:0]
		for _, line := range w.Symbols.LinesOf(uint32(i)) {
			// A line of no function says nothing, and readers refuse it.
			if line.Function = w.functions[line.Function]; line.Function != 0 {
				lines = append(lines, line)
			}
		}
		dst = appendLocation(dst, uint64(id), &l, lines)
	}
	return dst
}

// string returns the number that string i of the symbols has in the output.
func (w *stacksWriter) string(i uint32) uint32 {
	if w.strings[i] == 0 && i != 0 {
		w.strings[i] = w.text(w.Symbols.String(i))
	}
	return w.strings[i]
}

func (w *stacksWriter) text(b []byte) uint32 {
	n, ok := w.byText[string(b)]
	if !ok {
		n = uint32(len(w.table))
		w.table = append(w.table, b)
		w.byText[string(b)] = n
	}
	return n
}

func (w *stacksWriter) valueType(t profile.SampleType) profile.ValueType {
	return profile.ValueType{Type: w.text([]byte(t.Type)), Unit: w.text([]byte(t.Unit))}
}
