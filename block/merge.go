package block

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kilndb/kiln/block/samples"
	"github.com/kilndb/kiln/internal/spare"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

const (
	// ownGroup is where a service gets a group of its own, in bytes of encoded names: below, a group of its own
	// costs more than a reader of one service wastes on the others' names.
	ownGroup = 16 << 10
	// fullGroup is where a shared group is closed, in the same bytes.
	fullGroup = 1 << 20
	// fullProfiles is where a shared group is closed, in profiles, because they are held until then.
	fullProfiles = 64 << 10
	// fullRows is where a shared group is closed, in rows of samples, because it keeps their pages until then: two to
	// five bytes each.
	fullRows = 4 << 20
)

// Merge writes all datasets of a tenant in the sources, which may be segments and blocks, into w as sorted
// groups. The caller then Finishes w, or Aborts it if Merge has failed.
//
// Of profiles with equal (series, time, id) and of one kind it keeps the first in the order of sources, also if
// their samples differ: they are the same capture, sent or merged twice. Series that an Exclusion names are left out, with
// every name that is theirs alone, and what then has no profiles. It checks that every dataset and kind has
// the profiles, rows and sums of its sources less those dropped. An error that wraps ErrCorrupt names the
// object that is at fault.
//
// It holds one service's names, trees and PROFILES at a time (the tiny services of a shared group together), and of the
// samples of one kind a range of pages and an inflated page per source. What it has read is dropped from the Readers when
// the last that needs it has been written. It takes DefaultBudget; see MergeWithin.
//
// Where the sums of a kind would pass int64 it begins other Rows of that kind, of which a dataset then has several.
func Merge(ctx context.Context, tenant string, sources []*Reader, w *Writer) error {
	return MergeWithin(ctx, DefaultBudget, tenant, sources, w)
}

// MergeWithin is Merge with a budget of so many bytes of memory, what waits for the garbage collector included. How
// much of each source is read at a time follows from it. If what must be held of a service does not fit, which is names,
// trees, PROFILES and a page of each source, the error wraps ErrBudget and names the service.
func MergeWithin(ctx context.Context, budget int64, tenant string, sources []*Reader, w *Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	m := merger{w: w, tenant: tenant, memory: newLedger(budget), groups: map[*group]*mergeGroup{}}
	m.scratch = takeScratch(m.memory)
	defer m.close()
	defer cancel() // of what is being read, for which close waits
	err := m.merge(ctx, sources)
	if err != nil {
		w.fail(err) // no Finish after this
	}
	return err
}

func (m *merger) merge(ctx context.Context, sources []*Reader) error {
	for i, r := range sources {
		for _, d := range r.datasets {
			if d.Tenant == m.tenant {
				m.add(i, d)
			}
		}
	}
	slices.SortStableFunc(m.services, func(a, b *mergeService) int { return strings.Compare(a.name, b.name) })
	for _, s := range m.services {
		if err := m.service(ctx, s); err != nil {
			return fmt.Errorf("merge service %q of tenant %q: %w", s.name, m.tenant, err)
		}
	}
	if err := m.flush(ctx); err != nil {
		return fmt.Errorf("merge services of tenant %q: %w", m.tenant, err)
	}
	return m.w.err
}

// close lets go of everything, however the merge has ended.
func (m *merger) close() {
	for _, g := range m.groups {
		if g.g != nil {
			_ = g.close(&m.pages, true)
		}
	}
	m.scratch.release()
}

// merger is one Merge.
type merger struct {
	w        *Writer
	tenant   string
	services []*mergeService
	byName   map[string]*mergeService
	groups   map[*group]*mergeGroup
	memory   *ledger
	// What the ledger was told of the table of names, what is kept to unite them, the union of trees, and the rows of the table to be written.
	tableHeld, namesHeld, unionHeld, rowsHeld int64

	// Tiny services that will share a group.
	pending         []*unit
	pendingBytes    int
	pendingProfiles int
	pendingRows     uint64

	*scratch
}

// scratch is memory that one merge leaves to the next.
type scratch struct {
	table     *profile.Table
	remap     profile.Remap
	sorter    sorter
	tree      profile.TreeBuilder // of sources that are not sorted
	union     treeUnion           // of those that are
	calls     callTrees
	subset    subset
	names     []*nameSource
	arrival   profile.Remap // what names became that were the last to be added to the table
	nameUnion nameUnion
	known     []knownTree
	// Of one dataset: series and locations that were seen, and these locations; of one input: marked nodes.
	series, locations, marks sparse
	marked                   []uint32
	runs                     []samples.Run
	multiplier               samples.Multiplier
	values                   [][]int64
	order                    []uint64
	slots                    []uint32
	bits                     []uint64
	sweep                    sweep
	stacks                   []uint32
	totals                   []int64
	lengths                  []uint32
	extra                    extraReader
	pages                    pagePool
	kindRollups              kindRollups
}

// idle holds scratch and nothing else: tables of names that have been touched before are half as dear to fill.
var idle = spare.Pool[*scratch]{New: newScratch, Keep: keepIdle}

func newScratch() *scratch { return &scratch{table: profile.NewTable()} }

const (
	// maxIdle is what a scratch may hold to be kept: an unusual service must not fill the memory of its successors.
	maxIdle = 64 << 20
	// keepIdle is what a scratch may hold to stay until the next merge, which may be ten seconds away: as much as merging
	// segments takes where few profiles come.
	keepIdle = 16 << 20
)

// takeScratch returns memory of an earlier merge, if that is not too much of the budget of this one.
func takeScratch(l *ledger) *scratch {
	s := idle.Get()
	if s.size() > l.limit/4 {
		s = newScratch()
	}
	s.pages.begin(l)
	s.extra.ledger, s.extra.held = l, 0
	return s
}

func (s *scratch) size() int64 {
	return int64(s.table.Bytes()+s.calls.bytes()+s.tree.Bytes()+s.union.bytes()+s.kindRollups.each.memory()+s.extra.bytes()) + s.namesSize() + s.pages.size()
}

// namesSize is the memory for names that have been united.
func (s *scratch) namesSize() int64 {
	size := s.nameUnion.bytes()
	for _, n := range s.names {
		size += n.bytes()
	}
	return int64(size)
}

func (s *scratch) release() {
	for _, n := range s.names {
		n.release()
	}
	s.known = dropKnown(s.known)
	clear(s.runs[:cap(s.runs)])
	s.extra.ledger = nil
	if size := s.size(); size <= maxIdle {
		idle.Put(s, int(size))
	}
}

// mergeService is one service with its datasets, in the order of sources.
type mergeService struct {
	name     string
	datasets []mergeDataset
}

type mergeDataset struct {
	source int
	d      *Dataset
	group  *mergeGroup
}

func (m *merger) add(source int, d *Dataset) {
	if m.byName == nil {
		m.byName = map[string]*mergeService{}
	}
	s := m.byName[d.Service]
	if s == nil {
		s = &mergeService{name: d.Service}
		m.byName[d.Service] = s
		m.services = append(m.services, s)
	}
	g := m.groups[d.group]
	if g == nil {
		g = newMergeGroup(d.group, m.memory)
		m.groups[d.group] = g
	}
	g.datasets++
	g.left++
	for _, r := range d.Rows {
		g.users[r.meta.GetTreesSection()]++
	}
	s.datasets = append(s.datasets, mergeDataset{source, d, g})
}

// service prepares one service and writes it, or keeps it for a shared group.
func (m *merger) service(ctx context.Context, s *mergeService) error {
	u, err := m.unit(ctx, s)
	if err != nil {
		return err
	}
	if u.profiles() == 0 { // all of it was deleted
		return m.writeRows(ctx, nil, u, identity)
	}
	if u.size > ownGroup || u.profiles() >= fullProfiles || u.rows() >= fullRows {
		return m.writeAlone(ctx, u)
	}
	for _, k := range u.kinds {
		if err := m.uniteTrees(ctx, u, k); err != nil {
			return err
		}
	}
	m.pending = append(m.pending, u)
	m.pendingBytes += u.size
	m.pendingProfiles += u.profiles()
	m.pendingRows += u.rows()
	if m.pendingBytes >= fullGroup || m.pendingProfiles >= fullProfiles || m.pendingRows >= fullRows {
		return m.flush(ctx)
	}
	return nil
}

// writeAlone writes a group of one service, whose pages need not wait for the group's end.
func (m *merger) writeAlone(ctx context.Context, u *unit) error {
	g := m.w.beginGroup(m.tenant, true, true)
	m.w.symbols.Like(u.like)
	g.Symbols(&u.symbols)
	g.Series(u.series)
	if err := m.writeRows(ctx, g, u, identity); err != nil {
		return err
	}
	return m.closeGroup(g)
}

// closeGroup closes a group, for which its rows are packed a second time.
func (m *merger) closeGroup(g *GroupWriter) error {
	if err := m.memory.set(&m.rowsHeld, 2*g.rows.held()); err != nil {
		return err
	}
	err := g.Close()
	_ = m.memory.set(&m.rowsHeld, 0)
	return err
}

// flush writes the pending services as one group.
func (m *merger) flush(ctx context.Context) error {
	units := m.pending
	m.pending, m.pendingBytes, m.pendingProfiles, m.pendingRows = nil, 0, 0, 0
	switch len(units) {
	case 0:
		return nil
	case 1:
		return m.writeAlone(ctx, units[0])
	}
	// The union of names, and which number those of each service became. All are in the total order, and so is
	// the union: the new numbers ascend where the old ones did, and trees stay sorted.
	m.table.Reset()
	arrival := make([]profile.Remap, len(units))
	for i, u := range units {
		m.table.Add(&u.symbols, &arrival[i])
	}
	symbols, _ := m.sorter.symbols(m.table, &m.remap)
	series, seriesOf := unionSeries(units)
	g := m.w.beginGroup(m.tenant, true, false)
	if err := m.likeShared(ctx, &symbols, units); err != nil {
		return err
	}
	g.Symbols(&symbols)
	g.Series(series)
	for i, u := range units {
		to := renumbering{series: seriesOf[i], names: compose(arrival[i].Strings, m.remap.Strings), locations: compose(arrival[i].Locations, m.remap.Locations)}
		if err := m.writeRows(ctx, g, u, to); err != nil {
			return fmt.Errorf("service %q: %w", u.service.name, err)
		}
		*u = unit{}
	}
	return m.closeGroup(g)
}

// renumbering says what numbers of a unit become in its group; nil: they stay.
type renumbering struct {
	series, names, locations []uint32
}

var identity = renumbering{}

func compose(first, second []uint32) []uint32 {
	for i, v := range first {
		first[i] = second[v]
	}
	return first
}

func apply(numbers, to []uint32) {
	if to != nil {
		for i, v := range numbers {
			numbers[i] = to[v]
		}
	}
}

// unionSeries returns the label sets of all units, sorted, and which index those of each became.
func unionSeries(units []*unit) (all []labels.Labels, of [][]uint32) {
	type place struct{ unit, series int }
	var places []place
	for i, u := range units {
		of = append(of, make([]uint32, len(u.series)))
		for j := range u.series {
			places = append(places, place{i, j})
		}
	}
	at := func(p place) labels.Labels { return units[p.unit].series[p.series] }
	slices.SortStableFunc(places, func(a, b place) int { return labels.Compare(at(a), at(b)) })
	for i, p := range places {
		if i == 0 || labels.Compare(at(p), all[len(all)-1]) != 0 {
			all = append(all, at(p))
		}
		of[p.unit][p.series] = uint32(len(all) - 1)
	}
	return all, of
}
