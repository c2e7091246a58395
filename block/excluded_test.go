package block

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// exclude returns the entry of an object with selectors of series that were deleted of each dataset.
func exclude(m *storagev1.BlockMeta, selectors ...string) *storagev1.BlockMeta {
	m = proto.CloneOf(m)
	for _, s := range selectors {
		for _, d := range m.Datasets {
			d.Excluded = append(d.Excluded, uint32(len(m.Strings)))
		}
		m.Strings = append(m.Strings, s)
	}
	return m
}

// openExcluded opens an object by an entry that leaves series out.
func openExcluded(t testing.TB, b []byte, selectors ...string) *Reader {
	src := &object{b: b}
	meta, err := ReadMeta(t.Context(), src)
	if err != nil {
		t.Fatalf("read footer: %v", err)
	}
	r, err := Open(src, exclude(meta, selectors...))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return r
}

// capture is one profile of one series of a story.
type capture struct {
	segment int
	service string
	kind    string
	labels  labels.Labels
	time    int64
	id      profile.ID
	decoded
}

// means tells whether a selector means the series of the capture, as it would in a query.
func (c *capture) means(t testing.TB, selector string) bool {
	s, err := labels.ParseSelector(selector)
	if err != nil {
		t.Fatalf("selector %s: %v", selector, err)
	}
	return s.MatchesLabels(c.labels.With(labels.ServiceName, c.service).With(labels.PrivateServiceName, c.service).With(labels.Name, c.kind))
}

// step merges the objects with these numbers, of which each excludes some series, into another one.
type step struct {
	level    uint32
	sources  []int
	excluded map[int][]string
}

// drawCapture draws a profile with a function that all have and one that its series has for itself.
func drawCapture(t *rapid.T, n, segments int) capture {
	c := capture{
		segment: rapid.IntRange(0, segments-1).Draw(t, "segment"),
		service: rapid.SampledFrom([]string{"api", "db", "web"}).Draw(t, "service"),
		kind:    rapid.SampledFrom([]string{"process_cpu", "wall"}).Draw(t, "kind"),
		labels:  labels.FromStrings("pod", rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "pod")),
		time:    rapid.Int64Range(0, 3).Draw(t, "time") * anHour,
		id:      profile.ID{byte(n)},
	}
	if rapid.Bool().Draw(t, "in a region") {
		c.labels = c.labels.With("region", rapid.SampledFrom([]string{"eu", "us"}).Draw(t, "region"))
	}
	own := "of " + c.labels.String()
	v := rapid.Int64Range(0, 9).Draw(t, "value")
	c.decoded = makeProfile(c.service, [][2]int64{{v, 10}, {v + 1, 20}}, []string{"main", "shared"}, []string{"main", own, "@4a0"})
	c.decoded.kind = c.kind
	if rapid.Bool().Draw(t, "traced") {
		c.p.Traces = []profile.TraceID{{1, byte(v)}, {2}}
	}
	return c
}

var storySelectors = []string{
	`{pod="a"}`, `{pod=~"a|b"}`, `{pod!="a",region!=""}`, `{region="eu"}`, `{region=~".+"}`, `{service_name="web",pod="b"}`, `{service_name=~"a.*"}`,
	`{__service_name__="db"}`, `{__name__="wall"}`, `wall{pod="c"}`, `{__name__!="wall",pod!=""}`, `{pod="nobody"}`,
}

// tell writes the segments of the captures and merges them by the steps; only the last object is of interest.
func tell(t testing.TB, segments int, captures []capture, steps []step) []byte {
	var objects [][]byte
	for i := range segments {
		h := &head{}
		for _, c := range captures {
			if c.segment == i {
				h.push("acme", c.decoded, c.time, c.id, c.labels)
			}
		}
		objects = append(objects, h.segment(t, fmt.Sprint("segment ", i)))
	}
	for i, s := range steps {
		var sources []*Reader
		for _, n := range s.sources {
			sources = append(sources, openExcluded(t, objects[n], s.excluded[n]...))
		}
		var out bytes.Buffer
		w := NewWriter(&out, Header{ID: fmt.Sprint("block ", i), Tenant: "acme", Level: s.level, Writer: "test"})
		if err := Merge(t.Context(), "acme", sources, w); err != nil {
			t.Fatalf("merge: %v", err)
		}
		if _, err := w.Finish(); err != nil {
			t.Fatalf("finish: %v", err)
		}
		objects = append(objects, out.Bytes())
	}
	return objects[len(objects)-1]
}

// A block that was merged without some series is, byte for byte, the one of which these series were never part.
func TestExcludedSeriesLeaveNoTrace(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		segments := rapid.IntRange(1, 4).Draw(rt, "segments")
		var captures []capture
		for n := range rapid.IntRange(1, 20).Draw(rt, "captures") {
			captures = append(captures, drawCapture(rt, n, segments))
		}
		steps := drawSteps(rt, segments)
		leaves := make([][]int, segments) // the segments in each object
		for i := range leaves {
			leaves[i] = []int{i}
		}
		left := slices.Clone(captures)
		for _, s := range steps {
			var all []int
			for _, n := range s.sources {
				for _, selector := range s.excluded[n] {
					left = slices.DeleteFunc(left, func(c capture) bool { return slices.Contains(leaves[n], c.segment) && c.means(t, selector) })
				}
				all = append(all, leaves[n]...)
			}
			leaves = append(leaves, all)
		}
		got := tell(t, segments, captures, steps)
		for i := range steps {
			steps[i].excluded = nil
		}
		if want := tell(t, segments, left, steps); !bytes.Equal(got, want) {
			rt.Fatalf("of %d captures %d are left, in an object of %d bytes; without the others it has %d", len(captures), len(left), len(got), len(want))
		}
	})
}

// drawSteps draws merges until there is one object, of a level that has rollups of hours.
func drawSteps(t *rapid.T, segments int) (steps []step) {
	var rest []int
	for i := range segments {
		rest = append(rest, i)
	}
	for level := uint32(1); level < 5 || len(rest) > 1; level++ {
		n := rapid.IntRange(1, len(rest)).Draw(t, "sources")
		s := step{level: min(level, 5), sources: rest[:n:n], excluded: map[int][]string{}}
		for _, o := range s.sources {
			if rapid.IntRange(0, 2).Draw(t, "excludes") == 0 {
				s.excluded[o] = rapid.SliceOfN(rapid.SampledFrom(storySelectors), 1, 2).Draw(t, "excluded")
			}
		}
		steps = append(steps, s)
		rest = append(slices.Clone(rest[n:]), segments+len(steps)-1)
	}
	return steps
}

// A page whose profiles all stay is copied still, and one that loses some is not.
func TestExcludedSeriesOfLargePages(t *testing.T) {
	story := func(pods ...string) []byte {
		h := &head{}
		for i := range 4000 {
			if pod := []string{"a", "b"}[i/3000]; slices.Contains(pods, pod) {
				v := int64(i%7 + 1)
				d := makeProfile("api", [][2]int64{{v, 3}, {v, 4}, {v, 5}, {v, 6}, {v, 7}, {v, 8}}, []string{"f"}, []string{"f", "g"}, []string{"f", "h"}, []string{"i"}, []string{"j"}, []string{"k"})
				h.push("acme", d, int64(i), profile.ID{byte(i), byte(i >> 8)}, labels.FromStrings("pod", pod))
			}
		}
		return merge(t, "acme", 1, h.segment(t, "01SEGMENT"))
	}
	var out bytes.Buffer
	w := NewWriter(&out, Header{ID: "01BLOCK2", Tenant: "acme", Level: 2, Writer: "test"})
	if err := Merge(t.Context(), "acme", []*Reader{openExcluded(t, story("a", "b"), `{pod="b"}`)}, w); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	sameContent(t, "pod a", content(t, []*Reader{open(t, out.Bytes())}, "acme"), content(t, []*Reader{open(t, story("a"))}, "acme"))
}

func TestParseExcluded(t *testing.T) {
	for _, good := range []string{`{pod="a"}`, `{pod!=""}`, `{pod!="a",region=~"e.+"}`, `process_cpu`, `{__period_type__="cpu"}`, `{service_name=~".+"}`} {
		if _, err := ParseExcluded(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, says := range map[string]string{
		``: "not empty", `{}`: "not empty", `{pod!="a"}`: "not empty", `{pod=~".*"}`: "not empty", `{pod=""}`: "not empty",
		`{pod="a"`:                                  "end of input",
		`{__type__="cpu"}`:                          "one sample type",
		`{pod="a",__unit__!="bytes"}`:               "one sample type",
		`{__profile_type__=~".*cpu.*"}`:             "one sample type",
		`{pod="` + strings.Repeat("x", 4096) + `"}`: "limit of 4096",
	} {
		if _, err := ParseExcluded(bad); !errors.Is(err, labels.ErrSelector) || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40s: %v, want %q", bad, err, says)
		}
	}
}

// Entries say what was deleted. A footer does not, and an entry that says it badly is damaged.
func TestExcludedIsOfEntriesAlone(t *testing.T) {
	h := &head{}
	h.push("acme", simple("api", 1, "main"), 1, profile.ID{1}, noLabels)
	b := h.segment(t, "01SEGMENT")
	src := &object{b: b}
	meta, err := ReadMeta(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{`{`, `{}`, ``, `{__type__="cpu"}`} {
		if _, err := Open(src, exclude(meta, bad)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("an entry that excludes %q: %v", bad, err)
		}
	}
	beyond := exclude(meta)
	beyond.Datasets[0].Excluded = []uint32{uint32(len(beyond.Strings))}
	if _, err := Open(src, beyond); !errors.Is(err, ErrCorrupt) {
		t.Errorf("an entry that excludes what is not there: %v", err)
	}
	sealed := withFooter(t, b[:len(b)-tailSize-proto.Size(meta)], exclude(meta, `{pod="a"}`))
	if _, err := ReadMeta(t.Context(), &object{b: sealed}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a footer that excludes: %v", err)
	}
}
