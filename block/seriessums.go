package block

import "slices"

// seriesSums are sums of one series: ascending stack nodes and, per sample type, a sum for each.
type seriesSums struct {
	nodes []uint32
	sums  [][]int64
}

func (s *seriesSums) reset(types int) {
	s.nodes = s.nodes[:0]
	for len(s.sums) < types {
		s.sums = append(s.sums, nil)
	}
	s.sums = s.sums[:types]
	for c := range s.sums {
		s.sums[c] = s.sums[c][:0]
	}
}

// places appends to dst where the sums of stack nodes are, which ascend; a node may come again. New nodes begin with 0.
func (s *seriesSums) places(dst, stacks []uint32) []uint32 {
	missing, at := 0, 0
	for j, n := range stacks {
		if j > 0 && n == stacks[j-1] {
			dst = append(dst, dst[len(dst)-1])
			continue
		}
		at = seek(s.nodes, at, n)
		dst = append(dst, uint32(at+missing))
		if at == len(s.nodes) || s.nodes[at] != n {
			missing++
		}
	}
	if missing > 0 {
		s.insert(dst, stacks, missing)
	}
	return dst
}

// insert makes room for the nodes that are missing, each at its place, from the last to the first.
func (s *seriesSums) insert(places, stacks []uint32, missing int) {
	end := len(s.nodes)
	s.nodes = append(s.nodes, make([]uint32, missing)...)
	for c := range s.sums {
		s.sums[c] = append(s.sums[c], make([]int64, missing)...)
	}
	for j := len(stacks) - 1; missing > 0; j-- {
		if j+1 < len(stacks) && stacks[j] == stacks[j+1] {
			continue // it is there now
		}
		place := int(places[j])
		if at := place - missing; at >= 0 && at < end && s.nodes[at] == stacks[j] {
			continue // it was there
		}
		at := place - missing + 1
		copy(s.nodes[place+1:], s.nodes[at:end])
		s.nodes[place] = stacks[j]
		for _, sums := range s.sums {
			copy(sums[place+1:], sums[at:end])
			sums[place] = 0
		}
		end = at
		missing--
	}
}

// seek returns where the first of ascending nodes is that is not below n, searching from a place on.
func seek(nodes []uint32, from int, n uint32) int {
	to, step := from, 1
	for to < len(nodes) && nodes[to] < n {
		from = to + 1
		to += step
		step *= 2
	}
	at, _ := slices.BinarySearch(nodes[from:min(to, len(nodes))], n)
	return from + at
}

// trim takes out nodes whose sums are all zero, and adds the sums to totals.
func (s *seriesSums) trim(totals []uint64) {
	kept := 0
	for i, n := range s.nodes {
		any := int64(0)
		for _, sums := range s.sums {
			any |= sums[i]
		}
		if any == 0 {
			continue
		}
		s.nodes[kept] = n
		for c, sums := range s.sums {
			sums[kept] = sums[i]
			totals[c] += uint64(sums[i])
		}
		kept++
	}
	s.nodes = s.nodes[:kept]
	for c := range s.sums {
		s.sums[c] = s.sums[c][:kept]
	}
}
