package block

import (
	"context"
	"fmt"
	"math/bits"
	"slices"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/samples"
)

// writeRows writes the trees and rows of a unit into its group.
func (m *merger) writeRows(ctx context.Context, g *GroupWriter, u *unit, to renumbering) error {
	for _, k := range u.kinds {
		apply(k.stack.Locations[1:], to.locations)
		apply(k.call.Names[1:], to.names)
		trees := g.Trees(&k.stack, &k.call)
		rw := g.Rows(u.service.name, k.kind, trees)
		if g.w.err != nil {
			return g.w.err
		}
		rw.split = k.huge
		if err := m.copyRows(ctx, rw, k, to.series); err != nil {
			return err
		}
		if err := k.expect.check(rw); err != nil {
			return fmt.Errorf("kind %q: %w", k.kind.Name, err)
		}
		for _, in := range k.inputs {
			in.group.kindDone(in.rows.meta)
		}
		*k = unitKind{kind: k.kind}
	}
	for _, d := range u.service.datasets {
		d.group.done(&m.pages)
	}
	return nil
}

// check compares what was written with what the sources hold.
func (t *tally) check(rw *RowsWriter) error {
	if rw.rows == nil {
		return fmt.Errorf("%w: no profiles written, want %d", ErrCorrupt, t.profiles)
	}
	var wrote tally
	wrote.sums = make([]uint64, len(t.sums))
	for _, rows := range rw.parts {
		wrote.profiles += rows.Profiles
		wrote.samples += rows.Samples
		for i, s := range rows.Sums {
			wrote.sums[i] += uint64(s)
		}
	}
	if rw.extras != t.extras {
		return fmt.Errorf("%w: the sources have %d bytes of spans, traces and times, their contents %d", ErrCorrupt, t.extras, rw.extras)
	}
	if wrote.profiles != t.profiles || wrote.samples != t.samples || !slices.Equal(wrote.sums, t.sums) {
		return fmt.Errorf("%w: the sources have %d profiles with %d rows that sum to %d, their contents %d with %d that sum to %d",
			ErrCorrupt, t.profiles, t.samples, t.sums, wrote.profiles, wrote.samples, wrote.sums)
	}
	return nil
}

// copyRows copies the profiles of a kind in their order.
func (m *merger) copyRows(ctx context.Context, rw *RowsWriter, k *unitKind, series []uint32) error {
	readers := make([]*Samples, len(k.inputs))
	for i, in := range k.inputs {
		s, err := in.samples(ctx, &m.pages)
		if err != nil {
			return err
		}
		readers[i] = s
		for j, n := range in.nodes {
			in.tree.to[n] = in.to[j]
		}
	}
	sums := m.rollups(k)
	for i := 0; i < len(k.order); {
		if err := ctx.Err(); err != nil {
			return err
		}
		r := &k.order[i]
		var of *kindRollups
		if sums != nil && sums.fromRows[r.input] {
			of = sums
		}
		n, err := m.copyPage(rw, k, readers, i, series, of)
		if err != nil {
			return err
		}
		if n == 0 {
			n = 1
			in := k.inputs[r.input]
			if err := m.copyProfile(rw, readers[r.input], in, in.profile(r, series), int(r.index), of); err != nil {
				return err
			}
		}
		i += n
	}
	if sums == nil {
		return nil
	}
	return sums.finish(ctx, rw, readers)
}

// copyProfile copies one profile: stack nodes get their new numbers, and values are copied as they are unless
// the new numbers are in another order than the old, which they can only be if the source is not sorted.
func (m *merger) copyProfile(rw *RowsWriter, s *Samples, in *input, p Profile, i int, sums *kindRollups) (err error) {
	defer s.wrap(&err)
	stacks, ascending, err := m.renumber(s, in, i)
	if err != nil {
		return err
	}
	if !in.sorted {
		return m.decodeProfile(rw, s, p, i, stacks, ascending, sums)
	}
	if !ascending {
		return errNotAscending()
	}
	m.runs = m.runs[:0]
	for c := range m.totals {
		run, err := s.run(i, 1+c)
		if err != nil {
			return err
		}
		if err := samples.CheckRun(run, len(stacks)); err != nil {
			return err
		}
		m.runs = append(m.runs, run)
	}
	extras, err := s.extraRuns(i)
	if err != nil {
		return err
	}
	if err := rw.appendRuns(p, stacks, m.runs, &extras, m.totals); err != nil || sums == nil {
		return err
	}
	return sums.addRuns(s, i, stacks)
}

func errNotAscending() error {
	return fmt.Errorf("%w: stacks of a sorted group are not in the total order", ErrCorrupt)
}

// profile is what the new object says of a profile; series are the new numbers of the unit's, nil if they stay.
func (in *input) profile(r *ref, series []uint32) Profile {
	ps := in.profiles
	p := Profile{Time: r.time, Series: r.series, ID: ps.IDs[r.index], Duration: ps.Durations[r.index], Period: ps.Periods[r.index]}
	if series != nil {
		p.Series = series[r.series]
	}
	return p
}

// renumber returns the stack nodes of profile i in the new numbers, and whether these still ascend. It sets the
// totals.
func (m *merger) renumber(s *Samples, in *input, i int) (stacks []uint32, ascending bool, err error) {
	if stacks, err = s.stackNodes(i); err != nil {
		return nil, false, err
	}
	ascending = true
	to := in.tree.to
	step := int64(1)
	if s.profiles.tagged(i) {
		step = 0 // a node may come again
	}
	next := int64(0)
	for j, n := range stacks {
		n = to[n]
		stacks[j] = n
		ascending = ascending && int64(n) >= next
		next = int64(n) + step
	}
	m.totals = m.totals[:0]
	for c := range in.profiles.Totals {
		m.totals = append(m.totals, in.profiles.Totals[c][i])
	}
	return stacks, ascending, nil
}

// decodeProfile is copyProfile for a source that is not sorted: rows are put in order, and on the way their values
// are checked against the totals that the source has of them.
func (m *merger) decodeProfile(rw *RowsWriter, s *Samples, p Profile, i int, stacks []uint32, ascending bool, sums *kindRollups) error {
	values, err := s.values64(i)
	if err != nil {
		return err
	}
	extras, err := s.readExtras(i)
	if err != nil {
		return err
	}
	if !ascending {
		stacks, values = m.sortRows(stacks, values, int(rw.nodes))
		extras = m.sortExtras(extras)
	}
	for c, vs := range values {
		if total, ok := sum(vs); !ok || total != m.totals[c] {
			return fmt.Errorf("%w: values of sample type %d sum to %d, the %s section says %d", ErrCorrupt, c, total,
				storagev1.SectionType_SECTION_TYPE_PROFILES, m.totals[c])
		}
	}
	if err := rw.AppendExtras(p, stacks, values, extras); err != nil || sums == nil {
		return err
	}
	for c := range values {
		sums.add(c, stacks, values[c])
	}
	return nil
}

// sortRows puts the rows of a profile of a tree with that many nodes in the order of their stack nodes.
func (m *merger) sortRows(stacks []uint32, values [][]int64, nodes int) ([]uint32, [][]int64) {
	if nodes > 256*len(stacks) || !m.sweepRows(stacks, nodes) {
		m.order = m.order[:0]
		for j, n := range stacks {
			m.order = append(m.order, uint64(n)<<32|uint64(j))
		}
		slices.Sort(m.order)
	}
	m.stacks = m.stacks[:0]
	for _, o := range m.order {
		m.stacks = append(m.stacks, uint32(o>>32))
	}
	for len(m.values) < len(values) {
		m.values = append(m.values, nil)
	}
	for c, vs := range values {
		out := m.values[c][:0]
		for _, o := range m.order {
			out = append(out, vs[uint32(o)])
		}
		m.values[c] = out
	}
	return m.stacks, m.values[:len(values)]
}

// sortExtras puts the extra columns of a profile in the order in which sortRows has put its rows. Rows of one stack node
// have stayed as they were.
func (m *merger) sortExtras(x *Extras) *Extras {
	m.extras.Reset()
	for _, o := range m.order {
		i := uint32(o)
		if len(x.Spans) > 0 {
			m.extras.Spans = append(m.extras.Spans, x.Spans[i])
		}
		if len(x.Traces) > 0 {
			m.extras.Traces = append(m.extras.Traces, x.Traces[i])
		}
		if len(x.TimeEnds) > 0 {
			m.extras.Times = append(m.extras.Times, x.TimesOf(int(i))...)
			m.extras.TimeEnds = append(m.extras.TimeEnds, uint32(len(m.extras.Times)))
		}
	}
	return &m.extras
}

// sweepRows fills m.order by a sweep over a bit per node, which is several times cheaper than sorting where a profile
// has a good part of the nodes. It reports false if a node comes twice.
func (m *merger) sweepRows(stacks []uint32, nodes int) bool {
	m.slots = resize(m.slots, nodes)
	m.bits = resize(m.bits, (nodes+63)/64)
	clear(m.bits)
	for j, n := range stacks {
		bit := uint64(1) << (n & 63)
		if m.bits[n>>6]&bit != 0 {
			return false
		}
		m.bits[n>>6] |= bit
		m.slots[n] = uint32(j)
	}
	m.order = m.order[:0]
	for w, word := range m.bits {
		for ; word != 0; word &= word - 1 {
			n := uint32(w<<6 + bits.TrailingZeros64(word))
			m.order = append(m.order, uint64(n)<<32|uint64(m.slots[n]))
		}
	}
	return true
}
