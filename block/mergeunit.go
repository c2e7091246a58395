package block

import (
	"context"
	"slices"
	"unsafe"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// unit is a service that is ready to be written: names, series and trees in the total order, and which
// profiles of which source come when.
type unit struct {
	service *mergeService
	symbols profile.Symbols
	series  []labels.Labels
	kinds   []*unitKind
	// inputs are those of all kinds, by dataset.
	inputs [][]*input
	// bare are the names of locations that have no lines.
	bare []uint32
	// like is the SYMBOLS section of a source that is likely to have the same names, nil if none is.
	like []byte
	// size is about what the names will take when they are encoded.
	size int
	held int64
}

// unitKind is one kind of a unit.
type unitKind struct {
	kind   profile.Kind
	stack  profile.StackTree
	call   profile.CallTree
	inputs []*input
	order  []ref
	// expect is what the sources say, less what is dropped.
	expect tally
	// most[s] is one more than the rows of the largest profile of series s, 0 if there is no profile of it.
	most []uint32
	// huge: the sums of some sample type pass int64.
	huge bool

	// like is the TREES section of a source that is likely to have the same trees, nil if none is.
	like []byte

	orderHeld, treesHeld int64
}

// input is the rows of one dataset and kind of one source.
type input struct {
	rows     *Rows
	group    *mergeGroup
	sorted   bool
	profiles *inputProfiles
	tree     *mergeTree // once it is needed
	dropped  []uint32   // duplicates, and profiles of deleted series, ascending
	held     int64
	// nodes are the stack nodes that are used, ascending, and to what they became. If all are, nodes is nil.
	nodes, to []uint32
	// isTwin: to belongs to another input.
	isTwin bool
}

// whole tells whether all nodes of the input's tree are used, by these rows and no others: so it is if a merge has
// made it and nothing is dropped. Then its rows need not be read to find out.
func (in *input) whole() bool {
	return in.sorted && len(in.dropped) == 0 && in.group.users[in.rows.meta.GetTreesSection()] == 1
}

// ref is one profile of an input.
type ref struct {
	time  int64
	input uint32
	index uint32
}

// refSize is what a ref takes.
const refSize = int64(unsafe.Sizeof(ref{}))

// tally is what is counted before and after. Sums wrap: with their duplicates, sources may hold more than an int64,
// and what is left is equal or not all the same.
type tally struct {
	profiles, samples uint64
	sums              []uint64
	// extras are the bytes of runs in the extra columns: a merge changes their order at most.
	extras extraTotals
}

func (u *unit) profiles() (n int) {
	for _, k := range u.kinds {
		n += len(k.order)
	}
	return n
}

// rows is how many rows of samples the profiles have.
func (u *unit) rows() (n uint64) {
	for _, k := range u.kinds {
		n += k.expect.samples
	}
	return n
}

// unit reads one service from all its sources, but for its rows and the trees that only these need.
func (m *merger) unit(ctx context.Context, s *mergeService) (*unit, error) {
	u := &unit{service: s}
	m.known = dropKnown(m.known)
	if err := m.openKinds(ctx, u); err != nil || u.profiles() == 0 {
		return u, err
	}
	for i, d := range s.datasets {
		whole := d.group.whole(u.inputs[i])
		for _, in := range u.inputs[i] {
			if err := in.openTree(ctx, !whole, &m.known); err != nil {
				return nil, err
			}
		}
	}
	for _, k := range u.kinds {
		if err := m.markNodes(ctx, k); err != nil {
			return nil, err
		}
	}
	return u, m.uniteNames(ctx, u)
}

// uniteTrees unites the trees of a kind, unless that has been done. Afterwards only where their nodes went is needed of
// those of the sources.
func (m *merger) uniteTrees(ctx context.Context, u *unit, k *unitKind) error {
	if k.stack.Parents != nil || len(k.order) == 0 {
		return nil
	}
	for _, in := range k.inputs {
		if err := in.openTree(ctx, true, &m.known); err != nil {
			return err
		}
	}
	if err := m.unionTrees(k); err != nil {
		return err
	}
	m.known = dropKnown(m.known)
	k.like = m.treeLike(k)
	for _, in := range k.inputs {
		in.group.treeDone(in.rows.meta.GetTreesSection(), k == u.kinds[len(u.kinds)-1])
	}
	k.call = m.calls.of(&u.symbols, &k.stack, u.bare)
	// Rollups take a sum per node and sample type, and one more.
	nodes, calls, sums := int64(len(k.stack.Parents)), int64(len(k.call.Parents)), 1+int64(len(k.kind.SampleTypes))
	if err := m.memory.set(&k.treesHeld, (12+8*sums)*nodes+8*calls+int64(len(k.like))); err != nil {
		return err
	}
	return m.memory.set(&m.unionHeld, int64(m.union.bytes()+m.tree.Bytes()+m.calls.bytes()))
}

// estimate is about what names take when they are encoded: a third of their columns, which hold the strings and
// one to three bytes per number.
func estimate(s *profile.Symbols) int {
	return (len(s.Data) + len(s.Strings) + 8*len(s.Functions) + 5*len(s.Locations) + 4*len(s.Lines)) / 3
}

// openKinds reads the profiles of all sources, unites their series, and settles order and what is dropped.
func (m *merger) openKinds(ctx context.Context, u *unit) error {
	var sets seriesMap
	u.inputs = make([][]*input, len(u.service.datasets))
	ranks := make([]*seriesRanks, len(u.service.datasets))
	for i, d := range u.service.datasets {
		all, err := d.group.series(ctx)
		if err != nil {
			return err
		}
		m.series.reset(len(all))
		ranks[i] = &seriesRanks{}
		for _, rows := range d.d.Rows {
			if err := ctx.Err(); err != nil {
				return err
			}
			in, err := m.openRows(ctx, u, d, rows, len(all))
			if err != nil {
				return err
			}
			u.inputs[i] = append(u.inputs[i], in)
			if err := m.collectSeries(in, all, ranks[i]); err != nil {
				return err
			}
			u.kind(rows.Kind).expect.extras.join(&in.profiles.extras)
		}
		ranks[i].fill(all, &sets)
	}
	rank := sets.sort()
	u.series = sets.sets
	if err := m.memory.set(&u.held, seriesSize(u.series)); err != nil {
		return err
	}
	for i, inputs := range u.inputs {
		apply(ranks[i].ranks, rank)
		for _, in := range inputs {
			in.profiles.setRanks(ranks[i])
		}
	}
	slices.SortFunc(u.kinds, func(a, b *unitKind) int { return a.kind.Compare(b.kind) })
	for _, k := range u.kinds {
		if err := m.settle(k); err != nil {
			return err
		}
	}
	return nil
}

// openRows opens the profiles of one kind of one dataset, whose group has that many series.
func (m *merger) openRows(ctx context.Context, u *unit, d mergeDataset, rows *Rows, series int) (*input, error) {
	table, err := d.group.table(ctx)
	if err != nil {
		return nil, err
	}
	ps, err := newInputProfiles(rows, table, series)
	if err != nil {
		return nil, err
	}
	k := u.kind(rows.Kind)
	k.expect.add(rows)
	in := &input{rows: rows, group: d.group, sorted: d.d.Sorted(), profiles: ps}
	k.inputs = append(k.inputs, in)
	return in, m.memory.set(&in.held, ps.size())
}

// collectSeries goes over the profiles of an input for the first time, and collects the ids of its series, apart from those
// that are left out. all are the label sets of the group.
func (m *merger) collectSeries(in *input, all []labels.Labels, r *seriesRanks) error {
	ps, exclusion := in.profiles, in.rows.exclusion
	excluded := map[uint32]bool{} // of the series that were looked at
	for i := 0; i < ps.n; {
		if _, err := ps.seek(i); err != nil {
			return err
		}
		for _, id := range ps.chunk.Series {
			if exclusion != nil {
				if _, known := excluded[id]; !known {
					excluded[id] = exclusion.Excludes(all[id])
				}
				if excluded[id] {
					continue
				}
			}
			if _, ok := m.series.get(id); !ok {
				m.series.set(id, 0)
				r.ids = append(r.ids, id)
			}
		}
		i += ps.chunk.Len()
	}
	for id, is := range excluded {
		if is {
			ps.excluded = append(ps.excluded, id)
		}
	}
	slices.Sort(ps.excluded)
	return m.memory.set(&in.held, ps.size())
}

// fill puts the ids in order and takes their label sets into those of the service; ranks are their numbers there.
func (r *seriesRanks) fill(all []labels.Labels, sets *seriesMap) {
	slices.Sort(r.ids)
	for _, id := range r.ids {
		r.ranks = append(r.ranks, sets.index(all[id]))
	}
}

func (u *unit) kind(kind profile.Kind) *unitKind {
	for _, k := range u.kinds {
		if k.kind.Equal(kind) {
			return k
		}
	}
	k := &unitKind{kind: kind, expect: tally{sums: make([]uint64, len(kind.SampleTypes))}}
	u.kinds = append(u.kinds, k)
	return k
}

// add counts the rows of one source.
func (t *tally) add(rows *Rows) {
	t.profiles += uint64(rows.ProfileCount)
	t.samples += uint64(rows.SampleCount)
	for i, s := range rows.Sums {
		t.sums[i] += uint64(s)
	}
}

// openTree reads the tree of the input if it is wanted.
func (in *input) openTree(ctx context.Context, wanted bool, known *[]knownTree) (err error) {
	if wanted && in.tree == nil {
		in.tree, err = in.group.tree(ctx, in.rows.meta.GetTreesSection(), known)
	}
	return err
}

// empty tells whether nothing of the input stays.
func (in *input) empty() bool { return len(in.dropped) == in.profiles.n }

// keeps tells whether profile i is not dropped.
func (in *input) keeps(i int) bool {
	if len(in.dropped) == 0 {
		return true
	}
	_, dropped := slices.BinarySearch(in.dropped, uint32(i))
	return !dropped
}
