package block

import (
	"context"
	"fmt"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/rollup"
)

// maxSeriesSums bounds the memory in bytes that the sums of each series of a kind take while they are made, and that
// the inflated pages take which they are read from: above there is no such rollup.
const maxSeriesSums = 32 << 20

// seriesRollup gathers the sums of each series of a kind from rows, if that may pay. A sum has at least as many digits
// as any of its values: where there are more sums than a quarter of the rows, they take more than a quarter of the bytes.
type seriesRollup struct {
	// pays is false as soon as it is known that the rollup cannot be written. only: there is one series.
	pays, only bool
	// fromRows says of each input that its rows have to be added.
	fromRows []bool
	// limit is how many sums may be written, room how many may be gathered from rows.
	limit, room uint64
	types       int
	gathered    uint64
	at          map[uint32]int // index in sums of a series, in the numbers of the group
	sums        []seriesSums
	scratch     []uint32
	held        int64 // what the ledger was told of sums
}

// begin looks at what is to come. A series has at least the sums that its largest profile has rows.
func (e *seriesRollup) begin(k *unitKind, memory *ledger) error {
	e.types = len(k.kind.SampleTypes)
	e.limit = k.expect.samples / rollupShare
	e.gathered = 0
	if e.at == nil {
		e.at = map[uint32]int{}
	}
	clear(e.at)
	e.fromRows = e.fromRows[:0]
	gathers := false
	for _, in := range k.inputs {
		gathers = gathers || in.rollupOf(0, true) == nil
		e.fromRows = append(e.fromRows, in.rollupOf(0, true) == nil)
	}
	series, least := 0, uint64(0)
	for _, n := range k.most {
		if n > 0 {
			series++
			least += uint64(n - 1)
		}
	}
	e.only = series == 1
	e.pays = !e.only && least <= e.limit
	sum := uint64(4 + 8*e.types)
	most := uint64(memory.spare() / 4 * 3)
	if uint64(e.memory()) > min(maxSeriesSums, most) {
		e.sums = nil
	}
	e.room = min(e.limit, maxSeriesSums/sum, uint64(series)*uint64(len(k.stack.Parents)), most/sum)
	reserved := e.memory()
	if e.pays && gathers {
		reserved = max(reserved, int(e.room*sum))
	}
	return memory.set(&e.held, int64(reserved))
}

// places returns the sums of a series and where in them those of stack nodes are, which ascend; nil if the rollup does
// not pay any more.
func (e *seriesRollup) places(series uint32, stacks []uint32) (*seriesSums, []uint32) {
	if !e.pays {
		return nil, nil
	}
	i, ok := e.at[series]
	if !ok {
		i = len(e.at)
		e.at[series] = i
		if i == len(e.sums) {
			e.sums = append(e.sums, seriesSums{})
		}
		e.sums[i].reset(e.types)
	}
	s := &e.sums[i]
	before := len(s.nodes)
	e.scratch = s.places(e.scratch[:0], stacks)
	e.gathered += uint64(len(s.nodes) - before)
	if e.gathered > e.room {
		e.pays = false
		return nil, nil
	}
	return s, e.scratch
}

// memory is what is kept for the next kind.
func (e *seriesRollup) memory() (bytes int) {
	for i := range e.sums {
		bytes += cap(e.sums[i].nodes) * (4 + 8*len(e.sums[i].sums))
	}
	return bytes
}

// writeEach writes the sums of each series, ascending, and reports false if they cannot pay. The sums of one come
// from rows, which have been gathered, and from rollups.
func (r *kindRollups) writeEach(ctx context.Context) (ok bool, err error) {
	cursors, err := r.cursors(ctx)
	if cursors == nil || err != nil {
		return false, err
	}
	var sums seriesSums
	written, totals := uint64(0), make([]uint64, len(r.sums))
	for _, series := range r.ids() {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		s := &sums
		if i, ok := r.each.at[series]; ok {
			s = &r.each.sums[i]
		} else {
			s.reset(len(r.sums))
		}
		for _, c := range cursors {
			if err := c.addTo(s, series, &r.each.scratch); err != nil {
				return false, err
			}
		}
		s.trim(totals)
		if written += uint64(len(s.nodes)); written > r.each.limit {
			return false, nil
		}
		r.writer.Append(0, series, s.nodes, s.sums)
	}
	for _, c := range cursors {
		if c.run < len(c.section.Series) {
			return false, c.corrupt("the sums of series %d belong to no row", c.section.Series[c.run])
		}
	}
	return true, r.checkTotals(totals)
}

// ids returns the series of the kind, ascending.
func (r *kindRollups) ids() []uint32 {
	var ids []uint32
	for i, n := range r.k.most {
		if n > 0 {
			ids = append(ids, r.number(uint32(i)))
		}
	}
	return ids
}

// seriesCursor goes through the sums of each series in the rollup of one input.
type seriesCursor struct {
	in      *input
	section *rollup.Section
	samples *Samples
	rollups *kindRollups
	run     int
}

// cursors opens the rollups of inputs, nil if their pages would take too much memory.
func (r *kindRollups) cursors(ctx context.Context) ([]*seriesCursor, error) {
	cursors, size := make([]*seriesCursor, 0, len(r.k.inputs)), uint64(0)
	for i, in := range r.k.inputs {
		if r.each.fromRows[i] {
			continue
		}
		section, err := in.rows.dataset.group.loadRollup(ctx, in.rollupOf(0, true).GetSection(), len(r.sums))
		if err != nil {
			return nil, err
		}
		if size += largestPage(section); size > uint64(min(maxSeriesSums, r.memory.spare())) {
			return nil, nil
		}
		cursors = append(cursors, &seriesCursor{in: in, section: section, samples: in.rows.rollupSamples(section, in.tree.nodes), rollups: r})
	}
	return cursors, nil
}

// largestPage is what the largest page of a rollup inflates to.
func largestPage(section *rollup.Section) (size uint64) {
	for p := range section.Samples.Pages() {
		page := uint64(0)
		for c := range section.Samples.Columns() {
			from, to := section.Samples.Bounds(p, c)
			page += to - from
		}
		size = max(size, page)
	}
	return size
}

// addTo adds the sums that the input has of a series, of which the caller asks in ascending order.
func (c *seriesCursor) addTo(s *seriesSums, series uint32, places *[]uint32) error {
	if c.run == len(c.section.Series) {
		return nil
	}
	to, ok := c.number(c.section.Series[c.run])
	if !ok || to > series {
		return nil // a series without rows stays where it is
	} else if to < series || c.section.Buckets[c.run] != 0 {
		return c.corrupt("the sums of series %d are not where they should be", c.section.Series[c.run])
	}
	stacks, values, err := c.samples.Profile(c.run)
	if err != nil {
		return err
	}
	last := int64(-1)
	for j, n := range stacks {
		n = c.in.tree.to[n]
		if int64(n) <= last {
			return c.corrupt("the sums of series %d name a stack node that no row has", series)
		}
		stacks[j], last = n, int64(n)
	}
	*places = s.places((*places)[:0], stacks)
	for i := range values {
		add(*places, values[i], s.sums[i])
	}
	c.run++
	return nil
}

// number returns the series id that one of the input has become; false if no profile of the input's kinds has it.
func (c *seriesCursor) number(series uint32) (to uint32, ok bool) {
	rank, ok := c.in.profiles.ranks.find(series)
	if !ok {
		return 0, false
	}
	return c.rollups.number(rank), true
}

func (c *seriesCursor) corrupt(format string, args ...any) error {
	return c.in.rows.wrap(storagev1.SectionType_SECTION_TYPE_ROLLUP, fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...)))
}
