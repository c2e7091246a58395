package flamegraph

import (
	"cmp"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestTruncateKeepsTheHeaviest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree := drawModel(t, "model").tree()
		maxNodes := rapid.IntRange(0, 12).Draw(t, "max nodes")
		totals := tree.Totals(nil)
		tr := Truncate(tree, maxNodes)

		heaviest := make([]int, 0, len(totals))
		for i := 1; i < len(totals); i++ {
			heaviest = append(heaviest, i)
		}
		slices.SortStableFunc(heaviest, func(a, b int) int { return cmp.Compare(totals[b], totals[a]) })
		if maxNodes > 0 && maxNodes < len(heaviest) {
			heaviest = heaviest[:maxNodes]
		}
		keys := truncatedKeys(tr)
		want := map[string]int64{"": totals[0]}
		all := truncatedKeys(Truncate(tree, 0))
		for _, i := range heaviest {
			want[all[i]] = totals[i]
		}
		kept := 0
		for i, k := range keys {
			if tr.NodeNames[i] == Other {
				continue
			}
			kept++
			if v, ok := want[k]; !ok || v != tr.Totals[i] {
				t.Fatalf("node %q weighs %d, want %d (kept: %v)", k, tr.Totals[i], v, ok)
			}
		}
		if kept != len(want) || tr.Dropped != len(tree.Self)-kept {
			t.Fatalf("%d nodes and %d dropped, want %d of %d", kept, tr.Dropped, len(want), len(tree.Self))
		}
	})
}

func truncatedKeys(tr *Truncated) []string {
	keys := make([]string, len(tr.Self))
	for i := 1; i < len(keys); i++ {
		name := otherName
		if n := tr.NodeNames[i]; n != Other {
			name = tr.Names[n]
		}
		keys[i] = keys[tr.Parents[i]] + key(name)
	}
	return keys
}

func TestTruncateKeepsTotals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree := drawModel(t, "model").tree()
		tr := Truncate(tree, rapid.IntRange(0, 12).Draw(t, "max nodes"))
		if tr.Totals[0] != tree.Total() {
			t.Fatalf("total is %d, want %d", tr.Totals[0], tree.Total())
		}
		sums := slices.Clone(tr.Self)
		for i := len(sums) - 1; i > 0; i-- {
			if tr.Self[i] < 0 || tr.NodeNames[i] == Other && (tr.Self[i] == 0 || tr.Self[i] != tr.Totals[i]) {
				t.Fatalf("node %d of %+v", i, tr)
			}
			sums[tr.Parents[i]] += sums[i]
		}
		if !slices.Equal(sums, tr.Totals) {
			t.Fatalf("selves add up to %v, totals are %v", sums, tr.Totals)
		}
	})
}

func TestSelectNth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ws := rapid.SliceOfN(rapid.Int64Range(0, rapid.SampledFrom([]int64{1, 5, 1000}).Draw(t, "spread")), 1, 200).Draw(t, "weights")
		sorted := slices.Clone(ws)
		slices.SortFunc(sorted, func(a, b int64) int { return cmp.Compare(b, a) })
		n := rapid.IntRange(0, len(ws)-1).Draw(t, "n")
		if got := selectNth(ws, n); got != sorted[n] {
			t.Fatalf("got %d, want %d", got, sorted[n])
		}
	})
}
