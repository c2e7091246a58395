package block

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/profile"
)

// The call tree is that which finds and sorts every name of every stack by itself.
func TestCallTreeIsTheTreeOfNames(t *testing.T) {
	var c callTrees
	rapid.Check(t, func(t *rapid.T) {
		sym := drawNames(t)
		_, bare, _ := uniteByTable(sym)
		var b profile.TreeBuilder
		b.Add(&profile.StackTree{Parents: []uint32{0}, Locations: []uint32{0}}, nil, nil)
		if n := len(sym.Locations); n > 0 {
			for _, stack := range rapid.SliceOfN(rapid.SliceOfN(rapid.Uint32Range(0, uint32(n-1)), 0, 5), 0, 20).Draw(t, "stacks") {
				node := uint32(0)
				for _, l := range stack {
					node = b.Node(node, l)
				}
			}
		}
		var s sorter
		stack, _ := s.tree(&b.Tree, nil)

		b.Reset()
		b.Add(&profile.StackTree{Parents: []uint32{0}, Locations: []uint32{0}}, nil, nil)
		of := make([]uint32, len(stack.Parents))
		for i := 1; i < len(of); i++ {
			node, lines := of[stack.Parents[i]], slices.Clone(sym.LinesOf(stack.Locations[i]))
			slices.Reverse(lines)
			for _, l := range lines {
				node = b.Node(node, sym.Functions[l.Function].Name)
			}
			if len(lines) == 0 {
				node = b.Node(node, bare[stack.Locations[i]])
			}
			of[i] = node
		}
		sorted, numbers := s.tree(&b.Tree, nil)
		for i := range of {
			of[i] = numbers[of[i]]
		}
		want := profile.CallTree{Parents: sorted.Parents, Names: sorted.Locations, OfStack: of}
		if got := c.of(sym, &stack, bare); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%+v, want %+v", got, want)
		}
	})
}
