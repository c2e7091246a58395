package query

import (
	"cmp"
	"container/heap"
	"slices"
	"strings"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// Plan cuts entries into leaves of about leafBytes to read, and puts inner nodes above them with at most fan
// children each (at least 2), all balanced by bytes. It depends on the set of entries alone, not on their
// order. A single leaf has no inner node; no entries have no plan. The plan shares the entries.
func Plan(entries []*storagev1.BlockMeta, leafBytes int64, fan int) *queryv1.PlanNode {
	if len(entries) == 0 {
		return nil
	}
	parts := make([]part, len(entries))
	total, seen := uint64(0), map[sectionOf]bool{}
	for i, e := range entries {
		parts[i] = part{bytes: entryBytes(e, seen), id: e.GetId(), entry: e}
		total += parts[i].bytes
	}
	sortParts(parts)
	size := uint64(max(leafBytes, 1))
	leaves := min((total+size-1)/size, uint64(len(parts)))
	groups := spread(parts, int(leaves), len(parts))
	for i, group := range groups {
		parts[i] = merged(group, leafOf(group))
	}
	return above(parts[:len(groups)], max(fan, 2)).node
}

// part is an entry, or a node of the plan, while that is being made. id is that of the first entry.
type part struct {
	bytes uint64
	id    string
	entry *storagev1.BlockMeta
	node  *queryv1.PlanNode
}

// merged is node, which does the work of parts.
func merged(parts []part, node *queryv1.PlanNode) part {
	p := part{id: parts[0].id, node: node}
	for _, q := range parts {
		p.bytes += q.bytes
		p.id = min(p.id, q.id)
	}
	return p
}

func leafOf(parts []part) *queryv1.PlanNode {
	leaf := &queryv1.PlanNode{Entries: make([]*storagev1.BlockMeta, len(parts))}
	for i, p := range parts {
		leaf.Entries[i] = p.entry
	}
	slices.SortStableFunc(leaf.Entries, func(a, b *storagev1.BlockMeta) int { return strings.Compare(a.GetId(), b.GetId()) })
	return leaf
}

// above puts inner nodes above parts, as few levels as will do.
func above(parts []part, fan int) part {
	if len(parts) == 1 {
		return parts[0]
	}
	room := 1 // leaves below one child
	for room*fan < len(parts) {
		room *= fan
	}
	sortParts(parts)
	inner := &queryv1.PlanNode{}
	for _, group := range spread(parts, (len(parts)+room-1)/room, room) {
		inner.Children = append(inner.Children, above(group, fan).node)
	}
	return merged(parts, inner)
}

// sortParts puts the largest first.
func sortParts(parts []part) {
	slices.SortFunc(parts, func(a, b part) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), strings.Compare(a.id, b.id))
	})
}

// spread deals sorted parts out into n groups of at most room: each goes to the group with the fewest bytes.
func spread(parts []part, n, room int) [][]part {
	groups := make([][]part, n)
	open := make(groupHeap, n)
	for i := range open {
		open[i].group = i
	}
	for _, p := range parts {
		g := &open[0]
		groups[g.group] = append(groups[g.group], p)
		g.bytes += p.bytes
		if len(groups[g.group]) == room {
			heap.Pop(&open)
		} else {
			heap.Fix(&open, 0)
		}
	}
	return groups
}

// groupHeap are the groups with room, the lightest first.
type groupHeap []struct {
	bytes uint64
	group int
}

func (h groupHeap) Len() int { return len(h) }
func (h groupHeap) Less(i, j int) bool {
	return h[i].bytes < h[j].bytes || h[i].bytes == h[j].bytes && h[i].group < h[j].group
}
func (h groupHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *groupHeap) Push(any)     { panic("query: a group never opens again") }
func (h *groupHeap) Pop() any {
	*h = (*h)[:len(*h)-1]
	return nil
}

type sectionOf struct{ group, section uint32 }

// entryBytes returns how much there is to read for the datasets in e: their sections, each counted once, or
// the whole object if e does not say. Never 0, and never so much that sums overflow.
func entryBytes(e *storagev1.BlockMeta, seen map[sectionOf]bool) uint64 {
	clear(seen)
	bytes := uint64(0)
	add := func(group, section uint32) {
		if int(group) >= len(e.GetGroups()) || seen[sectionOf{group, section}] {
			return
		}
		seen[sectionOf{group, section}] = true
		if sections := e.GetGroups()[group].GetSections(); int(section) < len(sections) {
			bytes += min(sections[section].GetLength(), maxEntryBytes)
		}
	}
	for _, d := range e.GetDatasets() {
		if int(d.GetGroup()) < len(e.GetGroups()) {
			for i, s := range e.GetGroups()[d.GetGroup()].GetSections() {
				switch s.GetType() {
				case storagev1.SectionType_SECTION_TYPE_SYMBOLS, storagev1.SectionType_SECTION_TYPE_SERIES, storagev1.SectionType_SECTION_TYPE_PROFILES:
					add(d.GetGroup(), uint32(i))
				}
			}
		}
		for _, r := range d.GetRows() {
			add(d.GetGroup(), r.GetTreesSection())
			add(d.GetGroup(), r.GetSamplesSection())
		}
	}
	if bytes == 0 {
		bytes = e.GetSize()
	}
	return min(max(bytes, 1), maxEntryBytes)
}

// 1 TiB: a thousand times the largest block, and a million of them can be added up.
const maxEntryBytes = 1 << 40
