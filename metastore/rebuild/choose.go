package rebuild

import (
	"cmp"
	"maps"
	"slices"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// Standing is what a snapshot knows of an object.
type Standing int

// The standings.
const (
	// Unknown: it may have been registered after the snapshot.
	Unknown Standing = iota
	// Live: it was an entry.
	Live
	// Out: it had been replaced or refused, or is too old to have been registered later.
	Out
)

// Past is what the snapshot knows; the zero value is that of no snapshot.
type Past struct {
	Entries map[string]*storagev1.BlockMeta
	// Standing of an id; nil: Unknown.
	Standing func(id string) Standing
	// Reduced says of an entry whether its object holds data that had been deleted; nil: of none.
	Reduced func(id string) bool
}

func (p Past) standing(id string) Standing {
	if p.Standing == nil {
		return Unknown
	}
	return p.Standing(id)
}

// Bucket is what is there.
type Bucket struct {
	// Sound are the footers of the objects that the snapshot does not know.
	Sound []*storagev1.BlockMeta
	// Present says whether there is an object of that id, sound or not.
	Present func(id string) bool
}

// Plan is the index, as a change to what the snapshot has. All lists are sorted by id.
type Plan struct {
	// Add are objects to enter.
	Add []*storagev1.BlockMeta
	// Replaced are entries of the snapshot that are none any more.
	Replaced []string
	// Left are sound objects that are not entered: what they have is in other entries.
	Left []string
	// Doubtful are ids of Add that may have been replaced by an object which was merged further and is gone: their
	// sources are gone, and no snapshot says that they were the winners.
	Doubtful []string
	// Lost are tenants of replaced objects that no object has.
	Lost []Lost
}

// Lost is a tenant's part of an object.
type Lost struct{ ID, Tenant string }

// chooser knows every object that may be an entry.
type chooser struct {
	past     Past
	bucket   Bucket
	objects  map[string]*storagev1.BlockMeta
	open     []*storagev1.BlockMeta // blocks of which it is not known whether they were entries: largest first
	replaced map[string]bool
	taken    map[string]bool               // blocks that were entries, or are as good
	covered  map[part]*storagev1.BlockMeta // by which taken block
}

// part is what one object has of one tenant.
type part struct{ id, tenant string }

// Choose decides.
func Choose(past Past, bucket Bucket) Plan {
	c := &chooser{
		past: past, bucket: bucket, objects: maps.Clone(past.Entries),
		replaced: map[string]bool{}, taken: map[string]bool{}, covered: map[part]*storagev1.BlockMeta{},
	}
	if c.objects == nil {
		c.objects = map[string]*storagev1.BlockMeta{}
	}
	var plan Plan
	c.gather(&plan)
	for changed := true; changed; {
		changed = c.takeDone(&plan)
	}
	c.takeComplete()
	for id, m := range c.objects {
		_, old := past.Entries[id]
		switch {
		case c.replaced[id] && old:
			plan.Replaced = append(plan.Replaced, id)
			c.checkLost(m, &plan)
		case c.replaced[id], !old && m.GetLevel() > 0 && !c.taken[id]:
			plan.Left = append(plan.Left, id)
			if c.replaced[id] {
				c.checkLost(m, &plan)
			}
		case !old:
			plan.Add = append(plan.Add, m)
		}
	}
	plan.sort()
	return plan
}

// reduced says whether one of the sources of a block is an entry that had lost data.
func (c *chooser) reduced(m *storagev1.BlockMeta) bool {
	return c.past.Reduced != nil && slices.ContainsFunc(m.GetSources(), c.past.Reduced)
}

// newest says whether the snapshot is the newest that there was: what was replaced after it is still there.
func (c *chooser) newest() bool {
	return !slices.ContainsFunc(c.bucket.Sound, func(m *storagev1.BlockMeta) bool {
		return slices.ContainsFunc(m.GetSources(), func(s string) bool { return c.gone(s) && c.past.standing(s) != Out })
	})
}

// gather sorts out the objects that cannot be entries, and finds the blocks that were.
func (c *chooser) gather(plan *Plan) {
	newest := c.newest()
	slices.SortFunc(c.bucket.Sound, func(a, b *storagev1.BlockMeta) int {
		return cmp.Or(cmp.Compare(a.GetLevel(), b.GetLevel()), cmp.Compare(a.GetId(), b.GetId()))
	})
	orphans := map[string]bool{}
	for _, m := range c.bucket.Sound { // sources before their blocks
		out := m.GetLevel() == 0 && c.past.standing(m.GetId()) == Out || newest && c.reduced(m)
		for _, s := range m.GetSources() {
			out = out || orphans[s] || c.past.standing(s) == Out
		}
		if out {
			orphans[m.GetId()] = true
			plan.Left = append(plan.Left, m.GetId())
			continue
		}
		c.objects[m.GetId()] = m
	}
	named := map[string]bool{}
	for _, m := range c.objects {
		for _, s := range m.GetSources() {
			named[s] = true
		}
	}
	for _, m := range c.bucket.Sound {
		switch {
		case c.objects[m.GetId()] == nil || m.GetLevel() == 0:
		case named[m.GetId()]:
			c.take(m)
		default:
			c.open = append(c.open, m)
		}
	}
	slices.SortStableFunc(c.open, func(a, b *storagev1.BlockMeta) int {
		return cmp.Or(cmp.Compare(len(b.GetSources()), len(a.GetSources())), cmp.Compare(a.GetId(), b.GetId()))
	})
}

// take makes a block the one that has its sources' profiles of its tenant.
func (c *chooser) take(m *storagev1.BlockMeta) {
	c.taken[m.GetId()] = true
	for _, s := range m.GetSources() {
		c.replaced[s] = true
		c.covered[part{s, tenantOf(m)}] = m
	}
}

// free says whether no other block has a source of m for the same tenant.
func free(covered map[part]*storagev1.BlockMeta, m *storagev1.BlockMeta) bool {
	return !slices.ContainsFunc(m.GetSources(), func(s string) bool { return covered[part{s, tenantOf(m)}] != nil })
}

// takeDone takes the blocks of which a source tells that the job was done, and says whether there were any.
func (c *chooser) takeDone(plan *Plan) (changed bool) {
	c.open = slices.DeleteFunc(c.open, func(m *storagev1.BlockMeta) bool {
		gone := slices.ContainsFunc(m.GetSources(), c.gone)
		if !gone && !slices.ContainsFunc(m.GetSources(), func(s string) bool { return c.replaced[s] }) {
			return false
		}
		if free(c.covered, m) {
			c.take(m)
			changed = true
			if gone {
				plan.Doubtful = append(plan.Doubtful, m.GetId())
			}
		}
		return true
	})
	return changed
}

// gone says whether a source has left the bucket.
func (c *chooser) gone(id string) bool { return !c.bucket.Present(id) }

// takeComplete takes the blocks that have all of their sources' tenants between them.
func (c *chooser) takeComplete() {
	for rest := c.open; len(rest) > 0; {
		covered := map[part]*storagev1.BlockMeta{}
		var chosen []*storagev1.BlockMeta
		for _, m := range rest {
			if free(covered, m) {
				chosen = append(chosen, m)
				for _, s := range m.GetSources() {
					covered[part{s, tenantOf(m)}] = m
				}
			}
		}
		incomplete := slices.IndexFunc(chosen, func(m *storagev1.BlockMeta) bool {
			return slices.ContainsFunc(m.GetSources(), func(s string) bool {
				return slices.ContainsFunc(tenantsOf(c.objects[s]), func(t string) bool { return covered[part{s, t}] == nil })
			})
		})
		if incomplete < 0 {
			for _, m := range chosen {
				c.take(m)
			}
			return
		}
		// Without it another may fit; one at a time, as the others may be complete then.
		rest = slices.DeleteFunc(slices.Clone(rest), func(m *storagev1.BlockMeta) bool { return m == chosen[incomplete] })
	}
}

// checkLost reports the tenants of a replaced object that nothing has.
func (c *chooser) checkLost(m *storagev1.BlockMeta, plan *Plan) {
	for _, t := range tenantsOf(m) {
		if c.covered[part{m.GetId(), t}] == nil {
			plan.Lost = append(plan.Lost, Lost{m.GetId(), t})
		}
	}
}

func (p *Plan) sort() {
	slices.SortFunc(p.Add, func(a, b *storagev1.BlockMeta) int { return cmp.Compare(a.GetId(), b.GetId()) })
	for _, ids := range [][]string{p.Replaced, p.Left, p.Doubtful} {
		slices.Sort(ids)
	}
	slices.SortFunc(p.Lost, func(a, b Lost) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Tenant, b.Tenant)) })
}

func tenantOf(m *storagev1.BlockMeta) string { return m.GetStrings()[m.GetTenant()] }

// tenantsOf returns the tenants of an object, each once; none of nil.
func tenantsOf(m *storagev1.BlockMeta) []string {
	var names []string
	for _, d := range m.GetDatasets() {
		names = append(names, m.GetStrings()[d.GetTenant()])
	}
	return slices.Compact(names) // datasets are sorted
}
