package block

import (
	"fmt"
	"unsafe"

	"github.com/kilndb/kiln/profile"
)

// treeUnion unites stack trees whose siblings ascend, with a cursor per node that only moves forward: no hashing
// and no sorting. It is reused.
//
// A tree costs at most a step for each of its nodes and one for each node of the union.
type treeUnion struct {
	nodes []unionNode
	pass  uint32
	path  []uint32
	// numbers of the nodes in preorder, once the union is complete.
	numbers []uint32
}

// unionNode is a node of the union. 0 stands for no node: the root is nobody's child.
type unionNode struct {
	location    uint32
	first, next uint32 // child and sibling
	// at is the child that pass was at last.
	at, pass uint32
}

func (u *treeUnion) reset() {
	u.nodes = append(u.nodes[:0], unionNode{})
	u.pass = 0
}

// begin begins with another tree.
func (u *treeUnion) begin() { u.pass++ }

// child returns the child of parent at a location, which must come after the one that was asked for before.
func (u *treeUnion) child(parent, location uint32) (uint32, error) {
	p := &u.nodes[parent]
	prev, next := uint32(0), p.first
	if p.pass != u.pass {
		p.pass = u.pass
	} else if prev = p.at; prev != 0 {
		if u.nodes[prev].location >= location {
			return 0, fmt.Errorf("%w: siblings of a sorted group are not in the total order", ErrCorrupt)
		}
		next = u.nodes[prev].next
	}
	for next != 0 && u.nodes[next].location < location {
		prev, next = next, u.nodes[next].next
	}
	if next == 0 || u.nodes[next].location != location {
		id := uint32(len(u.nodes))
		if prev == 0 {
			p.first = id
		} else {
			u.nodes[prev].next = id
		}
		p.at = id
		u.nodes = append(u.nodes, unionNode{location: location, next: next})
		return id, nil
	}
	p.at = next
	return next, nil
}

// tree returns the union in preorder, in memory of its own, and which number each node has there.
func (u *treeUnion) tree() (sorted profile.StackTree, numbers []uint32) {
	n := len(u.nodes)
	sorted = profile.StackTree{Parents: make([]uint32, n), Locations: make([]uint32, n)}
	u.numbers = resize(u.numbers, n)
	u.numbers[0] = 0
	u.path = append(u.path[:0], 0)
	node := u.nodes[0].first
	for next := uint32(1); next < uint32(n); {
		if node == 0 { // no more children: on with the sibling of their parent
			last := len(u.path) - 1
			node = u.nodes[u.path[last]].next
			u.path = u.path[:last]
			continue
		}
		u.numbers[node] = next
		sorted.Parents[next], sorted.Locations[next] = u.numbers[u.path[len(u.path)-1]], u.nodes[node].location
		next++
		u.path = append(u.path, node)
		node = u.nodes[node].first
	}
	return sorted, u.numbers
}

// bytes is the memory that the union holds on to.
func (u *treeUnion) bytes() int {
	return cap(u.nodes)*int(unsafe.Sizeof(unionNode{})) + 4*(cap(u.path)+cap(u.numbers))
}
