package profile

import "slices"

// TreeBuilder merges stack trees: nodes of the same parent and location become one, in order of
// arrival. The zero value is ready for use; not safe for concurrent use.
type TreeBuilder struct {
	// Tree is what has been merged so far, read-only. It is empty before the first Add and has a root after.
	Tree StackTree

	nodes index
}

// Add merges src and returns the node of each of its nodes, in the memory of nodes. locations says which
// location here each location of src is; nil if they are the same.
func (b *TreeBuilder) Add(src *StackTree, locations, nodes []uint32) []uint32 {
	b.root()
	nodes = slices.Grow(nodes[:0], len(src.Parents))
	for i, parent := range src.Parents {
		if i == 0 {
			nodes = append(nodes, 0)
			continue
		}
		location := src.Locations[i]
		if locations != nil {
			location = locations[location]
		}
		nodes = append(nodes, b.Node(nodes[parent], location))
	}
	return nodes
}

// Node returns the child of parent at a location; it adds the node if there is none. The parent of a first
// node is 0, the root.
func (b *TreeBuilder) Node(parent, location uint32) uint32 {
	b.root()
	h := fold(mix(b.nodes.seed, uint64(parent)<<32|uint64(location)))
	n, slot := b.nodes.seek(h, h)
	for ; n != 0; n, slot = b.nodes.seek(h, slot+1) {
		if b.Tree.Parents[n-1] == parent && b.Tree.Locations[n-1] == location {
			return n - 1
		}
	}
	id := uint32(len(b.Tree.Parents))
	b.Tree.Parents = append(b.Tree.Parents, parent)
	b.Tree.Locations = append(b.Tree.Locations, location)
	b.nodes.put(slot, h, id)
	return id
}

func (b *TreeBuilder) root() {
	if len(b.Tree.Parents) == 0 {
		b.nodes.init()
		b.Tree.Parents = append(b.Tree.Parents, 0)
		b.Tree.Locations = append(b.Tree.Locations, 0)
	}
}

// Reset empties the tree and keeps the memory.
func (b *TreeBuilder) Reset() {
	b.nodes.reset()
	b.Tree.Parents, b.Tree.Locations = b.Tree.Parents[:0], b.Tree.Locations[:0]
}

// Bytes returns the memory that the builder holds on to, used or not.
func (b *TreeBuilder) Bytes() int {
	return b.nodes.bytes() + 4*(cap(b.Tree.Parents)+cap(b.Tree.Locations))
}
