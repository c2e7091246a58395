package block

import (
	"context"
	"math/bits"
	"slices"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/profile"
)

// unionNames takes the names that a dataset uses into the table.
func (m *merger) unionNames(ctx context.Context, d mergeDataset, inputs []*input) error {
	sym, err := d.d.Symbols(ctx)
	if err != nil {
		return err
	}
	g := d.group
	whole := g.alone()
	for _, in := range inputs {
		whole = whole && in.whole()
	}
	if whole {
		m.table.Add(sym, &g.remap)
		g.at = g.remap.Locations
		return nil
	}
	m.locations.reset(len(sym.Locations))
	m.used = m.used[:0]
	for _, in := range inputs {
		in.each(func(node uint32) {
			if node == 0 {
				return // the root has no location
			}
			l := in.tree.stack.Locations[node]
			if _, ok := m.locations.get(l); !ok {
				m.locations.set(l, 0)
				m.used = append(m.used, l)
			}
		})
	}
	m.table.Add(m.subset.of(sym, m.used), &g.remap)
	g.at = resize(g.at, len(sym.Locations))
	for i, l := range m.used {
		g.at[l] = g.remap.Locations[i]
	}
	return nil
}

// unionTrees unites the stack trees of a kind and says of every used node which one it became: with forward cursors
// if all sources are sorted, by hashing and sorting otherwise. The names have been united.
func (m *merger) unionTrees(k *unitKind) error {
	var numbers []uint32
	if slices.ContainsFunc(k.inputs, func(in *input) bool { return !in.sorted }) {
		m.tree.Reset()
		m.tree.Add(&profile.StackTree{Parents: []uint32{0}, Locations: []uint32{0}}, nil, nil) // at least a root
		for _, in := range k.inputs {
			in.union(&m.tree)
		}
		k.stack, numbers = m.sorter.tree(&m.tree.Tree, m.remap.Locations)
	} else {
		m.union.reset()
		for _, in := range k.inputs {
			if err := in.unionSorted(&m.union, m.remap.Locations); err != nil {
				return in.rows.wrap(storagev1.SectionType_SECTION_TYPE_TREES, err)
			}
		}
		k.stack, numbers = m.union.tree()
	}
	for _, in := range k.inputs {
		apply(in.to, numbers)
	}
	return nil
}

// union adds the used nodes of one source.
func (in *input) union(b *profile.TreeBuilder) {
	if in.nodes == nil {
		in.to = b.Add(in.tree.stack, in.group.at, in.tree.to)
		in.tree.to = in.to
		return
	}
	tree, to, at := in.tree.stack, in.tree.to, in.group.at
	in.to = make([]uint32, 1, len(in.nodes))
	to[0] = 0
	for _, node := range in.nodes[1:] {
		to[node] = b.Node(to[tree.Parents[node]], at[tree.Locations[node]])
		in.to = append(in.to, to[node])
	}
}

// unionSorted is union for a source whose siblings ascend; rank is the order of locations.
func (in *input) unionSorted(u *treeUnion, rank []uint32) (err error) {
	u.begin()
	tree, to, at := in.tree.stack, in.tree.to, in.group.at
	to[0] = 0
	if in.nodes == nil {
		for i := 1; i < len(to); i++ {
			if to[i], err = u.child(to[tree.Parents[i]], rank[at[tree.Locations[i]]]); err != nil {
				return err
			}
		}
		in.to = to
		return nil
	}
	in.to = make([]uint32, 1, len(in.nodes))
	for _, node := range in.nodes[1:] {
		if to[node], err = u.child(to[tree.Parents[node]], rank[at[tree.Locations[node]]]); err != nil {
			return err
		}
		in.to = append(in.to, to[node])
	}
	return nil
}

// each calls f with every used node, parents first.
func (in *input) each(f func(node uint32)) {
	if in.nodes != nil {
		for _, n := range in.nodes {
			f(n)
		}
		return
	}
	for n := range uint32(len(in.tree.stack.Parents)) {
		f(n)
	}
}

// markNodes finds out which stack nodes the profiles that stay refer to.
func (m *merger) markNodes(ctx context.Context, k *unitKind) error {
	for i, in := range k.inputs {
		if in.whole() {
			continue
		}
		s, err := in.samples(ctx, &m.pages)
		if err != nil {
			return err
		}
		m.marks.reset(len(in.tree.stack.Parents))
		m.marks.set(0, 0)
		m.marked = append(m.marked[:0], 0)
		for j := range k.order {
			r := &k.order[j]
			if int(r.input) != i {
				continue
			}
			stacks, err := s.stackNodes(int(r.index))
			if err != nil {
				s.wrap(&err)
				return err
			}
			m.mark(in.tree.stack, stacks)
		}
		in.nodes = m.sortedMarks(len(in.tree.stack.Parents))
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// mark adds nodes and their ancestors to the marked ones.
func (m *merger) mark(t *profile.StackTree, stacks []uint32) {
	for _, n := range stacks {
		for {
			if _, ok := m.marks.get(n); ok {
				break
			}
			m.marks.set(n, 0)
			m.marked = append(m.marked, n)
			n = t.Parents[n]
		}
	}
}

// sortedMarks returns the marked of n nodes in ascending order: by a sweep over a bit per node unless they are few.
func (m *merger) sortedMarks(n int) []uint32 {
	if len(m.marked) < n/512 {
		slices.Sort(m.marked)
		return slices.Clone(m.marked)
	}
	m.bits = resize(m.bits, (n+63)/64)
	clear(m.bits)
	for _, i := range m.marked {
		m.bits[i>>6] |= 1 << (i & 63)
	}
	sorted := make([]uint32, 0, len(m.marked))
	for w, word := range m.bits {
		for ; word != 0; word &= word - 1 {
			sorted = append(sorted, uint32(w<<6+bits.TrailingZeros64(word)))
		}
	}
	return sorted
}

// samples reads the rows of the input through the page that its group shares.
func (in *input) samples(ctx context.Context, idle *[]*page) (*Samples, error) {
	types := len(in.rows.Kind.SampleTypes)
	columns := make([]int, types)
	for i := range columns {
		columns[i] = i
	}
	return in.rows.samples(ctx, in.profiles, in.group.page(in.rows.meta.GetSamplesSection(), 1+types, idle), len(in.tree.stack.Parents), columns)
}
