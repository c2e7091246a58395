package flamegraph

import "fmt"

// Difference is two trees as one flame graph: every node has a weight on the left and one on the right.
type Difference struct {
	// Names[0] is "total", the name of the root.
	Names []string
	// Levels are rows from the root down. Each node is seven numbers: on the left the distance from the end
	// of the node before it in the row, total and self, the same on the right, and an index into Names.
	Levels [][]int64
	// Total is LeftTotal plus RightTotal.
	Total, MaxSelf        int64
	LeftTotal, RightTotal int64
}

// Diff lays out two trees side by side. It keeps the root and the maxNodes nodes (all if 0) with the greatest
// share of the total of their side: what matters on one side shows, however little its side weighs.
func Diff(left, right *Tree, maxNodes int) (*Difference, error) {
	leftTotal, err := sum(left.Self)
	if err != nil {
		return nil, fmt.Errorf("left: %w", err)
	}
	rightTotal, err := sum(right.Self)
	if err != nil {
		return nil, fmt.Errorf("right: %w", err)
	}
	if leftTotal+rightTotal < 0 {
		return nil, fmt.Errorf("%w: %d on the left + %d on the right", ErrOverflow, leftTotal, rightTotal)
	}
	l, r := align(left, right)
	lt, rt := l.Totals(nil), r.Totals(nil)
	shares := make([]float64, len(lt))
	for i := range shares {
		shares[i] = max(share(lt[i], leftTotal), share(rt[i], rightTotal))
	}
	s := truncate(l.Parents, shares, maxNodes)
	names, indexes := displayNames(l.Names, s.names(l.NodeNames))
	var ls, rs side
	ls.self, ls.totals = s.values(l.Self, lt)
	rs.self, rs.totals = s.values(r.Self, rt)
	return &Difference{
		Names:     names,
		Levels:    layOut(s.parents, indexes, ls, rs),
		Total:     leftTotal + rightTotal,
		MaxSelf:   max(heaviestSelf(ls.self), heaviestSelf(rs.self)),
		LeftTotal: leftTotal, RightTotal: rightTotal,
	}, nil
}

// share is not exact, but a greater part of the same total never has a smaller share, which is all that
// choosing needs.
func share(part, total int64) float64 {
	if total == 0 {
		return 0
	}
	return float64(part) / float64(total)
}

// align returns both trees with the nodes of either.
func align(left, right *Tree) (l, r *Tree) {
	u := newUnion()
	fromLeft := append([]uint32(nil), u.place(left)...)
	fromRight := u.place(right)
	selfs := func(t *Tree, places []uint32) []int64 {
		self := make([]int64, len(u.nodes))
		for i, at := range places {
			self[at] = t.Self[i]
		}
		return self
	}
	order, names := u.sorted(), u.names.inOrder()
	l = u.tree(order, u.names.rank, names, selfs(left, fromLeft))
	rightSelf := selfs(right, fromRight)
	r = &Tree{Names: l.Names, Parents: l.Parents, NodeNames: l.NodeNames, Self: make([]int64, len(order))}
	for i, at := range order {
		r.Self[i] = rightSelf[at]
	}
	return l, r
}
