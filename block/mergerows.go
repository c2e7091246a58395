package block

import (
	"context"
	"fmt"
	"slices"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/samples"
)

// checkEvery is after how many profiles a merge looks whether it should stop.
const checkEvery = 1024

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
		if err := m.copyRows(ctx, rw, k, to.series); err != nil {
			return err
		}
		if err := k.expect.check(rw); err != nil {
			return fmt.Errorf("kind %q: %w", k.kind.Name, err)
		}
	}
	for _, d := range u.service.datasets {
		d.group.done()
	}
	return nil
}

// check compares what was written with what the sources hold.
func (t *tally) check(rw *RowsWriter) error {
	if rw.rows == nil {
		return fmt.Errorf("%w: no profiles written, want %d", ErrCorrupt, t.profiles)
	}
	same := rw.rows.Profiles == t.profiles && rw.rows.Samples == t.samples
	for i, s := range rw.rows.Sums {
		same = same && uint64(s) == t.sums[i]
	}
	if !same {
		return fmt.Errorf("%w: the sources have %d profiles with %d rows that sum to %d, their contents %d with %d that sum to %d",
			ErrCorrupt, t.profiles, t.samples, t.sums, rw.rows.Profiles, rw.rows.Samples, rw.rows.Sums)
	}
	return nil
}

// copyRows copies the profiles of a kind in their order.
func (m *merger) copyRows(ctx context.Context, rw *RowsWriter, k *unitKind, series []uint32) error {
	readers := make([]*Samples, len(k.inputs))
	for i, in := range k.inputs {
		s, err := in.samples(ctx)
		if err != nil {
			return err
		}
		readers[i] = s
		for j, n := range in.nodes {
			in.tree.to[n] = in.to[j]
		}
	}
	for i := range k.order {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		r := &k.order[i]
		in := k.inputs[r.input]
		ps := in.profiles
		p := Profile{Time: r.time, Series: r.series, ID: ps.IDs[r.index], Duration: ps.Durations[r.index], Period: ps.Periods[r.index]}
		if series != nil {
			p.Series = series[r.series]
		}
		if err := m.copyProfile(rw, readers[r.input], in, p, int(r.index)); err != nil {
			return err
		}
	}
	return nil
}

// copyProfile copies one profile: stack nodes get their new numbers, and values are copied as they are unless
// the new numbers are in another order than the old, which they can only be if the source is not sorted.
func (m *merger) copyProfile(rw *RowsWriter, s *Samples, in *input, p Profile, i int) (err error) {
	defer s.wrap(&err)
	stacks, err := s.stackNodes(i)
	if err != nil {
		return err
	}
	ascending := true
	to := in.tree.to
	last := int64(-1)
	for j, n := range stacks {
		n = to[n]
		stacks[j] = n
		ascending = ascending && int64(n) > last
		last = int64(n)
	}
	m.totals = m.totals[:0]
	for c := range in.profiles.Totals {
		m.totals = append(m.totals, in.profiles.Totals[c][i])
	}
	if !in.sorted {
		return m.decodeProfile(rw, s, p, i, stacks, ascending)
	}
	if !ascending {
		return fmt.Errorf("%w: stacks of a sorted group are not in the total order", ErrCorrupt)
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
	return rw.appendRuns(p, stacks, m.runs, m.totals)
}

// decodeProfile is copyProfile for a source that is not sorted: rows are put in order, and on the way their values
// are checked against the totals that the source has of them.
func (m *merger) decodeProfile(rw *RowsWriter, s *Samples, p Profile, i int, stacks []uint32, ascending bool) error {
	values, err := s.values64(i)
	if err != nil {
		return err
	}
	if !ascending {
		stacks, values = m.sortRows(stacks, values)
	}
	for c, vs := range values {
		if total, ok := sum(vs); !ok || total != m.totals[c] {
			return fmt.Errorf("%w: values of sample type %d sum to %d, the %s section says %d", ErrCorrupt, c, total,
				storagev1.SectionType_SECTION_TYPE_PROFILES, m.totals[c])
		}
	}
	return rw.Append(p, stacks, values)
}

// sortRows puts the rows of a profile in the order of their stack nodes, of which no two are the same.
func (m *merger) sortRows(stacks []uint32, values [][]int64) ([]uint32, [][]int64) {
	m.order = m.order[:0]
	for j, n := range stacks {
		m.order = append(m.order, uint64(n)<<32|uint64(j))
	}
	slices.Sort(m.order)
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
