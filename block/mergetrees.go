package block

import (
	"context"
	"math/bits"
	"slices"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/profile"
)

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
		k.stack, numbers = m.sorter.tree(&m.tree.Tree, nil)
	} else {
		m.union.reset()
		for i, in := range k.inputs {
			if in.copyTwin(k.inputs[:i]) {
				continue
			}
			if err := in.unionSorted(&m.union); err != nil {
				return in.rows.wrap(storagev1.SectionType_SECTION_TYPE_TREES, err)
			}
		}
		k.stack, numbers = m.union.tree()
	}
	for _, in := range k.inputs {
		if !in.isTwin {
			apply(in.to, numbers)
		}
	}
	return nil
}

// copyTwin does for an input that has the same names and the same tree as one before it what has been done for that one.
func (in *input) copyTwin(before []*input) bool {
	if in.nodes != nil {
		return false
	}
	for _, o := range before {
		if o.nodes == nil && o.tree.stack == in.tree.stack && sameMemory(o.group.at, in.group.at) {
			in.isTwin, in.tree.to, in.to = true, o.tree.to, o.to
			return true
		}
	}
	return false
}

func sameMemory(a, b []uint32) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// union adds the used nodes of one source.
func (in *input) union(b *profile.TreeBuilder) {
	if in.nodes == nil {
		in.to = b.Add(in.tree.stack, in.group.at, in.tree.to)
		in.tree.to = in.to
		return
	}
	tree, to, at := in.tree.stack, in.tree.room(), in.group.at
	in.to = make([]uint32, 1, len(in.nodes))
	to[0] = 0
	for _, node := range in.nodes[1:] {
		to[node] = b.Node(to[tree.Parents[node]], at[tree.Locations[node]])
		in.to = append(in.to, to[node])
	}
}

// unionSorted is union for a source whose siblings ascend.
func (in *input) unionSorted(u *treeUnion) (err error) {
	u.begin()
	tree, to, at := in.tree.stack, in.tree.room(), in.group.at
	to[0] = 0
	if in.nodes == nil {
		for i := 1; i < len(to); i++ {
			if to[i], err = u.child(to[tree.Parents[i]], at[tree.Locations[i]]); err != nil {
				return err
			}
		}
		in.to = to
		return nil
	}
	in.to = make([]uint32, 1, len(in.nodes))
	for _, node := range in.nodes[1:] {
		if to[node], err = u.child(to[tree.Parents[node]], at[tree.Locations[node]]); err != nil {
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
	for _, in := range k.inputs {
		if in.whole() {
			continue
		}
		if in.empty() {
			in.nodes = []uint32{0}
			continue
		}
		s, err := m.openSamples(ctx, k, in)
		if err != nil {
			return err
		}
		m.marks.reset(len(in.tree.stack.Parents))
		m.marks.set(0, 0)
		m.marked = append(m.marked[:0], 0)
		for j := range in.profiles.n {
			if !in.keeps(j) {
				continue
			}
			stacks, err := s.stackNodes(j)
			if err != nil {
				s.wrap(&err)
				return err
			}
			m.mark(in.tree.stack, stacks)
		}
		in.nodes = slices.Clone(m.sweep.sort(m.marked, len(in.tree.stack.Parents)))
		in.group.pause(in.rows.meta.GetSamplesSection(), &m.pages)
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

// sweep sorts distinct numbers. It is reused.
type sweep struct{ bits []uint64 }

// sort sorts distinct numbers below n in place: by a sweep over a bit for each that there could be, unless they are few.
func (s *sweep) sort(numbers []uint32, n int) []uint32 {
	if len(numbers) < n/512 {
		slices.Sort(numbers)
		return numbers
	}
	s.bits = resize(s.bits, (n+63)/64)
	clear(s.bits)
	for _, i := range numbers {
		s.bits[i>>6] |= 1 << (i & 63)
	}
	numbers = numbers[:0]
	for w, word := range s.bits {
		for ; word != 0; word &= word - 1 {
			numbers = append(numbers, uint32(w<<6+bits.TrailingZeros64(word)))
		}
	}
	return numbers
}
