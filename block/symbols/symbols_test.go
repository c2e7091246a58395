package symbols

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
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

// What is equal to a section that the next may be like is stored as it is there, whatever compressing it would give.
func TestEqualIsNotCompressedAgain(t *testing.T) {
	var e Encoder
	s := &profile.Symbols{Strings: make([]profile.Span, 1), Mappings: make([]profile.Mapping, 1), Functions: make([]profile.Function, 1)}
	stack, call := &profile.StackTree{Parents: []uint32{0}, Locations: []uint32{0}}, &profile.CallTree{Parents: []uint32{0}, Names: []uint32{0}, OfStack: []uint32{0}}
	rng, phrases := rand.New(rand.NewPCG(1, 2)), make([][]uint32, 20)
	for i := range phrases {
		for range 5 + i {
			phrases[i] = append(phrases[i], rng.Uint32N(1000))
		}
	}
	for i := range uint32(2000) {
		text := fmt.Appendf(nil, "github.com/kilndb/package%d.(*Type).Method%d", i%97, i)
		s.Strings = append(s.Strings, profile.Span{Off: uint32(len(s.Data)), Len: uint32(len(text))})
		s.Data = append(s.Data, text...)
		stack.Parents, stack.Locations = append(stack.Parents, i-i%3), append(stack.Locations, 0)
		call.Parents, call.OfStack = append(call.Parents, i-i%3), append(call.OfStack, i+1)
		call.Names = append(call.Names, phrases[rng.IntN(len(phrases))]...) // more than there are nodes, which the encoder does not mind
	}
	for what, encode := range map[string]func(column.Level) ([]byte, error){
		"symbols": func(level column.Level) ([]byte, error) { return e.AppendSymbols(nil, s, level) },
		"trees":   func(level column.Level) ([]byte, error) { return e.AppendTrees(nil, stack, call, level) },
	} {
		stored, err := encode(column.Default)
		if err != nil {
			t.Fatal(err)
		}
		fastest, err := encode(column.Fastest)
		if err != nil || bytes.Equal(stored, fastest) {
			t.Fatalf("%s: error %v, or both levels give the same and nothing can be told", what, err)
		}
		e.Like(stored)
		if got, err := encode(column.Fastest); err != nil || !bytes.Equal(got, stored) {
			t.Errorf("%s were compressed again, error %v", what, err)
		}
		if got, err := encode(column.Fastest); err != nil || !bytes.Equal(got, fastest) {
			t.Errorf("%s are still like what they were, error %v", what, err)
		}
	}
}

// However much or little is like another section, what is read is what was encoded.
func TestLike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e Encoder
		encode := func(s *profile.Symbols, level column.Level) []byte {
			b, err := e.AppendSymbols(nil, s, level)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		a, b := drawSymbols(t), drawSymbols(t)
		stored, other := encode(a, column.Fastest), encode(b, column.Fastest)
		for _, like := range [][]byte{other, {}, other[:len(other)/2], bytes.Repeat([]byte{0xff}, 100)} {
			e.Like(like)
			if !bytes.Equal(encode(b, column.Fastest), other) {
				t.Fatalf("names like %d bytes are not those that were to be encoded", len(like))
			}
		}
		e.Like(stored)
		got, err := DecodeSymbols(encode(b, column.Fastest))
		if err != nil || !reflect.DeepEqual(got.Functions, b.Functions) || !bytes.Equal(got.Data, dataOf(b)) {
			t.Fatalf("%+v, want %+v, error %v", got, b, err)
		}
	})
}

// dataOf are the strings of symbols behind each other.
func dataOf(s *profile.Symbols) (data []byte) {
	for i := range s.Strings {
		data = append(data, s.String(uint32(i))...)
	}
	return data
}

func TestTreesLike(t *testing.T) {
	var e Encoder
	counts := Counts{Strings: 50, Locations: 70}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{1, 10, 60}).Draw(t, "nodes")
		draw := func() (*profile.StackTree, *profile.CallTree) {
			return &profile.StackTree{Parents: preorder(t, n), Locations: draw(t, n, counts.Locations)},
				&profile.CallTree{Parents: preorder(t, n), Names: draw(t, n, counts.Strings), OfStack: draw(t, n, n)}
		}
		stack, call := draw()
		stored, err := e.AppendTrees(nil, stack, call, column.Default)
		if err != nil {
			t.Fatal(err)
		}
		otherStack, otherCall := draw()
		e.Like(stored)
		b, err := e.AppendTrees(nil, otherStack, otherCall, column.Fastest)
		if err != nil {
			t.Fatal(err)
		}
		gotStack, gotCall, err := DecodeTrees(b, counts)
		if err != nil || !reflect.DeepEqual(gotStack, otherStack) || !reflect.DeepEqual(gotCall, otherCall) {
			t.Fatalf("%+v %+v, want %+v %+v, error %v", gotStack, gotCall, otherStack, otherCall, err)
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
