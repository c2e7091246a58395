package block

import (
	"cmp"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/profile"
)

// Uniting sorted trees with cursors gives the same tree and numbers as hashing and sorting.
func TestTreeUnionIsTheSortedUnion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var u treeUnion
		var b profile.TreeBuilder
		var s sorter
		u.reset()
		b.Reset()
		b.Add(&profile.StackTree{Parents: []uint32{0}, Locations: []uint32{0}}, nil, nil)
		var united, built [][]uint32
		for range rapid.IntRange(0, 4).Draw(t, "trees") {
			tree := drawSortedTree(t, &s)
			u.begin()
			to := make([]uint32, len(tree.Parents))
			for i := 1; i < len(to); i++ {
				var err error
				if to[i], err = u.child(to[tree.Parents[i]], tree.Locations[i]); err != nil {
					t.Fatal(err)
				}
			}
			united, built = append(united, to), append(built, b.Add(&tree, nil, nil))
		}
		got, gotNumbers := u.tree()
		want, wantNumbers := s.tree(&b.Tree, nil)
		if !slices.Equal(got.Parents, want.Parents) || !slices.Equal(got.Locations, want.Locations) {
			t.Fatalf("union %v, want %v", got, want)
		}
		for i := range united {
			for j := range united[i] {
				if gotNumbers[united[i][j]] != wantNumbers[built[i][j]] {
					t.Fatalf("node %d of tree %d became %d, want %d", j, i, gotNumbers[united[i][j]], wantNumbers[built[i][j]])
				}
			}
		}
	})
}

func drawSortedTree(t *rapid.T, s *sorter) profile.StackTree {
	var b profile.TreeBuilder
	b.Add(&profile.StackTree{Parents: []uint32{0}, Locations: []uint32{0}}, nil, nil)
	for _, stack := range rapid.SliceOfN(rapid.SliceOfN(rapid.Uint32Range(0, 5), 0, 6), 0, 20).Draw(t, "stacks") {
		node := uint32(0)
		for _, l := range stack {
			node = b.Node(node, l)
		}
	}
	tree, _ := s.tree(&b.Tree, nil)
	return tree
}

// Siblings that do not ascend are refused, however far apart they are.
func TestTreeUnionRefusesDisorder(t *testing.T) {
	for name, locations := range map[string][]uint32{"descending": {5, 3}, "twice": {5, 5}} {
		var u treeUnion
		u.reset()
		u.begin()
		_, first := u.child(0, locations[0])
		_, second := u.child(0, locations[1])
		if first != nil || second == nil {
			t.Errorf("%s: errors %v, %v", name, first, second)
		}
	}
}

func TestSortRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var order []uint32
		for _, run := range rapid.SliceOfN(rapid.SliceOfN(rapid.Uint32Range(0, 1000), 0, 40), 0, 6).Draw(t, "runs") {
			slices.Sort(run)
			order = append(order, run...)
		}
		want := slices.Sorted(slices.Values(order))
		var s sorter
		s.sortRuns(order, cmp.Compare[uint32])
		if !slices.Equal(order, want) {
			t.Fatalf("%v is not %v", order, want)
		}
	})
}
