package query_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/query"
)

// stacks is what a report of stacks means: the weight of each stack of full locations, and the numbers.
type stacks struct {
	weights                      map[string]int64
	profiles                     uint64
	duration, period, oldestTime int64
}

func (a stacks) equal(b stacks) bool {
	return maps.Equal(a.weights, b.weights) && a.profiles == b.profiles && a.duration == b.duration && a.period == b.period && a.oldestTime == b.oldestTime
}

func meanStacks(t rapid.TB, reports []*queryv1.Report) stacks {
	m := stacks{weights: map[string]int64{}}
	for _, r := range reports {
		s := r.GetStacks()
		if s == nil {
			continue
		}
		str := func(i uint32) string { return s.Strings[i] }
		paths := make([]string, len(s.Self))
		for i, v := range s.Self {
			if i > 0 {
				l := s.Locations[s.NodeLocations[i]]
				mp := s.Mappings[l.Mapping]
				paths[i] = paths[s.Parents[i]] + fmt.Sprintf("; %x %v in %d-%d+%d %q %q %v%v%v%v", l.Address, l.Folded,
					mp.Start, mp.Limit, mp.Offset, str(mp.File), str(mp.BuildId), mp.HasFunctions, mp.HasFilenames, mp.HasLineNumbers, mp.HasInlineFrames)
				for _, line := range l.Lines {
					f := s.Functions[line.Function]
					paths[i] += fmt.Sprintf(" %q %q %q:%d %d:%d", str(f.Name), str(f.SystemName), str(f.File), f.StartLine, line.Line, line.Column)
				}
			}
			m.weights[paths[i]] += v
		}
		if s.Profiles > 0 && (m.profiles == 0 || s.Time < m.oldestTime) {
			m.oldestTime = s.Time
		}
		m.profiles += s.Profiles
		m.duration += s.Duration
		m.period = max(m.period, s.Period)
	}
	maps.DeleteFunc(m.weights, func(_ string, v int64) bool { return v == 0 })
	return m
}

// drawStacks draws symbols with references of every sort; few numbers, so that much is the same twice.
func drawStacks(t *rapid.T) (*profile.Symbols, *profile.StackTree, []int64) {
	few := func(what string, n int) uint32 { return uint32(rapid.IntRange(0, n-1).Draw(t, what)) }
	some := rapid.Bool()
	sym := &profile.Symbols{Strings: []profile.Span{{}}, Mappings: []profile.Mapping{{}}, Functions: []profile.Function{{}}}
	for range few("strings", 4) {
		s := rapid.SampledFrom([]string{"", "a", "b", "main"}).Draw(t, "string")
		sym.Strings = append(sym.Strings, profile.Span{Off: uint32(len(sym.Data)), Len: uint32(len(s))})
		sym.Data = append(sym.Data, s...)
	}
	str := func() uint32 { return few("reference", len(sym.Strings)) }
	for range few("mappings", 3) {
		sym.Mappings = append(sym.Mappings, profile.Mapping{
			Start: uint64(few("start", 2)), Limit: uint64(few("limit", 2)), Offset: uint64(few("offset", 2)), File: str(), BuildID: str(),
			HasFunctions: some.Draw(t, "has"), HasFilenames: some.Draw(t, "has"), HasLineNumbers: some.Draw(t, "has"), HasInlineFrames: some.Draw(t, "has"),
		})
	}
	for range few("functions", 4) {
		sym.Functions = append(sym.Functions, profile.Function{Name: str(), SystemName: str(), File: str(), StartLine: int64(few("start line", 2))})
	}
	for range 1 + few("locations", 4) {
		l := profile.Location{
			Mapping: few("mapping", len(sym.Mappings)), Address: uint64(few("address", 2)), Folded: some.Draw(t, "folded"),
			FirstLine: uint32(len(sym.Lines)), Lines: few("lines", 3),
		}
		for range l.Lines {
			sym.Lines = append(sym.Lines, profile.Line{Function: few("function", len(sym.Functions)), Line: int64(few("line", 2)), Column: int64(few("column", 2))})
		}
		sym.Locations = append(sym.Locations, l)
	}
	tree, sums := &profile.StackTree{Parents: []uint32{0}, Locations: []uint32{0}}, []int64{int64(few("sum", 3))}
	for range few("nodes", 8) {
		tree.Parents = append(tree.Parents, few("parent", len(sums)))
		tree.Locations = append(tree.Locations, few("location", len(sym.Locations)))
		sums = append(sums, int64(few("sum", 3)))
	}
	return sym, tree, sums
}

func TestMergeStacks(t *testing.T) {
	draw := func(t *rapid.T) *queryv1.Report {
		s, err := query.StacksToProto(drawStacks(t))
		if err != nil {
			t.Fatal(err)
		}
		s.Profiles = rapid.Uint64Range(0, 3).Draw(t, "profiles")
		s.Duration = rapid.Int64Range(0, 100).Draw(t, "duration")
		s.Period = rapid.Int64Range(0, 100).Draw(t, "period")
		s.Time = rapid.Int64Range(-100, 100).Draw(t, "time")
		return &queryv1.Report{Stacks: s}
	}
	law(t, askStacks, draw, meanStacks, stacks.equal)
}

// What StacksToProto writes has all stacks with a weight, and nothing else.
func TestStacksToProtoAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sym, tree, sums := drawStacks(t)
		s, err := query.StacksToProto(sym, tree, sums)
		if err != nil {
			t.Fatal(err)
		}
		readSym, readTree, err := query.StacksFromProto(overNetwork(t, &queryv1.Report{Stacks: s}).Stacks)
		if err != nil {
			t.Fatal(err)
		}
		again, err := query.StacksToProto(readSym, readTree, s.Self)
		if err != nil || !proto.Equal(again, s) {
			t.Fatalf("%v, written again:\n got %v\nwant %v", err, again, s)
		}
		want := map[string]int64{}
		for i, v := range sums {
			want[pathOf(sym, tree, uint32(i))] += v
		}
		got := map[string]int64{}
		for i, v := range s.Self {
			got[pathOf(readSym, readTree, uint32(i))] += v
		}
		maps.DeleteFunc(want, func(_ string, v int64) bool { return v == 0 })
		maps.DeleteFunc(got, func(_ string, v int64) bool { return v == 0 })
		if !maps.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		below := make([]int64, len(s.Self))
		for i := len(below) - 1; i > 0; i-- {
			if below[i] += s.Self[i]; below[i] == 0 {
				t.Fatalf("node %d of %v weighs nothing", i, s)
			}
			below[s.Parents[i]] += below[i]
		}
	})
}

func pathOf(sym *profile.Symbols, tree *profile.StackTree, n uint32) string {
	if n == 0 {
		return ""
	}
	l := sym.Locations[tree.Locations[n]]
	m := sym.Mappings[l.Mapping]
	path := pathOf(sym, tree, tree.Parents[n]) + fmt.Sprintf("; %v %v %s %s %v", l.Address, l.Folded, sym.String(m.File), sym.String(m.BuildID),
		[]any{m.Start, m.Limit, m.Offset, m.HasFunctions, m.HasFilenames, m.HasLineNumbers, m.HasInlineFrames})
	for _, line := range sym.LinesOf(tree.Locations[n]) {
		f := sym.Functions[line.Function]
		path += fmt.Sprintf(" %s %s %s:%d %d:%d", sym.String(f.Name), sym.String(f.SystemName), sym.String(f.File), f.StartLine, line.Line, line.Column)
	}
	return path
}

// root is stacks of nothing but the root.
func root(self int64) *queryv1.Stacks {
	return &queryv1.Stacks{
		Strings: []string{""}, Mappings: []*queryv1.Mapping{{}}, Functions: []*queryv1.Function{{}},
		Parents: []uint32{0}, NodeLocations: []uint32{0}, Self: []int64{self},
	}
}

func lasting(duration int64) *queryv1.Report {
	s := root(0)
	s.Duration = duration
	return &queryv1.Report{Stacks: s}
}

func TestStacksFromProtoRefuses(t *testing.T) {
	valid := func() *queryv1.Stacks {
		s := root(1)
		s.Strings = append(s.Strings, "f")
		s.Mappings = append(s.Mappings, &queryv1.Mapping{File: 1})
		s.Functions = append(s.Functions, &queryv1.Function{Name: 1})
		s.Locations = []*queryv1.Location{{Mapping: 1, Lines: []*queryv1.Line{{Function: 1}}}}
		s.Parents, s.NodeLocations, s.Self = []uint32{0, 0, 1}, []uint32{0, 0, 0}, []int64{1, 2, 3}
		return s
	}
	if _, _, err := query.StacksFromProto(valid()); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		breakIt func(*queryv1.Stacks)
		want    error
	}{
		"nothing":              {func(s *queryv1.Stacks) { proto.Reset(s) }, query.ErrReport},
		"string 0":             {func(s *queryv1.Stacks) { s.Strings[0] = "x" }, query.ErrReport},
		"no mapping 0":         {func(s *queryv1.Stacks) { s.Mappings, s.Locations[0].Mapping = nil, 0 }, query.ErrReport},
		"mapping 0":            {func(s *queryv1.Stacks) { s.Mappings[0].Limit = 1 }, query.ErrReport},
		"function 0":           {func(s *queryv1.Stacks) { s.Functions[0].Name = 1 }, query.ErrReport},
		"no functions":         {func(s *queryv1.Stacks) { s.Functions = nil }, query.ErrReport},
		"file of mapping":      {func(s *queryv1.Stacks) { s.Mappings[1].File = 2 }, query.ErrReport},
		"build id of mapping":  {func(s *queryv1.Stacks) { s.Mappings[1].BuildId = 2 }, query.ErrReport},
		"name of function":     {func(s *queryv1.Stacks) { s.Functions[1].Name = math.MaxUint32 }, query.ErrReport},
		"system name":          {func(s *queryv1.Stacks) { s.Functions[1].SystemName = 2 }, query.ErrReport},
		"file of function":     {func(s *queryv1.Stacks) { s.Functions[1].File = 2 }, query.ErrReport},
		"mapping of location":  {func(s *queryv1.Stacks) { s.Locations[0].Mapping = 2 }, query.ErrReport},
		"function of location": {func(s *queryv1.Stacks) { s.Locations[0].Lines[0].Function = 2 }, query.ErrReport},
		"location of node":     {func(s *queryv1.Stacks) { s.NodeLocations[2] = 1 }, query.ErrReport},
		"no locations":         {func(s *queryv1.Stacks) { s.Locations = nil }, query.ErrReport},
		"parent of root":       {func(s *queryv1.Stacks) { s.Parents[0] = 1 }, query.ErrReport},
		"parent to come":       {func(s *queryv1.Stacks) { s.Parents[1] = 1 }, query.ErrReport},
		"short locations":      {func(s *queryv1.Stacks) { s.NodeLocations = s.NodeLocations[:2] }, query.ErrReport},
		"short weights":        {func(s *queryv1.Stacks) { s.Self = s.Self[:2] }, query.ErrReport},
		"negative weight":      {func(s *queryv1.Stacks) { s.Self[2] = -1 }, query.ErrReport},
		"overflow":             {func(s *queryv1.Stacks) { s.Self[2] = math.MaxInt64 }, query.ErrOverflow},
	} {
		s := valid()
		test.breakIt(s)
		if _, _, err := query.StacksFromProto(s); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
	if _, err := query.StacksToProto(&profile.Symbols{}, &profile.StackTree{Parents: []uint32{0}}, nil); !errors.Is(err, query.ErrReport) {
		t.Errorf("no sums: got %v", err)
	}
}
