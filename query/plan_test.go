package query_test

import (
	"fmt"
	"math"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/query"
)

func leaves(n *queryv1.PlanNode) (all []*queryv1.PlanNode) {
	if len(n.Children) == 0 {
		return []*queryv1.PlanNode{n}
	}
	for _, c := range n.Children {
		all = append(all, leaves(c)...)
	}
	return all
}

func depth(n *queryv1.PlanNode) (d int) {
	for _, c := range n.Children {
		d = max(d, 1+depth(c))
	}
	return d
}

func bytesOf(n *queryv1.PlanNode) (total int64) {
	for _, e := range n.Entries {
		total += int64(e.Size)
	}
	return total
}

func requirePlan(t rapid.TB, n *queryv1.PlanNode, fan int) {
	t.Helper()
	if (len(n.Children) == 0) == (len(n.Entries) == 0) {
		t.Fatalf("a node with %d children and %d entries", len(n.Children), len(n.Entries))
	}
	if len(n.Children) == 1 || len(n.Children) > fan {
		t.Fatalf("a node with %d children", len(n.Children))
	}
	for _, c := range n.Children {
		requirePlan(t, c, fan)
	}
}

func TestPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.Int64Range(1, 1000), 1, 60).Draw(t, "sizes")
		leafBytes := rapid.Int64Range(1, 3000).Draw(t, "leaf bytes")
		fan := rapid.IntRange(2, 5).Draw(t, "fan")
		var entries []*storagev1.BlockMeta
		total, largest := int64(0), int64(0)
		for i, size := range sizes {
			entries = append(entries, &storagev1.BlockMeta{Id: fmt.Sprintf("%03d", i), Size: uint64(size)})
			total, largest = total+size, max(largest, size)
		}
		plan := query.Plan(entries, leafBytes, fan)
		requirePlan(t, plan, fan)

		seen := map[string]bool{}
		least, most := int64(math.MaxInt64), int64(0)
		all := leaves(plan)
		for _, leaf := range all {
			least, most = min(least, bytesOf(leaf)), max(most, bytesOf(leaf))
			for _, e := range leaf.Entries {
				if seen[e.Id] {
					t.Fatalf("entry %s is read twice", e.Id)
				}
				seen[e.Id] = true
			}
		}
		if len(seen) != len(entries) {
			t.Fatalf("%d of %d entries are read", len(seen), len(entries))
		}
		if want := min((total+leafBytes-1)/leafBytes, int64(len(sizes))); int64(len(all)) != want {
			t.Fatalf("%d leaves, want %d", len(all), want)
		}
		if most-least > largest {
			t.Fatalf("leaves of %d to %d bytes, the largest entry has %d", least, most, largest)
		}
		if levels := int(math.Ceil(math.Log(float64(len(all)))/math.Log(float64(fan)) - 1e-9)); depth(plan) != levels {
			t.Fatalf("%d levels above %d leaves, want %d", depth(plan), len(all), levels)
		}
		shuffled := rapid.Permutation(entries).Draw(t, "order")
		if !proto.Equal(plan, query.Plan(shuffled, leafBytes, fan)) {
			t.Fatal("another order makes another plan")
		}
	})
}

func TestPlanOfNothingAndOfOne(t *testing.T) {
	if p := query.Plan(nil, 100, 2); p != nil {
		t.Fatalf("of nothing: %v", p)
	}
	entries := []*storagev1.BlockMeta{{Id: "a", Size: 5}, {Id: "b", Size: 6}}
	p := query.Plan(entries, 100, 2)
	if len(p.Children) != 0 || len(p.Entries) != 2 || p.Entries[0] != entries[0] {
		t.Fatalf("one leaf: %v", p)
	}
	requirePlan(t, query.Plan(make([]*storagev1.BlockMeta, 9), 0, 0), 2)
}

// Only the sections of the datasets that are asked for count, and shared ones once.
func TestPlanCountsSections(t *testing.T) {
	section := func(t storagev1.SectionType, length uint64) *storagev1.Section {
		return &storagev1.Section{Type: t, Length: length}
	}
	meta := func(id string, symbols uint64, datasets ...*storagev1.Dataset) *storagev1.BlockMeta {
		return &storagev1.BlockMeta{Id: id, Size: 1 << 30, Datasets: datasets, Groups: []*storagev1.Group{{}, {Sections: []*storagev1.Section{
			section(storagev1.SectionType_SECTION_TYPE_SYMBOLS, symbols),
			section(storagev1.SectionType_SECTION_TYPE_SERIES, 1),
			section(storagev1.SectionType_SECTION_TYPE_PROFILES, 2),
			section(storagev1.SectionType_SECTION_TYPE_TREES, 10),
			section(storagev1.SectionType_SECTION_TYPE_SAMPLES, 20),
			section(storagev1.SectionType_SECTION_TYPE_SAMPLES, 5000), // of a kind that nobody asks for
		}}}}
	}
	dataset := func() *storagev1.Dataset {
		return &storagev1.Dataset{Group: 1, Rows: []*storagev1.Rows{{TreesSection: 3, SamplesSection: 4}}}
	}
	// 33 bytes and the symbols each; with 100 bytes a leaf all of them fit one, with 99 they do not.
	entries := []*storagev1.BlockMeta{meta("a", 17, dataset(), dataset()), meta("b", 17, dataset())}
	if n := len(leaves(query.Plan(entries, 100, 2))); n != 1 {
		t.Fatalf("%d leaves of 100 bytes, want 1", n)
	}
	if n := len(leaves(query.Plan(entries, 99, 2))); n != 2 {
		t.Fatalf("%d leaves of 99 bytes, want 2", n)
	}
	// References into nothing count nothing.
	lost := &storagev1.BlockMeta{Size: 3, Datasets: []*storagev1.Dataset{{Group: 7, Rows: []*storagev1.Rows{{}}}}}
	if n := len(leaves(query.Plan([]*storagev1.BlockMeta{lost, lost}, 6, 2))); n != 1 {
		t.Fatalf("%d leaves, want 1", n)
	}
}
