package index

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strings"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
)

// View is the index at one position of the log. It never changes.
type View struct {
	index   uint64
	tenants tree[tenantNode]
	floors  tree[floor]
	levels  []Level
	edit    *edit // of the transaction that is making the view; nil once it is published
}

// Level counts the objects of one compaction level.
type Level struct{ Entries, Bytes uint64 }

// Index returns the position in the log that the view reflects.
func (v *View) Index() uint64 { return v.index }

// Levels returns the objects in the view per level, from level 0. It must not be changed.
func (v *View) Levels() []Level { return v.levels }

// Query is what Find looks for.
type Query struct {
	Tenants []string
	// Unix nanoseconds of profile time: Start inclusive, End exclusive. 0 and 0 means any time.
	Start, End int64
	// Matchers of the service name decide. Of others those that ask for one value drop datasets whose label filter says
	// that no series has it; all else passes.
	Selector labels.Selector
}

// mayMatch returns a function that says whether a dataset may have a series that a selector chooses, by its filter.
func mayMatch(selector labels.Selector) func(span) bool {
	var asked labels.Selector
	for _, m := range selector {
		if m.IsEqual() && m.Name() != labels.ServiceName {
			asked = append(asked, m)
		}
	}
	return func(s span) bool {
		for _, m := range asked {
			if !block.MayMatch(s.entry.meta(), s.entry.meta().GetDatasets()[s.dataset], m.Name(), m.Value()) {
				return false
			}
		}
		return true
	}
}

// Find returns the entries that have a dataset in the query, ordered by id, each with only those datasets. The
// messages share their parts with the view and must not be changed.
func (v *View) Find(q Query) []*storagev1.BlockMeta {
	if q.Start == 0 && q.End == 0 {
		q.Start, q.End = math.MinInt64, math.MaxInt64
	}
	var hits []span
	may := mayMatch(q.Selector)
	collect := func(s span) {
		if may(s) {
			hits = append(hits, s)
		}
	}
	tenants := slices.Compact(slices.Sorted(slices.Values(q.Tenants)))
	for _, name := range tenants {
		t, ok := v.tenants.get(tenantNode{name: name})
		if !ok {
			continue
		}
		t.find(q.Selector.On(labels.ServiceName), q.Start, q.End, collect)
	}
	// By id, then in the order of the datasets, which the footer's reader relies on.
	slices.SortFunc(hits, span.compareEntry)
	var found []*storagev1.BlockMeta
	for len(hits) > 0 {
		n := 1
		for n < len(hits) && hits[n].entry == hits[0].entry {
			n++
		}
		found = append(found, hits[0].entry.pick(hits[:n]))
		hits = hits[n:]
	}
	return found
}

// withDatasets returns an entry that has only these of its datasets.
func withDatasets(m *storagev1.BlockMeta, datasets []*storagev1.Dataset) *storagev1.BlockMeta {
	return &storagev1.BlockMeta{
		Id: m.GetId(), Tenant: m.GetTenant(), Shard: m.GetShard(), Level: m.GetLevel(),
		MinTime: m.GetMinTime(), MaxTime: m.GetMaxTime(), Sources: m.GetSources(), Writer: m.GetWriter(), Size: m.GetSize(),
		Kinds: m.GetKinds(), Groups: m.GetGroups(), Datasets: datasets, Strings: m.GetStrings(),
	}
}

// span is one dataset of an entry.
type span struct {
	from, to int64
	entry    *entry
	dataset  int
}

// newSpan returns the i-th dataset of e, whose message is m.
func newSpan(e *entry, m *storagev1.BlockMeta, i int) span {
	d := m.GetDatasets()[i]
	return span{d.GetMinTime(), d.GetMaxTime(), e, i}
}

func (s span) compare(o span) int {
	if c := cmp.Compare(s.from, o.from); c != 0 {
		return c
	}
	return s.compareEntry(o)
}

// compareEntry is the order of the entries' ids, then of their datasets.
func (s span) compareEntry(o span) int {
	if s.entry != o.entry {
		if c := bytes.Compare(s.entry.id[:], o.entry.id[:]); c != 0 {
			return c
		}
	}
	return cmp.Compare(s.dataset, o.dataset)
}

func (s span) bounds() (int64, int64) { return s.from, s.to }

// serviceNode is the datasets of one service of a tenant.
type serviceNode struct {
	name  string
	spans tree[span]
}

func (s serviceNode) compare(o serviceNode) int { return strings.Compare(s.name, o.name) }
func (s serviceNode) bounds() (int64, int64)    { return s.spans.bounds() }

// tenantNode is the services of one tenant.
type tenantNode struct {
	name     string
	services tree[serviceNode]
}

func (t tenantNode) compare(o tenantNode) int { return strings.Compare(t.name, o.name) }
func (t tenantNode) bounds() (int64, int64)   { return t.services.bounds() }

// find visits the tenant's datasets that meet [start, end) and whose service takes all matchers of on.
func (t tenantNode) find(on labels.Selector, start, end int64, visit func(span)) {
	check := func(s serviceNode) {
		if on.Matches(func(string) string { return s.name }) {
			s.spans.overlap(start, end, visit)
		}
	}
	if name, ok := on.Equal(labels.ServiceName); ok {
		if s, ok := t.services.get(serviceNode{name: name}); ok {
			check(s)
		}
		return
	}
	t.services.overlap(start, end, check)
}

// loading is a view that is made from all of its entries.
type loading struct {
	levels   []Level
	services map[[2]string][]span // by tenant and service
}

// add takes an entry, whose message is m.
func (l *loading) add(e *entry, m *storagev1.BlockMeta) {
	if l.services == nil {
		l.services = map[[2]string][]span{}
	}
	l.levels = counted(l.levels, m, 1)
	for i := range m.GetDatasets() {
		tenant, service := names(m, i)
		l.services[[2]string{tenant, service}] = append(l.services[[2]string{tenant, service}], newSpan(e, m, i))
	}
}

// view returns the view of what was added, at a position of the log.
func (l *loading) view(index uint64) *View {
	tenants := map[string][]serviceNode{}
	for name, spans := range l.services {
		slices.SortFunc(spans, span.compare)
		tenants[name[0]] = append(tenants[name[0]], serviceNode{strings.Clone(name[1]), build(spans)})
	}
	var all []tenantNode
	for name, list := range tenants {
		slices.SortFunc(list, serviceNode.compare)
		all = append(all, tenantNode{strings.Clone(name), build(list)})
	}
	slices.SortFunc(all, tenantNode.compare)
	return &View{index: index, tenants: build(all), levels: l.levels}
}

// names returns the tenant and the service of the i-th dataset of an entry.
func names(m *storagev1.BlockMeta, i int) (tenant, service string) {
	d := m.GetDatasets()[i]
	return m.GetStrings()[d.GetTenant()], m.GetStrings()[d.GetService()]
}

// begin returns a view like v for a transaction to make its own. Those before it are not to be used within the transaction,
// v excepted.
func (v *View) begin() *View {
	next := *v
	next.edit = &edit{}
	return &next
}

// with returns the view with the datasets of an entry, whose message is m.
func (v *View) with(e *entry, m *storagev1.BlockMeta) *View {
	next := *v
	next.levels = counted(v.levels, m, 1)
	for i := range m.GetDatasets() {
		next.change(e, m, i, tree[span].put)
	}
	return &next
}

// without returns the view without the datasets of an entry, whose message is m.
func (v *View) without(e *entry, m *storagev1.BlockMeta) *View {
	next := *v
	next.levels = counted(v.levels, m, -1)
	for i := range m.GetDatasets() {
		next.change(e, m, i, tree[span].remove)
	}
	return &next
}

// change applies apply to the tree that the entry's i-th dataset belongs to. It is for a view under construction.
func (v *View) change(e *entry, m *storagev1.BlockMeta, i int, apply func(tree[span], *edit, span) tree[span]) {
	tenant, service := names(m, i)
	t, known := v.tenants.get(tenantNode{name: tenant})
	if !known {
		t.name = strings.Clone(tenant) // not to keep all texts of an entry for it
	}
	s, known := t.services.get(serviceNode{name: service})
	if !known {
		s.name = strings.Clone(service)
	}
	if s.spans = apply(s.spans, v.edit, newSpan(e, m, i)); s.spans.empty() {
		t.services = t.services.remove(v.edit, s)
	} else {
		t.services = t.services.put(v.edit, s)
	}
	if t.services.empty() {
		v.tenants = v.tenants.remove(v.edit, t)
	} else {
		v.tenants = v.tenants.put(v.edit, t)
	}
}

// counted returns counts per level with an entry counted sign times more.
func counted(before []Level, m *storagev1.BlockMeta, sign int) []Level {
	level := int(m.GetLevel())
	levels := make([]Level, max(len(before), level+1))
	copy(levels, before)
	levels[level].Entries += uint64(sign)
	levels[level].Bytes += uint64(sign) * m.GetSize()
	return levels
}
