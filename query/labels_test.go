package query_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/query"
)

var memory = profile.Kind{
	Name: "memory", PeriodType: "space", PeriodUnit: "bytes",
	SampleTypes: []profile.SampleType{{Type: "alloc_space", Unit: "bytes"}, {Type: "inuse_objects", Unit: "count"}},
}

func TestSeriesLabels(t *testing.T) {
	base := labels.FromStrings("pod", "a", "service_name", "checkout", "__session_id__", "7")
	before := slices.Clone(base)
	got := query.SeriesLabels(base, memory, 1)
	want := labels.FromStrings(
		"__name__", "memory",
		"__period_type__", "space",
		"__period_unit__", "bytes",
		"__profile_type__", "memory:inuse_objects:count:space:bytes",
		"__service_name__", "checkout",
		"__session_id__", "7",
		"__type__", "inuse_objects",
		"__unit__", "count",
		"pod", "a",
		"service_name", "checkout",
	)
	if !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	if !slices.Equal(base, before) {
		t.Fatalf("base became %v", base)
	}
}

// The filter must say what the selector says of the labels that clients see.
func TestSeriesFilter(t *testing.T) {
	names := rapid.SampledFrom([]string{
		"__name__", "__profile_type__", "__type__", "__unit__", "__period_type__", "__period_unit__",
		"__service_name__", "service_name", "pod", "absent",
	})
	values := rapid.SampledFrom([]string{
		"", "memory", "memory:alloc_space:bytes:space:bytes", "alloc_space", "bytes", "space", "checkout", "a", "b", ".*", ".+", "a|checkout|memory.*",
	})
	rapid.Check(t, func(t *rapid.T) {
		text := "{"
		for range rapid.IntRange(0, 3).Draw(t, "matchers") {
			text += fmt.Sprintf("%s%s%q,", names.Draw(t, "name"), rapid.SampledFrom([]string{"=", "!=", "=~", "!~"}).Draw(t, "op"), values.Draw(t, "value"))
		}
		sel, err := labels.ParseSelector(text + "}")
		if err != nil {
			return // such as one that matches everything
		}
		base := labels.FromStrings("pod", rapid.SampledFrom([]string{"a", "b"}).Draw(t, "pod"), "service_name", "checkout")
		column := rapid.IntRange(0, 1).Draw(t, "column")
		want := sel.MatchesLabels(query.SeriesLabels(base, memory, column))
		filter, ok := profile.NewSeriesFilter(sel, memory, column)
		if got := ok && filter.Matches(base); got != want {
			t.Fatalf("%s: %v, want %v", sel, got, want)
		}
	})
}

// A kind that cannot match is known before any series is read.
func TestSeriesFilterDecidesKinds(t *testing.T) {
	sel, err := labels.ParseSelector(`{__profile_type__="memory:alloc_space:bytes:space:bytes", pod="a"}`)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := profile.NewSeriesFilter(sel, memory, 1); ok {
		t.Fatal("inuse_objects passed")
	}
	filter, ok := profile.NewSeriesFilter(sel, memory, 0)
	if !ok {
		t.Fatal("alloc_space did not pass")
	}
	base := labels.FromStrings("pod", "a", "service_name", "checkout")
	if n := testing.AllocsPerRun(100, func() { filter.Matches(base) }); n != 0 {
		t.Fatalf("%v allocations per series", n)
	}
}

func TestLabelsOfProto(t *testing.T) {
	want := labels.FromStrings("a", "1", "b", "")
	got, err := query.LabelsFromProto(query.LabelsToProto(want))
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("got %v, %v", got, err)
	}
	for _, wrong := range [][]*queryv1.Label{{{Name: "b"}, {Name: "a"}}, {{Name: "a"}, {Name: "a", Value: "x"}}, {{Name: "a"}, nil}} {
		if _, err := query.LabelsFromProto(wrong); !errors.Is(err, query.ErrReport) {
			t.Errorf("%v: got %v", wrong, err)
		}
	}
}
