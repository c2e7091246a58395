package profile_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/profile"
)

// path returns the locations from a node to the root, which is how a stack is written: leaf first.
func path(t *profile.StackTree, node uint32) []uint32 {
	stack := []uint32{}
	for ; node != 0; node = t.Parents[node] {
		stack = append(stack, t.Locations[node])
	}
	return stack
}

// checkTree fails unless parents come first and no two nodes are the same stack.
func checkTree(t *rapid.T, tree *profile.StackTree) {
	if len(tree.Parents) != len(tree.Locations) || tree.Parents[0] != 0 || tree.Locations[0] != 0 {
		t.Fatalf("tree without a root: %+v", tree)
	}
	seen := map[string]int{}
	for n := 1; n < len(tree.Parents); n++ {
		if int(tree.Parents[n]) >= n {
			t.Fatalf("node %d comes before its parent %d", n, tree.Parents[n])
		}
		p := fmt.Sprint(path(tree, uint32(n)))
		if first, ok := seen[p]; ok {
			t.Fatalf("nodes %d and %d are the same stack %s", first, n, p)
		}
		seen[p] = n
	}
}

// drawStacks draws stacks that share beginnings, as real ones do: few locations, and some of them empty.
func drawStacks(t *rapid.T) [][]uint32 {
	return rapid.SliceOfN(rapid.SliceOfN(rapid.Uint32Range(0, 3), 0, 7), 0, 60).Draw(t, "stacks")
}

func TestStackSet(t *testing.T) {
	var set profile.StackSet
	var tree profile.StackTree
	var nodes []uint32
	rapid.Check(t, func(rt *rapid.T) {
		set.Reset()
		model := map[string]uint32{}
		for _, stack := range drawStacks(rt) {
			k := fmt.Sprint(stack)
			want, known := model[k]
			if !known {
				want = uint32(len(model))
				model[k] = want
			}
			if got := set.Add(stack); got != want {
				rt.Fatalf("Add(%v) = %d, want %d", stack, got, want)
			}
			if got := set.Stack(want); !slices.Equal(got, stack) {
				rt.Fatalf("Stack(%d) = %v, want %v", want, got, stack)
			}
		}
		if set.Len() != len(model) {
			rt.Fatalf("Len() = %d, want %d", set.Len(), len(model))
		}
		nodes = set.Tree(&tree, nodes)
		checkTree(rt, &tree)
		if len(nodes) != set.Len() {
			rt.Fatalf("%d nodes for %d stacks", len(nodes), set.Len())
		}
		prefixes := map[string]bool{}
		for i, n := range nodes {
			stack := set.Stack(uint32(i))
			if got := path(&tree, n); !slices.Equal(got, stack) {
				rt.Fatalf("stack %d is the node of %v, want %v", i, got, stack)
			}
			for j := range stack {
				prefixes[fmt.Sprint(stack[j:])] = true
			}
		}
		if len(tree.Parents) != len(prefixes)+1 {
			rt.Fatalf("%d nodes, want %d and the root", len(tree.Parents), len(prefixes))
		}
	})
}

// So many that tables grow many times and that about ten pairs have one 32-bit hash: those must be told apart.
const many = 300_000

func TestStackSetGrows(t *testing.T) {
	var set profile.StackSet
	for range 2 {
		for i := range uint32(many) {
			if got := set.Add([]uint32{i, i / 7, i / 1000}); got != i {
				t.Fatalf("stack %d got the number %d", i, got)
			}
		}
	}
	var tree profile.StackTree
	for i, n := range set.Tree(&tree, nil) {
		if !slices.Equal(path(&tree, n), set.Stack(uint32(i))) {
			t.Fatalf("stack %d is the node of %v", i, path(&tree, n))
		}
	}
	if set.Bytes() < many*3*4 {
		t.Errorf("Bytes() = %d", set.Bytes())
	}
}

func TestTreeBuilder(t *testing.T) {
	var b profile.TreeBuilder
	rapid.Check(t, func(rt *rapid.T) {
		b.Reset()
		// The sources' locations 0..3 become those of the remap, of which two may be the same.
		want := map[string]bool{}
		for range rapid.IntRange(1, 4).Draw(rt, "sources") {
			var set profile.StackSet
			var src profile.StackTree
			for _, s := range drawStacks(rt) {
				set.Add(s)
			}
			set.Tree(&src, nil)
			var remap []uint32
			if rapid.Bool().Draw(rt, "remapped") {
				remap = rapid.SliceOfN(rapid.Uint32Range(0, 5), 4, 4).Draw(rt, "remap")
			}
			nodes := b.Add(&src, remap, nil)
			if len(nodes) != len(src.Parents) {
				rt.Fatalf("%d nodes for %d", len(nodes), len(src.Parents))
			}
			for n, to := range nodes {
				stack := path(&src, uint32(n))
				for i, l := range stack {
					if remap != nil {
						stack[i] = remap[l]
					}
				}
				if got := path(&b.Tree, to); !slices.Equal(got, stack) {
					rt.Fatalf("node %d became %v, want %v", n, got, stack)
				}
				want[fmt.Sprint(stack)] = true
			}
		}
		checkTree(rt, &b.Tree)
		if len(b.Tree.Parents) != len(want) {
			rt.Fatalf("%d nodes, want %d", len(b.Tree.Parents), len(want))
		}
	})
}

// A mapping whose fields are all zero is not "none", and "" is the string 0 wherever it stands.
func TestTableKeepsNoneApart(t *testing.T) {
	src := profile.Symbols{
		Data:      []byte("mainmain"),
		Strings:   []profile.Span{{}, {Off: 0, Len: 4}, {Off: 4, Len: 4}, {Off: 8}},
		Mappings:  []profile.Mapping{{}, {}},
		Functions: []profile.Function{{}, {}, {Name: 1}, {Name: 2}},
		Locations: []profile.Location{{Address: 1}, {Address: 1, Mapping: 1}, {Address: 1, Lines: 1}, {Address: 1, FirstLine: 1, Lines: 1}, {Address: 1, FirstLine: 2, Lines: 1}},
		Lines:     []profile.Line{{Function: 2}, {Function: 3}, {Function: 1}},
	}
	table := profile.NewTable()
	for range 2 {
		var r profile.Remap
		table.Add(&src, &r)
		if !slices.Equal(r.Strings, []uint32{0, 1, 1, 0}) {
			t.Errorf("strings %v", r.Strings)
		}
		if !slices.Equal(r.Mappings, []uint32{0, 1}) {
			t.Errorf("mappings %v", r.Mappings)
		}
		if !slices.Equal(r.Functions, []uint32{0, 1, 2, 2}) {
			t.Errorf("functions %v", r.Functions)
		}
		if !slices.Equal(r.Locations, []uint32{0, 1, 2, 2, 3}) {
			t.Errorf("locations %v", r.Locations)
		}
		if len(table.Strings) != 2 || len(table.Mappings) != 2 || len(table.Functions) != 3 || len(table.Locations) != 4 || len(table.Lines) != 2 {
			t.Errorf("table %+v", table.Symbols)
		}
	}
	held := table.Bytes()
	table.Reset()
	if len(table.Strings) != 1 || len(table.Mappings) != 1 || len(table.Functions) != 1 || len(table.Locations) != 0 || table.Bytes() != held {
		t.Errorf("after Reset %+v", table.Symbols)
	}
	if table.AddString(nil) != 0 || table.AddString([]byte("x")) != 1 {
		t.Error("strings after Reset are not counted from 0")
	}
}

func TestTableGrows(t *testing.T) {
	src := profile.Symbols{Strings: []profile.Span{{}}, Mappings: []profile.Mapping{{}}, Functions: []profile.Function{{}}}
	for i := range uint32(many) {
		off := uint32(len(src.Data))
		src.Data = strconv.AppendUint(src.Data, uint64(i), 10)
		src.Strings = append(src.Strings, profile.Span{Off: off, Len: uint32(len(src.Data)) - off})
		src.Mappings = append(src.Mappings, profile.Mapping{Start: uint64(i), File: 1})
		src.Functions = append(src.Functions, profile.Function{Name: i + 1})
		src.Lines = append(src.Lines, profile.Line{Function: i + 1})
		src.Locations = append(src.Locations, profile.Location{Mapping: i + 1, FirstLine: i, Lines: 1})
	}
	table := profile.NewTable()
	for range 2 {
		var r profile.Remap
		table.Add(&src, &r)
		for i := range uint32(many) {
			if r.Strings[i+1] != i+1 || r.Mappings[i+1] != i+1 || r.Functions[i+1] != i+1 || r.Locations[i] != i {
				t.Fatalf("name %d became string %d, mapping %d, function %d, location %d", i, r.Strings[i+1], r.Mappings[i+1], r.Functions[i+1], r.Locations[i])
			}
		}
	}
	if string(table.Data) != string(src.Data) {
		t.Error("the table holds other bytes")
	}
}
