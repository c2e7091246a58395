package flamegraph

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// DOT writes who calls whom as a digraph for Graphviz: the maxNodes functions of greatest total (all if 0),
// the heaviest first. The weight of an edge is that of stacks that have the call; a stack counts once. A
// dashed edge leads through functions that were left out.
func DOT(t *Tree, maxNodes int) string {
	functions := Functions(t)
	number, order := heaviestFunctions(functions, maxNodes)
	total := t.Total()
	var b strings.Builder
	fmt.Fprintf(&b, "digraph kiln {\n\tlabel=\"total %d\" labelloc=t\n\tnode [shape=box fontname=\"sans-serif\"]\n", total)
	for i, f := range order {
		fn := functions[f]
		fmt.Fprintf(&b, "\tN%d [label=\"%s\\n%d (%s) of %d (%s)\"]\n",
			i+1, dotText(fn.Name), fn.Self, percent(fn.Self, total), fn.Total, percent(fn.Total, total))
	}
	for _, e := range callEdges(t, number) {
		style := ""
		if e.through {
			style = " style=dashed"
		}
		fmt.Fprintf(&b, "\tN%d -> N%d [label=\"%d\" weight=%d%s]\n",
			e.caller, e.callee, e.weight, 1+int(100*share(e.weight, total)), style)
	}
	b.WriteString("}\n")
	return b.String()
}

// heaviestFunctions returns the heaviest functions and the number of each, from 1; 0 for the others.
func heaviestFunctions(functions []Function, maxNodes int) (number []uint32, order []int) {
	number = make([]uint32, len(functions))
	order = make([]int, len(functions))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(functions[b].Total, functions[a].Total) })
	if maxNodes > 0 && maxNodes < len(order) {
		order = order[:maxNodes]
	}
	for i, f := range order {
		number[f] = uint32(i + 1)
	}
	return number, order
}

// call is a pair of numbered functions, with or without functions between them that were left out.
type call struct {
	caller, callee uint32
	through        bool
}

type weightedCall struct {
	call
	weight int64
}

// callEdges returns the calls between numbered functions, the heaviest first.
func callEdges(t *Tree, number []uint32) []weightedCall {
	totals := t.Totals(nil)
	weights := map[call]int64{}
	onPath := map[call]int{}
	// path has the call that led to each node on the path; at a node that was left out it has no callee yet.
	path := []call{}
	arrives := func(n uint32, c call) bool { return n != 0 && number[t.NodeNames[n]] != 0 && c.caller != 0 }
	walk(t.Parents, func(n uint32) {
		var c call
		if n != 0 {
			c = path[len(path)-1].next(number[t.NodeNames[n]])
		}
		path = append(path, c)
		if arrives(n, c) {
			if onPath[c] == 0 {
				weights[c] += totals[n]
			}
			onPath[c]++
		}
	}, func(n uint32) {
		c := path[len(path)-1]
		path = path[:len(path)-1]
		if arrives(n, c) {
			onPath[c]--
		}
	})
	calls := make([]weightedCall, 0, len(weights))
	for c, weight := range weights {
		calls = append(calls, weightedCall{c, weight})
	}
	slices.SortFunc(calls, compareCalls)
	return calls
}

// next returns the call to the function of that number, 0 if it was left out.
func (c call) next(number uint32) call {
	switch {
	case number != 0 && c.callee != 0:
		return call{caller: c.callee, callee: number}
	case number != 0:
		return call{caller: c.caller, callee: number, through: c.through}
	case c.callee != 0:
		return call{caller: c.callee, through: true}
	default:
		return c
	}
}

func compareCalls(a, b weightedCall) int {
	c := cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(a.caller, b.caller), cmp.Compare(a.callee, b.callee))
	switch {
	case c != 0 || a.through == b.through:
		return c
	case a.through:
		return 1
	default:
		return -1
	}
}

func dotText(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", " ", "\r", " ").Replace(s)
}

func percent(part, total int64) string {
	return fmt.Sprintf("%.2f%%", 100*share(part, total))
}
