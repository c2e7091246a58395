package inspect

import (
	"cmp"
	"math"
	"slices"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// footer checks what the footer says of itself.
func (v *verifier) footer() {
	m := v.o.meta
	segment := m.GetLevel() == 0
	if segment != (m.GetTenant() == 0) {
		v.fail("footer", "level %d, tenant %q: a segment has none, a block has one", m.GetLevel(), m.Strings[m.GetTenant()])
	}
	if segment && len(m.GetSources()) > 0 {
		v.fail("footer", "a segment with %d sources", len(m.GetSources()))
	}
	for i, g := range m.GetGroups() {
		if g.GetSorted() == segment {
			v.fail("footer", "level %d, but group %d is sorted: %t", m.GetLevel(), i, g.GetSorted())
		}
	}
	seen := map[string]bool{}
	for _, s := range m.GetStrings() {
		if seen[s] {
			v.fail("footer", "string %q is there twice", s)
		}
		seen[s] = true
	}
	kinds := map[string]bool{}
	for i := range m.GetKinds() {
		key := v.o.kind(uint32(i)).Key()
		if kinds[key] {
			v.fail("footer", "kind %d is there twice", i)
		}
		kinds[key] = true
	}
	v.times()
	v.rollupLines()
}

// times compares the object's time range with that of its datasets.
func (v *verifier) times() {
	m := v.o.meta
	oldest, newest := int64(math.MaxInt64), int64(math.MinInt64)
	for _, d := range m.GetDatasets() {
		oldest, newest = min(oldest, d.GetMinTime()), max(newest, d.GetMaxTime())
		if len(d.GetRows()) == 0 {
			v.fail("footer", "service %q has no rows", m.Strings[d.GetService()])
		}
	}
	if len(m.GetDatasets()) > 0 && (oldest != m.GetMinTime() || newest != m.GetMaxTime()) {
		v.fail("footer", "profiles from %d to %d, its datasets have them from %d to %d", m.GetMinTime(), m.GetMaxTime(), oldest, newest)
	}
}

// layout checks that the sections follow one another from head to footer, with not a byte between them that nobody
// would check.
func (v *verifier) layout() {
	var all []*storagev1.Section
	for _, g := range v.o.meta.GetGroups() {
		all = append(all, g.GetSections()...)
	}
	slices.SortStableFunc(all, func(a, b *storagev1.Section) int { return cmp.Compare(a.GetOffset(), b.GetOffset()) })
	end := uint64(headSize)
	for _, s := range all {
		if s.GetOffset() != end {
			v.fail("footer", "section %s begins at byte %d, what is before it ends at %d", typeName(s.GetType()), s.GetOffset(), end)
		}
		end = s.GetOffset() + s.GetLength()
	}
	if want := v.o.meta.GetSize() - tailSize - uint64(v.o.footer); end != want {
		v.fail("footer", "sections end at byte %d, the footer begins at %d", end, want)
	}
}
