package flamegraph

// rootName is what flame graphs call the root.
const rootName = "total"

// FlameGraph lays out the heaviest maxNodes nodes of t (all if 0) as rows from the root down. Each node is
// four numbers: the distance from the end of the node before it in the row, total, self, and an index into
// names. A node's own weight lies left of its children. names[0] is "total", the name of the root; what was
// left out below a node is one node "other".
func FlameGraph(t *Tree, maxNodes int) (names []string, levels [][]int64, total, maxSelf int64) {
	tr := Truncate(t, maxNodes)
	names, indexes := displayNames(tr.Names, tr.NodeNames)
	levels = layOut(tr.Parents, indexes, side{tr.Self, tr.Totals})
	return names, levels, tr.Totals[0], heaviestSelf(tr.Self)
}

func heaviestSelf(self []int64) (most int64) {
	for _, v := range self {
		most = max(most, v)
	}
	return most
}

// displayNames returns "total", the names in use, and "other" if there is such a node; and per node the
// index into them.
func displayNames(all []string, nodeNames []uint32) (names []string, indexes []uint32) {
	used := make([]bool, len(all)+1)
	for _, n := range nodeNames[1:] {
		used[min(int(n), len(all))] = true
	}
	names = append(make([]string, 0, len(all)+2), rootName)
	renumbered := make([]uint32, len(all)+1)
	for i, u := range used {
		if !u {
			continue
		}
		renumbered[i] = uint32(len(names))
		if i < len(all) {
			names = append(names, all[i])
		} else {
			names = append(names, otherName)
		}
	}
	indexes = make([]uint32, len(nodeNames))
	for i := 1; i < len(nodeNames); i++ {
		indexes[i] = renumbered[min(int(nodeNames[i]), len(all))]
	}
	return names, indexes
}

// side is the weights of one of the trees that are drawn together.
type side struct {
	self, totals []int64
}

// layOut returns the rows. Each node is three numbers per side and its name.
func layOut(parents, names []uint32, sides ...side) [][]int64 {
	k := len(sides)
	depths, levels := emptyLevels(parents, 3*k+1)
	// Per node and side where its next child begins; per row and side where the row ends.
	next, ends := make([]int64, len(parents)*k), make([]int64, len(levels)*k)
	for i, parent := range parents {
		d := int(depths[i])
		row := levels[d]
		for j, s := range sides {
			var start int64
			if i > 0 {
				up := int(parent)*k + j
				start = next[up]
				next[up] += s.totals[i]
			}
			next[i*k+j] = start + s.self[i]
			row = append(row, start-ends[d*k+j], s.totals[i], s.self[i])
			ends[d*k+j] = start + s.totals[i]
		}
		levels[d] = append(row, int64(names[i]))
	}
	return levels
}

// emptyLevels returns the depth of each node, and rows with room for width numbers per node.
func emptyLevels(parents []uint32, width int) (depths []uint32, levels [][]int64) {
	depths = make([]uint32, len(parents))
	counts := make([]int, 1, 64)
	counts[0] = 1
	for i := 1; i < len(parents); i++ {
		d := depths[parents[i]] + 1
		depths[i] = d
		if int(d) == len(counts) {
			counts = append(counts, 0)
		}
		counts[d]++
	}
	levels = make([][]int64, len(counts))
	room := make([]int64, width*len(parents))
	for d, n := range counts {
		levels[d], room = room[:0:n*width], room[n*width:]
	}
	return depths, levels
}
