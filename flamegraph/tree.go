package flamegraph

import (
	"errors"
	"fmt"
	"math"
)

var (
	// ErrOverflow is returned when a sum of weights does not fit an int64.
	ErrOverflow = errors.New("sum of weights exceeds int64")
	// ErrMalformed is returned when columns or bytes are not a tree.
	ErrMalformed = errors.New("malformed tree")
)

// Tree is a call tree with weights. Nodes are in preorder, siblings ascend by name (as bytes) and are
// distinct. Node 0 is the root: it has no name, and its own weight is that of samples without a stack.
// The zero Tree is empty.
type Tree struct {
	// Names ascend and are distinct.
	Names []string
	// Parents and NodeNames have one entry per node: a node and an index into Names. Those of the root are 0.
	Parents, NodeNames []uint32
	// Self is the weight of each node without its descendants.
	Self []int64
}

// Total returns the weight of the whole tree.
func (t *Tree) Total() int64 {
	var total int64
	for _, v := range t.Self {
		total += v
	}
	return total
}

// Totals returns the weight of each node with its descendants, in dst if that is large enough.
func (t *Tree) Totals(dst []int64) []int64 {
	dst = append(dst[:0], t.Self...)
	for i := len(dst) - 1; i > 0; i-- {
		dst[t.Parents[i]] += dst[i]
	}
	return dst
}

// Validate checks that t keeps every promise of the type. It returns ErrMalformed or ErrOverflow.
func (t *Tree) Validate() error {
	n := len(t.Self)
	if len(t.Parents) != n || len(t.NodeNames) != n {
		return fmt.Errorf("%w: %d parents and %d names for %d weights", ErrMalformed, len(t.Parents), len(t.NodeNames), n)
	}
	if n > math.MaxUint32 {
		return fmt.Errorf("%w: %d nodes", ErrMalformed, n)
	}
	for i := 1; i < len(t.Names); i++ {
		if t.Names[i-1] >= t.Names[i] {
			return fmt.Errorf("%w: name %d does not ascend", ErrMalformed, i)
		}
	}
	if _, err := sum(t.Self); err != nil {
		return err
	}
	if n > 0 && t.Parents[0] != 0 {
		return fmt.Errorf("%w: the root has parent %d", ErrMalformed, t.Parents[0])
	}
	for i := 1; i < n; i++ {
		if err := t.validateNode(uint32(i)); err != nil {
			return err
		}
	}
	return nil
}

// validateNode checks node i, those before it being valid. All calls together climb each edge once.
func (t *Tree) validateNode(i uint32) error {
	parent, name := t.Parents[i], t.NodeNames[i]
	if parent >= i {
		return fmt.Errorf("%w: node %d has parent %d", ErrMalformed, i, parent)
	}
	if int(name) >= len(t.Names) {
		return fmt.Errorf("%w: node %d has name %d of %d", ErrMalformed, i, name, len(t.Names))
	}
	// The way up from the node before ends at the parent, through the sibling before.
	sibling, at := uint32(0), i-1
	for at > parent {
		sibling, at = at, t.Parents[at]
	}
	if at != parent {
		return fmt.Errorf("%w: node %d is not in preorder", ErrMalformed, i)
	}
	if sibling != 0 && t.NodeNames[sibling] >= name {
		return fmt.Errorf("%w: node %d does not ascend from its sibling %d", ErrMalformed, i, sibling)
	}
	return nil
}

// sum adds up weights and refuses those that cannot be in one tree.
func sum(weights []int64) (int64, error) {
	var total int64
	for i, v := range weights {
		if v < 0 {
			return 0, fmt.Errorf("%w: weight %d of node %d is negative", ErrMalformed, v, i)
		}
		if total += v; total < 0 {
			return 0, ErrOverflow
		}
	}
	return total, nil
}

// walk visits a tree in preorder: enter in the order of the nodes, leave after the last descendant.
func walk(parents []uint32, enter, leave func(node uint32)) {
	path := make([]uint32, 0, 64)
	for i, parent := range parents {
		for len(path) > 0 && path[len(path)-1] != parent {
			leave(path[len(path)-1])
			path = path[:len(path)-1]
		}
		enter(uint32(i))
		path = append(path, uint32(i))
	}
	for len(path) > 0 {
		leave(path[len(path)-1])
		path = path[:len(path)-1]
	}
}
