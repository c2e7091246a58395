package index

import (
	"math"
	"slices"
)

// item is an element of a tree: it has a place in the order, and a range of time.
type item[T any] interface {
	compare(T) int
	// bounds are the oldest and newest time in the element, both inclusive.
	bounds() (from, to int64)
}

// width is how many elements or trees a node holds at most. Wide nodes are few objects to make and to collect and are read
// in one go; twice as wide ones gain nothing when many entries are added in a transaction, and cost more when few are.
const width = 16

// edit is the right to change what was made under it. A transaction has one; with its end nobody has it any more, and
// what was made is shared for good.
type edit struct{ _ byte } // not empty: each has an address of its own

// tree is a persistent B+ tree: elements are in the leaves, all of which are at the same depth, in order from left to right.
// The zero value is the empty tree. put and remove return a new tree that shares with the old what is the same; only
// nodes made under the same edit are changed in place, so a tree from before must not be used within that edit.
type tree[T item[T]] struct {
	least    T     // the first element
	from, to int64 // bounds of all elements
	node     *node[T]
}

// node is the content of a tree that is not empty: a leaf has items, a branch has trees.
type node[T item[T]] struct {
	edit  *edit // may change the node; nil: nobody
	items []T
	trees []tree[T]
}

func (t tree[T]) empty() bool { return t.node == nil }

// bounds returns the range of time in the tree; that of an empty one overlaps nothing.
func (t tree[T]) bounds() (from, to int64) {
	if t.empty() {
		return math.MaxInt64, math.MinInt64
	}
	return t.from, t.to
}

// tree returns the tree that n, which is not empty, is the content of.
func (n *node[T]) tree() tree[T] {
	t := tree[T]{from: math.MaxInt64, to: math.MinInt64, node: n}
	for i := range n.items {
		from, to := n.items[i].bounds()
		t.from, t.to = min(t.from, from), max(t.to, to)
	}
	for i := range n.trees {
		t.from, t.to = min(t.from, n.trees[i].from), max(t.to, n.trees[i].to)
	}
	if n.leaf() {
		t.least = n.items[0]
	} else {
		t.least = n.trees[0].least
	}
	return t
}

func (n *node[T]) leaf() bool { return n.trees == nil }

// search returns where in a leaf key is, or would be.
func (n *node[T]) search(key T) (i int, found bool) {
	return slices.BinarySearchFunc(n.items, key, func(it, key T) int { return it.compare(key) })
}

// branch returns which tree of a branch key is in, or would be.
func (n *node[T]) branch(key T) int {
	low, high := 1, len(n.trees) // what is before all belongs to the first
	for low < high {
		if mid := (low + high) / 2; n.trees[mid].least.compare(key) <= 0 {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low - 1
}

// own returns n where e may change it, or else a copy that it may change.
func (n *node[T]) own(e *edit) *node[T] {
	if e != nil && n.edit == e {
		return n
	}
	return &node[T]{e, withRoom(n.items, len(n.items)+1), withRoom(n.trees, len(n.trees)+1)}
}

// withRoom returns a copy that has room for as many elements, but for no more than a node holds; nil of nothing.
func withRoom[E any](s []E, room int) []E {
	if len(s) == 0 {
		return nil
	}
	return append(make([]E, 0, min(room, width)), s...)
}

// get returns the element that compares equal to key.
func (t tree[T]) get(key T) (it T, ok bool) {
	n := t.node
	if n == nil {
		return it, false
	}
	for !n.leaf() {
		n = n.trees[n.branch(key)].node
	}
	i, ok := n.search(key)
	if ok {
		it = n.items[i]
	}
	return it, ok
}

// put returns the tree with it, in place of an element that compares equal.
func (t tree[T]) put(e *edit, it T) tree[T] {
	if t.empty() {
		return (&node[T]{edit: e, items: []T{it}}).tree()
	}
	left, right := t.insert(e, it)
	if right.empty() {
		return left
	}
	return (&node[T]{edit: e, trees: []tree[T]{left, right}}).tree()
}

// insert is put into a tree that is not empty. Where one node cannot hold all it returns two trees of the same height.
func (t tree[T]) insert(e *edit, it T) (left, right tree[T]) {
	n := t.node.own(e)
	var rest node[T] // what n cannot hold
	if n.leaf() {
		i, found := n.search(it)
		if found {
			n.items[i] = it
		} else {
			n.items, rest.items = add(n.items, i, it)
		}
	} else {
		i := n.branch(it)
		var beside tree[T]
		if n.trees[i], beside = n.trees[i].insert(e, it); !beside.empty() {
			n.trees, rest.trees = add(n.trees, i+1, beside)
		}
	}
	if rest.items != nil || rest.trees != nil {
		right = (&node[T]{e, rest.items, rest.trees}).tree()
	}
	return n.tree(), right
}

// add returns the content of a node with an element at i; two nodes' where one cannot hold it. What comes in order leaves
// full nodes behind.
func add[E any](s []E, i int, element E) (left, right []E) {
	switch {
	case len(s) < min(cap(s), width):
		return slices.Insert(s, i, element), nil
	case len(s) < width:
		return slices.Insert(withRoom(s, 2*len(s)), i, element), nil
	case i == width:
		return s, []E{element}
	}
	left, right = s[:width/2], append(make([]E, 0, width), s[width/2:]...)
	clear(s[width/2:]) // the array must not keep what is in right
	if i <= width/2 {
		return slices.Insert(left, i, element), right
	}
	return left, slices.Insert(right, i-width/2, element)
}

// remove returns the tree without the element that compares equal to key.
func (t tree[T]) remove(e *edit, key T) tree[T] {
	if t.empty() {
		return t
	}
	t = t.without(e, key)
	for !t.empty() && len(t.node.trees) == 1 {
		t = t.node.trees[0]
	}
	return t
}

// without is remove that keeps the height of a tree that is not empty before.
func (t tree[T]) without(e *edit, key T) tree[T] {
	if t.node.leaf() {
		i, found := t.node.search(key)
		if !found {
			return t
		}
		n := t.node.own(e)
		n.items = slices.Delete(n.items, i, i+1)
		if len(n.items) == 0 {
			return tree[T]{}
		}
		return n.tree()
	}
	n := t.node.own(e)
	i := n.branch(key)
	n.trees[i] = n.trees[i].without(e, key)
	if n.trees[i].empty() {
		n.trees = slices.Delete(n.trees, i, i+1)
	} else {
		n.join(i)
	}
	if len(n.trees) == 0 {
		return tree[T]{}
	}
	return n.tree()
}

// join puts the i-th tree of a branch and a neighbour together if both are small.
func (n *node[T]) join(i int) {
	for _, left := range []int{i - 1, i} {
		if left < 0 || left+1 >= len(n.trees) {
			continue
		}
		a, b := n.trees[left].node, n.trees[left+1].node
		if len(a.items)+len(a.trees)+len(b.items)+len(b.trees) <= width/2 {
			a = a.own(n.edit)
			a.items, a.trees = append(a.items, b.items...), append(a.trees, b.trees...)
			n.trees[left] = a.tree()
			n.trees = slices.Delete(n.trees, left+1, left+2)
			return
		}
	}
}

// build returns the tree of elements that are in order.
func build[T item[T]](items []T) (t tree[T]) {
	var level []tree[T]
	for chunk := range slices.Chunk(items, width) {
		level = append(level, (&node[T]{items: withRoom(chunk, len(chunk))}).tree())
	}
	for len(level) > 1 {
		var above []tree[T]
		for chunk := range slices.Chunk(level, width) {
			above = append(above, (&node[T]{trees: withRoom(chunk, len(chunk))}).tree())
		}
		level = above
	}
	for _, t = range level {
	}
	return t
}

// overlap calls visit, in order, for the elements whose bounds meet [start, end).
func (t tree[T]) overlap(start, end int64, visit func(T)) {
	if !t.empty() && t.from < end && t.to >= start {
		t.node.overlap(start, end, visit)
	}
}

func (n *node[T]) overlap(start, end int64, visit func(T)) {
	for i := range n.items {
		if from, to := n.items[i].bounds(); from < end && to >= start {
			visit(n.items[i])
		}
	}
	for i := range n.trees {
		if t := &n.trees[i]; t.from < end && t.to >= start {
			t.node.overlap(start, end, visit)
		}
	}
}

// all iterates over the elements in order.
func (t tree[T]) all(yield func(T) bool) {
	if !t.empty() {
		t.node.visit(yield)
	}
}

// visit calls yield for the elements in order, until it returns false; it returns whether all were visited.
func (n *node[T]) visit(yield func(T) bool) bool {
	for i := range n.items {
		if !yield(n.items[i]) {
			return false
		}
	}
	for i := range n.trees {
		if !n.trees[i].node.visit(yield) {
			return false
		}
	}
	return true
}
