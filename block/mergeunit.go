package block

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
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
	// size is about what the names will take when they are encoded.
	size int
}

// unitKind is one kind of a unit.
type unitKind struct {
	kind   profile.Kind
	stack  profile.StackTree
	call   profile.CallTree
	inputs []*input
	order  []ref
	// expect is what the sources say, less the duplicates.
	expect tally
	// huge: the sums of some sample type pass int64.
	huge bool
}

// input is the rows of one dataset and kind of one source.
type input struct {
	rows     *Rows
	group    *mergeGroup
	sorted   bool
	profiles *Profiles
	tree     *mergeTree
	dropped  bool
	// nodes are the stack nodes that are used, ascending, and to what they became. If all are, nodes is nil.
	nodes, to []uint32
}

// whole tells whether all nodes of the input's tree are used, by these rows and no others: so it is if a merge has
// made it and nothing is dropped. Then its rows need not be read to find out.
func (in *input) whole() bool {
	return in.sorted && !in.dropped && in.group.users[in.rows.meta.GetTreesSection()] == 1
}

// ref is one profile of an input.
type ref struct {
	time   int64
	series uint32 // in the unit
	input  uint32
	index  uint32
}

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

// unit reads one service from all its sources, but for its rows.
func (m *merger) unit(ctx context.Context, s *mergeService) (*unit, error) {
	u := &unit{service: s}
	if err := m.openKinds(ctx, u); err != nil {
		return nil, err
	}
	for _, k := range u.kinds {
		if err := m.markNodes(ctx, k); err != nil {
			return nil, err
		}
	}
	m.table.Reset()
	for i, d := range s.datasets {
		if err := m.unionNames(ctx, d, u.inputs[i]); err != nil {
			return nil, err
		}
	}
	var bare []uint32
	u.symbols, bare = m.sorter.symbols(m.table, &m.remap)
	for _, k := range u.kinds {
		if err := m.unionTrees(k); err != nil {
			return nil, err
		}
		k.call = m.sorter.callTree(&m.call, &u.symbols, &k.stack, bare)
	}
	u.size = estimate(&u.symbols)
	return u, nil
}

// estimate is about what names take when they are encoded: a third of their columns, which hold the strings and
// one to three bytes per number.
func estimate(s *profile.Symbols) int {
	return (len(s.Data) + len(s.Strings) + 8*len(s.Functions) + 5*len(s.Locations) + 4*len(s.Lines)) / 3
}

// openKinds reads the profiles of all sources, unites their series, and settles order and duplicates.
func (m *merger) openKinds(ctx context.Context, u *unit) error {
	var sets seriesMap
	u.inputs = make([][]*input, len(u.service.datasets))
	for i, d := range u.service.datasets {
		all, err := d.d.Series(ctx)
		if err != nil {
			return err
		}
		m.series.reset(len(all))
		for _, rows := range d.d.Rows {
			if err := ctx.Err(); err != nil {
				return err
			}
			in, err := m.openRows(ctx, u, d, rows, all, &sets)
			if err != nil {
				return err
			}
			u.inputs[i] = append(u.inputs[i], in)
		}
	}
	rank := sets.sort()
	u.series = sets.sets
	slices.SortFunc(u.kinds, func(a, b *unitKind) int { return a.kind.Compare(b.kind) })
	for _, k := range u.kinds {
		for i := range k.order {
			k.order[i].series = rank[k.order[i].series]
		}
		k.settle()
	}
	return nil
}

// openRows reads the profiles of one kind of one dataset.
func (m *merger) openRows(ctx context.Context, u *unit, d mergeDataset, rows *Rows, all []labels.Labels, sets *seriesMap) (*input, error) {
	ps, err := rows.Profiles(ctx)
	if err != nil {
		return nil, err
	}
	tree, err := d.group.tree(ctx, rows.meta.GetTreesSection())
	if err != nil {
		return nil, err
	}
	k := u.kind(rows.Kind)
	if err := k.expect.add(rows, ps); err != nil {
		return nil, rows.wrap(storagev1.SectionType_SECTION_TYPE_PROFILES, err)
	}
	in := &input{rows: rows, group: d.group, sorted: d.d.Sorted(), profiles: ps, tree: tree}
	k.order = slices.Grow(k.order, ps.Len())
	for i, at := range ps.Times {
		id := ps.Series[i]
		set, ok := m.series.get(id)
		if !ok {
			set = sets.index(all[id])
			m.series.set(id, set)
		}
		k.order = append(k.order, ref{at, set, uint32(len(k.inputs)), uint32(i)})
	}
	k.inputs = append(k.inputs, in)
	return in, nil
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

// add counts the rows of one source, whose footer and profiles must agree.
func (t *tally) add(rows *Rows, ps *Profiles) error {
	for i, totals := range ps.Totals {
		if s, ok := sum(totals); !ok || s != rows.Sums[i] {
			return fmt.Errorf("%w: profiles have %d of sample type %d, the footer says %d", ErrCorrupt, s, i, rows.Sums[i])
		}
	}
	t.profiles += uint64(rows.ProfileCount)
	t.samples += uint64(rows.SampleCount)
	for i, s := range rows.Sums {
		t.sums[i] += uint64(s)
	}
	for i := range ps.Len() {
		n := ps.extraLengths(i)
		t.extras.add(&n)
	}
	return nil
}

// id returns the id of a profile.
func (k *unitKind) id(r *ref) *profile.ID { return &k.inputs[r.input].profiles.IDs[r.index] }

// settle sorts the profiles and takes out duplicates.
func (k *unitKind) settle() {
	slices.SortFunc(k.order, func(a, b ref) int {
		if a.time != b.time {
			return cmp.Compare(a.time, b.time)
		}
		if a.series != b.series {
			return cmp.Compare(a.series, b.series)
		}
		return cmp.Or(bytes.Compare(k.id(&a)[:], k.id(&b)[:]), cmp.Compare(a.input, b.input), cmp.Compare(a.index, b.index))
	})
	kept := k.order[:0]
	for _, r := range k.order {
		if n := len(kept); n > 0 && kept[n-1].time == r.time && kept[n-1].series == r.series && *k.id(&kept[n-1]) == *k.id(&r) {
			k.drop(r)
			continue
		}
		kept = append(kept, r)
	}
	k.order = kept
	k.huge = k.overflows()
}

// overflows tells whether the sums of the profiles pass int64.
func (k *unitKind) overflows() bool {
	for c := range k.expect.sums {
		total := int64(0)
		for i := range k.order {
			r := &k.order[i]
			t := k.inputs[r.input].profiles.Totals[c][r.index]
			if t < 0 || total > math.MaxInt64-t {
				return true
			}
			total += t
		}
	}
	return false
}

// drop takes a duplicate out of the expectations.
func (k *unitKind) drop(r ref) {
	in := k.inputs[r.input]
	in.dropped = true
	k.expect.profiles--
	k.expect.samples -= uint64(in.profiles.Samples[r.index])
	for c := range k.expect.sums {
		k.expect.sums[c] -= uint64(in.profiles.Totals[c][r.index])
	}
	n := in.profiles.extraLengths(int(r.index))
	k.expect.extras.sub(&n)
}
