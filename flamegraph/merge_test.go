package flamegraph

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"
)

func merged(t rapid.TB, m *Merger, trees ...*Tree) *Tree {
	t.Helper()
	for _, tree := range trees {
		if err := m.Add(tree); err != nil {
			t.Fatal(err)
		}
	}
	return m.Tree()
}

// impatient is a merger that gives up its cursors after some steps in vain.
func impatient(steps int) *Merger {
	m := &Merger{union: newUnion(), self: []int64{0}}
	m.union.stepsPerNode, m.union.freeSteps = 0, steps
	return m
}

func TestMergerInAnyOrderAndGrouping(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		models := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) model { return drawModel(t, "model") }), 0, 6).Draw(t, "models")
		sum := model{}
		trees := make([]*Tree, len(models))
		for i, m := range models {
			sum = sum.plus(m)
			trees[i] = m.tree()
		}
		want := sum.tree()
		requireEqual(t, "in order", merged(t, new(Merger), trees...), want)

		shuffled := rapid.Permutation(trees).Draw(t, "order")
		cut := rapid.IntRange(0, len(shuffled)).Draw(t, "cut")
		left, right := merged(t, new(Merger), shuffled[:cut]...), merged(t, new(Merger), shuffled[cut:]...)
		requireEqual(t, "grouped", merged(t, new(Merger), left, right), want)
		requireEqual(t, "with an index", merged(t, impatient(rapid.IntRange(-1, 20).Draw(t, "steps")), shuffled...), want)
	})
}

func TestMergerGoesOnAfterTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawModel(t, "a"), drawModel(t, "b")
		m := impatient(rapid.IntRange(-1, 20).Draw(t, "steps"))
		requireEqual(t, "first", merged(t, m, a.tree()), a.tree())
		requireEqual(t, "both", merged(t, m, b.tree()), a.plus(b).tree())
	})
}

// A node with very many children that meets very many small trees would cost their product.
func TestMergerIsBounded(t *testing.T) {
	wide, sum := model{}, model{}
	for i := range 3000 {
		wide[key(fmt.Sprintf("f%04d", i))] = 1
	}
	wideTree := &Tree{Parents: []uint32{0}, NodeNames: []uint32{0}, Self: []int64{0}}
	for i := range 3000 {
		wideTree.Names = append(wideTree.Names, fmt.Sprintf("f%04d", i))
		wideTree.append(0, uint32(i), 1)
	}
	var m Merger
	sum = sum.plus(wide)
	merged(t, &m, wideTree)
	for range 1000 {
		small := model{key("f2999", "g"): 2, key("f3000"): 1}
		sum = sum.plus(small)
		merged(t, &m, small.tree())
	}
	if m.union.index == nil {
		t.Fatal("still walks siblings")
	}
	if limit := freeSteps + stepsPerNode*m.union.placed + 3000; m.union.steps > limit {
		t.Fatalf("%d steps in vain, want at most %d", m.union.steps, limit)
	}
	got := m.Tree()
	if err := got.Validate(); err != nil {
		t.Fatal(err)
	}
	for k, want := range sum {
		if v := got.stacks()[k]; v != want && (k == key("f2999") || len(k) > 6 || k == key("f3000")) {
			t.Fatalf("%q weighs %d, want %d", k, v, want)
		}
	}
	if got.Total() != sum.total() || len(got.Self) != 3003 {
		t.Fatalf("%d nodes weigh %d, want 3003 and %d", len(got.Self), got.Total(), sum.total())
	}
}

func TestMergerRefusesAndStaysAsItWas(t *testing.T) {
	a := model{key("a"): math.MaxInt64 - 1}
	m := new(Merger)
	merged(t, m, a.tree())
	if err := m.Add(model{key("b"): 2}.tree()); !errors.Is(err, ErrOverflow) {
		t.Fatalf("got %v, want %v", err, ErrOverflow)
	}
	negative := model{key("a"): 1}.tree()
	negative.Self[1] = -1
	if err := m.Add(negative); !errors.Is(err, ErrMalformed) {
		t.Fatalf("got %v, want %v", err, ErrMalformed)
	}
	requireEqual(t, "after refusals", m.Tree(), a.tree())
	requireEqual(t, "to the brim", merged(t, m, model{key("b"): 1}.tree()), a.plus(model{key("b"): 1}).tree())
}

func TestMergerOfNothing(t *testing.T) {
	requireEqual(t, "no trees", new(Merger).Tree(), model{}.tree())
	requireEqual(t, "empty trees", merged(t, new(Merger), &Tree{}, model{}.tree()), model{}.tree())
}
