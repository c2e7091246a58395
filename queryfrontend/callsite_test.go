package queryfrontend

import (
	"bytes"
	"maps"
	"strings"
	"testing"

	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"

	"github.com/kilndb/kiln/flamegraph"
)

// TestAtCallSite narrows a tree in which every node has a weight of its own.
func TestAtCallSite(t *testing.T) {
	whole := &flamegraph.Tree{
		Names:     []string{"a", "b", "c"},
		Parents:   []uint32{0, 0, 1, 2, 1, 0, 5, 6},
		NodeNames: []uint32{0, 0, 1, 0, 2, 1, 0, 1},
		Self:      []int64{1, 2, 4, 8, 16, 32, 64, 128},
	}
	if err := whole.Validate(); err != nil {
		t.Fatal(err)
	}
	for site, want := range map[string]map[string]string{
		"a":     {"a": "2", "a;b": "4", "a;b;a": "8", "a;c": "16"},
		"a;b":   {"a;b": "4", "a;b;a": "8"},
		"a;b;a": {"a;b;a": "8"},
		"a;c":   {"a;c": "16"},
		"b":     {"b": "32", "b;a": "64", "b;a;b": "128"},
		"b;a;b": {"b;a;b": "128"},
		"c":     {}, "a;a": {}, "b;a;b;a": {},
	} {
		var locations []*typesv1.Location
		for _, name := range strings.Split(site, ";") {
			locations = append(locations, &typesv1.Location{Name: name})
		}
		part := atCallSite(whole, locations)
		if err := part.Validate(); err != nil {
			t.Errorf("%s: %v", site, err)
			continue
		}
		var folded bytes.Buffer
		if err := flamegraph.Folded(&folded, part); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for line := range strings.Lines(folded.String()) {
			stack, weight, _ := strings.Cut(strings.TrimSpace(line), " ")
			got[stack] = weight
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: stacks are %v, want %v", site, got, want)
		}
	}
}
