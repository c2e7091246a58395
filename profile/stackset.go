package profile

import "slices"

// StackSet numbers distinct stacks, in order of arrival. A stack is the numbers of its locations, leaf
// first; the empty stack is one like any other. The zero value is ready for use; not safe for concurrent use.
type StackSet struct {
	stacks index
	ends   []uint32
	items  []uint32
	// prefixes belong to Tree.
	prefixes index
	// hashes is scratch.
	hashes []uint32
}

// Add returns the number of a stack. It keeps no reference to it.
func (s *StackSet) Add(stack []uint32) uint32 {
	s.stacks.init()
	return s.add(stack, fold(hashStack(s.stacks.seed, stack)))
}

// AddAll does what Add does for many stacks, faster: those that end in items at each of ends. It returns their
// numbers in the memory of numbers.
func (s *StackSet) AddAll(items, ends, numbers []uint32) []uint32 {
	s.stacks.init()
	s.hashes = s.hashes[:0]
	start := uint32(0)
	for _, end := range ends {
		s.hashes = append(s.hashes, fold(hashStack(s.stacks.seed, items[start:end])))
		start = end
	}
	s.stacks.warm(s.hashes)
	numbers, start = numbers[:0], 0
	for i, end := range ends {
		numbers = append(numbers, s.add(items[start:end], s.hashes[i]))
		start = end
	}
	return numbers
}

func (s *StackSet) add(stack []uint32, h uint32) uint32 {
	n, slot := s.stacks.seek(h, h)
	for ; n != 0; n, slot = s.stacks.seek(h, slot+1) {
		if slices.Equal(s.Stack(n-1), stack) {
			return n - 1
		}
	}
	id := uint32(len(s.ends))
	s.items = append(s.items, stack...)
	s.ends = append(s.ends, uint32(len(s.items)))
	s.stacks.put(slot, h, id)
	return id
}

// hashStack hashes two locations at a time: the multiplication is what takes long.
func hashStack(seed uint64, stack []uint32) uint64 {
	h := seed ^ uint64(len(stack))
	for ; len(stack) >= 2; stack = stack[2:] {
		h = mix(h, uint64(stack[0])<<32|uint64(stack[1]))
	}
	if len(stack) == 1 {
		h = mix(h, uint64(stack[0]))
	}
	return h
}

// Len returns how many distinct stacks there are.
func (s *StackSet) Len() int { return len(s.ends) }

// Stack returns stack i. It lives until the next call that changes the set.
func (s *StackSet) Stack(i uint32) []uint32 {
	start := uint32(0)
	if i > 0 {
		start = s.ends[i-1]
	}
	return s.items[start:s.ends[i]]
}

// Reset empties the set and keeps its memory.
func (s *StackSet) Reset() {
	s.stacks.reset()
	s.ends, s.items = s.ends[:0], s.items[:0]
}

// Bytes returns the memory that the set holds on to, used or not.
func (s *StackSet) Bytes() int {
	return s.stacks.bytes() + s.prefixes.bytes() + 4*(cap(s.ends)+cap(s.items)+cap(s.hashes))
}

// Tree writes into t the tree of all stacks, nodes in order of arrival, and returns the node of each stack in
// the memory of nodes. The empty stack is the root.
//
// A stack begins, seen from the root, mostly like one before it. So the hash of every prefix is computed
// in one sweep and the longest known prefix is looked for from the long end: one look-up per stack and
// one per new node, not one per frame.
func (s *StackSet) Tree(t *StackTree, nodes []uint32) []uint32 {
	s.prefixes.init()
	s.prefixes.reset()
	t.Parents = append(t.Parents[:0], 0)
	t.Locations = append(t.Locations[:0], 0)
	nodes = slices.Grow(nodes[:0], s.Len())
	for i := range uint32(s.Len()) {
		nodes = append(nodes, s.grow(t, s.Stack(i)))
	}
	return nodes
}

// grow adds what is new of one stack to the tree and returns its node.
func (s *StackSet) grow(t *StackTree, stack []uint32) uint32 {
	// stack[i:] is the prefix that ends with stack[i], s.hashes[i] its hash.
	s.hashes = slices.Grow(s.hashes[:0], len(stack))[:len(stack)]
	h := s.prefixes.seed
	for i := len(stack) - 1; i >= 0; i-- {
		h = mix(h, uint64(stack[i]))
		s.hashes[i] = fold(h)
	}
	// Few stacks have more new nodes at their leaf.
	s.prefixes.warm(s.hashes[:min(len(stack), 8)])
	known, node := 0, uint32(0)
	for ; known < len(stack); known++ {
		if n := s.prefix(t, s.hashes[known], stack[known:]); n != 0 {
			node = n
			break
		}
	}
	for i := known - 1; i >= 0; i-- {
		parent := node
		node = uint32(len(t.Parents))
		t.Parents = append(t.Parents, parent)
		t.Locations = append(t.Locations, stack[i])
		n, slot := s.prefixes.seek(s.hashes[i], s.hashes[i])
		for n != 0 {
			n, slot = s.prefixes.seek(s.hashes[i], slot+1)
		}
		s.prefixes.put(slot, s.hashes[i], node)
	}
	return node
}

// prefix returns the node of a prefix of a stack, 0 if the tree does not have it.
func (s *StackSet) prefix(t *StackTree, h uint32, stack []uint32) uint32 {
	for n, slot := s.prefixes.seek(h, h); n != 0; n, slot = s.prefixes.seek(h, slot+1) {
		at := n - 1
		for _, l := range stack {
			if at == 0 || t.Locations[at] != l {
				at = ^uint32(0)
				break
			}
			at = t.Parents[at]
		}
		if at == 0 {
			return n - 1
		}
	}
	return 0
}
