package inspect

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/inspect/inspecttest"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
)

// Every byte of an object is accounted for once: by section and footer, by type, and by dataset.
func TestSizesAddUp(t *testing.T) {
	for name, o := range objects(t) {
		t.Run(name, func(t *testing.T) {
			r, err := Inspect(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			sections, totals, shares, sets := int64(0), int64(0), int64(0), 0
			for _, g := range r.Groups {
				for _, s := range g.Sections {
					sections += s.Stored
					checkSection(t, s)
					sets++
				}
			}
			for _, total := range r.Totals {
				totals += total.Stored
				sets -= total.Sections
			}
			for _, d := range r.Datasets {
				shares += d.Stored
			}
			if sections+r.Footer != o.Size() || r.Size != o.Size() || totals != sections || shares != sections || sets != 0 {
				t.Errorf("%d bytes: footer %d, sections %d, by type %d (%d sections missing), by dataset %d", o.Size(), r.Footer, sections, totals, sets, shares)
			}
		})
	}
}

func checkSection(t *testing.T, s Section) {
	t.Helper()
	if s.Problem != "" {
		t.Errorf("%s: %s", s.Type, s.Problem)
	}
	raw, stored := int64(0), int64(0)
	for _, c := range s.Columns {
		raw += c.Raw
		stored += c.Stored
		var sum Column
		for _, p := range c.Pages {
			sum.Raw += p.Raw
			sum.Stored += p.Stored
		}
		if c.Pages != nil && (sum.Raw != c.Raw || sum.Stored != c.Stored) {
			t.Errorf("%s, column %s: pages of %+v, column of %+v", s.Type, c.Name, sum, c)
		}
		if c.Encoding == "" || c.Name == "" || c.Stored > c.Raw {
			t.Errorf("%s: column %+v", s.Type, c)
		}
	}
	if !slices.Contains([]string{"SYMBOLS", "SERIES", "TREES", "SAMPLES", "ROLLUP", "PROFILES"}, s.Type) {
		return // a type that came later is measured as a whole
	}
	// Beside the columns there are counts and directories; in PROFILES Parquet's metadata.
	if rest := s.Stored - stored; len(s.Columns) == 0 || rest <= 0 || rest > 100 && s.Type != "PROFILES" || s.Raw != raw+rest {
		t.Errorf("%s: %d columns of %d bytes, raw %d, in a section of %d, raw %d", s.Type, len(s.Columns), stored, raw, s.Stored, s.Raw)
	}
}

// What a report says of datasets is what was pushed.
func TestDatasets(t *testing.T) {
	r, err := Inspect(t.Context(), inspecttest.Merge(t, "acme", 2, small(t)))
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != "01BLOCK" || r.Level != 2 || r.Tenant != "acme" || r.Writer != "worker-1" || !slices.Equal(r.Sources, []string{"01SEGMENT"}) ||
		r.Key != "blocks/acme/2023-11-14/3/01BLOCK" || !r.MinTime.Equal(moment(1_700_000_001_000_000_000)) || len(r.Datasets) != 1 {
		t.Fatalf("%+v", r)
	}
	d := r.Datasets[0]
	if d.Service != "regexp" || d.Profiles != 2 || d.Samples == 0 || d.BytesPerProfile != float64(d.Stored)/2 || len(d.Kinds) != 1 {
		t.Errorf("%+v", d)
	}
	for _, s := range d.Kinds[0].Sums {
		want := oracle.Sum(s.Type, oracle.Parse(corpus.Get("regexp-mutex-0").Gzipped), oracle.Parse(corpus.Get("regexp-mutex-1").Gzipped))
		if s.Sum != want.Total {
			t.Errorf("%s: %d, want %d", s.Type, s.Sum, want.Total)
		}
	}
	names := map[string]bool{}
	for _, s := range r.Groups[0].Sections {
		for _, c := range s.Columns {
			names[c.Name] = true
		}
		if s.Type == "TREES" && (s.Service != "regexp" || s.Kind != "mutex" || s.Counts["call nodes"] < 2) {
			t.Errorf("%+v", s)
		}
	}
	for _, want := range []string{"string bytes", "call names", "label values", "stacks", "delay nanoseconds", "id_hi", "total_1"} {
		if !names[want] {
			t.Errorf("no column %q among %v", want, slices.Sorted(maps.Keys(names)))
		}
	}
}

// Columns that are made of others say so, and a rollup shows its index and its rows.
func TestMultiplesAndRollups(t *testing.T) {
	r, err := Inspect(t.Context(), withRollups(t))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, total := range r.Totals {
		for _, c := range total.Columns {
			seen[total.Type+" "+c.Name] = c.Encoding
			if c.Raw == 0 || (c.Stored == 0) != strings.Contains(c.Encoding, "×") {
				t.Errorf("%s: column %+v", total.Type, c)
			}
		}
	}
	for name, want := range map[string]string{
		"SAMPLES stacks": "zstd", "SAMPLES cpu nanoseconds": "samples count × 10000000", "ROLLUP cpu nanoseconds": "samples count × 10000000",
		"ROLLUP buckets": "plain", "ROLLUP series": "plain", "ROLLUP run rows": "plain", "ROLLUP run bytes of stacks": "plain",
		"ROLLUP run bytes of samples count": "plain",
	} {
		if got, ok := seen[name]; !ok || got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for _, s := range r.Groups[0].Sections {
		if s.Type == "ROLLUP" && (s.Service != "regexp" || s.Kind == "" || s.Counts["runs"] == 0 || s.Counts["rows"] < s.Counts["runs"]) {
			t.Errorf("%+v", s)
		}
	}
}

// A section that cannot be taken apart is reported with its problem, and one of a type unknown here by its number.
func TestStrangeSections(t *testing.T) {
	o := inspecttest.Edit(t, small(t), func(m *storagev1.BlockMeta) {
		m.Groups[0].Sections[1].Crc++
		last := proto.CloneOf(m.Groups[1].Sections[0])
		last.Type = 77
		m.Groups[1].Sections = append(m.Groups[1].Sections, last)
	})
	r, err := Inspect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Groups[0].Sections[1]; s.Problem == "" || s.Columns != nil || s.Stored == 0 || s.Raw != s.Stored {
		t.Errorf("%+v", s)
	}
	if s := r.Groups[1].Sections; s[len(s)-1].Type != "TYPE 77" || s[len(s)-1].Stored != s[0].Stored {
		t.Errorf("%+v", s[len(s)-1])
	}
}

// A column that is not stored, because it is a multiple of another, is shown with what it would take.
func TestMultiplesAreShown(t *testing.T) {
	o := inspecttest.Segment(t, push(corpus.Get("api-gateway-cpu-0"), "acme", 1), push(corpus.Get("api-gateway-cpu-1"), "acme", 2))
	r, err := Inspect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range r.Groups[0].Sections {
		if s.Type != "SAMPLES" {
			continue
		}
		samples, cpu := s.Columns[1], s.Columns[2]
		if samples.Name != "samples count" || strings.Contains(samples.Encoding, "×") || samples.Stored == 0 {
			t.Errorf("samples: %+v", samples)
		}
		if cpu.Name != "cpu nanoseconds" || cpu.Encoding != "samples count × 10000000" || cpu.Stored != 0 || cpu.Raw <= samples.Raw || len(cpu.Pages) != 1 {
			t.Errorf("cpu: %+v", cpu)
		}
		return
	}
	t.Error("no samples")
}
