package flamegraph

import (
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestTotals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t, "model")
		tree := m.tree()
		totals := tree.Totals(make([]int64, 3))
		if tree.Total() != m.total() || totals[0] != m.total() {
			t.Fatalf("total %d, of the root %d, want %d", tree.Total(), totals[0], m.total())
		}
		for i := range totals {
			want := tree.Self[i]
			for j := i + 1; j < len(totals); j++ {
				if tree.Parents[j] == uint32(i) {
					want += totals[j]
				}
			}
			if totals[i] != want {
				t.Fatalf("total of node %d is %d, want %d", i, totals[i], want)
			}
		}
	})
}

func TestValidateRefuses(t *testing.T) {
	valid := func() *Tree { return model{key("a", "b"): 1, key("a", "c"): 2, key("d"): 3}.tree() }
	if err := valid().Validate(); err != nil {
		t.Fatal(err)
	}
	if err := (&Tree{}).Validate(); err != nil {
		t.Fatalf("the zero tree: %v", err)
	}
	for name, test := range map[string]struct {
		breakIt func(*Tree)
		want    error
	}{
		"short parents":     {func(t *Tree) { t.Parents = t.Parents[:3] }, ErrMalformed},
		"long names column": {func(t *Tree) { t.NodeNames = append(t.NodeNames, 0) }, ErrMalformed},
		"no nodes but one":  {func(t *Tree) { t.Self, t.NodeNames = nil, nil }, ErrMalformed},
		"root has a parent": {func(t *Tree) { t.Parents[0] = 1 }, ErrMalformed},
		"parent is itself":  {func(t *Tree) { t.Parents[2] = 2 }, ErrMalformed},
		"parent after":      {func(t *Tree) { t.Parents[1] = 4 }, ErrMalformed},
		"parent huge":       {func(t *Tree) { t.Parents[1] = math.MaxUint32 }, ErrMalformed},
		"not preorder":      {func(t *Tree) { t.Parents = []uint32{0, 0, 0, 1, 0} }, ErrMalformed},
		"name out of range": {func(t *Tree) { t.NodeNames[4] = 4 }, ErrMalformed},
		"equal siblings":    {func(t *Tree) { t.NodeNames[3] = 1 }, ErrMalformed},
		"unsorted siblings": {func(t *Tree) { t.NodeNames[2], t.NodeNames[3] = 2, 1 }, ErrMalformed},
		"unsorted names":    {func(t *Tree) { t.Names = []string{"a", "c", "b", "d"} }, ErrMalformed},
		"equal names":       {func(t *Tree) { t.Names = []string{"a", "b", "b", "d"} }, ErrMalformed},
		"negative weight":   {func(t *Tree) { t.Self[4] = -1 }, ErrMalformed},
		"overflow":          {func(t *Tree) { t.Self[4] = math.MaxInt64 }, ErrOverflow},
	} {
		tree := valid()
		test.breakIt(tree)
		if err := tree.Validate(); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

// Whatever Validate lets through is the one form of its stacks.
func TestValidateIsSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "nodes")
		tree := &Tree{Names: []string{"a", "b", "c"}, Parents: []uint32{0}, NodeNames: []uint32{0}, Self: []int64{1}}
		for i := 1; i < n; i++ {
			tree.append(uint32(rapid.IntRange(0, i-1).Draw(t, "parent")), uint32(rapid.IntRange(0, 2).Draw(t, "name")), 1)
		}
		want := tree.stacks().tree()
		canonical := len(want.Self) == n && slices.Equal(want.Parents, tree.Parents)
		for i := 1; canonical && i < n; i++ {
			canonical = want.Names[want.NodeNames[i]] == tree.Names[tree.NodeNames[i]]
		}
		if err := tree.Validate(); (err == nil) != canonical {
			t.Fatalf("%+v: %v, canonical: %v", tree, err, canonical)
		}
	})
}
