package flamegraph

import (
	"cmp"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
)

// parts are trees as n blocks of one service have them: the stacks of the corpus, a quarter of them missing
// at random in each.
func parts(b *testing.B, prefix string, n int) (trees []*Tree, nodes int) {
	b.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	var loaded []*symbols
	for _, file := range corpus.All() {
		if strings.HasPrefix(file.Name, prefix) {
			p := oracle.Parse(file.Gzipped)
			loaded = append(loaded, load(p, p.SampleType[0].Type))
		}
	}
	for range n {
		var block Merger
		for _, s := range loaded {
			sums := append([]int64(nil), s.sums...)
			for i := range sums {
				if random.IntN(4) == 0 {
					sums[i] = 0
				}
			}
			tree, err := BuildUnsorted(&s.Symbols, &s.tree, sums)
			if err != nil {
				b.Fatal(err)
			}
			if err := block.Add(tree); err != nil {
				b.Fatal(err)
			}
		}
		trees = append(trees, block.Tree())
		nodes += len(trees[len(trees)-1].Self)
	}
	return trees, nodes
}

func BenchmarkMerge(b *testing.B) {
	for _, prefix := range []string{"api-gateway", "compiler", ""} {
		trees, nodes := parts(b, prefix, 50)
		for _, mode := range []struct {
			name   string
			merger func() *Merger
		}{
			{"cursors", func() *Merger { return new(Merger) }},
			{"index", func() *Merger { return impatient(-1) }},
		} {
			b.Run("50 of "+cmp.Or(prefix, "all")+"/"+mode.name, func(b *testing.B) {
				b.ReportAllocs()
				var out *Tree
				for b.Loop() {
					m := mode.merger()
					for _, t := range trees {
						if err := m.Add(t); err != nil {
							b.Fatal(err)
						}
					}
					out = m.Tree()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*nodes), "ns/node")
				b.ReportMetric(float64(len(out.Self)), "nodes")
			})
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	p := oracle.Parse(corpus.Get("compiler-cpu-0").Gzipped)
	s := load(p, p.SampleType[0].Type)
	unsorted, err := BuildUnsorted(&s.Symbols, &s.tree, s.sums)
	if err != nil {
		b.Fatal(err)
	}
	// As a block has it: names in order, and a call tree that every stack node maps to.
	sorted := newSymbols()
	call := &profile.CallTree{Parents: unsorted.Parents, OfStack: identity(len(unsorted.Self))}
	for _, name := range unsorted.Names {
		sorted.addString(name)
	}
	for _, n := range unsorted.NodeNames {
		call.Names = append(call.Names, n+1)
	}
	b.Run("sorted", func(b *testing.B) {
		for b.Loop() {
			if _, err := Build(call, &sorted.Symbols, unsorted.Self); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(unsorted.Self)), "ns/node")
	})
	b.Run("unsorted", func(b *testing.B) {
		for b.Loop() {
			if _, err := BuildUnsorted(&s.Symbols, &s.tree, s.sums); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(unsorted.Self)), "ns/node")
	})
}

func BenchmarkEncode(b *testing.B) {
	trees, _ := parts(b, "", 1)
	t := trees[0]
	for _, encoding := range []struct {
		name   string
		encode func()
	}{
		{"FlameGraph", func() { FlameGraph(t, 8192) }},
		{"TreeBytes", func() { TreeBytes(t, 8192) }},
		{"Validate", func() { _ = t.Validate() }},
		{"Functions", func() { Functions(t) }},
		{"Diff", func() { _, _ = Diff(t, t, 8192) }},
	} {
		b.Run(encoding.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				encoding.encode()
			}
			b.ReportMetric(float64(len(t.Self)), "nodes")
		})
	}
}
