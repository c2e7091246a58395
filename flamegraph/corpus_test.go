package flamegraph

import (
	"maps"
	"strings"
	"testing"

	gprofile "github.com/google/pprof/profile"

	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
)

// load turns a profile into symbols and a stack tree in order of arrival, and sums of one sample type.
func load(p *gprofile.Profile, sampleType string) *symbols {
	s := newSymbols()
	column := oracle.Index(p, sampleType)
	functions := map[*gprofile.Function]uint32{}
	for _, f := range p.Function {
		functions[f] = s.addFunction(oracle.FunctionName(f))
	}
	locations := map[*gprofile.Location]uint32{}
	for _, l := range p.Location {
		var lines []uint32
		for _, line := range l.Line {
			lines = append(lines, functions[line.Function])
		}
		locations[l] = s.addLocation(l.Address, lines...)
	}
	nodes := map[[2]uint32]uint32{}
	for _, sample := range p.Sample {
		at := uint32(0)
		for i := len(sample.Location) - 1; i >= 0; i-- {
			step := [2]uint32{at, locations[sample.Location[i]]}
			next, ok := nodes[step]
			if !ok {
				next = s.addNode(at, step[1], 0)
				nodes[step] = next
			}
			at = next
		}
		s.sums[at] += max(sample.Value[column], 0)
	}
	return s
}

// stacksOf returns the stacks of a tree as the oracle writes them.
func stacksOf(t *Tree) map[string]int64 {
	stacks := map[string]int64{}
	for k, v := range t.stacks() {
		stacks[strings.Join(stackOf(k), ";")] += v
	}
	return stacks
}

func requireAnswer(t *testing.T, tree *Tree, want oracle.Answer) {
	t.Helper()
	if err := tree.Validate(); err != nil {
		t.Fatal(err)
	}
	if tree.Total() != want.Total {
		t.Errorf("total %d, want %d", tree.Total(), want.Total)
	}
	if got := stacksOf(tree); !maps.Equal(got, want.Stacks) {
		t.Errorf("%d stacks differ from the %d wanted", len(got), len(want.Stacks))
	}
	functions := Functions(tree)
	if len(functions) != len(want.Functions) {
		t.Errorf("%d functions, want %d", len(functions), len(want.Functions))
	}
	for _, f := range functions {
		if w := want.Functions[f.Name]; w.Self != f.Self || w.Total != f.Total {
			t.Errorf("%+v, want %+v", f, w)
		}
	}
}

// Every file and sample type of the corpus, alone and added up, against google/pprof.
func TestCorpus(t *testing.T) {
	type sum struct {
		merger   Merger
		profiles []*gprofile.Profile
	}
	sums := map[string]*sum{}
	for _, file := range corpus.All() {
		p := oracle.Parse(file.Gzipped)
		for _, st := range p.SampleType {
			s := load(p, st.Type)
			tree, err := BuildUnsorted(&s.Symbols, &s.tree, s.sums)
			if err != nil {
				t.Fatal(err)
			}
			t.Run(file.Name+"/"+st.Type, func(t *testing.T) { requireAnswer(t, tree, oracle.Sum(st.Type, p)) })
			of := file.Kind() + "/" + st.Type
			if sums[of] == nil {
				sums[of] = &sum{}
			}
			if err := sums[of].merger.Add(tree); err != nil {
				t.Fatal(err)
			}
			sums[of].profiles = append(sums[of].profiles, p)
		}
	}
	for of, s := range sums {
		t.Run("sum of "+of, func(t *testing.T) {
			_, sampleType, _ := strings.Cut(of, "/")
			requireAnswer(t, s.merger.Tree(), oracle.Sum(sampleType, s.profiles...))
		})
	}
}
