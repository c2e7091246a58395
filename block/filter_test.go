package block

import (
	"fmt"
	"testing"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

func TestLabelFilter(t *testing.T) {
	var h head
	for s := range 3 {
		service := fmt.Sprint("service-", s)
		for i := range 200 {
			d := makeProfile(service, [][2]int64{{1, 3}, {1, 4}}, []string{"main", "work", service}, []string{"main"})
			h.push("acme", d, int64(i), profile.ID{byte(s), byte(i)}, labels.FromStrings("pod", fmt.Sprint(s, "-", i), "zone", fmt.Sprint("z", s)))
		}
	}
	meta := open(t, merge(t, "acme", 1, h.segment(t, "01SEGMENT"))).Meta()
	hits := 0
	for s, d := range meta.Datasets {
		for i := range 200 {
			if !MayMatch(meta, d, "pod", fmt.Sprint(s, "-", i)) {
				t.Errorf("the filter of service %d denies pod %d", s, i)
			}
		}
		for other := range 3 {
			if same := other == s; MayMatch(meta, d, "service_name", fmt.Sprint("service-", other)) != same || same && !MayMatch(meta, d, "zone", fmt.Sprint("z", s)) {
				t.Errorf("the filter of service %d is wrong about service or zone %d", s, other)
			}
		}
		for i := range 1000 {
			if MayMatch(meta, d, "pod", fmt.Sprint("nobody-", i)) {
				hits++
			}
		}
		for _, l := range []labels.Label{{Name: "pod"}, {Name: "__name__", Value: "x"}, {Name: "__profile_type__", Value: "y"}} {
			if !MayMatch(meta, d, l.Name, l.Value) {
				t.Errorf("the filter denies %v, of which it knows nothing", l)
			}
		}
	}
	if hits > 100 {
		t.Errorf("%d of 3000 pods that are not there may match", hits)
	}
	segment := open(t, h.segment(t, "01SEGMENT")).Meta()
	if len(segment.Datasets[0].LabelFilter) != 0 || !MayMatch(segment, segment.Datasets[0], "pod", "nobody") {
		t.Error("a segment has a filter")
	}
}

func TestLabelFilterOfTooManyPairs(t *testing.T) {
	var sets []labels.Labels
	for i := range maxFilterPairs + 1 {
		sets = append(sets, labels.FromStrings("pod", fmt.Sprint(i)))
	}
	if f := labelFilter(sets); f != nil {
		t.Errorf("a filter of %d bytes", len(f))
	}
	if f := labelFilter(sets[1:]); len(f) != filterBits*maxFilterPairs/8 {
		t.Errorf("a filter of %d bytes", len(f))
	}
}
