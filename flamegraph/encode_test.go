package flamegraph

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// box is a node of a flame graph as a client draws it.
type box struct {
	key         string
	x           []int64
	total, self []int64
}

// boxes reads rows as a client does: the parent of a box is the one above it, on the first side where the
// box is not empty. sides is 1 or 2.
func boxes(t rapid.TB, names []string, levels [][]int64, sides int) []box {
	t.Helper()
	var all, above []box
	for d, row := range levels {
		var level []box
		ends := make([]int64, sides)
		for ; len(row) > 0; row = row[3*sides+1:] {
			var b box
			for s := range sides {
				x := ends[s] + row[3*s]
				b.x, b.total, b.self = append(b.x, x), append(b.total, row[3*s+1]), append(b.self, row[3*s+2])
				ends[s] = x + row[3*s+1]
			}
			if d > 0 {
				b.key = parentOf(t, above, b).key + key(names[row[3*sides]])
			} else if names[row[3*sides]] != "total" {
				t.Fatalf("the root is %q", names[row[3*sides]])
			}
			level = append(level, b)
		}
		all, above = append(all, level...), level
	}
	return all
}

func parentOf(t rapid.TB, above []box, b box) box {
	t.Helper()
	for _, p := range above {
		for s := range b.x {
			// The own weight of the parent lies left of its children.
			if b.total[s] > 0 && b.x[s] >= p.x[s]+p.self[s] && b.x[s]+b.total[s] <= p.x[s]+p.total[s] {
				return p
			}
		}
	}
	t.Fatalf("nothing above %+v", b)
	return box{}
}

func side0(all []box, s int) model {
	m := model{}
	for _, b := range all {
		if b.self[s] != 0 {
			m[b.key] += b.self[s]
		}
	}
	return m
}

func TestFlameGraph(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t, "model")
		names, levels, total, maxSelf := FlameGraph(m.tree(), 0)
		all := boxes(t, names, levels, 1)
		if got := side0(all, 0); !maps.Equal(got, m) {
			t.Fatalf("drawn as %v, want %v", got, m)
		}
		most := int64(0)
		for _, v := range m {
			most = max(most, v)
		}
		if total != m.total() || maxSelf != most || len(levels[0]) != 4 || names[0] != "total" {
			t.Fatalf("total %d, max self %d, row 0 %v; want %d, %d", total, maxSelf, levels[0], m.total(), most)
		}
	})
}

func TestFlameGraphTruncated(t *testing.T) {
	m := model{"": 7, key("a"): 1, key("a", "b"): 10, key("a", "c"): 2, key("a", "d"): 3, key("other"): 4, key("z", "y"): 5}
	names, levels, total, maxSelf := FlameGraph(m.tree(), 3)
	wantNames := []string{"total", "a", "b", "z", "other"}
	wantLevels := [][]int64{
		{0, 32, 7, 0},
		{7, 16, 1, 1, 0, 5, 0, 3, 0, 4, 4, 4},
		{8, 10, 10, 2, 0, 5, 5, 4, 0, 5, 5, 4},
	}
	if !slices.Equal(names, wantNames) || !slices.EqualFunc(levels, wantLevels, slices.Equal) || total != 32 || maxSelf != 10 {
		t.Fatalf("got %q %v %d %d, want %q %v 32 10", names, levels, total, maxSelf, wantNames, wantLevels)
	}
}

func TestFlameGraphOfNothing(t *testing.T) {
	for _, tree := range []*Tree{{}, model{}.tree()} {
		names, levels, total, maxSelf := FlameGraph(tree, 100)
		if !slices.Equal(names, []string{"total"}) || len(levels) != 1 || !slices.Equal(levels[0], []int64{0, 0, 0, 0}) || total != 0 || maxSelf != 0 {
			t.Fatalf("got %q %v %d %d", names, levels, total, maxSelf)
		}
	}
}

func TestDiff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		left, right := drawModel(t, "left"), drawModel(t, "right")
		d, err := Diff(left.tree(), right.tree(), 0)
		if err != nil {
			t.Fatal(err)
		}
		all := boxes(t, d.Names, d.Levels, 2)
		if l, r := side0(all, 0), side0(all, 1); !maps.Equal(l, left) || !maps.Equal(r, right) {
			t.Fatalf("drawn as %v and %v, want %v and %v", l, r, left, right)
		}
		if d.LeftTotal != left.total() || d.RightTotal != right.total() || d.Total != left.total()+right.total() {
			t.Fatalf("totals %d, %d, %d", d.LeftTotal, d.RightTotal, d.Total)
		}
	})
}

func TestDiffWithItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree := drawModel(t, "model").tree()
		maxNodes := rapid.IntRange(0, 12).Draw(t, "max nodes")
		d, err := Diff(tree, tree, maxNodes)
		if err != nil {
			t.Fatal(err)
		}
		names, levels, _, maxSelf := FlameGraph(tree, maxNodes)
		if !slices.Equal(d.Names, names) || d.MaxSelf != maxSelf || len(d.Levels) != len(levels) {
			t.Fatalf("names %q, max self %d, %d levels; want %q, %d, %d", d.Names, d.MaxSelf, len(d.Levels), names, maxSelf, len(levels))
		}
		for i, row := range d.Levels {
			var left, right []int64
			for ; len(row) > 0; row = row[7:] {
				left = append(append(left, row[:3]...), row[6])
				right = append(append(right, row[3:6]...), row[6])
			}
			if !slices.Equal(left, levels[i]) || !slices.Equal(right, levels[i]) {
				t.Fatalf("level %d is %v and %v, want %v", i, left, right, levels[i])
			}
		}
	})
}

func TestDiffKeepsWhatMattersOnEitherSide(t *testing.T) {
	left := model{key("heavy"): 1_000_000, key("light"): 1000}
	right := model{key("new"): 10}
	d, err := Diff(left.tree(), right.tree(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(d.Names, []string{"total", "heavy", "new", "other"}) {
		t.Fatalf("got %q", d.Names)
	}
}

func TestDiffRefusesOverflow(t *testing.T) {
	a := model{key("a"): math.MaxInt64}.tree()
	if _, err := Diff(a, model{key("a"): 1}.tree(), 0); !errors.Is(err, ErrOverflow) {
		t.Fatalf("got %v", err)
	}
}

func TestFunctions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t, "model")
		want := map[string]Function{}
		for k, v := range m {
			stack := stackOf(k)
			for i, name := range stack {
				f := want[name]
				f.Name = name
				if slices.Index(stack, name) == i {
					f.Total += v
				}
				if i == len(stack)-1 {
					f.Self += v
				}
				want[name] = f
			}
		}
		got := Functions(m.tree())
		if len(got) != len(want) || !slices.IsSortedFunc(got, func(a, b Function) int { return strings.Compare(a.Name, b.Name) }) {
			t.Fatalf("got %v, want %v", got, want)
		}
		for _, f := range got {
			if f != want[f.Name] {
				t.Fatalf("got %v, want %v", f, want[f.Name])
			}
		}
	})
}

func TestFolded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t, "model")
		var out bytes.Buffer
		if err := Folded(&out, m.tree()); err != nil {
			t.Fatal(err)
		}
		got := model{}
		for line := range strings.Lines(out.String()) {
			at := strings.LastIndexByte(line, ' ')
			v, err := strconv.ParseInt(strings.TrimSpace(line[at:]), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			stack := ""
			if line[:at] != noStack {
				stack = key(strings.Split(strings.ReplaceAll(line[:at], noName, ""), ";")...)
			}
			got[stack] += v
		}
		if !maps.Equal(got, m) {
			t.Fatalf("got %v, want %v", got, m)
		}
	})
}

func TestFoldedEscapes(t *testing.T) {
	var out bytes.Buffer
	if err := Folded(&out, model{key("a;b", "c\nd e"): 3}.tree()); err != nil || out.String() != "a:b;c d e 3\n" {
		t.Fatalf("got %q, %v", out.String(), err)
	}
	if err := Folded(failing{}, model{key("a"): 3}.tree()); !errors.Is(err, errFailing) {
		t.Fatalf("got %v", err)
	}
}

var errFailing = errors.New("disk full")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errFailing }

func TestSpeedscope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t, "model")
		var out bytes.Buffer
		if err := Speedscope(&out, m.tree(), "checkout", "nanoseconds"); err != nil {
			t.Fatal(err)
		}
		var file speedscopeFile
		if err := json.Unmarshal(out.Bytes(), &file); err != nil {
			t.Fatal(err)
		}
		p := file.Profiles[0]
		got := model{}
		for i, sample := range p.Samples {
			names := []string{}
			for _, f := range sample {
				names = append(names, file.Shared.Frames[f].Name)
			}
			got[key(names...)] += p.Weights[i]
		}
		if !maps.Equal(got, m) || p.EndValue != m.total() || p.Unit != "nanoseconds" || file.Name != "checkout" {
			t.Fatalf("got %v of %+v, want %v", got, p, m)
		}
	})
}

func TestDOT(t *testing.T) {
	m := model{key("main", `say "hi"`): 6, key("main", "x", "f", "f", "f"): 3, key("main", "f"): 1, "": 2}
	want := `digraph kiln {
	label="total 12" labelloc=t
	node [shape=box fontname="sans-serif"]
	N1 [label="main\n0 (0.00%) of 10 (83.33%)"]
	N2 [label="say \"hi\"\n6 (50.00%) of 6 (50.00%)"]
	N3 [label="f\n4 (33.33%) of 4 (33.33%)"]
	N1 -> N2 [label="6" weight=51]
	N1 -> N3 [label="3" weight=26 style=dashed]
	N3 -> N3 [label="3" weight=26]
	N1 -> N3 [label="1" weight=9]
}
`
	if got := DOT(m.tree(), 3); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	if got := DOT(&Tree{}, 3); !strings.Contains(got, "total 0") || strings.Contains(got, "N1") {
		t.Fatalf("of nothing: %s", got)
	}
}
