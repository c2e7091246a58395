package block

import (
	"fmt"
	"slices"
	"testing"

	"github.com/kilndb/kiln/profile"
)

// A segment of 10,000 tiny services: one of them is read without reading or decoding much of the others.
func TestOneOfTenThousandServices(t *testing.T) {
	const services = 10_000
	var h head
	for i := range services {
		service := fmt.Sprintf("service-%05d", i)
		h.push("acme", makeProfile(service, [][2]int64{{int64(i), 3}, {1, 4}}, []string{"main", "work"}, []string{"main", "idle"}),
			int64(1e9+i), profile.ID{byte(i), byte(i >> 8)}, noLabels)
	}
	b := h.segment(t, "TINY")
	if perService := len(b) / services; perService > 200 {
		t.Errorf("a service takes %d bytes of the object", perService)
	}
	src := &object{b: b}
	meta, err := ReadMeta(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(meta.Groups); n != 1 {
		t.Fatalf("%d groups, want one for all services of the tenant", n)
	}
	src.reads.Store(0)
	r, err := Open(src, meta)
	if err != nil {
		t.Fatal(err)
	}
	if n := src.reads.Load(); n != 0 {
		t.Errorf("Open read %d times", n)
	}
	d := r.Datasets()[4321]
	rows := d.Rows[0]
	ps, err := rows.Profiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if ps.Len() != 1 || ps.Times[0] != 1e9+4321 || ps.Totals[0][0] != 4322 || ps.Totals[1][0] != 7 {
		t.Errorf("profiles %+v", ps)
	}
	s, err := rows.Samples(t.Context(), ps)
	if err != nil {
		t.Fatal(err)
	}
	sums := make([]int64, 16)
	if err := s.Sum(0, nil, sums); err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, v := range sums {
		total += v
	}
	if total != 4322 {
		t.Errorf("sum %d, want 4322", total)
	}
	// Profiles, series, symbols, trees and samples: a read each.
	if n := src.reads.Load(); n != 5 {
		t.Errorf("%d reads, want one per section", n)
	}
	checkPagesTouched(t, d, rows)
}

// checkPagesTouched counts what had to be decoded of the shared sections for one service.
func checkPagesTouched(t *testing.T, d *Dataset, rows *Rows) {
	t.Helper()
	table, err := d.group.loadProfiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if pages := len(table.columns[colTime].offsets) - 1; pages != 10 {
		t.Errorf("10,000 rows on %d pages of the table, want 10", pages)
	}
	for i := range table.columns {
		c := table.columns[i]
		for p := range len(c.offsets) - 1 {
			if n := c.first[p+1] - c.first[p]; n > tablePageRows {
				t.Errorf("page %d of column %d has %d rows", p, i, n)
			}
		}
	}
	// The page that row 4321 is on can be read although every other one is destroyed.
	broken := append([]byte{}, table.data...)
	for i := range table.columns {
		c := table.columns[i]
		for p := range len(c.offsets) - 2 { // after the last page there is the footer
			if int64(4321) < c.first[p] || int64(4321) >= c.first[p+1] {
				clear(broken[c.offsets[p]:c.offsets[p+1]])
			}
		}
	}
	again, err := parseTable(broken)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.read(nil, colTime, 4321, 1); err != nil || got[0] != 1e9+4321 {
		t.Errorf("row 4321 is %v, error %v", got, err)
	}
	for i, name := range again.shape.names() {
		if _, err := again.read(nil, i, 4321, 1); err != nil {
			t.Errorf("column %s of row 4321: %v", name, err)
		}
	}
	if _, err := again.read(nil, colTime, 5500, 1); err == nil {
		t.Error("a destroyed page was read")
	}
	section, err := d.group.loadSamples(t.Context(), rows.meta.GetSamplesSection(), 3)
	if err != nil {
		t.Fatal(err)
	}
	if section.Pages() != 1 || section.Rows() != 2*10_000 {
		t.Errorf("%d pages with %d rows of samples, want 1 and 20,000", section.Pages(), section.Rows())
	}
	checkRowsTouched(t, rows)
}

// checkRowsTouched makes nonsense of the rows of all other services on the page that was inflated: they are not decoded.
func checkRowsTouched(t *testing.T, rows *Rows) {
	t.Helper()
	ps, err := rows.Profiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := rows.Samples(t.Context(), ps)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]int64, 16)
	if err := s.Sum(1, nil, want); err != nil {
		t.Fatal(err)
	}
	nonsense := 0
	for c, loaded := range s.page.loaded {
		if loaded != (c == 0 || c == 2) {
			t.Errorf("column %d inflated: %t", c, loaded)
		}
		b := slices.Clone(s.page.bytes[c])
		for i := range b {
			if at := uint64(i); at < ps.offsets[c][0] || at >= ps.offsets[c][1] {
				b[i] = 0xff // a number that does not end
				nonsense++
			}
		}
		s.page.bytes[c] = b
	}
	got := make([]int64, 16)
	if err := s.Sum(1, nil, got); err != nil || !slices.Equal(got, want) || nonsense < 2*19_998 {
		t.Errorf("sums %v, want %v, of %d bytes of others; error %v", got, want, nonsense, err)
	}
}

// A large service in a shared segment does not make a small one read its pages.
func TestSmallServiceBesideALargeOne(t *testing.T) {
	var h head
	var stacks [][]string
	var values [][2]int64
	for i := range 2000 {
		stacks = append(stacks, []string{"main", fmt.Sprintf("f%d", i)})
		values = append(values, [2]int64{int64(i + 1), 7})
	}
	large := makeProfile("large", values, stacks...)
	for i := range 100 {
		h.push("acme", large, int64(1000+i), profile.ID{byte(i)}, noLabels)
	}
	h.push("acme", simple("small", 5, "main", "f7"), 1050, profile.ID{200}, noLabels)
	r := open(t, h.segment(t, "X"))
	rows := r.Datasets()[1].Rows[0]
	ps, err := rows.Profiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := rows.Samples(t.Context(), ps)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.section.Pages(); n != 4 {
		t.Fatalf("200,001 rows on %d pages, want 4", n)
	}
	sums := make([]int64, 4000)
	if err := s.Sum(0, nil, sums); err != nil {
		t.Fatal(err)
	}
	if s.page.number != 3 || !s.page.loaded[0] || !s.page.loaded[1] || s.page.loaded[2] {
		t.Errorf("page %d with columns %v inflated, want the last with the first two", s.page.number, s.page.loaded)
	}
}
