package pprof_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	gprofile "github.com/google/pprof/profile"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/profile/pprof"
)

// addUp takes profiles of one kind into a head and returns the sums per node of one tree.
func addUp(t testing.TB, files ...corpus.File) (*profile.Table, *pprof.Stacks) {
	var h head
	h.init()
	var sums [][]int64
	var kind profile.Kind
	for _, f := range files {
		h.take(t, f.Gzipped)
		kind = h.profile.Kind(f.Kind())
		if sums == nil {
			sums = make([][]int64, len(kind.SampleTypes))
		}
		for i, row := range h.rows {
			for j, v := range h.profile.Row(i) {
				for int(row) >= len(sums[j]) {
					sums[j] = append(sums[j], 0)
				}
				sums[j][row] += v
			}
		}
	}
	var tree profile.StackTree
	nodes := h.stacks.Tree(&tree, nil)
	values := make([][]int64, len(sums))
	for j := range values {
		values[j] = make([]int64, len(tree.Parents))
		for row, v := range sums[j] {
			values[j][nodes[row]] += v
		}
	}
	return h.table, &pprof.Stacks{
		Symbols: &h.table.Symbols, Tree: &tree, Values: values, SampleTypes: kind.SampleTypes,
		PeriodType: profile.SampleType{Type: kind.PeriodType, Unit: kind.PeriodUnit},
		Period:     h.profile.Period, TimeNanos: 1_700_000_000_000_000_000, DurationNanos: 5_000_000_000,
	}
}

// The whole way there and back: decoded, normalised, interned, turned into a tree, summed and written, every
// sum of every sample type equals the oracle's over the profiles as they came.
func TestAppendStacksSumsAreExact(t *testing.T) {
	groups := map[string][]corpus.File{}
	for _, f := range corpus.All() {
		groups[f.Service()+" "+f.Kind()] = append(groups[f.Service()+" "+f.Kind()], f)
	}
	for name, files := range groups {
		_, stacks := addUp(t, files...)
		got := oracle.Parse(pprof.AppendStacks(nil, stacks))
		var sent []*gprofile.Profile
		for _, f := range files {
			sent = append(sent, oracle.Parse(f.Gzipped))
		}
		if got.PeriodType.Type != sent[0].PeriodType.Type || got.PeriodType.Unit != sent[0].PeriodType.Unit || got.Period != sent[len(sent)-1].Period {
			t.Errorf("%s: period %v %d, want %v %d", name, got.PeriodType, got.Period, sent[0].PeriodType, sent[len(sent)-1].Period)
		}
		for _, st := range sent[0].SampleType {
			a, b := oracle.Sum(st.Type, got), oracle.Sum(st.Type, sent...)
			sameSums(t, name+" "+st.Type, a, b)
		}
	}
}

func sameSums(t *testing.T, what string, got, want oracle.Answer) {
	t.Helper()
	if got.Total != want.Total || len(got.Locations) != len(want.Locations) {
		t.Fatalf("%s: total %d in %d stacks, want %d in %d", what, got.Total, len(got.Locations), want.Total, len(want.Locations))
	}
	for stack, v := range want.Locations {
		if got.Locations[stack] != v {
			t.Fatalf("%s: %d, want %d, at %s", what, got.Locations[stack], v, stack)
		}
	}
	for fn, w := range want.Functions {
		if got.Functions[fn] != w {
			t.Fatalf("%s: %s weighs %+v, want %+v", what, fn, got.Functions[fn], w)
		}
	}
}

// Only names that a value needs are written, ids count from 1, and the same sums give the same bytes.
func TestAppendStacksWritesLiveNamesOnly(t *testing.T) {
	_, stacks := addUp(t, corpus.Get("compiler-cpu-0"))
	whole := pprof.AppendStacks(nil, stacks)
	if !bytes.Equal(whole, pprof.AppendStacks(nil, stacks)) {
		t.Error("the same stacks gave two outputs")
	}
	kept := len(stacks.Tree.Parents) - 1
	for _, column := range stacks.Values {
		for n := range column {
			if n != kept {
				column[n] = 0
			}
		}
	}
	one := oracle.Parse(pprof.AppendStacks(nil, stacks))
	if len(one.Sample) != 1 {
		t.Fatalf("%d samples, want the one with a value", len(one.Sample))
	}
	locations, functions, mappings := map[uint64]bool{}, map[uint64]bool{}, map[uint64]bool{}
	for _, l := range one.Sample[0].Location {
		locations[l.ID] = true
		if l.Mapping != nil {
			mappings[l.Mapping.ID] = true
		}
		for _, line := range l.Line {
			functions[line.Function.ID] = true
		}
	}
	if len(one.Location) != len(locations) || len(one.Function) != len(functions) || len(one.Mapping) != len(mappings) {
		t.Errorf("%d locations, %d functions, %d mappings; the sample needs %d, %d, %d",
			len(one.Location), len(one.Function), len(one.Mapping), len(locations), len(functions), len(mappings))
	}
	for i, l := range one.Location {
		if l.ID != uint64(i)+1 {
			t.Errorf("location %d has the id %d", i, l.ID)
		}
	}
	p := new(profile.Profile)
	if err := pprof.NewDecoder().Decode(pprof.AppendStacks(nil, stacks), limits, p); err != nil {
		t.Fatal(err)
	}
	used := map[uint32]bool{0: true, p.PeriodType.Type: true, p.PeriodType.Unit: true}
	for _, st := range p.SampleTypes {
		used[st.Type], used[st.Unit] = true, true
	}
	for _, f := range p.Functions {
		used[f.Name], used[f.SystemName], used[f.File] = true, true, true
	}
	for _, m := range p.Mappings {
		used[m.File], used[m.BuildID] = true, true
	}
	if len(used) != len(p.Strings) {
		t.Errorf("%d strings, of which %d are used", len(p.Strings), len(used))
	}
}

func TestAppendStacksOfNothing(t *testing.T) {
	table := profile.NewTable()
	p := oracle.Parse(pprof.AppendStacks(nil, &pprof.Stacks{
		Symbols: &table.Symbols, Tree: &profile.StackTree{Parents: []uint32{0}, Locations: []uint32{0}},
		Values: [][]int64{{0}}, SampleTypes: []profile.SampleType{{Type: "cpu", Unit: "nanoseconds"}},
	}))
	if len(p.Sample) != 0 || p.SampleType[0].Type != "cpu" {
		t.Errorf("got %v", p)
	}
}

// A sample without a stack is the root's own value.
func TestAppendStacksKeepsTheRoot(t *testing.T) {
	table := profile.NewTable()
	stacks := pprof.Stacks{
		Symbols: &table.Symbols, Tree: &profile.StackTree{Parents: []uint32{0}, Locations: []uint32{0}},
		Values: [][]int64{{7}, {9}}, SampleTypes: []profile.SampleType{{Type: "objects", Unit: "count"}, {Type: "space", Unit: "bytes"}},
	}
	p := oracle.Parse(pprof.AppendStacks([]byte{}, &stacks))
	if len(p.Sample) != 1 || len(p.Sample[0].Location) != 0 || fmt.Sprint(p.Sample[0].Value) != "[7 9]" {
		t.Errorf("got %v", p)
	}
}

func TestGoToolPprofOpensStacks(t *testing.T) {
	_, stacks := addUp(t, corpus.Get("api-gateway-cpu-0"), corpus.Get("api-gateway-cpu-1"))
	file := filepath.Join(t.TempDir(), "cpu.pb.gz")
	if err := os.WriteFile(file, gzipped(t, pprof.AppendStacks(nil, stacks)), 0o600); err != nil {
		t.Fatal(err)
	}
	// The oracle's heaviest function by self must be the one that the tool puts first.
	out, err := exec.Command("go", "tool", "pprof", "-top", "-nodecount=1", "-symbolize=none", file).CombinedOutput()
	if err != nil {
		t.Fatalf("go tool pprof: %v\n%s", err, out)
	}
	answer := oracle.Sum("cpu", oracle.Parse(corpus.Get("api-gateway-cpu-0").Gzipped), oracle.Parse(corpus.Get("api-gateway-cpu-1").Gzipped))
	var heaviest string
	for _, n := range answer.Names() {
		if answer.Functions[n].Self > answer.Functions[heaviest].Self {
			heaviest = n
		}
	}
	if !strings.Contains(string(out), heaviest) || !strings.Contains(string(out), "Type: cpu") {
		t.Errorf("%s is not in\n%s", heaviest, out)
	}
}
