package flamegraph

import (
	"math"
	"slices"
)

// Other in Truncated.NodeNames marks a node that stands for several: whatever was left out below its parent.
// A function whose name is "other" is not one of them.
const Other = math.MaxUint32

// otherName is what encodings call such a node.
const otherName = "other"

// Truncated is a tree of which only the heaviest nodes are left. Below each parent that lost children one
// more node, the last child, has their weight: totals are exact.
type Truncated struct {
	Names []string
	// Columns as those of Tree. NodeNames may be Other.
	Parents, NodeNames []uint32
	Self, Totals       []int64
	// Dropped nodes of the tree.
	Dropped int
}

// Truncate keeps the root and the maxNodes nodes of greatest total, of equals those that come first; all
// nodes if maxNodes is 0 or less.
func Truncate(t *Tree, maxNodes int) *Truncated {
	if len(t.Self) == 0 {
		t = &Tree{Parents: []uint32{0}, NodeNames: []uint32{0}, Self: []int64{0}}
	}
	totals := t.Totals(nil)
	s := truncate(t.Parents, totals, maxNodes)
	if s.dropped == 0 {
		return &Truncated{Names: t.Names, Parents: t.Parents, NodeNames: t.NodeNames, Self: t.Self, Totals: totals}
	}
	tr := &Truncated{Names: t.Names, Parents: s.parents, NodeNames: s.names(t.NodeNames), Dropped: s.dropped}
	tr.Self, tr.Totals = s.values(t.Self, totals)
	return tr
}

// shape says which nodes a truncated tree has.
type shape struct {
	parents []uint32
	// source is a node of the tree that was truncated; other nodes have that of their parent.
	source  []uint32
	other   []bool
	dropped int
}

// truncate chooses by weight. A parent weighs no less than its child.
func truncate[W int64 | float64](parents []uint32, weights []W, maxNodes int) shape {
	kept := heaviest(weights, maxNodes)
	lost := make([]bool, len(parents))
	var s shape
	for i, k := range kept {
		if !k {
			s.dropped++
			lost[parents[i]] = lost[parents[i]] || weights[i] > 0
		}
	}
	// With a node for what each of them lost there are at most twice as many.
	room := min(2*(len(parents)-s.dropped), len(parents))
	s.parents, s.source, s.other = make([]uint32, 0, room), make([]uint32, 0, room), make([]bool, 0, room)
	// path leads from the root to the node added last; place says where in s each node of it is.
	place, path := make([]uint32, len(parents)), make([]uint32, 0, 64)
	leave := func() {
		n := path[len(path)-1]
		path = path[:len(path)-1]
		if lost[n] {
			s.add(place[n], n, true)
		}
	}
	for i, k := range kept {
		if !k {
			continue // and so are all below it
		}
		for len(path) > 0 && path[len(path)-1] != parents[i] {
			leave()
		}
		place[i] = uint32(len(s.source))
		s.add(place[parents[i]], uint32(i), false)
		path = append(path, uint32(i))
	}
	for len(path) > 0 {
		leave()
	}
	return s
}

func (s *shape) add(parent, source uint32, other bool) {
	s.parents = append(s.parents, parent)
	s.source = append(s.source, source)
	s.other = append(s.other, other)
}

func (s *shape) names(of []uint32) []uint32 {
	names := make([]uint32, len(s.source))
	for i, n := range s.source {
		if names[i] = of[n]; s.other[i] {
			names[i] = Other
		}
	}
	return names
}

// values returns the weights of the truncated tree, given those of the whole. What a kept node has and its
// kept children have not is that of its other node.
func (s *shape) values(selfs, all []int64) (self, totals []int64) {
	self, totals = make([]int64, len(s.source)), make([]int64, len(s.source))
	rest := make([]int64, len(s.source))
	for i, n := range s.source {
		if s.other[i] {
			continue
		}
		self[i], totals[i] = selfs[n], all[n]
		rest[i] += all[n] - selfs[n]
		if i > 0 {
			rest[s.parents[i]] -= all[n]
		}
	}
	for i, o := range s.other {
		if o {
			self[i] = rest[s.parents[i]]
			totals[i] = self[i]
		}
	}
	return self, totals
}

// heaviest marks node 0 and the n heaviest of the others, of equals the first ones; all if n is 0 or less.
func heaviest[W int64 | float64](weights []W, n int) []bool {
	kept := make([]bool, len(weights))
	kept[0] = true
	least, equals := W(0), len(weights)
	if n > 0 && n < len(weights)-1 {
		scratch := slices.Clone(weights[1:])
		least = selectNth(scratch, n-1)
		equals = n
		for _, w := range weights[1:] {
			if w > least {
				equals--
			}
		}
	}
	for i := 1; i < len(weights); i++ {
		switch {
		case weights[i] > least:
			kept[i] = true
		case weights[i] == least && equals > 0:
			kept[i] = true
			equals--
		}
	}
	return kept
}

// selectNth returns the element that would be at n if ws were sorted descending. It reorders ws.
func selectNth[W int64 | float64](ws []W, n int) W {
	for tries := 0; len(ws) > 16; tries++ {
		// Quickselect halves its input on average. Input that makes it slow is sorted instead.
		if tries > 64 {
			break
		}
		pivot := median(ws[0], ws[len(ws)/2], ws[len(ws)-1])
		greater, less := partition(ws, pivot)
		switch {
		case n < greater:
			ws = ws[:greater]
		case n < less:
			return pivot
		default:
			ws, n = ws[less:], n-less
		}
	}
	slices.Sort(ws)
	return ws[len(ws)-1-n]
}

// partition puts the elements greater than pivot into [0, greater) and those less than it into [less, len).
func partition[W int64 | float64](ws []W, pivot W) (greater, less int) {
	less = len(ws)
	for i := 0; i < less; {
		switch {
		case ws[i] > pivot:
			ws[i], ws[greater] = ws[greater], ws[i]
			greater++
			i++
		case ws[i] < pivot:
			less--
			ws[i], ws[less] = ws[less], ws[i]
		default:
			i++
		}
	}
	return greater, less
}

func median[W int64 | float64](a, b, c W) W {
	return max(min(a, b), min(max(a, b), c))
}
