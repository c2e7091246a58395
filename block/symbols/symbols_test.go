package symbols

import (
	"errors"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/block/column"
	"github.com/kilndb/kiln/profile"
)

// drawSymbols draws tables whose references are valid and whose entries 0 are empty.
func drawSymbols(t *rapid.T) *profile.Symbols {
	table := profile.NewTable()
	for range rapid.IntRange(0, 20).Draw(t, "strings") {
		table.AddString([]byte(rapid.String().Draw(t, "string")))
	}
	s := table.Symbols
	ref := func(n int, what string) uint32 { return rapid.Uint32Range(0, uint32(n-1)).Draw(t, what) }
	for range rapid.IntRange(0, 5).Draw(t, "mappings") {
		s.Mappings = append(s.Mappings, profile.Mapping{
			Start: rapid.Uint64().Draw(t, "start"), Limit: rapid.Uint64().Draw(t, "limit"), Offset: rapid.Uint64().Draw(t, "offset"),
			File: ref(len(s.Strings), "file"), BuildID: ref(len(s.Strings), "build id"),
			HasFunctions: rapid.Bool().Draw(t, "flag"), HasFilenames: rapid.Bool().Draw(t, "flag"),
			HasLineNumbers: rapid.Bool().Draw(t, "flag"), HasInlineFrames: rapid.Bool().Draw(t, "flag"),
		})
	}
	for range rapid.IntRange(0, 20).Draw(t, "functions") {
		s.Functions = append(s.Functions, profile.Function{
			Name: ref(len(s.Strings), "name"), SystemName: ref(len(s.Strings), "system name"), File: ref(len(s.Strings), "file"),
			StartLine: rapid.Int64().Draw(t, "start line"),
		})
	}
	for range rapid.IntRange(0, 40).Draw(t, "locations") {
		l := profile.Location{
			Mapping: ref(len(s.Mappings), "mapping"), FirstLine: uint32(len(s.Lines)), Lines: rapid.Uint32Range(0, 3).Draw(t, "lines"),
			Address: rapid.Uint64().Draw(t, "address"), Folded: rapid.Bool().Draw(t, "folded"),
		}
		for range l.Lines {
			s.Lines = append(s.Lines, profile.Line{
				Function: ref(len(s.Functions), "function"), Line: rapid.Int64().Draw(t, "line"), Column: rapid.Int64().Draw(t, "column"),
			})
		}
		s.Locations = append(s.Locations, l)
	}
	return &s
}

func TestSymbolsRoundTrip(t *testing.T) {
	var e Encoder
	rapid.Check(t, func(t *rapid.T) {
		s := drawSymbols(t)
		b, err := e.AppendSymbols(nil, s, column.Level(rapid.IntRange(0, 1).Draw(t, "level")))
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeSymbols(b)
		if err != nil {
			t.Fatal(err)
		}
		for i := range s.Strings {
			if string(got.String(uint32(i))) != string(s.String(uint32(i))) {
				t.Fatalf("string %d is %q, want %q", i, got.String(uint32(i)), s.String(uint32(i)))
			}
		}
		if len(got.Strings) != len(s.Strings) || !reflect.DeepEqual(got.Mappings, s.Mappings) || !reflect.DeepEqual(got.Functions, s.Functions) {
			t.Fatalf("%+v, want %+v", got, s)
		}
		if len(got.Locations)+len(s.Locations) > 0 && !reflect.DeepEqual(append([]profile.Location{}, got.Locations...), append([]profile.Location{}, s.Locations...)) {
			t.Fatalf("locations %+v, want %+v", got.Locations, s.Locations)
		}
		if len(got.Lines)+len(s.Lines) > 0 && !reflect.DeepEqual(append([]profile.Line{}, got.Lines...), append([]profile.Line{}, s.Lines...)) {
			t.Fatalf("lines %+v, want %+v", got.Lines, s.Lines)
		}
		n, err := ReadCounts(b)
		if err != nil || n != (Counts{len(s.Strings), len(s.Mappings), len(s.Functions), len(s.Locations), len(s.Lines)}) {
			t.Fatalf("counts %+v, error %v", n, err)
		}
		cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		if _, err := DecodeSymbols(b[:cut]); !errors.Is(err, column.ErrCorrupt) {
			t.Fatalf("first %d of %d bytes: error %v", cut, len(b), err)
		}
	})
}

// again encodes and decodes symbols.
func again(e *Encoder, s *profile.Symbols) (*profile.Symbols, error) {
	b, err := e.AppendSymbols(nil, s, 0)
	if err != nil {
		return nil, err
	}
	return DecodeSymbols(b)
}

// Symbols that refer to what is not there are encoded without complaint and refused when they are read.
func TestSymbolsOutOfRange(t *testing.T) {
	for what, damage := range map[string]func(s *profile.Symbols){
		"name":             func(s *profile.Symbols) { s.Functions[1].Name = 9 },
		"system name":      func(s *profile.Symbols) { s.Functions[1].SystemName = 9 },
		"file":             func(s *profile.Symbols) { s.Functions[1].File = 9 },
		"mapping":          func(s *profile.Symbols) { s.Locations[0].Mapping = 9 },
		"mapping's file":   func(s *profile.Symbols) { s.Mappings[1].File = 9 },
		"build id":         func(s *profile.Symbols) { s.Mappings[1].BuildID = 9 },
		"function":         func(s *profile.Symbols) { s.Lines[0].Function = 9 },
		"string 0":         func(s *profile.Symbols) { s.Strings[0] = profile.Span{Len: 1} },
		"function 0":       func(s *profile.Symbols) { s.Functions[0].StartLine = 1 },
		"mapping 0":        func(s *profile.Symbols) { s.Mappings[0].Start = 1 },
		"no string at all": func(s *profile.Symbols) { s.Strings = nil },
	} {
		s := &profile.Symbols{
			Data: []byte("f"), Strings: []profile.Span{{}, {Len: 1}}, Mappings: make([]profile.Mapping, 2),
			Functions: []profile.Function{{}, {Name: 1}}, Locations: []profile.Location{{Lines: 1}}, Lines: []profile.Line{{Function: 1}},
		}
		var e Encoder
		if _, err := again(&e, s); err != nil {
			t.Fatal(err)
		}
		damage(s)
		if _, err := again(&e, s); !errors.Is(err, column.ErrCorrupt) {
			t.Errorf("%s: error %v", what, err)
		}
	}
}

// preorder draws the parents of a tree in preorder.
func preorder(t *rapid.T, n int) []uint32 {
	parents, path := []uint32{0}, []uint32{0}
	for i := 1; i < n; i++ {
		path = path[:rapid.IntRange(1, len(path)).Draw(t, "depth")]
		parents = append(parents, path[len(path)-1])
		path = append(path, uint32(i))
	}
	return parents
}

func draw(t *rapid.T, n, limit int) []uint32 {
	out := make([]uint32, n)
	for i := 1; i < n; i++ {
		out[i] = rapid.Uint32Range(0, uint32(limit-1)).Draw(t, "number")
	}
	return out
}

func TestTreesRoundTrip(t *testing.T) {
	var e Encoder
	counts := Counts{Strings: 50, Locations: 70}
	rapid.Check(t, func(t *rapid.T) {
		nodes, calls := rapid.IntRange(1, 60).Draw(t, "nodes"), rapid.IntRange(1, 40).Draw(t, "calls")
		stack := &profile.StackTree{Locations: draw(t, nodes, counts.Locations)}
		var call *profile.CallTree
		if rapid.Bool().Draw(t, "sorted") {
			stack.Parents = preorder(t, nodes)
			call = &profile.CallTree{Parents: preorder(t, calls), Names: draw(t, calls, counts.Strings), OfStack: draw(t, nodes, calls)}
		} else {
			stack.Parents = make([]uint32, nodes)
			for i := 1; i < nodes; i++ {
				stack.Parents[i] = rapid.Uint32Range(0, uint32(i-1)).Draw(t, "parent")
			}
		}
		b, err := e.AppendTrees(nil, stack, call, 0)
		if err != nil {
			t.Fatal(err)
		}
		gotStack, gotCall, err := DecodeTrees(b, counts)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(gotStack, stack) || !reflect.DeepEqual(gotCall, call) {
			t.Fatalf("%+v %+v, want %+v %+v", gotStack, gotCall, stack, call)
		}
		cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		if _, _, err := DecodeTrees(b[:cut], counts); !errors.Is(err, column.ErrCorrupt) {
			t.Fatalf("first %d of %d bytes: error %v", cut, len(b), err)
		}
		if _, _, err := DecodeTrees(b, Counts{}); nodes > 1 && !errors.Is(err, column.ErrCorrupt) {
			t.Fatalf("without any locations: error %v", err)
		}
	})
}

func TestTreesOutOfOrder(t *testing.T) {
	var e Encoder
	later := &profile.StackTree{Parents: []uint32{0, 2, 0}, Locations: make([]uint32, 3)}
	if _, err := e.AppendTrees(nil, later, nil, 0); err == nil {
		t.Error("a child before its parent was encoded")
	}
	breadthFirst := &profile.StackTree{Parents: []uint32{0, 0, 0, 1}, Locations: make([]uint32, 4)}
	call := &profile.CallTree{Parents: []uint32{0}, Names: []uint32{0}, OfStack: make([]uint32, 4)}
	if _, err := e.AppendTrees(nil, breadthFirst, call, 0); err == nil {
		t.Error("a sorted tree that is not in preorder was encoded")
	}
}
