package block

import (
	"math"
	"testing"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// count returns the profiles and the sum of the first sample type of a service in one object.
func count(t *testing.T, b []byte, service string) (profiles int, sum int64) {
	t.Helper()
	for _, d := range open(t, b).Datasets() {
		if d.Service == service {
			for _, rows := range d.Rows {
				profiles += rows.ProfileCount
				sum += rows.Sums[0]
			}
		}
	}
	return profiles, sum
}

func TestMergeDropsDuplicates(t *testing.T) {
	pod := func(n string) labels.Labels { return labels.FromStrings("pod", n) }
	var a, b head
	a.push("acme", simple("web", 1, "main", "serve"), 100, profile.ID{1}, pod("a"))
	a.push("acme", simple("web", 1, "main", "serve"), 100, profile.ID{1}, pod("a")) // within one segment
	b.push("acme", simple("web", 1, "main", "serve"), 100, profile.ID{1}, pod("a")) // in another
	b.push("acme", simple("web", 2, "main", "serve"), 100, profile.ID{2}, pod("a")) // same time, another profile
	b.push("acme", simple("web", 4, "main", "serve"), 100, profile.ID{1}, pod("b")) // same id, another series
	b.push("acme", simple("web", 8, "main", "serve"), 101, profile.ID{1}, pod("a")) // same id, another time
	memory := simple("web", 16, "main", "serve")
	memory.kind = "memory"
	b.push("acme", memory, 100, profile.ID{1}, pod("a")) // another kind
	block := merge(t, "acme", 1, a.segment(t, "A"), b.segment(t, "B"))
	if n, sum := count(t, block, "web"); n != 5 || sum != 31 {
		t.Errorf("%d profiles that sum to %d, want 5 and 31", n, sum)
	}
	again := merge(t, "acme", 2, block, a.segment(t, "A"), block)
	if n, sum := count(t, again, "web"); n != 5 || sum != 31 {
		t.Errorf("merged again: %d profiles that sum to %d, want 5 and 31", n, sum)
	}
	checkSorted(t, open(t, again))
}

func TestMergeKeepsTheFirstOfDifferingDuplicates(t *testing.T) {
	var a, b head
	a.push("acme", simple("web", 1, "main", "serve"), 100, profile.ID{1}, noLabels)
	b.push("acme", simple("web", 2, "main", "other"), 100, profile.ID{1}, noLabels)
	first := merge(t, "acme", 1, a.segment(t, "A"), b.segment(t, "B"))
	if n, sum := count(t, first, "web"); n != 1 || sum != 1 {
		t.Errorf("%d profiles that sum to %d, want the first", n, sum)
	}
	checkSorted(t, open(t, first)) // and nothing of the second's tree
	sorted := merge(t, "acme", 1, b.segment(t, "B"))
	second := merge(t, "acme", 2, sorted, first)
	if n, sum := count(t, second, "web"); n != 1 || sum != 2 {
		t.Errorf("%d profiles that sum to %d, want the first", n, sum)
	}
	checkSorted(t, open(t, second))
}

func TestMergeOfNothing(t *testing.T) {
	var a head
	a.push("acme", simple("web", 1, "main"), 100, profile.ID{1}, noLabels)
	r := open(t, merge(t, "stranger", 1, a.segment(t, "A")))
	if n := len(r.Datasets()); n != 0 {
		t.Errorf("%d datasets of a tenant that has none", n)
	}
	if got := Tenants(open(t, a.segment(t, "A")), r); len(got) != 1 || got[0] != "acme" {
		t.Errorf("tenants %v, want acme", got)
	}
}

// Two copies of a profile hold more than an int64, one does not.
func TestMergeOfHugeDuplicates(t *testing.T) {
	var a, b head
	huge := makeProfile("web", [][2]int64{{math.MaxInt64 - 1, 1}}, []string{"main"})
	a.push("acme", huge, 100, profile.ID{1}, noLabels)
	b.push("acme", huge, 100, profile.ID{1}, noLabels)
	if n, sum := count(t, merge(t, "acme", 1, a.segment(t, "A"), b.segment(t, "B")), "web"); n != 1 || sum != math.MaxInt64-1 {
		t.Errorf("%d profiles that sum to %d", n, sum)
	}
}

func TestBareAddressesAndRootValues(t *testing.T) {
	var a, b head
	d := makeProfile("web", [][2]int64{{1, 1}, {2, 2}, {4, 4}}, []string{"main", "@4a0"}, []string{"main", "@f"}, nil)
	a.push("acme", d, 100, profile.ID{1}, noLabels)
	b.push("acme", d, 101, profile.ID{2}, noLabels)
	segments := []*Reader{open(t, a.segment(t, "A")), open(t, b.segment(t, "B"))}
	want := content(t, segments, "acme")
	r := open(t, merge(t, "acme", 1, a.segment(t, "A"), b.segment(t, "B")))
	sameContent(t, "merged", content(t, []*Reader{r}, "acme"), want)
	checkSorted(t, r)
	rows := r.Datasets()[0].Rows[0]
	ps, err := rows.Profiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := rows.Samples(t.Context(), ps)
	if err != nil {
		t.Fatal(err)
	}
	sums := make([]int64, 4)
	if err := s.Sum(0, nil, sums); err != nil {
		t.Fatal(err)
	}
	if sums[0] != 8 {
		t.Errorf("the root's own value is %d, want 8", sums[0])
	}
}
