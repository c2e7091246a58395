package block

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// drawNames draws symbols in the total order, of few different names: prefixes of each other, empty ones, names like those of
// bare addresses, functions of one name in several files, inlined lines, locations that differ in one field.
func drawNames(t *rapid.T) *profile.Symbols {
	table := profile.NewTable()
	text := func(what string) uint32 {
		return table.AddString([]byte(rapid.SampledFrom([]string{"", "a", "ab", "a.go", "b", "b.go", "0x1", "0x10", "0x2", "z"}).Draw(t, what)))
	}
	small := func(what string) int64 { return rapid.Int64Range(-1, 2).Draw(t, what) }
	src := profile.Symbols{Mappings: make([]profile.Mapping, 1), Functions: make([]profile.Function, 1)}
	for range rapid.IntRange(0, 4).Draw(t, "mappings") {
		src.Mappings = append(src.Mappings, profile.Mapping{
			Start: uint64(rapid.IntRange(0, 1).Draw(t, "start")), File: text("file"), BuildID: text("build id"), HasFilenames: rapid.Bool().Draw(t, "flag"),
		})
	}
	for range rapid.IntRange(0, 8).Draw(t, "functions") {
		src.Functions = append(src.Functions, profile.Function{Name: text("name"), SystemName: text("system name"), File: text("file"), StartLine: small("start line")})
	}
	for range rapid.IntRange(0, 20).Draw(t, "locations") {
		l := profile.Location{
			Mapping: uint32(rapid.IntRange(0, len(src.Mappings)-1).Draw(t, "mapping")), FirstLine: uint32(len(src.Lines)),
			Lines:   uint32(rapid.IntRange(0, 3).Draw(t, "lines")),
			Address: rapid.SampledFrom([]uint64{0, 1, 2, 0x10, 1 << 63}).Draw(t, "address"), Folded: rapid.Bool().Draw(t, "folded"),
		}
		for range l.Lines {
			src.Lines = append(src.Lines, profile.Line{
				Function: uint32(rapid.IntRange(0, len(src.Functions)-1).Draw(t, "function")), Line: small("line"), Column: small("column"),
			})
		}
		src.Locations = append(src.Locations, l)
	}
	src.Data, src.Strings = table.Data, table.Strings
	sorted, _, _ := uniteByTable(&src)
	return &sorted
}

// uniteByTable is nameUnion by hashing and sorting, for names in any order.
func uniteByTable(sources ...*profile.Symbols) (sorted profile.Symbols, bare []uint32, locations [][]uint32) {
	table := profile.NewTable()
	for _, s := range sources {
		var r profile.Remap
		table.Add(s, &r)
		locations = append(locations, r.Locations)
	}
	var s sorter
	var r profile.Remap
	sorted, bare = s.symbols(table, &r)
	for _, l := range locations {
		compose(l, r.Locations)
	}
	return sorted, bare, locations
}

// sameNames compares symbols by their strings, which may lie anywhere in memory.
func sameNames(t *rapid.T, got, want *profile.Symbols) {
	t.Helper()
	texts := func(s *profile.Symbols) (all []string) {
		for i := range s.Strings {
			all = append(all, string(s.String(uint32(i))))
		}
		return all
	}
	if g, w := texts(got), texts(want); !slices.Equal(g, w) {
		t.Fatalf("strings %q, want %q", g, w)
	}
	g, w := *got, *want
	g.Data, g.Strings, w.Data, w.Strings = nil, nil, nil, nil
	if fmt.Sprint(g) != fmt.Sprint(w) {
		t.Fatalf("%+v, want %+v", g, w)
	}
}

// Cursors give the same names and numbers as hashing and sorting, of however many sources.
func TestUnionOfNamesIsTheSortedUnion(t *testing.T) {
	var u nameUnion
	rapid.Check(t, func(t *rapid.T) {
		var sources []*nameSource
		var all []*profile.Symbols
		for range rapid.SampledFrom([]int{1, 2, 3, abreast, abreast + 1, 2*abreast + 3}).Draw(t, "sources") {
			all = append(all, drawNames(t))
			sources = append(sources, &nameSource{symbols: all[len(all)-1]})
		}
		want, wantBare, wantLocations := uniteByTable(all...)
		got, gotBare, err := u.of(sources)
		if err != nil {
			t.Fatal(err)
		}
		sameNames(t, &got, &want)
		if !slices.Equal(gotBare, wantBare) {
			t.Fatalf("names of locations without lines %v, want %v", gotBare, wantBare)
		}
		for i, n := range sources {
			if !slices.Equal(n.remap.Locations, wantLocations[i]) {
				t.Fatalf("locations of source %d became %v, want %v", i, n.remap.Locations, wantLocations[i])
			}
		}
	})
}

// A part of sorted names is sorted, and has the names that its locations need and no others.
func TestSubsetOfSortedNames(t *testing.T) {
	var x subset
	var u nameUnion
	rapid.Check(t, func(t *rapid.T) {
		whole := drawNames(t)
		var used []uint32
		for l := range whole.Locations {
			if rapid.Bool().Draw(t, "used") {
				used = append(used, uint32(l))
			}
		}
		var part profile.Symbols
		if err := x.of(whole, used, true, &part); err != nil {
			t.Fatal(err)
		}
		n := &nameSource{symbols: &part}
		got, _, err := u.of([]*nameSource{n})
		if err != nil {
			t.Fatal(err)
		}
		sameNames(t, &got, &part)
		for i, l := range used {
			if g, w := locationText(&part, uint32(i)), locationText(whole, l); g != w {
				t.Fatalf("location %d is %s, want %s", l, g, w)
			}
		}
		needed := map[string]bool{"": true}
		for i := range part.Locations {
			if part.Locations[i].Lines == 0 {
				needed[fmt.Sprintf("0x%x", part.Locations[i].Address)] = true
			}
		}
		for _, f := range part.Functions {
			needed[string(part.String(f.Name))], needed[string(part.String(f.SystemName))], needed[string(part.String(f.File))] = true, true, true
		}
		for _, m := range part.Mappings {
			needed[string(part.String(m.File))], needed[string(part.String(m.BuildID))] = true, true
		}
		if len(needed) != len(part.Strings) {
			t.Fatalf("%d strings, want %v", len(part.Strings), needed)
		}
	})
}

// falseBlock is a block of as many services, whose names or trees are not what a sorted group promises once damage has been
// done to them. Damage may be nil.
func falseBlock(t *testing.T, services int, damage func(s *profile.Symbols, stack *profile.StackTree)) []byte {
	t.Helper()
	table := profile.NewTable()
	text := func(s string) uint32 { return table.AddString([]byte(s)) }
	src := profile.Symbols{
		Mappings:  []profile.Mapping{{}, {Start: 1, File: text("bin")}, {Start: 2, File: text("bin")}},
		Functions: []profile.Function{{}, {Name: text("f"), File: text("f.go")}, {Name: text("g"), File: text("g.go")}},
		Locations: []profile.Location{{Lines: 1, Mapping: 1}, {FirstLine: 1, Lines: 1, Mapping: 2}, {Address: 7}, {Address: 8}},
		Lines:     []profile.Line{{Function: 1}, {Function: 2}},
	}
	src.Data, src.Strings = table.Data, table.Strings
	sorted, bare, _ := uniteByTable(&src)
	stack := &profile.StackTree{Parents: []uint32{0, 0, 0, 0, 0}, Locations: []uint32{0, 0, 1, 2, 3}}
	call := new(callTrees).of(&sorted, stack, bare)
	id := "01GOOD"
	if damage != nil {
		id = "01FALSE"
		damage(&sorted, stack)
	}
	var out bytes.Buffer
	w := NewWriter(&out, Header{ID: id, Tenant: "acme", Level: 1})
	g := w.Group("acme", true)
	g.Symbols(&sorted)
	names := []string{"api", "web"}[:services]
	var series []labels.Labels
	for _, name := range names {
		series = append(series, seriesOf(name)...)
	}
	g.Series(series)
	kind := makeProfile("web", nil).p.Kind("process_cpu")
	for i, name := range names {
		rw := g.Rows(name, kind, g.Trees(stack, &call))
		if err := rw.Append(Profile{Time: int64(len(id)), Series: uint32(i)}, []uint32{1, 2, 3, 4}, [][]int64{{1, 2, 3, 4}, {1, 2, 3, 4}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A group that claims to be sorted and is not makes the merge fail, and the error says which object and section.
func TestMergeRefusesNamesOutOfOrder(t *testing.T) {
	swap := func(s *profile.Symbols, a, b int) { s.Locations[a], s.Locations[b] = s.Locations[b], s.Locations[a] }
	for what, damage := range map[string]func(s *profile.Symbols, stack *profile.StackTree){
		"strings": func(s *profile.Symbols, _ *profile.StackTree) {
			s.Strings[1], s.Strings[2] = s.Strings[2], s.Strings[1]
		},
		"string twice": func(s *profile.Symbols, _ *profile.StackTree) { s.Strings[3] = s.Strings[4] },
		"mappings": func(s *profile.Symbols, _ *profile.StackTree) {
			s.Mappings[1], s.Mappings[2] = s.Mappings[2], s.Mappings[1]
		},
		"mapping twice": func(s *profile.Symbols, _ *profile.StackTree) { s.Mappings[1] = s.Mappings[2] },
		"functions": func(s *profile.Symbols, _ *profile.StackTree) {
			s.Functions[1], s.Functions[2] = s.Functions[2], s.Functions[1]
		},
		"function twice": func(s *profile.Symbols, _ *profile.StackTree) { s.Functions[1] = s.Functions[2] },
		"locations":      func(s *profile.Symbols, _ *profile.StackTree) { swap(s, 0, 3) },
		"bare locations": func(s *profile.Symbols, _ *profile.StackTree) { swap(s, 0, 1) },
		"location twice": func(s *profile.Symbols, _ *profile.StackTree) { s.Locations[2] = s.Locations[3] },
		"no bare name":   func(s *profile.Symbols, _ *profile.StackTree) { s.Locations[1].Address = 0x7f },
		"siblings":       func(_ *profile.Symbols, stack *profile.StackTree) { stack.Locations[3] = 3; stack.Locations[4] = 2 },
	} {
		section := "SECTION_TYPE_SYMBOLS"
		if what == "siblings" {
			section = "SECTION_TYPE_TREES"
		}
		for services := 1; services <= 2; services++ {
			good, bad := falseBlock(t, services, nil), falseBlock(t, services, damage)
			if err := tryMerge(t.Context(), t, good, good); err != nil {
				t.Fatalf("undamaged: %v", err)
			}
			many := slices.Repeat([][]byte{smallBlock(t)}, abreast)
			for _, sources := range [][][]byte{{bad}, {good, bad}, {bad, good}, append(many, bad)} {
				err := tryMerge(t.Context(), t, sources...)
				if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "01FALSE") || !strings.Contains(err.Error(), section) {
					t.Errorf("%s, %d services, %d sources: error %v", what, services, len(sources), err)
				}
			}
		}
	}
}

// Whether all sources have the same names and trees, some or none: the merge has the rows of all.
func TestMergeOfEqualNames(t *testing.T) {
	block := func(at int64, extra ...string) []byte {
		var h head
		for i := range int64(4) {
			d := makeProfile("api", [][2]int64{{at + i, 3}, {2, 7}, {5, 0}}, []string{"main", "serve", "read"}, []string{"main", "@4a0"}, []string{"main"})
			h.push("acme", d, at+i, profile.ID{byte(at + i)}, noLabels)
		}
		for _, name := range extra {
			h.push("acme", simple("api", 1, name), at, profile.ID{99}, noLabels)
		}
		return merge(t, "acme", 1, h.segment(t, "X"))
	}
	for what, sources := range map[string][][]byte{
		"all":  {block(10), block(20), block(30)},
		"some": {block(10), block(20, "other"), block(30), block(40, "other")},
		"none": {block(10, "a"), block(20, "b"), block(30, "c")},
	} {
		want := map[string]int64{}
		for _, b := range sources {
			for k, v := range content(t, []*Reader{open(t, b)}, "acme") {
				want[k] += v
			}
		}
		for level := uint32(1); level <= 4; level++ {
			merged := merge(t, "acme", level, sources...)
			checkSorted(t, open(t, merged))
			sameContent(t, fmt.Sprintf("%s, level %d", what, level), content(t, []*Reader{open(t, merged)}, "acme"), want)
		}
	}
}
