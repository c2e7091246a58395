package block

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
)

// orderHead is the next profile of an input in the order of a merge.
type orderHead struct {
	time   int64
	series uint32
	id     [16]byte
	index  int
	// order is that of the profiles of a source that is not sorted, nil of any other; at is where index is in it.
	order []uint32
	at    int
}

// settle merges the profiles of the inputs, each of which is in order, and takes out duplicates and deleted series. What it
// keeps of each profile is the time and where it is.
func (m *merger) settle(k *unitKind) error {
	total := 0
	for _, in := range k.inputs {
		total += in.profiles.n
	}
	if err := m.memory.set(&k.orderHeld, int64(total)*refSize); err != nil {
		return err
	}
	k.order = make([]ref, 0, total)
	s := settler{k: k, heads: make([]orderHead, len(k.inputs)), sums: make([]int64, len(k.kind.SampleTypes))}
	for i, in := range k.inputs {
		h := &s.heads[i]
		if !in.sorted {
			if err := in.profiles.sorted(&h.order); err != nil {
				return err
			}
		}
		if ok, err := s.next(uint32(i), false); err != nil {
			return err
		} else if ok {
			s.heap = append(s.heap, uint32(i))
		}
	}
	for i := len(s.heap)/2 - 1; i >= 0; i-- {
		s.down(i)
	}
	for len(s.heap) > 0 {
		if err := s.take(); err != nil {
			return err
		}
	}
	for _, in := range k.inputs {
		slices.Sort(in.dropped)
	}
	return nil
}

// settler is one settle.
type settler struct {
	k     *unitKind
	heads []orderHead
	heap  []uint32 // of inputs, by their heads
	// key of that profile, if there is one.
	key  orderHead
	some bool
	sums []int64
}

// take takes the profile that comes next.
func (s *settler) take() error {
	i := s.heap[0]
	h := &s.heads[i]
	if s.some && compareHeads(&s.key, h) == 0 {
		if err := s.k.drop(i, h.index); err != nil {
			return err
		}
	} else {
		s.key, s.some = *h, true
		s.k.order = append(s.k.order, ref{h.time, i, uint32(h.index)})
		if err := s.add(i, h.index); err != nil {
			return err
		}
	}
	ok, err := s.next(i, true)
	if err != nil {
		return err
	}
	if !ok {
		last := len(s.heap) - 1
		s.heap[0] = s.heap[last]
		s.heap = s.heap[:last]
	}
	s.down(0)
	return nil
}

// add takes account of the series of a profile that is kept, adds its totals, and notes when they pass int64.
func (s *settler) add(input uint32, index int) error {
	ps := s.k.inputs[input].profiles
	i, err := ps.seek(index)
	if err != nil {
		return err
	}
	series := ps.chunk.Series[i]
	if n := int(series) + 1; n > len(s.k.most) {
		s.k.most = append(s.k.most, make([]uint32, n-len(s.k.most))...)
	}
	s.k.most[series] = max(s.k.most[series], ps.chunk.Samples[i]+1)
	if s.k.huge {
		return nil
	}
	for c, totals := range ps.chunk.Totals {
		if t := totals[i]; t < 0 || s.sums[c] > math.MaxInt64-t {
			s.k.huge = true
		} else {
			s.sums[c] += t
		}
	}
	return nil
}

// next moves the head of an input on, or to its first profile, past those of deleted series; false if there is none.
func (s *settler) next(input uint32, on bool) (ok bool, err error) {
	h, ps := &s.heads[input], s.k.inputs[input].profiles
	before := *h
	if on {
		h.at++
	}
	for ; h.at < ps.n; h.at++ {
		if err := h.load(ps); err != nil {
			return false, err
		}
		if h.series != noSeries {
			break
		}
		if err := s.k.drop(input, h.index); err != nil {
			return false, err
		}
	}
	if h.at == ps.n {
		return false, nil
	}
	if on && compareHeads(&before, h) > 0 {
		return false, ps.wrap(fmt.Errorf("%w: profile %d does not come after the one before it", ErrCorrupt, h.index))
	}
	return true, nil
}

// load reads the profile that the head is at.
func (h *orderHead) load(ps *inputProfiles) error {
	h.index = h.at
	if h.order != nil {
		h.index = int(h.order[h.at])
	}
	i, err := ps.seek(h.index)
	if err != nil {
		return err
	}
	h.time, h.series, h.id = ps.chunk.Times[i], ps.chunk.Series[i], ps.chunk.IDs[i]
	return nil
}

// down restores the heap below item i.
func (s *settler) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(s.heap) {
			return
		}
		if child+1 < len(s.heap) && s.less(child+1, child) {
			child++
		}
		if !s.less(child, i) {
			return
		}
		s.heap[i], s.heap[child] = s.heap[child], s.heap[i]
		i = child
	}
}

// less orders items of the heap by their heads, and equal ones by the order of the sources.
func (s *settler) less(a, b int) bool {
	i, j := s.heap[a], s.heap[b]
	if c := compareHeads(&s.heads[i], &s.heads[j]); c != 0 {
		return c < 0
	}
	return i < j
}

// compareHeads orders profiles by (time, series, id).
func compareHeads(a, b *orderHead) int {
	if a.time != b.time {
		return cmp.Compare(a.time, b.time)
	}
	if a.series != b.series {
		return cmp.Compare(a.series, b.series)
	}
	return bytes.Compare(a.id[:], b.id[:])
}

// sorted fills order with the profiles in the order of (time, rank of series, id), for a source whose numbers of series
// do not ascend as the series do.
func (p *inputProfiles) sorted(order *[]uint32) error {
	if p.n == 0 {
		return nil
	}
	if _, err := p.seek(0); err != nil {
		return err
	}
	c := p.chunk
	*order = make([]uint32, p.n)
	for i := range *order {
		(*order)[i] = uint32(i)
	}
	slices.SortFunc(*order, func(a, b uint32) int {
		if c.Times[a] != c.Times[b] {
			return cmp.Compare(c.Times[a], c.Times[b])
		}
		if c.Series[a] != c.Series[b] {
			return cmp.Compare(c.Series[a], c.Series[b])
		}
		return cmp.Or(bytes.Compare(c.IDs[a][:], c.IDs[b][:]), cmp.Compare(a, b))
	})
	return nil
}

// drop takes a profile that is not written out of the expectations.
func (k *unitKind) drop(input uint32, index int) error {
	in := k.inputs[input]
	i, err := in.profiles.seek(index)
	if err != nil {
		return err
	}
	c := in.profiles.chunk
	in.dropped = append(in.dropped, uint32(index))
	k.expect.profiles--
	k.expect.samples -= uint64(c.Samples[i])
	extras := c.extraLengths(i)
	k.expect.extras.sub(&extras)
	for t := range k.expect.sums {
		k.expect.sums[t] -= uint64(c.Totals[t][i])
	}
	return nil
}
