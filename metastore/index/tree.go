package index

import "math"

// item is an element of a tree: it has a place in the order, a weight that balances the tree, and a range of time.
type item[T any] interface {
	compare(T) int
	// weight is pseudo-random and always the same for one element.
	weight() uint64
	// bounds are the oldest and newest time in the element, both inclusive.
	bounds() (from, to int64)
}

// node is a persistent treap: elements are in order from left to right, weights fall from top to bottom. Nodes are never
// changed; put and remove return a new root that shares what is the same. nil is the empty tree.
type node[T item[T]] struct {
	item        T
	left, right *node[T]
	from, to    int64 // bounds of all elements below, this one included
}

func newNode[T item[T]](it T, left, right *node[T]) *node[T] {
	n := &node[T]{item: it, left: left, right: right}
	n.from, n.to = it.bounds()
	for _, child := range []*node[T]{left, right} {
		if child != nil {
			n.from, n.to = min(n.from, child.from), max(n.to, child.to)
		}
	}
	return n
}

// bounds returns the range of time in the tree; that of an empty one overlaps nothing.
func (n *node[T]) bounds() (from, to int64) {
	if n == nil {
		return math.MaxInt64, math.MinInt64
	}
	return n.from, n.to
}

// get returns the element that compares equal to key.
func (n *node[T]) get(key T) (it T, ok bool) {
	for n != nil {
		switch c := key.compare(n.item); {
		case c < 0:
			n = n.left
		case c > 0:
			n = n.right
		default:
			return n.item, true
		}
	}
	return it, false
}

// put returns the tree with it, in place of an element that compares equal.
func (n *node[T]) put(it T) *node[T] {
	if n == nil {
		return newNode(it, nil, nil)
	}
	c := it.compare(n.item)
	switch {
	case c < 0:
		l := n.left.put(it)
		if l.item.weight() > n.item.weight() {
			return newNode(l.item, l.left, newNode(n.item, l.right, n.right))
		}
		return newNode(n.item, l, n.right)
	case c > 0:
		r := n.right.put(it)
		if r.item.weight() > n.item.weight() {
			return newNode(r.item, newNode(n.item, n.left, r.left), r.right)
		}
		return newNode(n.item, n.left, r)
	}
	return newNode(it, n.left, n.right)
}

// remove returns the tree without the element that compares equal to key.
func (n *node[T]) remove(key T) *node[T] {
	if n == nil {
		return nil
	}
	c := key.compare(n.item)
	switch {
	case c < 0:
		return newNode(n.item, n.left.remove(key), n.right)
	case c > 0:
		return newNode(n.item, n.left, n.right.remove(key))
	}
	return join(n.left, n.right)
}

// join returns a tree of two, of which all elements of a come first.
func join[T item[T]](a, b *node[T]) *node[T] {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.item.weight() > b.item.weight():
		return newNode(a.item, a.left, join(a.right, b))
	}
	return newNode(b.item, join(a, b.left), b.right)
}

// build returns the tree of elements that are in order, the same that putting one after the other makes.
func build[T item[T]](items []T) *node[T] {
	if len(items) == 0 {
		return nil
	}
	top := 0
	for i := range items {
		if items[i].weight() > items[top].weight() {
			top = i
		}
	}
	return newNode(items[top], build(items[:top]), build(items[top+1:]))
}

// overlap calls visit, in order, for the elements whose bounds meet [start, end).
func (n *node[T]) overlap(start, end int64, visit func(T)) {
	if n == nil || n.to < start || n.from >= end {
		return
	}
	n.left.overlap(start, end, visit)
	if from, to := n.item.bounds(); from < end && to >= start {
		visit(n.item)
	}
	n.right.overlap(start, end, visit)
}

// visit calls yield for the elements in order, until it returns false; it returns whether all were visited.
func (n *node[T]) visit(yield func(T) bool) bool {
	return n == nil || n.left.visit(yield) && yield(n.item) && n.right.visit(yield)
}

// all iterates over the elements in order.
func (n *node[T]) all(yield func(T) bool) { n.visit(yield) }
