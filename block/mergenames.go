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
	return n.part.Bytes() + 4*(cap(n.used)+cap(r.Strings)+cap(r.Mappings)+cap(r.Functions)+cap(r.Locations))
}

// wrap names the object and its SYMBOLS section in an error.
func (n *nameSource) wrap(err error) error {
	if n.group != nil {
		n.group.guard(n.group.only(storagev1.SectionType_SECTION_TYPE_SYMBOLS), &err)
	}
	return err
}

// unionNames unites the names that the datasets of a unit use, and tells their groups which number each location got:
// with a cursor per source if all of them are sorted, by hashing and sorting otherwise. It returns the names of locations
// without lines.
func (m *merger) unionNames(ctx context.Context, u *unit) (bare []uint32, err error) {
	datasets := u.service.datasets
	sorted := !slices.ContainsFunc(datasets, func(d mergeDataset) bool { return !d.d.Sorted() })
	for len(m.names) < len(datasets) {
		m.names = append(m.names, &nameSource{})
	}
	names := m.names[:len(datasets)]
	defer func() {
		for _, n := range names {
			n.release()
		}
	}()
	if !sorted {
		m.table.Reset()
	}
	for i, d := range datasets {
		if err := m.openNames(ctx, d, u.inputs[i], names[:i+1]); err != nil {
			return nil, err
		}
		if !sorted && names[i].twin == nil {
			m.table.Add(names[i].symbols, &names[i].remap)
		}
	}
	if sorted {
		u.symbols, bare, err = m.nameUnion.of(names)
		if err != nil {
			return nil, err
		}
	} else {
		u.symbols, bare = m.sorter.symbols(m.table, &m.remap)
		for _, n := range names {
			if n.twin == nil {
				compose(n.remap.Locations, m.remap.Locations)
			}
		}
	}
	for i, d := range datasets {
		d.group.number(names[i])
	}
	return bare, nil
}

// number notes which numbers the locations of the group got.
func (g *mergeGroup) number(n *nameSource) {
	if n.twin != nil {
		n = n.twin
	}
	if !n.partial {
		g.at = n.remap.Locations
		return
	}
	g.at = resize(g.at, g.locations)
	for i, l := range n.used {
		g.at[l] = n.remap.Locations[i]
	}
}

// openNames reads the names that a dataset uses into the last of the sources; those before have been opened.
func (m *merger) openNames(ctx context.Context, d mergeDataset, inputs []*input, sources []*nameSource) error {
	n := sources[len(sources)-1]
	g := d.group
	table, err := g.g.loadSymbols(ctx)
	if err != nil {
		return err
	}
	n.group, n.partial = g.g, g.datasets > 1
	for _, in := range inputs {
		n.partial = n.partial || !in.whole()
	}
	if !n.partial {
		for _, o := range sources[:len(sources)-1] {
			if o.twin == nil && bytes.Equal(o.section, table.section) {
				n.twin = o
				return nil
			}
		}
		n.section = table.section
	}
	if n.symbols, err = d.d.Symbols(ctx); err != nil || !n.partial {
		return err
	}
	g.locations = len(n.symbols.Locations)
	n.used = m.usedLocations(inputs, n.used[:0], g.locations)
	if err := m.subset.of(n.symbols, n.used, d.d.Sorted(), &n.part); err != nil {
		return n.wrap(err)
	}
	n.symbols = &n.part
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

// likeNames offers the Writer the names of a source that are as many as those to be written, if there are such: then
// they are the same or nearly.
func (m *merger) likeNames(ctx context.Context, s *profile.Symbols, units ...*unit) error {
	for _, u := range units {
		for _, d := range u.service.datasets {
			if !m.sameLevel(d.group.g) {
				continue
			}
			t, err := d.group.g.loadSymbols(ctx)
			if err != nil {
				return err
			}
			if t.counts == symbols.CountsOf(s) {
				m.w.symbols.Like(t.section)
				return nil
			}
		}
	}
	return nil
}

// likeTree offers the Writer the trees of a source that are as large as those to be written.
func (m *merger) likeTree(k *unitKind) {
	for _, in := range k.inputs {
		if t := in.tree; t.section != nil && len(t.stack.Parents) == len(k.stack.Parents) && m.sameLevel(in.group.g) {
			m.w.symbols.Like(t.section)
			return
		}
	}
}

// sameLevel tells whether the names of a group are compressed as those of the new object will be.
func (m *merger) sameLevel(g *group) bool {
	return compression(g.r.meta.GetLevel()) == m.w.level
}
