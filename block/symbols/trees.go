package symbols

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/kilndb/kiln/block/column"
	"github.com/kilndb/kiln/profile"
)

// The columns of a TREES section, in order. Those of the call tree, which a flame graph needs, lie together.
// The roots are not stored: node 0 has no parent, no location and no name, and belongs to itself.
const (
	colStackLocations = iota
	colStackParents
	colCallParents
	colCallNames
	colOfStack
	sortedColumns
)

// unsortedColumns is the number of columns without a call tree.
const unsortedColumns = colCallParents

// Forms of a TREES section.
const (
	// unsorted: a stack tree in order of arrival; a parent is stored as the distance back to it.
	unsorted = 0
	// sorted: trees in preorder, of which the second is a call tree; a parent is stored as the levels that
	// the tree climbs before the node.
	sorted = 1
)

// AppendTrees appends the section that holds the two trees to dst. Without a call tree the stack tree may be in
// any order in which parents come first; with one both must be in preorder, or this is an error.
func (e *Encoder) AppendTrees(dst []byte, stack *profile.StackTree, call *profile.CallTree, level column.Level) ([]byte, error) {
	e.begin(level, func(like []byte) (column.Set, error) {
		d, _, _, _, err := openTrees(like, Counts{})
		if err == nil {
			defer d.release()
		}
		return d.set, err
	})
	for _, l := range stack.Locations[min(1, len(stack.Locations)):] {
		e.uvarint(uint64(l))
	}
	e.add()
	if call == nil {
		if err := e.distances(stack.Parents); err != nil {
			return nil, err
		}
		dst = append(dst, unsorted)
		dst = appendCount(dst, len(stack.Parents))
		return e.set.Append(dst)
	}
	if err := e.levels(stack.Parents); err != nil {
		return nil, fmt.Errorf("stack tree: %w", err)
	}
	if err := e.levels(call.Parents); err != nil {
		return nil, fmt.Errorf("call tree: %w", err)
	}
	for _, n := range call.Names[min(1, len(call.Names)):] {
		e.uvarint(uint64(n))
	}
	e.add()
	last := int64(0)
	for _, n := range call.OfStack[min(1, len(call.OfStack)):] {
		e.uvarint(column.Zigzag(int64(n) - last))
		last = int64(n)
	}
	e.add()
	dst = append(dst, sorted)
	dst = appendCount(dst, len(stack.Parents))
	dst = appendCount(dst, len(call.Parents))
	return e.set.Append(dst)
}

// distances writes how far back each parent is.
func (e *Encoder) distances(parents []uint32) error {
	for i := 1; i < len(parents); i++ {
		if int(parents[i]) >= i {
			return fmt.Errorf("node %d comes before its parent %d", i, parents[i])
		}
		e.uvarint(uint64(uint32(i) - parents[i]))
	}
	e.add()
	return nil
}

// levels writes how many levels a tree in preorder climbs before each node.
func (e *Encoder) levels(parents []uint32) error {
	e.up = append(e.up[:0], 0) // the nodes from the root to the last one
	for i := 1; i < len(parents); i++ {
		n := len(e.up)
		for n > 0 && e.up[n-1] != parents[i] {
			n--
		}
		if n == 0 {
			return fmt.Errorf("node %d with parent %d is not in preorder", i, parents[i])
		}
		e.uvarint(uint64(len(e.up) - n))
		e.up = append(e.up[:n], uint32(i))
	}
	e.add()
	return nil
}

// DecodeTrees reads a TREES section of a group with these symbols. The call tree is nil if the section holds
// none.
func DecodeTrees(section []byte, n Counts) (*profile.StackTree, *profile.CallTree, error) {
	d, nodes, calls, form, err := openTrees(section, n)
	if err != nil {
		return nil, nil, err
	}
	defer d.release()
	stack, err := d.stackTree(nodes, form)
	if err != nil || form == unsorted {
		return stack, nil, err
	}
	call, err := d.callTree(calls, nodes)
	if err != nil {
		return nil, nil, err
	}
	return stack, call, nil
}

// DecodeStackTree reads the stack tree alone, and tells whether the section has a call tree: then the stack tree is
// in preorder.
func DecodeStackTree(section []byte, n Counts) (stack *profile.StackTree, hasCall bool, err error) {
	d, nodes, _, form, err := openTrees(section, n)
	if err != nil {
		return nil, false, err
	}
	defer d.release()
	stack, err = d.stackTree(nodes, form)
	return stack, form == sorted, err
}

// openTrees reads the header of a TREES section. The decoder is to be released.
func openTrees(section []byte, n Counts) (d decoder, stacks, calls int, form byte, err error) {
	c := column.Cursor{Data: section}
	form = c.Byte()
	nodes := c.Below(math.MaxInt32)
	var names uint32 // call nodes
	columns := unsortedColumns
	switch {
	case c.Err != nil:
		return d, 0, 0, 0, c.Err
	case form > sorted:
		return d, 0, 0, 0, fmt.Errorf("%w: trees of form %d", column.ErrCorrupt, form)
	case form == sorted:
		names = c.Below(math.MaxInt32)
		columns = sortedColumns
	}
	if c.Err != nil {
		return d, 0, 0, 0, c.Err
	}
	if nodes == 0 || form == sorted && names == 0 {
		return d, 0, 0, 0, fmt.Errorf("%w: a tree without a root", column.ErrCorrupt)
	}
	set, err := column.Parse(section[c.Pos:], columns)
	if err != nil {
		return d, 0, 0, 0, err
	}
	return decoder{set: set, counts: n, scratch: idle.Get()}, int(nodes), int(names), form, nil
}

func (d *decoder) stackTree(nodes int, form byte) (*profile.StackTree, error) {
	locations, err := d.withRoot(colStackLocations, nodes, uint64(d.counts.Locations))
	if err != nil {
		return nil, err
	}
	parents, err := d.withRoot(colStackParents, nodes, uint64(nodes))
	if err != nil {
		return nil, err
	}
	if form == sorted {
		err = climb(parents)
	} else {
		err = goBack(parents)
	}
	if err != nil {
		return nil, err
	}
	return &profile.StackTree{Parents: parents, Locations: locations}, nil
}

func (d *decoder) callTree(calls, nodes int) (*profile.CallTree, error) {
	parents, err := d.withRoot(colCallParents, calls, uint64(calls))
	if err != nil {
		return nil, err
	}
	if err := climb(parents); err != nil {
		return nil, err
	}
	names, err := d.withRoot(colCallNames, calls, uint64(d.counts.Strings))
	if err != nil {
		return nil, err
	}
	ofStack, err := d.withRoot(colOfStack, nodes, math.MaxUint32)
	if err != nil {
		return nil, err
	}
	last := int64(0)
	for i := 1; i < len(ofStack); i++ {
		last += column.Unzigzag(uint64(ofStack[i]))
		if last < 0 || last >= int64(calls) {
			return nil, fmt.Errorf("%w: stack node %d belongs to call node %d of %d", column.ErrCorrupt, i, last, calls)
		}
		ofStack[i] = uint32(last)
	}
	return &profile.CallTree{Parents: parents, Names: names, OfStack: ofStack}, nil
}

// withRoot reads a column of n-1 numbers into an array of n whose first is 0.
func (d *decoder) withRoot(i, n int, limit uint64) ([]uint32, error) {
	b, err := d.items(i, n-1)
	if err != nil {
		return nil, err
	}
	out := make([]uint32, n)
	return out, column.Uint32s(out[1:], b, limit)
}

// goBack turns distances into parents.
func goBack(parents []uint32) error {
	for i := 1; i < len(parents); i++ {
		back := parents[i]
		if back == 0 || int(back) > i {
			return fmt.Errorf("%w: parent of node %d is %d back", column.ErrCorrupt, i, back)
		}
		parents[i] = uint32(i) - back
	}
	return nil
}

// climb turns levels into parents.
func climb(parents []uint32) error {
	path := make([]uint32, 1, 256) // the nodes from the root to the last one
	for i := 1; i < len(parents); i++ {
		n := len(path) - int(parents[i])
		if n < 1 {
			return fmt.Errorf("%w: node %d climbs %d levels of %d", column.ErrCorrupt, i, parents[i], len(path)-1)
		}
		parents[i] = path[n-1]
		path = append(path[:n], uint32(i))
	}
	return nil
}

func appendCount(dst []byte, n int) []byte { return binary.AppendUvarint(dst, uint64(n)) }
