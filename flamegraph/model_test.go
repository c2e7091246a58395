package flamegraph

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/profile"
)

// model is what a tree means: the weight of each stack. A key is the names of the stack, each after a NUL.
type model map[string]int64

func key(names ...string) string {
	var b strings.Builder
	for _, n := range names {
		b.WriteString("\x00" + n)
	}
	return b.String()
}

func stackOf(key string) []string {
	return strings.Split(key, "\x00")[1:]
}

func (m model) total() (total int64) {
	for _, v := range m {
		total += v
	}
	return total
}

func (m model) plus(o model) model {
	sum := maps.Clone(m)
	for k, v := range o {
		sum[k] += v
	}
	return sum
}

// tree builds the tree of m in the most obvious way.
func (m model) tree() *Tree {
	t := &Tree{Parents: []uint32{0}, NodeNames: []uint32{0}, Self: []int64{m[""]}}
	names := map[string]bool{}
	for k, v := range m {
		for _, n := range stackOf(k) {
			if v != 0 {
				names[n] = true
			}
		}
	}
	t.Names = slices.AppendSeq(make([]string, 0, len(names)), maps.Keys(names))
	slices.Sort(t.Names)
	var grow func(prefix string, parent uint32)
	grow = func(prefix string, parent uint32) {
		for i, name := range t.Names {
			at := prefix + "\x00" + name
			alive := false
			for k, v := range m {
				alive = alive || v != 0 && (k == at || strings.HasPrefix(k, at+"\x00"))
			}
			if alive {
				n := uint32(len(t.Self))
				t.append(parent, uint32(i), m[at])
				grow(at, n)
			}
		}
	}
	grow("", 0)
	return t
}

// stacks is the reverse of model.tree.
func (t *Tree) stacks() model {
	m := model{}
	keys := make([]string, len(t.Self))
	for i, v := range t.Self {
		if i > 0 {
			keys[i] = keys[t.Parents[i]] + "\x00" + t.Names[t.NodeNames[i]]
		}
		if v != 0 {
			m[keys[i]] += v
		}
	}
	return m
}

// The alphabet is small so that stacks share prefixes and functions recurse, and has the names that
// encodings use for themselves.
var someNames = []string{"", "a", "a.b", "b", "main.main", "other", "total", "z", "é"}

func drawModel(t *rapid.T, label string) model {
	return model(rapid.MapOfN(
		rapid.Custom(func(t *rapid.T) string {
			return key(rapid.SliceOfN(rapid.SampledFrom(someNames), 0, 6).Draw(t, "stack")...)
		}),
		rapid.Int64Range(1, 1000), 0, 20).Draw(t, label))
}

func requireEqual(t rapid.TB, what string, got, want *Tree) {
	t.Helper()
	if err := got.Validate(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if len(want.Self) == 1 && want.Self[0] == 0 && len(got.Self) == 0 {
		return // both ways to write the empty tree
	}
	if !slices.Equal(got.Names, want.Names) || !slices.Equal(got.Parents, want.Parents) ||
		!slices.Equal(got.NodeNames, want.NodeNames) || !slices.Equal(got.Self, want.Self) {
		t.Fatalf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// symbols collects stacks of locations as a colleague of another package would have them: symbols, and a
// stack tree in order of arrival.
type symbols struct {
	profile.Symbols
	tree profile.StackTree
	sums []int64
}

func newSymbols() *symbols {
	s := &symbols{}
	s.Strings = []profile.Span{{}}
	s.Functions = []profile.Function{{}}
	s.Mappings = []profile.Mapping{{}}
	s.tree = profile.StackTree{Parents: []uint32{0}, Locations: []uint32{0}}
	s.sums = []int64{0}
	return s
}

func (s *symbols) addString(text string) uint32 {
	s.Strings = append(s.Strings, profile.Span{Off: uint32(len(s.Data)), Len: uint32(len(text))})
	s.Data = append(s.Data, text...)
	return uint32(len(s.Strings) - 1)
}

func (s *symbols) addFunction(name string) uint32 {
	s.Functions = append(s.Functions, profile.Function{Name: s.addString(name)})
	return uint32(len(s.Functions) - 1)
}

func (s *symbols) addLocation(address uint64, functions ...uint32) uint32 {
	s.Locations = append(s.Locations, profile.Location{
		Address: address, FirstLine: uint32(len(s.Lines)), Lines: uint32(len(functions)),
	})
	for _, f := range functions {
		s.Lines = append(s.Lines, profile.Line{Function: f})
	}
	return uint32(len(s.Locations) - 1)
}

func (s *symbols) addNode(parent, location uint32, sum int64) uint32 {
	s.tree.Parents = append(s.tree.Parents, parent)
	s.tree.Locations = append(s.tree.Locations, location)
	s.sums = append(s.sums, sum)
	return uint32(len(s.sums) - 1)
}

func TestModelRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t, "model")
		if got := m.tree().stacks(); !maps.Equal(got, m) {
			t.Fatalf("got %v, want %v", got, m)
		}
	})
}
