package flamegraph

import "fmt"

// How far cursors may walk past siblings in vain, per node merged and in all, before children are looked up
// in an index instead. A step costs a tenth of a lookup; trees of one program need less than one per node,
// a wide node met by many small trees thousands.
const (
	stepsPerNode = 8
	freeSteps    = 1 << 16
)

// union is the shape of any number of trees, without weights.
type union struct {
	forest
	names nameTable
	// steps that cursors took in vain, nodes that were placed, and the bounds above.
	steps, placed           int
	stepsPerNode, freeSteps int
	ids, places             []uint32
}

func newUnion() *union {
	return &union{forest: newForest(), names: newNameTable(), stepsPerNode: stepsPerNode, freeSteps: freeSteps}
}

// place adds the nodes of t and returns where each is. The result is good until the next call.
func (u *union) place(t *Tree) []uint32 {
	u.ids = u.names.add(t.Names, u.ids)
	u.places = append(u.places[:0], make([]uint32, len(t.Self))...)
	u.nodes[0].cursor = 0
	for i := 1; i < len(t.Self); i++ {
		parent, name := u.places[t.Parents[i]], u.ids[t.NodeNames[i]]
		if u.index != nil {
			u.places[i] = u.child(parent, name)
			continue
		}
		u.places[i] = u.advance(parent, name)
		if u.steps > u.freeSteps+u.stepsPerNode*(u.placed+i) {
			u.useIndex()
		}
	}
	u.placed += len(t.Self)
	return u.places
}

// advance returns the child of that name, which it adds if there is none. The cursor of parent is before it.
func (u *union) advance(parent, name uint32) uint32 {
	before := u.nodes[parent].cursor
	at := u.after(parent, before)
	if at == 0 || u.nodes[at].name != name {
		for rank := u.names.rank[name]; at != 0 && u.names.rank[u.nodes[at].name] < rank; u.steps++ {
			before, at = at, u.nodes[at].next
		}
		if at == 0 || u.nodes[at].name != name {
			fresh := u.add(parent, name)
			u.nodes[fresh].next = at
			if before == 0 {
				u.nodes[parent].first = fresh
			} else {
				u.nodes[before].next = fresh
			}
			at = fresh
		}
	}
	u.nodes[parent].cursor = at
	u.nodes[at].cursor = 0
	return at
}

// after returns the sibling after a child of parent, the first child after 0.
func (u *union) after(parent, child uint32) uint32 {
	if child == 0 {
		return u.nodes[parent].first
	}
	return u.nodes[child].next
}

// sorted returns the nodes in preorder, siblings ascending by name.
func (u *union) sorted() []uint32 {
	return u.order(u.names.rank, len(u.names.names))
}

// Merger adds up trees. The result is the same in whatever order and grouping they come. It holds the
// result so far and nothing of the trees. The zero Merger is ready; it is not safe for concurrent use.
type Merger struct {
	union *union
	self  []int64
	total int64
}

// Add adds a tree. After an error, which is ErrOverflow or ErrMalformed, the merger is as it was before.
func (m *Merger) Add(t *Tree) error {
	total, err := sum(t.Self)
	if err != nil {
		return err
	}
	if m.total+total < 0 {
		return fmt.Errorf("%w: %d + %d", ErrOverflow, m.total, total)
	}
	m.total += total
	if m.union == nil {
		m.union = newUnion()
	}
	places := m.union.place(t)
	m.self = append(m.self, make([]int64, len(m.union.nodes)-len(m.self))...)
	for i, at := range places {
		m.self[at] += t.Self[i]
	}
	return nil
}

// Tree returns the sum of the trees so far. More may be added afterwards.
func (m *Merger) Tree() *Tree {
	if m.union == nil {
		return &Tree{}
	}
	u := m.union
	return u.tree(u.sorted(), u.names.rank, u.names.inOrder(), m.self)
}
