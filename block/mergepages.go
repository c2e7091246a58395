package block

import (
	"fmt"

	"github.com/kilndb/kiln/block/samples"
)

// smallestCopy is the fewest rows of a page that is copied: copies of smaller ones would cost more, in the end, by
// compressing worse than by being compressed again.
const smallestCopy = samples.PageRows / 4

// copyPage copies the whole page that begins with profile k.order[i], if there is one, and returns how many profiles
// it holds: 0 if they have to be copied one by one. A page can be copied if its source is sorted and all its profiles
// follow each other in the new order too. Its stack nodes get their new
// numbers; its values remain the bytes they are.
func (m *merger) copyPage(rw *RowsWriter, k *unitKind, readers []*Samples, i int, series []uint32, sums *kindRollups) (n int, err error) {
	first := &k.order[i]
	in, s := k.inputs[first.input], readers[first.input]
	defer s.wrap(&err)
	if k.huge || !in.sorted {
		return 0, nil
	}
	stack := in.profiles.offsets[0]
	page := s.section.Find(stack[first.index])
	if page == s.section.Pages() || s.section.PageRows(page) < smallestCopy {
		return 0, nil
	}
	from, to := s.section.Bounds(page, 0)
	if stack[first.index] != from {
		return 0, nil
	}
	for ; i+n < len(k.order) && stack[int(first.index)+n] < to; n++ {
		if r := &k.order[i+n]; r.input != first.input || r.index != first.index+uint32(n) || int(r.index)+1 >= len(stack) {
			return 0, nil
		}
	}
	if stack[int(first.index)+n] != to || !rw.beginPage() {
		return 0, nil
	}
	rows := 0
	for j := range n {
		r := &k.order[i+j]
		rows += int(in.profiles.Samples[r.index])
		if err := m.copyStacks(rw, s, in, r, series, sums); err != nil {
			return 0, err
		}
	}
	if rows != s.section.PageRows(page) {
		return 0, fmt.Errorf("%w: profiles of %d rows on a page of %d", ErrCorrupt, rows, s.section.PageRows(page))
	}
	rw.samples.writer.CopyPage(s.section, page)
	return n, rw.g.w.err
}

// copyStacks writes one profile of a page that is copied.
func (m *merger) copyStacks(rw *RowsWriter, s *Samples, in *input, r *ref, series []uint32, sums *kindRollups) error {
	i := int(r.index)
	stacks, ascending, err := m.renumber(s, in, i)
	if err != nil {
		return err
	}
	if !ascending {
		return errNotAscending()
	}
	m.lengths = m.lengths[:0]
	for c := range m.totals {
		from, to := in.profiles.offsets[1+c][i], in.profiles.offsets[1+c][i+1]
		m.lengths = append(m.lengths, uint32(to-from))
	}
	if err := rw.appendCopied(in.profile(r, series), stacks, m.lengths, s.profiles.extraLengths(i), m.totals); err != nil || sums == nil {
		return err
	}
	return sums.addRuns(s, i, stacks)
}

// addRuns adds the values of profile i to its stack nodes, which are in the new numbers.
func (r *kindRollups) addRuns(s *Samples, i int, stacks []uint32) error {
	for c := range r.sums {
		from, factor, err := s.valueRun(i, c)
		if err != nil {
			return err
		}
		if err := samples.Add(stacks, from, factor, r.sums[c]); err != nil {
			return err
		}
	}
	return nil
}
