package index

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"

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

// mayMatch returns a function that says whether a dataset may have a series that the selector chooses, by its filter.
func (q Query) mayMatch() func(span) bool {
	var asked labels.Selector
	for _, m := range q.Selector {
		if m.IsEqual() && m.Name() != labels.ServiceName {
			asked = append(asked, m)
		}
	}
	return func(s span) bool {
		for _, m := range asked {
			if !block.MayMatch(s.entry.meta, s.entry.meta.GetDatasets()[s.dataset], m.Name(), m.Value()) {
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
	may := q.mayMatch()
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

// entry is one object.
type entry struct {
	id   ulid.ULID
	meta *storagev1.BlockMeta
}

// pick returns the entry's message with only the datasets of hits.
func (e *entry) pick(hits []span) *storagev1.BlockMeta {
	m := e.meta
	if len(hits) == len(m.GetDatasets()) {
		return m
	}
	datasets := make([]*storagev1.Dataset, len(hits))
	for i, h := range hits {
		datasets[i] = m.GetDatasets()[h.dataset]
	}
	return withDatasets(m, datasets)
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

func newSpan(e *entry, dataset int) span {
	d := e.meta.GetDatasets()[dataset]
	return span{d.GetMinTime(), d.GetMaxTime(), e, dataset}
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

// newView returns the view of entries at a position of the log.
func newView(index uint64, entries []*entry) *View {
	v := &View{index: index}
	services := map[[2]string][]span{} // by tenant and service
	for _, e := range entries {
		v.levels = v.counted(e, 1)
		for i, d := range e.meta.GetDatasets() {
			name := [2]string{e.meta.GetStrings()[d.GetTenant()], e.meta.GetStrings()[d.GetService()]}
			services[name] = append(services[name], newSpan(e, i))
		}
	}
	tenants := map[string][]serviceNode{}
	for name, spans := range services {
		slices.SortFunc(spans, span.compare)
		tenants[name[0]] = append(tenants[name[0]], serviceNode{name[1], build(spans)})
	}
	var all []tenantNode
	for name, list := range tenants {
		slices.SortFunc(list, serviceNode.compare)
		all = append(all, tenantNode{name, build(list)})
	}
	slices.SortFunc(all, tenantNode.compare)
	v.tenants = build(all)
	return v
}

// begin returns a view like v for a transaction to make its own. Those before it are not to be used within the transaction,
// v excepted.
func (v *View) begin() *View {
	next := *v
	next.edit = &edit{}
	return &next
}

// with returns the view with the entry's datasets.
func (v *View) with(e *entry) *View {
	next := *v
	next.levels = v.counted(e, 1)
	for i := range e.meta.GetDatasets() {
		next.change(e, i, tree[span].put)
	}
	return &next
}

// without returns the view without the entry's datasets.
func (v *View) without(e *entry) *View {
	next := *v
	next.levels = v.counted(e, -1)
	for i := range e.meta.GetDatasets() {
		next.change(e, i, tree[span].remove)
	}
	return &next
}

// change applies apply to the tree that the entry's i-th dataset belongs to. It is for a view under construction.
func (v *View) change(e *entry, i int, apply func(tree[span], *edit, span) tree[span]) {
	d := e.meta.GetDatasets()[i]
	tenant, service := e.meta.GetStrings()[d.GetTenant()], e.meta.GetStrings()[d.GetService()]
	t, _ := v.tenants.get(tenantNode{name: tenant})
	s, _ := t.services.get(serviceNode{name: service})
	t.name, s.name = tenant, service
	if s.spans = apply(s.spans, v.edit, newSpan(e, i)); s.spans.empty() {
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

// counted returns the levels' counts with the entry counted sign times more.
func (v *View) counted(e *entry, sign int) []Level {
	level := int(e.meta.GetLevel())
	levels := make([]Level, max(len(v.levels), level+1))
	copy(levels, v.levels)
	levels[level].Entries += uint64(sign)
	levels[level].Bytes += uint64(sign) * e.meta.GetSize()
	return levels
}
