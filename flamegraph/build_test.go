package flamegraph

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/profile"
)

// drawSymbols draws a stack tree in order of arrival. Names repeat among functions, functions among
// locations, and locations among siblings.
func drawSymbols(t *rapid.T) *symbols {
	s := newSymbols()
	for _, name := range rapid.SliceOfN(rapid.SampledFrom(someNames), 1, 6).Draw(t, "functions") {
		s.addFunction(name)
	}
	for range rapid.IntRange(1, 8).Draw(t, "locations") {
		address := rapid.Uint64Range(0, 3).Draw(t, "address")
		s.addLocation(address, rapid.SliceOfN(rapid.Uint32Range(0, uint32(len(s.Functions)-1)), 0, 3).Draw(t, "lines")...)
	}
	s.sums[0] = rapid.Int64Range(0, 2).Draw(t, "no stack")
	for range rapid.IntRange(0, 20).Draw(t, "nodes") {
		s.addNode(rapid.Uint32Range(0, uint32(len(s.sums)-1)).Draw(t, "parent"),
			rapid.Uint32Range(0, uint32(len(s.Locations)-1)).Draw(t, "location"), rapid.Int64Range(0, 2).Draw(t, "sum"))
	}
	return s
}

// keys returns the stack of names of each stack node.
func (s *symbols) keys() []string {
	keys := make([]string, len(s.sums))
	for i := 1; i < len(keys); i++ {
		keys[i] = keys[s.tree.Parents[i]]
		lines := slices.Clone(s.LinesOf(s.tree.Locations[i]))
		slices.Reverse(lines)
		for _, l := range lines {
			keys[i] += key(string(s.String(s.Functions[l.Function].Name)))
		}
		if len(lines) == 0 {
			keys[i] += key(fmt.Sprintf("0x%x", s.Locations[s.tree.Locations[i]].Address))
		}
	}
	return keys
}

func (s *symbols) model() model {
	m := model{}
	for i, k := range s.keys() {
		if s.sums[i] != 0 {
			m[k] += s.sums[i]
		}
	}
	return m
}

// callTree makes the call tree of the stacks; it adds names to the symbols.
func (s *symbols) callTree() *profile.CallTree {
	all := model{}
	for _, k := range s.keys() {
		all[k] = 1
	}
	tree := all.tree()
	call := &profile.CallTree{Parents: tree.Parents, Names: make([]uint32, len(tree.Self))}
	nodes := map[string]uint32{}
	keys := make([]string, len(tree.Self))
	strs := map[string]uint32{}
	for i := range tree.Self {
		if i > 0 {
			name := tree.Names[tree.NodeNames[i]]
			if _, ok := strs[name]; !ok {
				strs[name] = s.addString(name)
			}
			call.Names[i] = strs[name]
			keys[i] = keys[tree.Parents[i]] + key(name)
		}
		nodes[keys[i]] = uint32(i)
	}
	for _, k := range s.keys() {
		call.OfStack = append(call.OfStack, nodes[k])
	}
	return call
}

func TestBuild(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSymbols(t)
		want := s.model().tree()
		unsorted, err := BuildUnsorted(&s.Symbols, &s.tree, s.sums)
		if err != nil {
			t.Fatal(err)
		}
		requireEqual(t, "BuildUnsorted", unsorted, want)
		built, err := Build(s.callTree(), &s.Symbols, s.sums)
		if err != nil {
			t.Fatal(err)
		}
		requireEqual(t, "Build", built, want)
	})
}

func TestBuildRefuses(t *testing.T) {
	s := newSymbols()
	location := s.addLocation(1, s.addFunction("f"))
	s.addNode(0, location, 0)
	s.addNode(1, location, 0)
	call := s.callTree()
	for _, test := range []struct {
		sums []int64
		want error
	}{
		{[]int64{0, 1}, ErrMalformed},
		{[]int64{0, 1, 1, 1}, ErrMalformed},
		{[]int64{0, 2, -1}, ErrMalformed},
		{[]int64{1, 0, math.MaxInt64}, ErrOverflow},
	} {
		if _, err := Build(call, &s.Symbols, test.sums); !errors.Is(err, test.want) {
			t.Errorf("Build of %v: %v, want %v", test.sums, err, test.want)
		}
		if _, err := BuildUnsorted(&s.Symbols, &s.tree, test.sums); !errors.Is(err, test.want) {
			t.Errorf("BuildUnsorted of %v: %v, want %v", test.sums, err, test.want)
		}
	}
}

// A tree must not keep the symbols of a whole group alive, nor change when they are reused.
func TestBuildCopiesNames(t *testing.T) {
	s := newSymbols()
	s.addNode(0, s.addLocation(1, s.addFunction("f")), 5)
	call := s.callTree()
	tree, err := Build(call, &s.Symbols, s.sums)
	if err != nil {
		t.Fatal(err)
	}
	clear(s.Data)
	requireEqual(t, "tree", tree, model{key("f"): 5}.tree())
}
