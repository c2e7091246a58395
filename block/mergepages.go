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
	page, n, err := s.pageFrom(k.order[i:])
	if err != nil || n == 0 || !rw.beginPage() {
		return 0, err
	}
	stored, err := s.source.page(page)
	if err != nil {
		return 0, err
	}
	rows := 0
	for j := range n {
		index := int(k.order[i+j].index)
		count, err := s.rowCount(index)
		if err != nil {
			return 0, err
		}
		rows += count
		if err := m.copyStacks(rw, s, in, index, series, sums); err != nil {
			return 0, err
		}
	}
	if rows != s.section.PageRows(page) {
		return 0, fmt.Errorf("%w: profiles of %d rows on a page of %d", ErrCorrupt, rows, s.section.PageRows(page))
	}
	rw.samples.writer.CopyPage(s.section, page, stored, s.page.bytes[0])
	return n, rw.g.w.err
}

// pageFrom returns the page that the first n of the profiles fill, if it is large enough to be copied; n is 0 if there
// is none. The first of them is one of these samples.
func (s *Samples) pageFrom(order []ref) (page, n int, err error) {
	from, end, err := s.stackRun(int(order[0].index))
	if err != nil {
		return 0, 0, err
	}
	page = s.section.Find(from)
	if page == s.section.Pages() || s.section.PageRows(page) < smallestCopy {
		return 0, 0, nil
	}
	first, to := s.section.Bounds(page, 0)
	if from != first {
		return 0, 0, nil
	}
	for n = 1; end < to; n++ {
		if n == len(order) || order[n].input != order[0].input || order[n].index != order[0].index+uint32(n) {
			return 0, 0, nil
		}
		if _, end, err = s.stackRun(int(order[n].index)); err != nil {
			return 0, 0, err
		}
	}
	if end != to {
		return 0, 0, nil
	}
	return page, n, nil
}

// stackRun returns where the run of profile i begins and ends in the stack column.
func (s *Samples) stackRun(i int) (from, to uint64, err error) {
	if i, err = s.seek(i); err != nil {
		return 0, 0, err
	}
	stack := s.profiles.offsets[0]
	return stack[i], stack[i+1], nil
}

// copyStacks writes one profile of a page that is copied.
func (m *merger) copyStacks(rw *RowsWriter, s *Samples, in *input, i int, series []uint32, sums *kindRollups) error {
	stacks, ascending, err := m.renumber(s, in, i)
	if err != nil {
		return err
	}
	if !ascending {
		return errNotAscending()
	}
	p, err := in.profile(i, series)
	if err != nil {
		return err
	}
	at, err := s.seek(i)
	if err != nil {
		return err
	}
	m.lengths = m.lengths[:0]
	for _, offsets := range s.profiles.offsets[1 : 1+len(m.totals)] {
		m.lengths = append(m.lengths, uint32(offsets[at+1]-offsets[at]))
	}
	if err := rw.appendCopied(p, stacks, m.lengths, s.profiles.extraLengths(at), m.totals); err != nil || sums == nil {
		return err
	}
	return sums.addRuns(s, i, p.Series, stacks)
}
