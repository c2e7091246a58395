package block

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/kilndb/kiln/profile"
)

// The total order. Strings are ordered by their bytes; mappings and functions by their names, then their numbers;
// locations by the names of their inlined lines, root first, then files, address, line numbers and whatever else
// tells two apart. Siblings of a stack tree are ordered by location, those of a call tree by name, and nodes
// are numbered depth first. The order depends on contents alone: wherever two nodes are, one comes before the other,
// so that merging renumbers without reordering.

// bareNames interns the names of locations without lines, 0x and the address in hexadecimal, and returns the
// number of each location's name, 0 for those that have lines.
func bareNames(t *profile.Table, names []uint32) []uint32 {
	names = names[:0]
	var buf [18]byte
	for i := range t.Locations {
		if t.Locations[i].Lines > 0 {
			names = append(names, 0)
			continue
		}
		names = append(names, t.AddString(appendBareName(buf[:0], t.Locations[i].Address)))
	}
	return names
}

// sorter brings symbols and trees into the total order. It is reused.
type sorter struct {
	order []uint32
	bare  []uint32
	// Of the runs at hand: where they end, and a copy of the one that is merged with the next.
	ends []int
	left []uint32
	// Of the tree at hand: children[first[n]:first[n+1]] are those of node n.
	first    []uint32
	children []uint64
	cursor   []uint32
}

// symbols returns the names of t in the total order, in memory of their own, and which number each became. It
// adds the names of bare addresses to t; names says which string is the name of a location that has no lines, in
// the new numbers.
func (s *sorter) symbols(t *profile.Table, r *profile.Remap) (sorted profile.Symbols, bare []uint32) {
	s.bare = bareNames(t, s.bare)
	sorted.Strings = make([]profile.Span, len(t.Strings))
	sorted.Data = make([]byte, 0, len(t.Data))
	s.sort(len(t.Strings), 0, &r.Strings, func(a, b uint32) int { return bytes.Compare(t.String(a), t.String(b)) })
	for i, old := range s.order {
		sorted.Strings[i] = profile.Span{Off: uint32(len(sorted.Data)), Len: t.Strings[old].Len}
		sorted.Data = append(sorted.Data, t.String(old)...)
	}
	s.mappings(t, &sorted, r)
	s.functions(t, &sorted, r)
	return sorted, s.locations(t, &sorted, r)
}

// sort fills s.order with 0..n in the order of compare, the first fixed entries staying where they are, and rank
// with where each of them ends up.
func (s *sorter) sort(n, fixed int, rank *[]uint32, compare func(a, b uint32) int) {
	s.order = resize(s.order, n)
	for i := range s.order {
		s.order[i] = uint32(i)
	}
	s.sortRuns(s.order[fixed:], compare)
	*rank = resize(*rank, n)
	for i, old := range s.order {
		(*rank)[old] = uint32(i)
	}
}

// maxRuns is how many ascending runs are merged rather than sorted.
const maxRuns = 64

// sortRuns sorts what may be a few ascending runs behind each other, as the names that sorted sources add to a table
// are: then it merges neighbours, the shortest first, and compares each item a few times instead of log n times.
func (s *sorter) sortRuns(order []uint32, compare func(a, b uint32) int) {
	s.ends = s.ends[:0]
	for i := 1; i <= len(order); i++ {
		if i < len(order) && compare(order[i-1], order[i]) <= 0 {
			continue
		}
		if s.ends = append(s.ends, i); len(s.ends) > min(maxRuns, 1+len(order)/8) {
			slices.SortFunc(order, compare)
			return
		}
	}
	for len(s.ends) > 1 {
		best, shortest := 0, len(order)+1
		for i := range len(s.ends) - 1 {
			if n := s.ends[i+1] - s.begin(i); n < shortest {
				best, shortest = i, n
			}
		}
		from, middle, to := s.begin(best), s.ends[best], s.ends[best+1]
		s.merge(order[from:to], middle-from, compare)
		s.ends = slices.Delete(s.ends, best, best+1)
	}
}

// begin is where run i begins.
func (s *sorter) begin(i int) int {
	if i == 0 {
		return 0
	}
	return s.ends[i-1]
}

// merge merges the two runs order[:n] and order[n:].
func (s *sorter) merge(order []uint32, n int, compare func(a, b uint32) int) {
	s.left = append(s.left[:0], order[:n]...)
	left, right := s.left, order[n:]
	for i := range order {
		if len(left) == 0 {
			return // the rest is where it belongs
		}
		if len(right) > 0 && compare(right[0], left[0]) < 0 {
			order[i], right = right[0], right[1:]
		} else {
			order[i], left = left[0], left[1:]
		}
	}
}

func (s *sorter) mappings(t *profile.Table, sorted *profile.Symbols, r *profile.Remap) {
	all := make([]profile.Mapping, len(t.Mappings))
	for i, m := range t.Mappings {
		m.File, m.BuildID = r.Strings[m.File], r.Strings[m.BuildID]
		all[i] = m
	}
	s.sort(len(all), 1, &r.Mappings, func(a, b uint32) int { return compareMappings(&all[a], &all[b]) })
	sorted.Mappings = make([]profile.Mapping, len(all))
	for i, old := range s.order {
		sorted.Mappings[i] = all[old]
	}
}

func compareMappings(a, b *profile.Mapping) int {
	return cmp.Or(
		cmp.Compare(a.File, b.File), cmp.Compare(a.BuildID, b.BuildID),
		cmp.Compare(a.Start, b.Start), cmp.Compare(a.Limit, b.Limit), cmp.Compare(a.Offset, b.Offset),
		compareBools(a.HasFunctions, b.HasFunctions), compareBools(a.HasFilenames, b.HasFilenames),
		compareBools(a.HasLineNumbers, b.HasLineNumbers), compareBools(a.HasInlineFrames, b.HasInlineFrames),
	)
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func (s *sorter) functions(t *profile.Table, sorted *profile.Symbols, r *profile.Remap) {
	all := make([]profile.Function, len(t.Functions))
	for i, f := range t.Functions {
		all[i] = profile.Function{
			Name: r.Strings[f.Name], SystemName: r.Strings[f.SystemName], File: r.Strings[f.File], StartLine: f.StartLine,
		}
	}
	s.sort(len(all), 1, &r.Functions, func(a, b uint32) int { return compareFunctions(&all[a], &all[b]) })
	sorted.Functions = make([]profile.Function, len(all))
	for i, old := range s.order {
		sorted.Functions[i] = all[old]
	}
}

func compareFunctions(a, b *profile.Function) int {
	if a.Name != b.Name {
		return cmp.Compare(a.Name, b.Name)
	}
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.SystemName, b.SystemName), cmp.Compare(a.StartLine, b.StartLine))
}

// locations sorts locations and returns the names of those without lines, in the new numbers.
func (s *sorter) locations(t *profile.Table, sorted *profile.Symbols, r *profile.Remap) (bare []uint32) {
	// In new numbers, but still in the old order.
	old := profile.Symbols{Functions: sorted.Functions, Locations: make([]profile.Location, len(t.Locations)), Lines: make([]profile.Line, len(t.Lines))}
	for i, l := range t.Locations {
		l.Mapping = r.Mappings[l.Mapping]
		old.Locations[i] = l
	}
	for i, l := range t.Lines {
		l.Function = r.Functions[l.Function]
		old.Lines[i] = l
	}
	for i, n := range s.bare {
		s.bare[i] = r.Strings[n]
	}
	roots := make([]uint32, len(old.Locations)) // the first name decides most comparisons
	for i := range roots {
		roots[i] = s.bare[i]
		if lines := old.LinesOf(uint32(i)); len(lines) > 0 {
			roots[i] = old.Functions[lines[len(lines)-1].Function].Name
		}
	}
	s.sort(len(old.Locations), 0, &r.Locations, func(a, b uint32) int {
		if roots[a] != roots[b] {
			return cmp.Compare(roots[a], roots[b])
		}
		return compareLocations(old.Functions, &old.Locations[a], &old.Locations[b], old.LinesOf(a), old.LinesOf(b))
	})
	sorted.Locations = make([]profile.Location, len(old.Locations))
	sorted.Lines = make([]profile.Line, 0, len(old.Lines))
	bare = make([]uint32, len(old.Locations))
	for i, o := range s.order {
		l := old.Locations[o]
		l.FirstLine = uint32(len(sorted.Lines))
		sorted.Lines = append(sorted.Lines, old.LinesOf(o)...)
		sorted.Locations[i] = l
		bare[i] = s.bare[o]
	}
	return bare
}

// compareLocations compares two locations with these lines whose first name, seen from the root, is the same. Strings,
// mappings and functions are in order, so that their numbers can be compared.
func compareLocations(functions []profile.Function, a, b *profile.Location, x, y []profile.Line) int {
	if c := compareLines(x, y, func(l profile.Line) int64 { return int64(functions[l.Function].Name) }); c != 0 {
		return c
	}
	if c := compareLines(x, y, func(l profile.Line) int64 { return int64(functions[l.Function].File) }); c != 0 {
		return c
	}
	if a.Address != b.Address {
		return cmp.Compare(a.Address, b.Address)
	}
	return cmp.Or(
		compareLines(x, y, func(l profile.Line) int64 { return l.Line }),
		compareLines(x, y, func(l profile.Line) int64 { return l.Column }),
		compareLines(x, y, func(l profile.Line) int64 { return int64(l.Function) }),
		cmp.Compare(a.Mapping, b.Mapping),
		compareBools(a.Folded, b.Folded),
	)
}

// compareLines compares lines by one field, root first; a prefix comes first.
func compareLines(a, b []profile.Line, field func(profile.Line) int64) int {
	for i, j := len(a)-1, len(b)-1; i >= 0 && j >= 0; i, j = i-1, j-1 {
		if c := cmp.Compare(field(a[i]), field(b[j])); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

// tree returns t with siblings ordered by the rank of what they carry (its number if rank is nil) and nodes
// numbered depth first, carrying ranks; and which number each node became.
func (s *sorter) tree(t *profile.StackTree, rank []uint32) (sorted profile.StackTree, numbers []uint32) {
	n := len(t.Parents)
	s.adopt(t, rank)
	sorted = profile.StackTree{Parents: make([]uint32, n), Locations: make([]uint32, n)}
	numbers = make([]uint32, n)
	s.cursor = append(s.cursor[:0], s.first[:n]...)
	node := uint32(0)
	for next := uint32(1); next < uint32(n); {
		if s.cursor[node] == s.first[node+1] {
			node = t.Parents[node]
			continue
		}
		child := s.children[s.cursor[node]]
		s.cursor[node]++
		sorted.Parents[next], sorted.Locations[next] = numbers[node], uint32(child>>32)
		node = uint32(child)
		numbers[node] = next
		next++
	}
	return sorted, numbers
}

// adopt lists the children of every node, sorted.
func (s *sorter) adopt(t *profile.StackTree, rank []uint32) {
	n := len(t.Parents)
	s.first = resize(s.first, n+1)
	clear(s.first)
	for _, p := range t.Parents[1:] {
		s.first[p+1]++
	}
	for i := range n {
		s.first[i+1] += s.first[i]
	}
	s.children = resize(s.children, n-1)
	s.cursor = append(s.cursor[:0], s.first[:n]...)
	for i := 1; i < n; i++ {
		r := t.Locations[i]
		if rank != nil {
			r = rank[r]
		}
		p := t.Parents[i]
		s.children[s.cursor[p]] = uint64(r)<<32 | uint64(i)
		s.cursor[p]++
	}
	for i := range n {
		if siblings := s.children[s.first[i]:s.first[i+1]]; len(siblings) > 1 {
			slices.Sort(siblings)
		}
	}
}
