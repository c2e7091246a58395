package block

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
)

// The golden objects were written by the first version of this package with
//
//	go test ./block -run TestGolden -write-golden
//
// out of goldenSegment, a merge of it, smallRollup, smallSeries, and smallSpans and a merge of it. They are never written again: what they hold must be readable for ever,
// and a new version of the format adds objects of its own beside them. The text beside an object is what it
// says, as everything tells it.
var writeGolden = flag.Bool("write-golden", false, "write golden objects that do not exist")

func goldenSegment(t testing.TB) []byte {
	t.Helper()
	var h head
	for i, name := range []string{"api-gateway-cpu-0", "api-gateway-heap-0", "api-gateway-heap-1", "regexp-mutex-0"} {
		h.push("acme", decode(t, corpus.Get(name)), 1_700_000_000_000_000_000+int64(i)*1e9, profile.ID{byte(i), 1}, labels.FromStrings("pod", fmt.Sprint(i%2)))
	}
	for i := range 6 {
		d := makeProfile([]string{"api", "web"}[i%2], [][2]int64{{int64(i + 1), 300}, {2, 70000}, {1, 1}}, []string{"main", "serve", "read"}, []string{"main", "@4a0"}, nil)
		h.push([]string{"acme", "other"}[i/4], d, 1_700_000_000_000_000_000+int64(i), profile.ID{byte(i)}, noLabels)
	}
	return h.segment(t, "01HGOLDENSEGMENT")
}

func TestGolden(t *testing.T) {
	segment := filepath.Join("testdata", "v1-segment.kiln")
	block := filepath.Join("testdata", "v1-block.kiln")
	rollups := filepath.Join("testdata", "v1-rollup.kiln")
	each := filepath.Join("testdata", "v1-series.kiln")
	spans := filepath.Join("testdata", "v1-spans.kiln")
	spansBlock := filepath.Join("testdata", "v1-spans-block.kiln")
	if *writeGolden {
		b := goldenSegment(t)
		writeOnce(t, segment, b)
		writeOnce(t, block, merge(t, "acme", 1, b))
		writeOnce(t, rollups, smallRollup(t))
		writeOnce(t, each, smallSeries(t))
		writeOnce(t, spans, smallSpans(t))
		writeOnce(t, spansBlock, merge(t, "acme", 1, smallSpans(t)))
	}
	for _, path := range []string{segment, block, rollups, each, spans, spansBlock} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(path + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		got := describe(t, b)
		if got != string(want) {
			t.Errorf("%s says something else than it used to:\n%s", path, firstDifference(got, string(want)))
		}
	}
}

func writeOnce(t *testing.T, path string, b []byte) {
	t.Helper()
	if _, err := os.Stat(path); err == nil {
		return
	}
	for name, content := range map[string][]byte{path: b, path + ".txt": []byte(describe(t, b))} {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// describe is what an object says: a line for each dataset and kind, and a hash of every name, tree, profile and
// value, as everything tells them.
func describe(t testing.TB, b []byte) string {
	t.Helper()
	all, err := everything(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, d := range open(t, b).Datasets() {
		for _, rows := range d.Rows {
			fmt.Fprintf(&text, "%s %s %s: %d profiles, %d samples, sums %d\n", d.Tenant, d.Service, rows.Kind.Type(0), rows.ProfileCount, rows.SampleCount, rows.Sums)
		}
	}
	hash := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(hash, "%s = %d\n", k, all[k])
	}
	fmt.Fprintf(&text, "%d lines of contents, sha256 %x\n", len(all), hash.Sum(nil))
	return text.String()
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d\n got %s\nwant %s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}
