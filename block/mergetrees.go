package block

import (
	"context"
	"slices"

	"github.com/kilndb/kiln/profile"
)

// unionNames takes the names that a dataset uses into the table.
func (m *merger) unionNames(ctx context.Context, d mergeDataset, inputs []*input) error {
	sym, err := d.d.Symbols(ctx)
	if err != nil {
		return err
	}
	g := d.group
	whole := g.datasets == 1
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

// unionTrees unites the stack trees of a kind in a builder.
func (m *merger) unionTrees(k *unitKind, b *profile.TreeBuilder) {
	b.Reset()
	b.Add(&profile.StackTree{Parents: []uint32{0}, Locations: []uint32{0}}, nil, nil) // at least a root
	for _, in := range k.inputs {
		in.union(b)
	}
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
		s, err := in.samples(ctx)
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

// sortedMarks returns the marked of n nodes in ascending order: by a sweep over the tree if they are a good part
// of it.
func (m *merger) sortedMarks(n int) []uint32 {
	if len(m.marked) < n/8 {
		slices.Sort(m.marked)
		return slices.Clone(m.marked)
	}
	sorted := make([]uint32, 0, len(m.marked))
	for i := range uint32(n) {
		if _, ok := m.marks.get(i); ok {
			sorted = append(sorted, i)
		}
	}
	return sorted
}

// samples reads the rows of the input through the page that its group shares.
func (in *input) samples(ctx context.Context) (*Samples, error) {
	types := len(in.rows.Kind.SampleTypes)
	columns := make([]int, types)
	for i := range columns {
		columns[i] = i
	}
	return in.rows.samples(ctx, in.profiles, in.group.page(in.rows.meta.GetSamplesSection(), 1+types), columns)
}
