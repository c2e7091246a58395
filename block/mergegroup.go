package block

import (
	"context"
	"slices"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
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
	// pages are the inflated pages at hand, by section: services of a segment share them.
	pages map[uint32]*page

	// Of the service at hand: at[l] is the number in the table of location l, if it is used.
	at    []uint32
	remap profile.Remap
}

// mergeTree is a stack tree of a source while rows that refer to it are merged.
type mergeTree struct {
	stack *profile.StackTree
	// to[n] is the node that n became, for the used nodes of the rows at hand.
	to []uint32
}

func newMergeGroup(g *group) *mergeGroup {
	return &mergeGroup{g: g, users: map[uint32]int{}, trees: map[uint32]*mergeTree{}, pages: map[uint32]*page{}}
}

// alone says whether the group has one dataset, whose names and series are then all of the group's. That the source
// names no other is not enough: others of the group may have been deleted, and their names must not live on. A sorted
// group has trees for each of its datasets.
func (g *mergeGroup) alone() bool { return g.datasets == 1 && len(g.users) == len(g.g.trees) }

func (g *mergeGroup) tree(ctx context.Context, section uint32) (*mergeTree, error) {
	t := g.trees[section]
	if t == nil {
		stack, err := g.g.readStackTree(ctx, section)
		if err != nil {
			return nil, err
		}
		t = &mergeTree{stack: stack, to: make([]uint32, len(stack.Parents))}
		g.trees[section] = t
	}
	return t, nil
}

// page returns the page to read a section of samples with.
func (g *mergeGroup) page(section uint32, columns int, idle *[]*page) *page {
	p := g.pages[section]
	if p != nil {
		return p
	}
	if n := len(*idle); n > 0 {
		p, *idle = (*idle)[n-1], (*idle)[:n-1]
		p.reset(columns)
	} else {
		p = newPage(columns)
	}
	g.pages[section] = p
	return p
}

// kindDone says that these rows have been written. If nobody else has rows in their sections, what was read of them
// is dropped: a service with several large kinds takes the memory of one.
func (g *mergeGroup) kindDone(rows *storagev1.Rows) {
	if g.datasets > 1 || g.users[rows.GetTreesSection()] > 1 {
		return
	}
	delete(g.trees, rows.GetTreesSection())
	g.g.samples[rows.GetSamplesSection()].clear()
	for _, m := range rows.GetRollups() {
		g.g.rollups[m.GetSection()].clear()
	}
}

// done says that one more dataset has been written. After the last, everything that was read is dropped.
func (g *mergeGroup) done(idle *[]*page) {
	g.left--
	if g.left > 0 {
		return
	}
	for _, p := range g.pages {
		*idle = append(*idle, p)
	}
	g.g.forget()
	*g = mergeGroup{}
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
