package flamegraph

import "math/rand/v2"

// node is a node of a tree that grows. Names are numbers that the owner of the forest hands out.
type node struct {
	parent, name uint32
	// first child and next sibling, 0 for none: the root is nobody's child.
	first, next uint32
	// cursor is the child that the tree being merged reached last, 0 for none.
	cursor uint32
}

// forest is a tree that grows: parents come before their children, and a parent has one child of a name.
type forest struct {
	nodes []node
	// index finds children by name. Once it is set, first and next are stale until order.
	index *childIndex
}

func newForest() forest { return forest{nodes: make([]node, 1)} }

// add appends a node that is not linked to its siblings yet.
func (f *forest) add(parent, name uint32) uint32 {
	f.nodes = append(f.nodes, node{parent: parent, name: name})
	return uint32(len(f.nodes) - 1)
}

// child returns the child of that name, which it adds if there is none. It needs the index.
func (f *forest) child(parent, name uint32) uint32 {
	n, found := f.index.find(parent, name, uint32(len(f.nodes)))
	if !found {
		f.add(parent, name)
	}
	return n
}

// useIndex makes the index, if there is none.
func (f *forest) useIndex() {
	if f.index != nil {
		return
	}
	f.index = newChildIndex(len(f.nodes))
	for i := 1; i < len(f.nodes); i++ {
		f.index.find(f.nodes[i].parent, f.nodes[i].name, uint32(i))
	}
}

// order returns the nodes in preorder, siblings ascending by rank[name]; ranks are below n.
func (f *forest) order(rank []uint32, n int) []uint32 {
	if f.index != nil {
		f.link(rank, n)
	}
	order := make([]uint32, 0, len(f.nodes))
	for at := uint32(0); ; {
		order = append(order, at)
		if f.nodes[at].first != 0 {
			at = f.nodes[at].first
			continue
		}
		for at != 0 && f.nodes[at].next == 0 {
			at = f.nodes[at].parent
		}
		if at == 0 {
			return order
		}
		at = f.nodes[at].next
	}
}

// link sorts all siblings at once: by a counting sort of all nodes, then the greatest goes in first.
func (f *forest) link(rank []uint32, n int) {
	ends := make([]uint32, n+1)
	for i := range f.nodes {
		f.nodes[i].first, f.nodes[i].next = 0, 0
		if i > 0 {
			ends[rank[f.nodes[i].name]+1]++
		}
	}
	for i := 1; i <= n; i++ {
		ends[i] += ends[i-1]
	}
	sorted := make([]uint32, len(f.nodes)-1)
	for i := 1; i < len(f.nodes); i++ {
		r := rank[f.nodes[i].name]
		sorted[ends[r]] = uint32(i)
		ends[r]++
	}
	for i := len(sorted) - 1; i >= 0; i-- {
		at := sorted[i]
		parent := f.nodes[at].parent
		f.nodes[at].next = f.nodes[parent].first
		f.nodes[parent].first = at
	}
}

// tree returns the forest as a tree. names are in order of rank; those without a node are left out.
func (f *forest) tree(order, rank []uint32, names []string, self []int64) *Tree {
	n := len(order)
	t := &Tree{Parents: make([]uint32, n), NodeNames: make([]uint32, n), Self: make([]int64, n)}
	place := make([]uint32, n)
	used := make([]bool, len(names))
	for i, at := range order {
		place[at] = uint32(i)
		t.Parents[i] = place[f.nodes[at].parent]
		t.Self[i] = self[at]
		if i > 0 {
			r := rank[f.nodes[at].name]
			t.NodeNames[i] = r
			used[r] = true
		}
	}
	t.Names = compact(names, used, t.NodeNames[1:])
	return t
}

// compact returns the names in use, and changes nodeNames from indexes into names to indexes into these.
func compact(names []string, used []bool, nodeNames []uint32) []string {
	renumbered := make([]uint32, len(names))
	kept := make([]string, 0, len(names))
	for i, u := range used {
		if u {
			renumbered[i] = uint32(len(kept))
			kept = append(kept, names[i])
		}
	}
	for i, n := range nodeNames {
		nodeNames[i] = renumbered[n]
	}
	return kept
}

// childIndex finds nodes by (parent, name) with open addressing.
type childIndex struct {
	// slots are a power of two; node 0 marks a free one.
	slots []childSlot
	used  int
	// seed makes collisions unpredictable to whoever sends the names.
	seed uint64
}

type childSlot struct {
	key  uint64
	node uint32
}

func newChildIndex(nodes int) *childIndex {
	size := 64
	for size < 2*nodes {
		size *= 2
	}
	return &childIndex{slots: make([]childSlot, size), seed: rand.Uint64()}
}

// find returns the node of (parent, name). If there is none it becomes fresh.
func (x *childIndex) find(parent, name, fresh uint32) (n uint32, found bool) {
	key := uint64(parent)<<32 | uint64(name)
	slot := x.slot(key)
	if slot.node != 0 {
		return slot.node, true
	}
	slot.key, slot.node = key, fresh
	if x.used++; 2*x.used > len(x.slots) {
		x.grow()
	}
	return fresh, false
}

// slot returns where key is or belongs.
func (x *childIndex) slot(key uint64) *childSlot {
	// Two rounds of multiply and fold: node numbers are dense and need a good mix.
	h := (key ^ x.seed) * 0x9e3779b97f4a7c15
	h = (h ^ h>>32) * 0xd6e8feb86659fd93
	h ^= h >> 32
	mask := uint64(len(x.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		if s := &x.slots[i]; s.node == 0 || s.key == key {
			return s
		}
	}
}

func (x *childIndex) grow() {
	old := x.slots
	x.slots = make([]childSlot, 2*len(old))
	for _, s := range old {
		if s.node != 0 {
			*x.slot(s.key) = s
		}
	}
}
