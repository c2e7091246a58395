package block

import (
	"math"
	"testing"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// Sources whose sums of one kind pass int64 together, but not each, merge into rows that are split where they would:
// nothing is lost and nothing fails for ever.
func TestMergeSplitsSumsBeyondInt64(t *testing.T) {
	var segments [][]byte
	for i := range 5 {
		var h head
		big := int64(math.MaxInt64/2 - 10 - int64(i))
		h.push("acme", makeProfile("api", [][2]int64{{big, 1}, {3, 4}}, []string{"main", "work"}, []string{"main"}), int64(i+1), profile.ID{byte(i)}, noLabels)
		h.push("acme", makeProfile("api", [][2]int64{{7, 1}}, []string{"main", "rest"}), int64(i+1), profile.ID{byte(i), 1}, labels.FromStrings("pod", "a"))
		h.push("acme", makeProfile("web", [][2]int64{{1, 1}}, []string{"main"}), int64(i+1), profile.ID{byte(i)}, noLabels)
		segments = append(segments, h.segment(t, string(rune('a'+i))))
	}
	var readers []*Reader
	for _, s := range segments {
		readers = append(readers, open(t, s))
	}
	want := content(t, readers, "acme")
	l1 := merge(t, "acme", 1, segments...)
	l2 := merge(t, "acme", 2, merge(t, "acme", 1, segments[:3]...), merge(t, "acme", 1, segments[3:]...), l1) // all twice
	l4 := merge(t, "acme", 4, l2)
	for name, b := range map[string][]byte{"level 1": l1, "level 2": l2, "level 4": l4} {
		r := open(t, b)
		sameContent(t, name, content(t, []*Reader{r}, "acme"), want)
		if n := len(r.Datasets()); n != 2 {
			t.Fatalf("%s: %d datasets, want 2", name, n)
		}
		api := r.Datasets()[0]
		if len(api.Rows) != 3 {
			t.Errorf("%s: %d rows of one kind, want 3", name, len(api.Rows))
		}
		profiles := 0
		for _, rows := range api.Rows {
			profiles += rows.ProfileCount
			if rows.Sums[0] < 0 {
				t.Errorf("%s: a sum of %d", name, rows.Sums[0])
			}
			checkRollups(t, name, api, rows)
		}
		if profiles != 10 {
			t.Errorf("%s: %d profiles, want 10", name, profiles)
		}
	}
}
