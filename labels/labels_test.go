package labels_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/labels"
)

func TestNewSortsAndKeepsTheLast(t *testing.T) {
	in := []labels.Label{{Name: "b", Value: "1"}, {Name: "a", Value: "2"}, {Name: "b", Value: "3"}, {Name: "c"}}
	given := slices.Clone(in)
	got := labels.New(in...)
	want := labels.Labels{{Name: "a", Value: "2"}, {Name: "b", Value: "3"}, {Name: "c"}}
	if !slices.Equal(got, want) {
		t.Errorf("New = %v, want %v", got, want)
	}
	if !slices.Equal(in, given) {
		t.Error("New changed its arguments")
	}
	if !slices.Equal(labels.FromStrings("c", "", "b", "3", "a", "2"), want) {
		t.Error("FromStrings differs from New")
	}
	if len(labels.New()) != 0 {
		t.Error("the empty set is not empty")
	}
}

// Everything that a set can do, against a map.
func TestLabelsAgainstAMap(t *testing.T) {
	name := rapid.SampledFrom([]string{"a", "b", "c", "d.e", ""})
	rapid.Check(t, func(t *rapid.T) {
		model := map[string]string{}
		var in []labels.Label
		for range rapid.IntRange(0, 6).Draw(t, "n") {
			l := labels.Label{Name: name.Draw(t, "name"), Value: rapid.String().Draw(t, "value")}
			in = append(in, l)
			model[l.Name] = l.Value
		}
		ls := labels.New(in...)
		same := func(what string, got labels.Labels, want map[string]string) {
			if len(got) != len(want) || !slices.IsSortedFunc(got, func(a, b labels.Label) int { return labels.Compare(labels.Labels{a}, labels.Labels{b}) }) {
				t.Fatalf("%s: %v, want %v", what, got, want)
			}
			for n, v := range want {
				if !got.Has(n) || got.Get(n) != v {
					t.Fatalf("%s: %v, want %v", what, got, want)
				}
			}
		}
		same("New", ls, model)
		if ls.Get("absent") != "" || ls.Has("absent") {
			t.Fatalf("%v has a label that it does not have", ls)
		}
		n, v := name.Draw(t, "changed"), rapid.String().Draw(t, "value")
		with, without, projected := map[string]string{n: v}, map[string]string{}, map[string]string{}
		for k, old := range model {
			if k == n {
				projected[k] = old
				continue
			}
			with[k], without[k] = old, old
		}
		same("With", ls.With(n, v), with)
		same("Without", ls.Without(n, "absent"), without)
		same("Project", ls.Project([]string{n, "absent"}), projected)
		same("afterwards", ls, model)

		other := ls.With(n, v)
		if equal := labels.Compare(ls, other) == 0; equal != slices.Equal(ls, other) || equal != (ls.Hash() == other.Hash()) || labels.Compare(other, ls) != -labels.Compare(ls, other) {
			t.Fatalf("%v and %v: Compare %d, hashes %x and %x", ls, other, labels.Compare(ls, other), ls.Hash(), other.Hash())
		}
	})
}

// Hashes are stored and decide placement: they may never change.
func TestHashIsStable(t *testing.T) {
	for _, c := range []struct {
		ls   labels.Labels
		want uint64
	}{
		{labels.New(), 0xef46db3751d8e999},
		{labels.FromStrings("service_name", "api", "pod", "api-1"), 0x30af01d095a33327},
	} {
		if got := c.ls.Hash(); got != c.want {
			t.Errorf("%s hashes to %#x, want %#x", c.ls, got, c.want)
		}
	}
	// Where one label ends and the next begins matters.
	if labels.FromStrings("a", "b", "c", "d").Hash() == labels.FromStrings("a", "bc", "d", "").Hash() {
		t.Error("two sets of the same letters have one hash")
	}
}

func TestCompareOrder(t *testing.T) {
	ascending := []labels.Labels{
		nil,
		labels.FromStrings("a", "1"),
		labels.FromStrings("a", "1", "b", "0"),
		labels.FromStrings("a", "2"),
		labels.FromStrings("b", "0"),
	}
	if !slices.IsSortedFunc(ascending, labels.Compare) || labels.Compare(ascending[0], ascending[1]) >= 0 {
		t.Errorf("not ascending: %v", ascending)
	}
}

func TestFromStringsWantsPairs(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a name without a value went through")
		}
	}()
	odd := strings.Fields("a 1 b")
	labels.FromStrings(odd...)
}
