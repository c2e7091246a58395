package index

import (
	"bytes"
	"cmp"
	"hash/maphash"
	"math"
	"slices"

	"github.com/oklog/ulid/v2"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
)

// View is the index at one position of the log. It never changes.
type View struct {
	index   uint64
	tenants *node[tenantNode]
	floors  *node[floor]
	levels  []Level
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
	may := mayMatch(q.Selector)
	collect := func(s span) {
		if may(s) {
			hits = append(hits, s)
		}
	}
	tenants := slices.Compact(slices.Sorted(slices.Values(q.Tenants)))
	for _, name := range tenants {
		t, ok := v.tenants.get(newTenant(name, nil))
		if !ok {
			continue
		}
		t.find(q.Selector.On(labels.ServiceName), q.Start, q.End, collect)
	}
	// By id, then in the order of the datasets, which the footer's reader relies on.
	slices.SortFunc(hits, func(a, b span) int {
		return cmp.Or(bytes.Compare(a.entry.id[:], b.entry.id[:]), cmp.Compare(a.dataset, b.dataset))
	})
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
	heavy    uint64
}

func newSpan(e *entry, dataset int) span {
	d := e.meta.GetDatasets()[dataset]
	return span{d.GetMinTime(), d.GetMaxTime(), e, dataset, maphash.Bytes(seed, e.id[:])}
}

func (s span) compare(o span) int {
	return cmp.Or(cmp.Compare(s.from, o.from), bytes.Compare(s.entry.id[:], o.entry.id[:]), cmp.Compare(s.dataset, o.dataset))
}
func (s span) weight() uint64         { return s.heavy }
func (s span) bounds() (int64, int64) { return s.from, s.to }

// serviceNode is the datasets of one service of a tenant.
type serviceNode struct {
	name  string
	spans *node[span]
	heavy uint64
}

func newService(name string, spans *node[span]) serviceNode {
	return serviceNode{name, spans, maphash.String(seed, name)}
}

func (s serviceNode) compare(o serviceNode) int { return cmp.Compare(s.name, o.name) }
func (s serviceNode) weight() uint64            { return s.heavy }
func (s serviceNode) bounds() (int64, int64)    { return s.spans.bounds() }

// tenantNode is the services of one tenant.
type tenantNode struct {
	name     string
	services *node[serviceNode]
	heavy    uint64
}

func newTenant(name string, services *node[serviceNode]) tenantNode {
	return tenantNode{name, services, maphash.String(seed, name)}
}

func (t tenantNode) compare(o tenantNode) int { return cmp.Compare(t.name, o.name) }
func (t tenantNode) weight() uint64           { return t.heavy }
func (t tenantNode) bounds() (int64, int64)   { return t.services.bounds() }

// find visits the tenant's datasets that meet [start, end) and whose service takes all matchers of on.
func (t tenantNode) find(on labels.Selector, start, end int64, visit func(span)) {
	check := func(s serviceNode) {
		if on.Matches(func(string) string { return s.name }) {
			s.spans.overlap(start, end, visit)
		}
	}
	if name, ok := on.Equal(labels.ServiceName); ok {
		if s, ok := t.services.get(newService(name, nil)); ok {
			check(s)
		}
		return
	}
	t.services.overlap(start, end, check)
}

// seed makes weights that nobody outside can choose. It differs between processes; a tree's content does not.
var seed = maphash.MakeSeed()

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
		tenants[name[0]] = append(tenants[name[0]], newService(name[1], build(spans)))
	}
	var all []tenantNode
	for name, list := range tenants {
		slices.SortFunc(list, serviceNode.compare)
		all = append(all, newTenant(name, build(list)))
	}
	slices.SortFunc(all, tenantNode.compare)
	v.tenants = build(all)
	return v
}

// with returns the view with the entry's datasets.
func (v *View) with(e *entry) *View {
	next := &View{index: v.index, tenants: v.tenants, floors: v.floors, levels: v.counted(e, 1)}
	for i := range e.meta.GetDatasets() {
		next.edit(e, i, (*node[span]).put)
	}
	return next
}

// without returns the view without the entry's datasets.
func (v *View) without(e *entry) *View {
	next := &View{index: v.index, tenants: v.tenants, floors: v.floors, levels: v.counted(e, -1)}
	for i := range e.meta.GetDatasets() {
		next.edit(e, i, (*node[span]).remove)
	}
	return next
}

// edit applies change to the tree that the entry's i-th dataset belongs to. It is for a view under construction.
func (v *View) edit(e *entry, i int, change func(*node[span], span) *node[span]) {
	d := e.meta.GetDatasets()[i]
	t, _ := v.tenants.get(newTenant(e.meta.GetStrings()[d.GetTenant()], nil))
	if t.services == nil {
		t = newTenant(e.meta.GetStrings()[d.GetTenant()], nil)
	}
	s, ok := t.services.get(newService(e.meta.GetStrings()[d.GetService()], nil))
	if !ok {
		s = newService(e.meta.GetStrings()[d.GetService()], nil)
	}
	if s.spans = change(s.spans, newSpan(e, i)); s.spans == nil {
		t.services = t.services.remove(s)
	} else {
		t.services = t.services.put(s)
	}
	if t.services == nil {
		v.tenants = v.tenants.remove(t)
	} else {
		v.tenants = v.tenants.put(t)
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
