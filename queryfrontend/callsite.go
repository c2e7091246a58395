package queryfrontend

import (
	"slices"

	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"

	"github.com/kilndb/kiln/flamegraph"
)

// atCallSite returns the part of a tree whose stacks begin with the call site, root first: the nodes on the way, with
// no weight of their own, and all below the last.
func atCallSite(t *flamegraph.Tree, site []*typesv1.Location) *flamegraph.Tree {
	way := []uint32{0}
	for _, l := range site {
		next, ok := child(t, way[len(way)-1], l.GetName())
		if !ok {
			return &flamegraph.Tree{}
		}
		way = append(way, next)
	}
	last := way[len(way)-1]
	end := last + 1 // preorder: what is below a node follows it
	for int(end) < len(t.Parents) && t.Parents[end] >= last {
		end++
	}
	part := &flamegraph.Tree{}
	for depth, n := range way[:len(way)-1] {
		part.Parents = append(part.Parents, uint32(max(depth-1, 0)))
		part.NodeNames = append(part.NodeNames, t.NodeNames[n])
		part.Self = append(part.Self, 0)
	}
	moved := last - uint32(len(part.Parents)) // nodes move up by this much
	for n := last; n < end; n++ {
		parent := t.Parents[n] - moved
		if n == last {
			parent = uint32(max(len(way)-2, 0))
		}
		part.Parents = append(part.Parents, parent)
		part.NodeNames = append(part.NodeNames, t.NodeNames[n])
		part.Self = append(part.Self, t.Self[n])
	}
	keepNames(part, t.Names)
	return part
}

// child finds the child of a node by name.
func child(t *flamegraph.Tree, parent uint32, name string) (uint32, bool) {
	for n := int(parent) + 1; n < len(t.Parents) && t.Parents[n] >= parent; n++ {
		if t.Parents[n] == parent && t.Names[t.NodeNames[n]] == name {
			return uint32(n), true
		}
	}
	return 0, false
}

// keepNames gives t those of the ascending names that its nodes have.
func keepNames(t *flamegraph.Tree, names []string) {
	used := slices.Clone(t.NodeNames[1:])
	slices.Sort(used)
	used = slices.Compact(used)
	t.Names = make([]string, len(used))
	for i, old := range used {
		t.Names[i] = names[old]
	}
	t.NodeNames[0] = 0
	for i, old := range t.NodeNames[1:] {
		j, _ := slices.BinarySearch(used, old)
		t.NodeNames[i+1] = uint32(j)
	}
}
