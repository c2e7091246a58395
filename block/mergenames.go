package block

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sort"
	"strconv"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/symbols"
	"github.com/kilndb/kiln/profile"
)

// nameSource is the names that one dataset uses, and what they become. It is reused.
type nameSource struct {
	group *group
	// section holds the names if all of the group's are used.
	section []byte
	symbols *profile.Symbols
	// used are the locations of the group that symbols has, ascending, if partial; all if not.
	used    []uint32
	partial bool
	// remap.Locations are the new numbers of the locations of symbols.
	remap profile.Remap
	// twin is an earlier source with the very same names, which then are not decoded; nil if there is none.
	twin *nameSource

	part profile.Symbols // memory for symbols
}

// release drops what a source refers to and keeps its own memory.
func (n *nameSource) release() {
	n.part.Data = nil
	n.group, n.section, n.symbols, n.twin = nil, nil, nil, nil
}

// bytes is about the memory that is kept.
func (n *nameSource) bytes() int {
	r := &n.remap
	return n.part.Bytes() + 4*(cap(r.Strings)+cap(r.Mappings)+cap(r.Functions)) + int(n.kept())
}

// kept is the memory for which locations there are and where they went.
func (n *nameSource) kept() int64 { return 4 * int64(cap(n.used)+cap(n.remap.Locations)) }

// wrap names the object and its SYMBOLS section in an error.
func (n *nameSource) wrap(err error) error {
	if n.group != nil {
		n.group.guard(n.group.only(storagev1.SectionType_SECTION_TYPE_SYMBOLS), &err)
	}
	return err
}

// uniteNames unites the names that the datasets of a unit use, and tells their groups which number each location got: with
// a cursor per source if all of them are sorted and fit into memory together, by hashing and sorting otherwise, for which
// only the names of one source are held at a time. What comes out is the same.
func (m *merger) uniteNames(ctx context.Context, u *unit) error {
	datasets := u.service.datasets
	for len(m.names) < len(datasets) {
		m.names = append(m.names, &nameSource{})
	}
	names := m.names[:len(datasets)]
	defer func() {
		for _, n := range names {
			n.release()
		}
	}()
	together, err := m.namesFit(ctx, datasets)
	if err != nil {
		return err
	}
	if together {
		err = m.walkNames(ctx, u, names)
	} else {
		err = m.hashNames(ctx, u, names)
	}
	if err != nil {
		return err
	}
	u.size = estimate(&u.symbols)
	copied := int64(len(u.symbols.Data)+len(u.like)+4*len(u.bare)) + tablesSize(countsOf(&u.symbols))
	if err := m.memory.set(&u.held, u.held+copied); err != nil {
		return err
	}
	return m.memory.set(&m.namesHeld, m.namesSize())
}

func countsOf(s *profile.Symbols) *symbols.Counts {
	n := symbols.CountsOf(s)
	return &n
}

// namesFit tells whether all datasets are sorted and their names can be held all at once, with as much again for the
// union: even if no two have a name in common, so that union and copies take three times what they do, it is within the
// budget, of which the ledger gives away less than half.
func (m *merger) namesFit(ctx context.Context, datasets []mergeDataset) (bool, error) {
	if slices.ContainsFunc(datasets, func(d mergeDataset) bool { return !d.d.Sorted() }) {
		return false, nil
	}
	fit := func() bool {
		more := int64(0)
		for _, d := range datasets {
			size := d.group.namesSize()
			more += 2*size - min(size, d.group.namesHeld)
		}
		return m.memory.fits(more)
	}
	if !fit() {
		return false, nil
	}
	for i, d := range datasets { // which says how many they are
		if _, err := d.group.readCounts(ctx); err != nil {
			return false, err
		}
		if !fit() {
			for _, d := range datasets[:i+1] {
				d.group.namesDone()
			}
			return false, nil
		}
	}
	return true, nil
}

// walkNames unites the names of sorted datasets that fit into memory together.
func (m *merger) walkNames(ctx context.Context, u *unit, names []*nameSource) (err error) {
	for i, d := range u.service.datasets {
		if err := m.openNames(ctx, d, u.inputs[i], names[:i+1], &names[i].part); err != nil {
			return err
		}
	}
	if u.symbols, u.bare, err = m.nameUnion.of(names); err != nil {
		return err
	}
	u.like = m.namesLike(&u.symbols, names)
	for i, d := range u.service.datasets {
		d.group.namesDone()
		if err := d.group.number(names[i]); err != nil {
			return err
		}
	}
	return nil
}

// hashNames unites the names of any datasets, and holds those of one at a time.
func (m *merger) hashNames(ctx context.Context, u *unit, names []*nameSource) error {
	m.table.Reset()
	for i, d := range u.service.datasets {
		n := names[i]
		before := n.kept()
		// Only where locations went, and which these are, is kept of each.
		if err := m.openNames(ctx, d, u.inputs[i], names[i:i+1], &names[0].part); err != nil {
			return err
		}
		m.arrival.Locations = n.remap.Locations
		m.table.Add(n.symbols, &m.arrival)
		n.remap.Locations, m.arrival.Locations = m.arrival.Locations, nil
		n.symbols, n.section = nil, nil
		d.group.namesDone()
		if err := m.memory.set(&m.namesHeld, m.namesHeld+n.kept()-before); err != nil {
			return err
		}
		if err := m.memory.set(&m.tableHeld, int64(m.table.Bytes())); err != nil {
			return err
		}
	}
	names[0].part.Data = nil
	u.symbols, u.bare = m.sorter.symbols(m.table, &m.remap)
	for i, d := range u.service.datasets {
		compose(names[i].remap.Locations, m.remap.Locations)
		if err := d.group.number(names[i]); err != nil {
			return err
		}
	}
	return nil
}

// number notes which numbers the locations of the group got.
func (g *mergeGroup) number(n *nameSource) error {
	if n.twin != nil {
		n = n.twin
	}
	if !n.partial {
		g.at = n.remap.Locations
		return nil
	}
	if size := 4 * int64(g.counts.Locations); size > g.namesHeld {
		if err := g.memory.set(&g.namesHeld, size); err != nil {
			return err
		}
	}
	g.at = resize(g.at, g.counts.Locations)
	for i, l := range n.used {
		g.at[l] = n.remap.Locations[i]
	}
	return nil
}

// openNames reads the names that a dataset uses into the last of the sources, part being memory for them; those before
// have been opened.
func (m *merger) openNames(ctx context.Context, d mergeDataset, inputs []*input, sources []*nameSource, part *profile.Symbols) error {
	n := sources[len(sources)-1]
	g := d.group
	n.group, n.partial = g.g, !g.whole(inputs)
	if !n.partial {
		table, err := g.readCounts(ctx)
		if err != nil {
			return err
		}
		for _, o := range sources[:len(sources)-1] {
			if o.twin == nil && bytes.Equal(o.section, table.section) {
				n.twin = o
				return nil
			}
		}
		n.section = table.section
	}
	all, err := g.readNames(ctx)
	if err != nil {
		return err
	}
	if n.symbols = all; !n.partial {
		return nil
	}
	n.used = m.usedLocations(inputs, n.used[:0], len(all.Locations))
	if err := m.subset.of(all, n.used, d.d.Sorted(), part); err != nil {
		return n.wrap(err)
	}
	n.symbols = part
	return nil
}

// usedLocations appends the locations that used nodes have, of that many in their group, ascending.
func (m *merger) usedLocations(inputs []*input, used []uint32, locations int) []uint32 {
	m.locations.reset(locations)
	for _, in := range inputs {
		in.each(func(node uint32) {
			if node == 0 {
				return // the root has no location
			}
			l := in.tree.stack.Locations[node]
			if _, ok := m.locations.get(l); !ok {
				m.locations.set(l, 0)
				used = append(used, l)
			}
		})
	}
	return m.sweep.sort(used, locations)
}

// abreast is how many sources are united at once. Each entry is compared with that of every other, which is the least work
// where most sources have the same names, and not much more than any other way where they have not.
const abreast = 8

// nameUnion unites the names of sources that are in the total order, with a cursor for each and table by table: once strings
// have their new numbers, mappings and functions are compared by these, and then locations. It is reused.
type nameUnion struct {
	sources []*nameSource
	// The union so far.
	symbols profile.Symbols
	bare    []uint32
	// bareOf are the names of locations without lines of each source, in its own numbers.
	bareOf [][]uint32

	strings   walk[[]byte]
	mappings  walk[profile.Mapping]
	functions walk[profile.Function]
	locations walk[place]
}

// of returns the union of names, and in it the names of locations without lines (0 for all others). It fills the remaps of
// the sources.
func (u *nameUnion) of(sources []*nameSource) (sym profile.Symbols, bare []uint32, err error) {
	if slices.ContainsFunc(sources, func(n *nameSource) bool { return n.twin != nil }) {
		sources = slices.DeleteFunc(slices.Clone(sources), func(n *nameSource) bool { return n.twin != nil })
	}
	if len(sources) <= abreast {
		err := u.unite(sources)
		u.sources = nil
		if err != nil {
			return profile.Symbols{}, nil, err
		}
		s := &u.symbols
		return profile.Symbols{
			Data: slices.Clone(s.Data), Strings: slices.Clone(s.Strings), Mappings: slices.Clone(s.Mappings), Functions: slices.Clone(s.Functions),
			Locations: slices.Clone(s.Locations), Lines: slices.Clone(s.Lines),
		}, slices.Clone(u.bare), nil
	}
	var parts []*nameSource
	for some := range slices.Chunk(sources, abreast) {
		part, _, err := u.of(some)
		if err != nil {
			return profile.Symbols{}, nil, err
		}
		parts = append(parts, &nameSource{symbols: &part})
	}
	sym, bare, err = u.of(parts)
	if err != nil {
		return profile.Symbols{}, nil, err
	}
	for i, n := range sources {
		compose(n.remap.Locations, parts[i/abreast].remap.Locations)
	}
	return sym, bare, nil
}

func (u *nameUnion) unite(sources []*nameSource) error {
	u.sources = sources
	s := &u.symbols
	s.Data, s.Strings = s.Data[:0], s.Strings[:0]
	s.Mappings, s.Functions = append(s.Mappings[:0], profile.Mapping{}), append(s.Functions[:0], profile.Function{})
	s.Locations, s.Lines, u.bare = s.Locations[:0], s.Lines[:0], u.bare[:0]
	if u.strings.load == nil {
		u.begin()
	}
	err := u.strings.run("strings", sources, 0)
	clear(u.strings.heads) // which point into the sources
	if err != nil {
		return err
	}
	if err := u.mappings.run("mappings", sources, 1); err != nil {
		return err
	}
	if err := u.functions.run("functions", sources, 1); err != nil {
		return err
	}
	if err := u.findBare(); err != nil {
		return err
	}
	return u.locations.run("locations", sources, 0)
}

// bytes is about the memory that is kept.
func (u *nameUnion) bytes() int { return u.symbols.Bytes() + 4*cap(u.bare) }

// begin says how each table is walked through.
func (u *nameUnion) begin() {
	u.strings = walk[[]byte]{
		remap:   func(n *nameSource) (*[]uint32, int) { return &n.remap.Strings, len(n.symbols.Strings) },
		load:    func(i int, entry uint32, s *[]byte) { *s = u.sources[i].symbols.String(entry) },
		compare: func(a, b *[]byte) int { return bytes.Compare(*a, *b) },
		emit: func(s *[]byte) {
			u.symbols.Strings = append(u.symbols.Strings, profile.Span{Off: uint32(len(u.symbols.Data)), Len: uint32(len(*s))})
			u.symbols.Data = append(u.symbols.Data, *s...)
		},
	}
	u.mappings = walk[profile.Mapping]{
		remap: func(n *nameSource) (*[]uint32, int) { return &n.remap.Mappings, len(n.symbols.Mappings) },
		load: func(i int, entry uint32, m *profile.Mapping) {
			n := u.sources[i]
			*m = n.symbols.Mappings[entry]
			m.File, m.BuildID = n.remap.Strings[m.File], n.remap.Strings[m.BuildID]
		},
		compare: compareMappings,
		emit:    func(m *profile.Mapping) { u.symbols.Mappings = append(u.symbols.Mappings, *m) },
	}
	u.functions = walk[profile.Function]{
		remap: func(n *nameSource) (*[]uint32, int) { return &n.remap.Functions, len(n.symbols.Functions) },
		load: func(i int, entry uint32, f *profile.Function) {
			n := u.sources[i]
			*f = n.symbols.Functions[entry]
			f.Name, f.SystemName, f.File = n.remap.Strings[f.Name], n.remap.Strings[f.SystemName], n.remap.Strings[f.File]
		},
		compare: compareFunctions,
		emit:    func(f *profile.Function) { u.symbols.Functions = append(u.symbols.Functions, *f) },
	}
	u.locations = walk[place]{
		remap:   func(n *nameSource) (*[]uint32, int) { return &n.remap.Locations, len(n.symbols.Locations) },
		load:    u.loadPlace,
		compare: func(a, b *place) int { return comparePlaces(u.symbols.Functions, a, b) },
		emit:    u.emitPlace,
	}
}

// place is a location in the new numbers.
type place struct {
	root uint32 // its first name, seen from the root
	profile.Location
	lines []profile.Line
}

func (u *nameUnion) loadPlace(i int, entry uint32, p *place) {
	n := u.sources[i]
	p.Location = n.symbols.Locations[entry]
	p.Mapping = n.remap.Mappings[p.Mapping]
	p.lines = p.lines[:0]
	for _, l := range n.symbols.LinesOf(entry) {
		l.Function = n.remap.Functions[l.Function]
		p.lines = append(p.lines, l)
	}
	if lines := len(p.lines); lines > 0 {
		p.root = u.symbols.Functions[p.lines[lines-1].Function].Name
	} else {
		p.root = n.remap.Strings[u.bareOf[i][entry]]
	}
}

func (u *nameUnion) emitPlace(p *place) {
	p.FirstLine = uint32(len(u.symbols.Lines))
	u.symbols.Lines = append(u.symbols.Lines, p.lines...)
	u.symbols.Locations = append(u.symbols.Locations, p.Location)
	p.lines = u.symbols.Lines[p.FirstLine:] // which the source does not overwrite
	name := uint32(0)
	if len(p.lines) == 0 {
		name = p.root
	}
	u.bare = append(u.bare, name)
}

func comparePlaces(functions []profile.Function, a, b *place) int {
	if a.root != b.root {
		if a.root < b.root {
			return -1
		}
		return 1
	}
	if a.Address == b.Address && a.Mapping == b.Mapping && a.Folded == b.Folded && slices.Equal(a.lines, b.lines) {
		return 0 // as most are
	}
	return compareLocations(functions, &a.Location, &b.Location, a.lines, b.lines)
}

// findBare finds the names of locations without lines. The strings are known to ascend.
func (u *nameUnion) findBare() error {
	for len(u.bareOf) < len(u.sources) {
		u.bareOf = append(u.bareOf, nil)
	}
	for i, n := range u.sources {
		finder := bareFinder{symbols: n.symbols}
		for j := range n.symbols.Locations {
			l := &n.symbols.Locations[j]
			if l.Lines > 0 {
				continue
			}
			u.bareOf[i] = resize(u.bareOf[i], len(n.symbols.Locations))
			name, err := finder.find(l.Address)
			if err != nil {
				return n.wrap(err)
			}
			u.bareOf[i][j] = name
		}
	}
	return nil
}

// bareFinder finds the names of locations without lines among the strings of sorted symbols. It moves forward: the names
// ascend as the locations do.
type bareFinder struct {
	symbols *profile.Symbols
	at      int
	name    []byte
}

func (f *bareFinder) find(address uint64) (uint32, error) {
	f.name = appendBareName(f.name[:0], address)
	less := func(i int) bool { return bytes.Compare(f.symbols.String(uint32(i)), f.name) < 0 }
	strings := len(f.symbols.Strings)
	to := f.at
	for step := 1; to < strings && less(to); step *= 2 {
		f.at, to = to+1, to+step
	}
	to = min(to, strings)
	f.at += sort.Search(to-f.at, func(i int) bool { return !less(f.at + i) })
	if f.at == strings || !bytes.Equal(f.symbols.String(uint32(f.at)), f.name) {
		return 0, fmt.Errorf("%w: %s is not among the strings of a sorted group where it belongs", ErrCorrupt, f.name)
	}
	return uint32(f.at), nil
}

// appendBareName appends the name of a location without lines.
func appendBareName(b []byte, address uint64) []byte {
	return strconv.AppendUint(append(b, "0x"...), address, 16)
}

// walk goes through the same table of several sources, all of which ascend, side by side. It is reused.
type walk[T any] struct {
	// remap is where the new numbers of the entries go, and how many there are.
	remap func(n *nameSource) (*[]uint32, int)
	// load reads an entry of a source in the new numbers. It may use the memory that it had for the one before.
	load    func(source int, entry uint32, into *T)
	compare func(a, b *T) int
	// emit takes an entry of the union, after which the entry must not depend on the source any more.
	emit func(entry *T)

	heads       []T // the next entry of each source
	next        []uint32
	remaps      [][]uint32
	live, equal []int // sources that have a next entry, and those whose next entry is the least
}

// run walks. The first entries, as many as are fixed, have the same number everywhere and are not touched.
func (w *walk[T]) run(what string, sources []*nameSource, fixed int) error {
	w.heads, w.next, w.remaps = resize(w.heads, len(sources)), resize(w.next, len(sources)), resize(w.remaps, len(sources))
	heads, next, remaps, live := w.heads, w.next, w.remaps, w.live[:0]
	for i, n := range sources {
		r, entries := w.remap(n)
		*r = resize(*r, entries)
		remaps[i], next[i] = *r, uint32(fixed)
		clear(remaps[i][:fixed])
		if fixed < entries {
			live = append(live, i)
			w.load(i, next[i], &heads[i])
		}
	}
	w.live = live
	var last T
	equal := w.equal
	for number := uint32(fixed); len(live) > 0; number++ {
		equal = append(equal[:0], live[0])
		for _, i := range live[1:] {
			if c := w.compare(&heads[i], &heads[equal[0]]); c < 0 {
				equal = append(equal[:0], i)
			} else if c == 0 {
				equal = append(equal, i)
			}
		}
		if first := equal[0]; number > uint32(fixed) && w.compare(&last, &heads[first]) >= 0 {
			return sources[first].wrap(fmt.Errorf("%w: %s of a sorted group are not in the total order at %d", ErrCorrupt, what, next[first]))
		}
		last = heads[equal[0]]
		w.emit(&last)
		ended := false
		for _, i := range equal {
			remaps[i][next[i]] = number
			if next[i]++; int(next[i]) < len(remaps[i]) {
				w.load(i, next[i], &heads[i])
			} else {
				ended = true
			}
		}
		if ended {
			live = slices.DeleteFunc(live, func(i int) bool { return int(next[i]) == len(remaps[i]) })
		}
		w.equal = equal
	}
	return nil
}

// namesLike returns the section of a source that has as many names as those to be written, if there is one: then they are
// the same or nearly.
func (m *merger) namesLike(s *profile.Symbols, names []*nameSource) []byte {
	for _, n := range names {
		if n.section != nil && m.sameLevel(n.group) && symbols.CountsOf(n.symbols) == symbols.CountsOf(s) {
			return n.section
		}
	}
	return nil
}

// likeShared offers the Writer the names of a group that several services share and that has as many as those to be
// written, if there is one.
func (m *merger) likeShared(ctx context.Context, s *profile.Symbols, units []*unit) error {
	for _, u := range units {
		for _, d := range u.service.datasets {
			// The names of a group of one service have been dropped.
			if d.group.datasets == 1 || d.group.counts != symbols.CountsOf(s) || !m.sameLevel(d.group.g) {
				continue
			}
			t, err := d.group.readCounts(ctx)
			if err != nil {
				return err
			}
			m.w.symbols.Like(t.section)
			return nil
		}
	}
	return nil
}

// treeLike returns the trees of a source that are as large as those to be written, if there are such.
func (m *merger) treeLike(k *unitKind) []byte {
	for _, in := range k.inputs {
		if t := in.tree; t.section != nil && t.nodes == len(k.stack.Parents) && m.sameLevel(in.group.g) {
			return t.section
		}
	}
	return nil
}

// sameLevel tells whether the names of a group are compressed as those of the new object will be.
func (m *merger) sameLevel(g *group) bool {
	return compression(g.r.meta.GetLevel()) == m.w.level
}
