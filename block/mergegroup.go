package block

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/symbols"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// mergeGroup is a group of a source while its services are merged.
type mergeGroup struct {
	g *group
	// datasets counts those of the group, left those that have not been written.
	datasets, left int
	// users counts the rows that refer to each section of trees.
	users map[uint32]int
	trees map[uint32]*mergeTree
	// rows are the sections of samples that are open: services of a segment share them.
	rows map[uint32]*mergeRows
	// counts are the sizes of the tables of names, which trees refer to, once they are known.
	counts symbols.Counts

	memory *ledger
	// What the ledger was told of names, label sets, profiles and trees.
	namesHeld, seriesHeld, profilesHeld, treesHeld int64

	// Of the service at hand: at[l] is the number in the table of location l, if it is used.
	at    []uint32
	remap profile.Remap
}

// mergeTree is a stack tree of a source while rows that refer to it are merged.
type mergeTree struct {
	stack *profile.StackTree // nil once it has been united with others, if no other rows refer to it
	// to[n] is the node that n became, for the used nodes of the rows at hand.
	to []uint32
}

// mergeRows is a section of samples of a source that is open: its stream, and the inflated page at hand.
type mergeRows struct {
	stream *pageStream
	page   *page
}

func newMergeGroup(g *group, memory *ledger) *mergeGroup {
	return &mergeGroup{g: g, users: map[uint32]int{}, trees: map[uint32]*mergeTree{}, rows: map[uint32]*mergeRows{}, memory: memory}
}

// whole tells whether all names of the group are used, by the inputs of its only dataset. Then no tree need be read to
// find out.
func (g *mergeGroup) whole(inputs []*input) bool {
	return g.datasets == 1 && !slices.ContainsFunc(inputs, func(in *input) bool { return !in.whole() })
}

// table returns the PROFILES table.
func (g *mergeGroup) table(ctx context.Context) (*table, error) {
	meta := g.g.only(storagev1.SectionType_SECTION_TYPE_PROFILES)
	if err := g.memory.set(&g.profilesHeld, int64(meta.GetLength())); err != nil {
		return nil, g.wrap(meta, err)
	}
	return g.g.loadProfiles(ctx)
}

// series returns the label sets.
func (g *mergeGroup) series(ctx context.Context) ([]labels.Labels, error) {
	meta := g.g.only(storagev1.SectionType_SECTION_TYPE_SERIES)
	if g.seriesHeld == 0 {
		if err := g.memory.set(&g.seriesHeld, int64(meta.GetLength())); err != nil {
			return nil, g.wrap(meta, err)
		}
	}
	all, err := g.g.loadSeries(ctx)
	if err != nil {
		return nil, err
	}
	if err := g.memory.set(&g.seriesHeld, seriesSize(all)); err != nil {
		return nil, g.wrap(meta, err)
	}
	return all, nil
}

// seriesSize is about what label sets take in memory.
func seriesSize(all []labels.Labels) (n int64) {
	for _, ls := range all {
		n += 24 + 32*int64(len(ls))
		for _, l := range ls {
			n += int64(len(l.Name) + len(l.Value))
		}
	}
	return n
}

// readNames makes room for the names and reads them, so that Symbols finds them there.
func (g *mergeGroup) readNames(ctx context.Context) error {
	meta := g.g.only(storagev1.SectionType_SECTION_TYPE_SYMBOLS)
	stored := int64(meta.GetLength())
	if g.namesHeld == 0 {
		if err := g.memory.set(&g.namesHeld, stored); err != nil {
			return g.wrap(meta, err)
		}
	}
	t, err := g.g.loadSymbols(ctx)
	if err != nil {
		return err
	}
	g.counts = t.counts
	if plausible(&t.counts, stored) {
		if err := g.memory.set(&g.namesHeld, 3*stored+tablesSize(&t.counts)); err != nil {
			return g.wrap(meta, err)
		}
	}
	names, err := g.g.loadNames(ctx)
	if err != nil {
		return err
	}
	return g.memory.set(&g.namesHeld, stored+int64(len(names.Data))+tablesSize(&t.counts))
}

// tablesSize is what the tables of names take, with the strings left out and the numbers that they become put in.
func tablesSize(n *symbols.Counts) int64 {
	const number = 4
	return int64(n.Strings)*(number+int64(unsafe.Sizeof(profile.Span{}))) + int64(n.Mappings)*(number+int64(unsafe.Sizeof(profile.Mapping{}))) +
		int64(n.Functions)*(number+int64(unsafe.Sizeof(profile.Function{}))) + int64(n.Locations)*(2*number+int64(unsafe.Sizeof(profile.Location{}))) +
		int64(n.Lines)*int64(unsafe.Sizeof(profile.Line{}))
}

// plausible tells whether a section of so many bytes can have such tables; if not, its decoder will say so.
func plausible(n *symbols.Counts, stored int64) bool {
	const free, ratio = 4 << 20, 256 // of a column
	return max(n.Strings, n.Mappings, n.Functions, n.Locations, n.Lines) <= free+ratio*int(stored)
}

// namesDone drops the names of a group that no other service needs, once they have been united with those of the other
// sources. Only where locations went is still of use.
func (g *mergeGroup) namesDone() {
	if g.datasets > 1 {
		return
	}
	g.g.symbols.clear()
	g.remap = profile.Remap{}
	_ = g.memory.set(&g.namesHeld, 4*int64(len(g.at))) // less than before
}

// tree returns the stack tree of a section.
func (g *mergeGroup) tree(ctx context.Context, section uint32) (*mergeTree, error) {
	t := g.trees[section]
	if t != nil {
		return t, nil
	}
	if g.counts.Strings == 0 {
		meta := g.g.only(storagev1.SectionType_SECTION_TYPE_SYMBOLS)
		if err := g.memory.set(&g.namesHeld, int64(meta.GetLength())); err != nil {
			return nil, g.wrap(meta, err)
		}
		names, err := g.g.loadSymbols(ctx)
		if err != nil {
			return nil, err
		}
		g.counts = names.counts
	}
	meta := g.g.meta.Sections[section]
	before := g.treesHeld
	if err := g.memory.set(&g.treesHeld, before+int64(meta.GetLength())); err != nil {
		return nil, g.wrap(meta, err)
	}
	stack, err := g.g.readStackTree(ctx, section, g.counts)
	if err != nil {
		return nil, err
	}
	t = &mergeTree{stack: stack, to: make([]uint32, len(stack.Parents))}
	g.trees[section] = t
	if err := g.memory.set(&g.treesHeld, before+t.size()); err != nil {
		return nil, g.wrap(meta, err)
	}
	return t, nil
}

// treeDone drops a tree, but for where its nodes went, once it has been united with those of the other sources and if no
// other rows refer to it. After the last kind of the only service, where locations went is of no use either.
func (g *mergeGroup) treeDone(section uint32, last bool) {
	if last && g.datasets == 1 {
		g.at = nil
		_ = g.memory.set(&g.namesHeld, 0)
	}
	t := g.trees[section]
	if g.users[section] > 1 || t.stack == nil {
		return
	}
	before := t.size()
	t.stack = nil
	_ = g.memory.set(&g.treesHeld, g.treesHeld+t.size()-before) // less than before
}

// size is what a tree takes.
func (t *mergeTree) size() int64 {
	if t.stack == nil {
		return 4 * int64(len(t.to))
	}
	return 12 * int64(len(t.to))
}

func (g *mergeGroup) wrap(s *storagev1.Section, err error) error {
	return fmt.Errorf("object %s, section %s at byte %d: %w", g.g.r.meta.GetId(), s.GetType(), s.GetOffset(), err)
}

// openRows opens a section of samples to read ranges of room bytes.
func (g *mergeGroup) openRows(ctx context.Context, section uint32, columns int, room uint64, idle *pagePool) (*mergeRows, error) {
	r := g.rows[section]
	if r != nil {
		return r, nil
	}
	stream, err := g.g.openPages(ctx, section, columns, room, g.memory)
	if err != nil {
		return nil, err
	}
	r = &mergeRows{stream: stream, page: idle.take(stream.directory.Columns())}
	g.rows[section] = r
	return r, nil
}

// closeRows drops what is held of a section of samples, and checks it unless the merge has failed anyway.
func (g *mergeGroup) closeRows(section uint32, idle *pagePool, failed bool) (err error) {
	r := g.rows[section]
	if r == nil {
		return nil
	}
	if !failed {
		if err = r.stream.verify(); err != nil {
			err = g.wrap(g.g.meta.Sections[section], err)
		}
	}
	r.stream.close()
	idle.give(r.page)
	delete(g.rows, section)
	return err
}

// pause drops the pages at hand of a section of samples, which will be read again if they are needed, unless other
// services may want them.
func (g *mergeGroup) pause(section uint32, idle *pagePool) {
	r := g.rows[section]
	if r == nil || g.datasets > 1 {
		return
	}
	r.stream.pause()
	idle.give(r.page)
}

// kindDone says that these rows have been written. If nobody else has rows in their sections, what was read of them
// is dropped: a service with several large kinds takes the memory of one.
func (g *mergeGroup) kindDone(rows *storagev1.Rows, idle *pagePool) error {
	if g.datasets > 1 || g.users[rows.GetTreesSection()] > 1 {
		return nil
	}
	if t := g.trees[rows.GetTreesSection()]; t != nil {
		_ = g.memory.set(&g.treesHeld, g.treesHeld-t.size()) // less than before
		delete(g.trees, rows.GetTreesSection())
	}
	for _, m := range rows.GetRollups() {
		g.g.rollups[m.GetSection()].clear()
	}
	return g.closeRows(rows.GetSamplesSection(), idle, false)
}

// done says that one more dataset has been written. After the last, everything that was read is dropped.
func (g *mergeGroup) done(idle *pagePool) error {
	if g.left--; g.left > 0 {
		return nil
	}
	return g.close(idle, false)
}

// close drops everything that was read; failed says that nothing of it matters any more.
func (g *mergeGroup) close(idle *pagePool, failed bool) (err error) {
	for section := range g.rows {
		err = errors.Join(err, g.closeRows(section, idle, failed))
	}
	g.g.forget()
	for _, held := range []*int64{&g.namesHeld, &g.seriesHeld, &g.profilesHeld, &g.treesHeld} {
		_ = g.memory.set(held, 0)
	}
	*g = mergeGroup{memory: g.memory}
	return err
}

// seriesMap turns series ids of a group into indexes of the label sets of a service, which it collects.
type seriesMap struct {
	sets []labels.Labels
	byID map[uint64][]uint32
}

func (s *seriesMap) index(ls labels.Labels) uint32 {
	if s.byID == nil {
		s.byID = map[uint64][]uint32{}
	}
	h := ls.Hash()
	for _, i := range s.byID[h] {
		if labels.Compare(s.sets[i], ls) == 0 {
			return i
		}
	}
	i := uint32(len(s.sets))
	s.sets = append(s.sets, ls)
	s.byID[h] = append(s.byID[h], i)
	return i
}

// sort sorts the sets and returns which index each became.
func (s *seriesMap) sort() []uint32 {
	order := make([]uint32, len(s.sets))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return labels.Compare(s.sets[a], s.sets[b]) })
	rank := make([]uint32, len(order))
	sorted := make([]labels.Labels, len(order))
	for i, o := range order {
		rank[o], sorted[i] = uint32(i), s.sets[o]
	}
	s.sets = sorted
	return rank
}

// forget drops what has been read of the group; it will be read again if asked for again.
func (g *group) forget() {
	g.symbols.clear()
	g.series.clear()
	g.profiles.clear()
	for _, c := range g.trees {
		c.clear()
	}
	for _, c := range g.samples {
		c.clear()
	}
	for _, c := range g.rollups {
		c.clear()
	}
}
