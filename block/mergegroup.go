package block

import (
	"bytes"
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

	// Of the service at hand: at[l] is the new number of location l, if it is used.
	at []uint32
}

// mergeTree is a stack tree of a source while rows that refer to it are merged.
type mergeTree struct {
	// section is what was read, if the group is sorted.
	section []byte
	stack   *profile.StackTree // nil once it has been united with others, if no other rows refer to it
	nodes   int
	// to[n] is the node that n became, for the used nodes of the rows at hand. Trees of several sources may share it.
	to []uint32
}

// room makes room for the new number of every node.
func (t *mergeTree) room() []uint32 {
	t.to = resize(t.to, t.nodes)
	return t.to
}

// knownTree is a TREES section of a sorted group that is held for the kind at hand. Sources that have seen the same
// stacks have equal sections, which are decoded once.
type knownTree struct {
	section []byte
	counts  symbols.Counts
	stack   *profile.StackTree
}

// dropKnown empties a list of known trees.
func dropKnown(known []knownTree) []knownTree {
	clear(known)
	return known[:0]
}

// mergeRows is a section of samples of a source that is open: its stream, and the inflated page at hand.
type mergeRows struct {
	stream *pageStream
	page   *page
}

func newMergeGroup(g *group, memory *ledger) *mergeGroup {
	return &mergeGroup{g: g, users: map[uint32]int{}, trees: map[uint32]*mergeTree{}, rows: map[uint32]*mergeRows{}, memory: memory}
}

// alone says whether the group has one dataset, whose names and series are then all of the group's. That the source
// names no other is not enough: others of the group may have been deleted, and their names must not live on. A sorted
// group has trees for each of its datasets.
func (g *mergeGroup) alone() bool { return g.datasets == 1 && len(g.users) == len(g.g.trees) }

// whole tells whether all names of the group are used, by the inputs of its only dataset. Then no tree need be read to
// find out.
func (g *mergeGroup) whole(inputs []*input) bool {
	return g.alone() && !slices.ContainsFunc(inputs, func(in *input) bool { return !in.whole() })
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

// readCounts makes room for the stored names and reads them, and how many they are.
func (g *mergeGroup) readCounts(ctx context.Context) (symbolTable, error) {
	if g.namesHeld == 0 {
		meta := g.g.only(storagev1.SectionType_SECTION_TYPE_SYMBOLS)
		if err := g.memory.set(&g.namesHeld, int64(meta.GetLength())); err != nil {
			return symbolTable{}, g.wrap(meta, err)
		}
	}
	t, err := g.g.loadSymbols(ctx)
	g.counts = t.counts
	return t, err
}

// namesSize is about what the names will take once they have been read, of which the counts may be known.
func (g *mergeGroup) namesSize() int64 {
	stored := int64(g.g.only(storagev1.SectionType_SECTION_TYPE_SYMBOLS).GetLength())
	if !plausible(&g.counts, stored) {
		return stored
	}
	return 3*stored + tablesSize(&g.counts)
}

// readNames makes room for the names and reads them.
func (g *mergeGroup) readNames(ctx context.Context) (*profile.Symbols, error) {
	t, err := g.readCounts(ctx)
	if err != nil {
		return nil, err
	}
	if err := g.memory.set(&g.namesHeld, g.namesSize()); err != nil {
		return nil, g.wrap(g.g.only(storagev1.SectionType_SECTION_TYPE_SYMBOLS), err)
	}
	names, err := g.g.loadNames(ctx)
	if err != nil {
		return nil, err
	}
	return names, g.memory.set(&g.namesHeld, int64(len(t.section)+len(names.Data))+tablesSize(&t.counts))
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
// sources.
func (g *mergeGroup) namesDone() {
	if g.datasets > 1 {
		return
	}
	g.g.symbols.clear()
	_ = g.memory.set(&g.namesHeld, 0)
}

// tree returns the stack tree of a section, which is not decoded if it is known.
func (g *mergeGroup) tree(ctx context.Context, section uint32, known *[]knownTree) (*mergeTree, error) {
	if t := g.trees[section]; t != nil {
		return t, nil
	}
	if g.counts.Strings == 0 {
		if _, err := g.readCounts(ctx); err != nil {
			return nil, err
		}
	}
	meta := g.g.meta.Sections[section]
	before := g.treesHeld
	if err := g.memory.set(&g.treesHeld, before+int64(meta.GetLength())); err != nil {
		return nil, g.wrap(meta, err)
	}
	t := &mergeTree{}
	stack, err := g.g.readStackTree(ctx, section, func(b []byte) (stack *profile.StackTree, hasCall bool, err error) {
		for _, k := range *known {
			if k.counts == g.counts && bytes.Equal(k.section, b) {
				t.section = k.section
				return k.stack, true, nil
			}
		}
		stack, hasCall, err = symbols.DecodeStackTree(b, g.counts)
		if err == nil && hasCall {
			t.section = b
			*known = append(*known, knownTree{b, g.counts, stack})
		}
		return stack, hasCall, err
	})
	if err != nil {
		return nil, err
	}
	t.stack, t.nodes = stack, len(stack.Parents)
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
	t.stack, t.section = nil, nil
	_ = g.memory.set(&g.treesHeld, g.treesHeld+t.size()-before) // less than before
}

// size is what a tree takes. What it shares with an equal one is counted for both.
func (t *mergeTree) size() int64 {
	if t.stack == nil {
		return 4 * int64(t.nodes)
	}
	return 12*int64(t.nodes) + int64(len(t.section))
}

func (g *mergeGroup) wrap(s *storagev1.Section, err error) error {
	return fmt.Errorf("object %s, section %s at byte %d: %w", g.g.r.meta.GetId(), s.GetType(), s.GetOffset(), err)
}

// openRows opens the section of samples that has these rows, with so many columns of stacks and values, to read ranges of
// room bytes.
func (g *mergeGroup) openRows(ctx context.Context, rows *storagev1.Rows, columns int, room uint64, idle *pagePool) (*mergeRows, error) {
	section := rows.GetSamplesSection()
	r := g.rows[section]
	if r != nil {
		return r, nil
	}
	stream, err := g.g.openPages(ctx, section, columns, ExtrasOf(rows), room, g.memory)
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
