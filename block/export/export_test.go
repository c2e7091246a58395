package export

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/block/inspect"
	"github.com/kilndb/kiln/block/inspect/inspecttest"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
)

const start = 1_700_000_000_000_000_000

// segment holds every fourth corpus file; every fifth of these is another tenant's.
func segment(t testing.TB) (o inspecttest.Object, files map[string]string) {
	t.Helper()
	files = map[string]string{}
	var pushes []inspecttest.Push
	for i, f := range corpus.All() {
		if i%4 != 0 {
			continue
		}
		tenant := "acme"
		if i%20 == 0 {
			tenant = "other"
		}
		files[f.Name] = tenant
		pushes = append(pushes, inspecttest.Push{
			Tenant: tenant, Service: f.Service(), Kind: f.Kind(), Time: start + int64(i), ID: profile.ID{byte(i)},
			Labels: labels.FromStrings("file", f.Name), Body: f.Gzipped,
		})
	}
	return inspecttest.Segment(t, pushes...), files
}

// tables are all files, read back.
type tables struct {
	profiles  []Profile
	samples   []Sample
	series    []Series
	functions []Function
	locations []Location
	mappings  []Mapping
}

func read[T any](t *testing.T, dir, name string) []T {
	t.Helper()
	rows, err := parquet.ReadFile[T](filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func export(t *testing.T, o inspecttest.Object, s Selection) tables {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "new")
	files, err := Object(t.Context(), o, dir, s)
	if err != nil {
		t.Fatal(err)
	}
	out := tables{
		profiles: read[Profile](t, dir, "profiles.parquet"), samples: read[Sample](t, dir, "samples.parquet"),
		series: read[Series](t, dir, "series.parquet"), functions: read[Function](t, dir, "functions.parquet"),
		locations: read[Location](t, dir, "locations.parquet"), mappings: read[Mapping](t, dir, "mappings.parquet"),
	}
	for i, n := range []int{len(out.profiles), len(out.samples), len(out.series), len(out.functions), len(out.locations), len(out.mappings)} {
		if info, err := os.Stat(files[i].Path); err != nil || int64(n) != files[i].Rows || info.Size() != files[i].Size {
			t.Errorf("%+v has %d rows, error %v", files[i], n, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != len(files) {
		t.Errorf("%d files in the folder, want %d, error %v", len(entries), len(files), err)
	}
	return out
}

// What the tables of segments and blocks say of every file is what google/pprof says.
func TestTablesSayWhatTheOracleSays(t *testing.T) {
	s, files := segment(t)
	for name, o := range map[string]inspecttest.Object{"segment": s, "block": inspecttest.Merge(t, "acme", 2, s)} {
		t.Run(name, func(t *testing.T) {
			if !hasMultiples(t, o) {
				t.Error("every column is stored: this tests too little")
			}
			got := export(t, o, Selection{})
			got.check(t)
			seen := 0
			for file, tenant := range files {
				if tenant == "acme" || name == "segment" {
					seen++
					got.checkFile(t, file, tenant)
				}
			}
			distinct := map[string]bool{}
			for _, p := range got.profiles {
				distinct[p.Labels["file"]] = true
			}
			if len(distinct) != seen {
				t.Errorf("%d files in the tables, want %d", len(distinct), seen)
			}
		})
	}
}

// hasMultiples tells whether some column of samples is not stored, but made of another.
func hasMultiples(t *testing.T, o inspecttest.Object) bool {
	t.Helper()
	r, err := inspect.Inspect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(r.Groups, func(g inspect.Group) bool {
		return slices.ContainsFunc(g.Sections, func(s inspect.Section) bool {
			return slices.ContainsFunc(s.Columns, func(c inspect.Column) bool { return strings.Contains(c.Encoding, "×") })
		})
	})
}

// checkFile compares the sums per function and stack of one file with the oracle's.
func (got *tables) checkFile(t *testing.T, file, tenant string) {
	t.Helper()
	f := corpus.Get(file)
	p := oracle.Parse(f.Gzipped)
	for _, st := range p.SampleType {
		want := oracle.Sum(st.Type, p)
		functions, stacks, total := map[string]oracle.Weight{}, map[string]int64{}, int64(0)
		for i := range got.samples {
			s := &got.samples[i]
			row := &got.profiles[s.Profile]
			if row.Labels["file"] != file || s.Type != st.Type {
				continue
			}
			if s.Tenant != tenant || s.Service != f.Service() || s.Kind != f.Kind() || s.Unit != st.Unit || s.Time != row.Time || s.Value == 0 {
				t.Fatalf("%s: %+v", file, s)
			}
			stacks[s.Folded] += s.Value
			total += s.Value
			for j, n := range s.Stack {
				w := functions[n]
				if slices.Index(s.Stack, n) == j {
					w.Total += s.Value
				}
				if j == len(s.Stack)-1 {
					w.Self += s.Value
				}
				functions[n] = w
			}
		}
		if total != want.Total || !maps.Equal(functions, want.Functions) || !maps.Equal(stacks, want.Stacks) {
			t.Errorf("%s %s: %d in %d functions and %d stacks, want %d in %d and %d", file, st.Type,
				total, len(functions), len(stacks), want.Total, len(want.Functions), len(want.Stacks))
		}
	}
}

// check checks that the tables fit together.
func (got *tables) check(t *testing.T) {
	t.Helper()
	locations := map[int64]*Location{}
	for i := range got.locations {
		locations[got.locations[i].Location] = &got.locations[i]
	}
	functions, mappings, series := map[int64]Function{}, map[int64]Mapping{}, map[int64]Series{}
	for _, f := range got.functions {
		functions[f.Function] = f
	}
	for _, m := range got.mappings {
		mappings[m.Mapping] = m
	}
	for _, s := range got.series {
		series[s.Series] = s
	}
	if len(locations) != len(got.locations) || len(functions) != len(got.functions) || len(mappings) != len(got.mappings) || len(series) != len(got.series) {
		t.Error("a number is there twice")
	}
	totals := map[string]int64{}
	for i, p := range got.profiles {
		if s := series[p.Series]; p.Profile != int64(i) || s.Tenant != p.Tenant || s.Service != p.Service || !maps.Equal(s.Labels, p.Labels) {
			t.Fatalf("profile %+v of series %+v", p, s)
		}
		for _, total := range p.Totals {
			totals[fmt.Sprint(p.Profile, total.Type, total.Unit)] += total.Value
		}
	}
	for _, s := range got.samples {
		totals[fmt.Sprint(s.Profile, s.Type, s.Unit)] -= s.Value
		var names []string
		for _, n := range s.Locations {
			l := locations[n]
			for _, line := range l.Lines {
				if f := functions[line.Function]; f.Name != line.Name || f.File != line.File || f.Tenant != s.Tenant {
					t.Fatalf("line %+v of function %+v", line, f)
				}
				names = append(names, line.Name)
			}
			if _, ok := mappings[l.Mapping]; l.Tenant != s.Tenant || !ok && l.Mapping != 0 {
				t.Fatalf("location %+v", l)
			}
			if len(l.Lines) == 0 {
				names = append(names, fmt.Sprintf("0x%x", l.Address))
			}
		}
		if !slices.Equal(names, s.Stack) || strings.Join(names, ";") != s.Folded {
			t.Fatalf("stack %q, folded %q, its locations say %q", s.Stack, s.Folded, names)
		}
	}
	for what, left := range totals {
		if left != 0 {
			t.Errorf("%s: total and samples differ by %d", what, left)
		}
	}
}

// Every sample goes out with its request and with the moments at which it was seen.
func TestSpansAndTimes(t *testing.T) {
	f := corpus.Get("regexp-cpu-0")
	p := oracle.Parse(f.Gzipped)
	push := inspecttest.Push{Tenant: "acme", Service: f.Service(), Kind: f.Kind(), Time: start, ID: profile.ID{1}}
	column, want := oracle.Index(p, "cpu"), map[string]int64{}
	for i, s := range p.Sample {
		span, trace := fmt.Sprintf("%016x", i%3+1), fmt.Sprintf("%032x", i%2+1)
		s.Label = map[string][]string{"span_id": {span}, "trace_id": {trace}}
		push.Times = append(push.Times, []int64{start + int64(i%3)})
		want[fmt.Sprint(span, " ", trace, " ", start+int64(i%3))] += s.Value[column]
	}
	var body bytes.Buffer
	if err := p.WriteUncompressed(&body); err != nil {
		t.Fatal(err)
	}
	push.Body = body.Bytes()
	plain := push
	plain.Body, plain.Times, plain.ID = f.Gzipped, nil, profile.ID{2}
	o := inspecttest.Segment(t, push, plain)
	for name, o := range map[string]inspecttest.Object{"segment": o, "block": inspecttest.Merge(t, "acme", 1, o)} {
		tables := export(t, o, Selection{})
		got, bare := map[string]int64{}, int64(0)
		for _, s := range tables.samples {
			switch {
			case s.Type != "cpu":
			case s.Span == "" && s.Trace == "" && len(s.Seen) == 0:
				bare += s.Value
			default:
				got[fmt.Sprint(s.Span, " ", s.Trace, " ", s.Seen[0])] += s.Value
			}
		}
		if !maps.Equal(got, want) || bare != oracle.Sum("cpu", p).Total {
			t.Errorf("%s: by request %v, want %v; without %d", name, got, want, bare)
		}
	}
}

// A part of an object is written without the names of the rest.
func TestSelection(t *testing.T) {
	o, _ := segment(t)
	whole := export(t, o, Selection{})
	for _, s := range []Selection{{Tenant: "acme"}, {Service: "compiler"}, {Tenant: "acme", Service: "compiler"}} {
		part := export(t, o, s)
		part.check(t)
		var profiles, samples int
		for _, p := range whole.profiles {
			if (s.Tenant == "" || s.Tenant == p.Tenant) && (s.Service == "" || s.Service == p.Service) {
				profiles++
				samples += int(p.Samples)
			}
		}
		got := 0
		for _, p := range part.profiles {
			got += int(p.Samples)
		}
		if profiles == 0 || len(part.profiles) != profiles || got != samples || len(part.functions) == 0 || len(part.functions) >= len(whole.functions) {
			t.Errorf("%+v: %d profiles, %d samples, %d functions, want %d, %d, fewer than %d",
				s, len(part.profiles), got, len(part.functions), profiles, samples, len(whole.functions))
		}
		named := map[int64]bool{}
		for _, sample := range part.samples {
			for _, l := range sample.Locations {
				named[l] = true
			}
		}
		if s.Service != "" && len(named) != len(part.locations) {
			t.Errorf("%+v: %d locations, the samples name %d", s, len(part.locations), len(named))
		}
	}
}

// Nothing is left of an export that fails, and older files stay as they are.
func TestFailures(t *testing.T) {
	o, _ := segment(t)
	dir := t.TempDir()
	old := filepath.Join(dir, "samples.parquet")
	if err := os.WriteFile(old, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, g := range inspecttest.Open(t, o).Meta().Groups {
		for _, s := range g.Sections {
			b := inspecttest.Object(bytes.Clone(o))
			b[s.Offset+s.Length/2] ^= 1
			if _, err := Object(t.Context(), b, dir, Selection{}); !errors.Is(err, block.ErrCorrupt) || !strings.Contains(err.Error(), s.Type.String()) {
				t.Errorf("%s damaged: error %v", s.Type, err)
			}
		}
	}
	if _, err := Object(t.Context(), o, dir, Selection{Service: "nobody"}); !errors.Is(err, ErrNothing) {
		t.Errorf("no such service: error %v", err)
	}
	if b, err := os.ReadFile(old); string(b) != "old" || err != nil {
		t.Errorf("the old file is %q, error %v", b, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v are left, error %v", entries, err)
	}
	if _, err := Object(t.Context(), o, old, Selection{}); err == nil {
		t.Error("no error where the folder is a file")
	}
}
