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
		if err := m.writeKind(ctx, g, u, k, to); err != nil {
			return err
		}
		if err := m.kindDone(k); err != nil {
			return err
		}
	}
	for _, d := range u.service.datasets {
		if err := d.group.done(&m.pages); err != nil {
			return err
		}
	}
	return m.memory.set(&u.held, 0)
}

// writeKind writes one kind of a unit, unless nothing of it stays.
func (m *merger) writeKind(ctx context.Context, g *GroupWriter, u *unit, k *unitKind, to renumbering) error {
	if len(k.order) == 0 {
		return k.check(nil)
	}
	if err := m.uniteTrees(ctx, u, k); err != nil {
		return err
	}
	apply(k.stack.Locations[1:], to.locations)
	apply(k.call.Names[1:], to.names)
	m.w.symbols.Like(k.like)
	trees := g.Trees(&k.stack, &k.call)
	rw := g.Rows(u.service.name, k.kind, trees)
	if g.w.err != nil {
		return g.w.err
	}
	rw.split = k.huge
	if err := m.copyRows(ctx, rw, k, to.series); err != nil {
		return err
	}
	return k.check(rw)
}

// kindDone drops what is held of a kind whose rows have been written, and checks the CRCs of the sections that nobody
// else needs.
func (m *merger) kindDone(k *unitKind) error {
	for _, in := range k.inputs {
		if err := in.group.kindDone(in.rows.meta, &m.pages); err != nil {
			return err
		}
		_ = m.memory.set(&in.held, 0)
	}
	_ = m.memory.set(&k.orderHeld, 0)
	_ = m.memory.set(&k.treesHeld, 0)
	_ = m.memory.set(&m.kindRollups.each.held, 0)
	*k = unitKind{kind: k.kind}
	if m.pages.size() > m.memory.limit/8 {
		m.pages.drop()
	}
	return nil
}

// check compares what was written of a kind, which is nothing where rw is nil, with what the sources hold less what was
// dropped.
func (k *unitKind) check(rw *RowsWriter) error {
	wrote := tally{sums: make([]uint64, len(k.expect.sums))}
	if rw != nil {
		wrote.extras = rw.extras
		for _, rows := range rw.parts {
			wrote.profiles += rows.Profiles
			wrote.samples += rows.Samples
			for i, s := range rows.Sums {
				wrote.sums[i] += uint64(s)
			}
		}
	}
	if err := k.expect.compare(&wrote); err != nil {
		return fmt.Errorf("kind %q: %w", k.kind.Name, err)
	}
	return nil
}

// compare returns an error unless two tallies are the same.
func (t *tally) compare(wrote *tally) error {
	if wrote.extras != t.extras {
		return fmt.Errorf("%w: the sources have %d bytes of spans, traces and times, their contents %d", ErrCorrupt, t.extras, wrote.extras)
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
	// The rows of the table that is written become about as large as those of the tables that are read.
	reserved := rw.g.rows.held()
	for _, in := range k.inputs {
		reserved += in.profiles.stored()
	}
	if err := m.memory.set(&m.rowsHeld, reserved); err != nil {
		return err
	}
	sums, err := m.rollups(k, series)
	if err != nil {
		return err
	}
	left := make([]int, len(k.inputs)) // profiles that are still to be copied
	for i, in := range k.inputs {
		s, err := m.openSamples(ctx, k, in)
		if err != nil {
			return err
		}
		readers[i], left[i] = s, in.profiles.n-len(in.dropped)
		for j, n := range in.nodes {
			in.tree.to[n] = in.to[j]
		}
	}
	for i := 0; i < len(k.order); {
		if err := ctx.Err(); err != nil {
			return err
		}
		r := &k.order[i]
		of := sums.of(r.input)
		n, err := m.copyPage(rw, k, readers, i, series, of)
		if err != nil {
			return err
		}
		in := k.inputs[r.input]
		if n == 0 {
			n = 1
			if err := m.copyProfile(rw, readers[r.input], in, int(r.index), series, of); err != nil {
				return err
			}
		}
		if left[r.input] -= n; left[r.input] == 0 {
			in.group.pause(in.rows.meta.GetSamplesSection(), &m.pages)
		}
		if err := m.memory.set(&m.rowsHeld, max(rw.g.rows.held(), reserved)); err != nil {
			return err
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
func (m *merger) copyProfile(rw *RowsWriter, s *Samples, in *input, i int, series []uint32, sums *kindRollups) (err error) {
	defer s.wrap(&err)
	p, err := in.profile(i, series)
	if err != nil {
		return err
	}
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
	for c := 1; c <= len(m.totals); c++ {
		run, err := m.valueRun(s, i, c, len(stacks))
		if err != nil {
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
	return sums.addRuns(s, i, p.Series, stacks)
}

// valueRun returns the run of a profile of n rows in a column of values. One that is a multiple is not made, but its
// length must be right.
func (m *merger) valueRun(s *Samples, i, column, n int) (run samples.Run, err error) {
	at, err := s.seek(i)
	if err != nil || n == 0 {
		return run, err
	}
	if err := s.turn(s.profiles.offsets[0][at]); err != nil {
		return run, err
	}
	base, factor, multiple := s.section.Multiple(s.page.number, column)
	if !multiple {
		if run.Bytes, err = s.runAt(at, column); err != nil {
			return run, err
		}
		return run, samples.CheckRun(run.Bytes, n)
	}
	from, err := s.runAt(at, base)
	if err != nil {
		return run, err
	}
	run = samples.Run{Base: base, Factor: factor}
	if run.Length, err = m.multiplier.Length(from, n, factor); err != nil {
		return run, err
	}
	offsets := s.profiles.offsets[column]
	if length := offsets[at+1] - offsets[at]; length != uint64(run.Length) {
		return run, fmt.Errorf("%w: a run of %d bytes, the multiple of another takes %d", ErrCorrupt, length, run.Length)
	}
	return run, nil
}

func errNotAscending() error {
	return fmt.Errorf("%w: stacks of a sorted group are not in the total order", ErrCorrupt)
}

// profile is what the new object says of a profile; series are the new numbers of the unit's, nil if they stay.
func (in *input) profile(i int, series []uint32) (Profile, error) {
	p, err := in.profiles.profile(i)
	if err == nil && series != nil {
		p.Series = series[p.Series]
	}
	return p, err
}

// renumber returns the stack nodes of profile i in the new numbers, and whether these still ascend. It sets the
// totals.
func (m *merger) renumber(s *Samples, in *input, i int) (stacks []uint32, ascending bool, err error) {
	if stacks, err = s.stackNodes(i); err != nil {
		return nil, false, err
	}
	at, err := s.seek(i)
	if err != nil {
		return nil, false, err
	}
	ascending = true
	to := in.tree.to
	step := int64(1)
	if s.profiles.tagged(at) {
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
	for _, totals := range s.profiles.Totals {
		m.totals = append(m.totals, totals[at])
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
		if extras, err = m.sortExtras(extras); err != nil {
			return err
		}
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
	sums.addValues(p.Series, stacks, values)
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
func (m *merger) sortExtras(x *Extras) (*Extras, error) {
	sorted := &m.extra.sorted
	sorted.Reset()
	for _, o := range m.order {
		i := uint32(o)
		if len(x.Spans) > 0 {
			sorted.Spans = append(sorted.Spans, x.Spans[i])
		}
		if len(x.Traces) > 0 {
			sorted.Traces = append(sorted.Traces, x.Traces[i])
		}
		if len(x.TimeEnds) > 0 {
			sorted.Times = append(sorted.Times, x.TimesOf(int(i))...)
			sorted.TimeEnds = append(sorted.TimeEnds, uint32(len(sorted.Times)))
		}
	}
	return sorted, m.extra.account()
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

// openSamples gives the rows of an input of a kind, through the section that its group has open.
func (m *merger) openSamples(ctx context.Context, k *unitKind, in *input) (*Samples, error) {
	types := len(in.rows.Kind.SampleTypes)
	columns := make([]int, types)
	for i := range columns {
		columns[i] = i
	}
	r, err := in.group.openRows(ctx, in.rows.meta, 1+types, m.room(len(k.inputs)), &m.pages)
	if err != nil {
		return nil, err
	}
	return &Samples{
		rows: in.rows, kind: storagev1.SectionType_SECTION_TYPE_SAMPLES, chunks: in.profiles, section: r.stream.directory, source: r.stream,
		nodes: in.tree.nodes, columns: columns, page: r.page, values: make([][]int64, types), extra: &m.extra,
	}, nil
}

// room is how long a range may be that is read of one of so many sections: what is free is for the range at hand of
// each, the one that is read ahead, and as much again for inflated pages.
func (m *merger) room(sections int) uint64 {
	return uint64(min(max(m.memory.free()/int64(4*sections), leastRange), mostRange))
}
