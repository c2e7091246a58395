package inspect

import (
	"fmt"

	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/profile"
)

// checkTrees checks what decoding a TREES section leaves open: siblings, and how the two trees belong together.
// That parents come first and that references are in range the decoder has seen to.
func checkTrees(s *profile.Symbols, t *trees, sorted bool) error {
	if sorted != (t.call != nil) {
		return fmt.Errorf("%w: a call tree is %t in a group that is sorted: %t", block.ErrCorrupt, t.call != nil, sorted)
	}
	if !sorted {
		return checkDistinct(t.stack)
	}
	if err := checkSiblings("stack", t.stack.Parents, t.stack.Locations); err != nil {
		return err
	}
	if err := checkSiblings("call", t.call.Parents, t.call.Names); err != nil {
		return err
	}
	return checkCalls(s, t.stack, t.call)
}

// checkDistinct checks that no two siblings of a tree in order of arrival have one location.
func checkDistinct(t *profile.StackTree) error {
	seen := make(map[[2]uint32]bool, len(t.Parents))
	for i := 1; i < len(t.Parents); i++ {
		key := [2]uint32{t.Parents[i], t.Locations[i]}
		if seen[key] {
			return fmt.Errorf("%w: stack node %d has a sibling of the same location", block.ErrCorrupt, i)
		}
		seen[key] = true
	}
	return nil
}

// checkSiblings checks that siblings ascend by what they carry. The tree is in preorder: it has no other form.
func checkSiblings(what string, parents, carried []uint32) error {
	next := make([]uint64, len(parents)) // the least that the next child may carry
	for i := 1; i < len(parents); i++ {
		p := parents[i]
		if uint64(carried[i]) < next[p] {
			return fmt.Errorf("%w: %s node %d is not after its sibling", block.ErrCorrupt, what, i)
		}
		next[p] = uint64(carried[i]) + 1
	}
	return nil
}

// checkCalls walks from the call node of every stack node up to that of its parent, past the names of the location's
// lines, and checks that no call node is left over.
func checkCalls(s *profile.Symbols, stack *profile.StackTree, call *profile.CallTree) error {
	seen := make([]bool, len(call.Parents))
	seen[0] = true
	for i := 1; i < len(stack.Parents); i++ {
		node := call.OfStack[i]
		pass := func(name uint32) bool {
			if node == 0 || call.Names[node] != name {
				return false
			}
			seen[node] = true
			node = call.Parents[node]
			return true
		}
		ok := true
		lines := s.LinesOf(stack.Locations[i])
		for _, l := range lines {
			ok = ok && pass(s.Functions[l.Function].Name)
		}
		if len(lines) == 0 {
			name, found := bareName(s, stack.Locations[i])
			ok = found && pass(name)
		}
		if !ok || node != call.OfStack[stack.Parents[i]] {
			return fmt.Errorf("%w: stack node %d belongs to call node %d, which is not where its names lead", block.ErrCorrupt, i, call.OfStack[i])
		}
	}
	for i := range seen {
		if !seen[i] {
			return fmt.Errorf("%w: call node %d belongs to no stack node", block.ErrCorrupt, i)
		}
	}
	return nil
}

// checkUsed checks that every stack of a tree is of some row.
func checkUsed(t *trees) error {
	parent := make([]bool, len(t.used))
	for i := len(t.used) - 1; i > 0; i-- {
		if !t.used[i] && !parent[i] {
			return fmt.Errorf("%w: stack node %d is in no row", block.ErrCorrupt, i)
		}
		parent[t.stack.Parents[i]] = true
	}
	return nil
}
