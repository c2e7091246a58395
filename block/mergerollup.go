package block

import (
	"context"
	"fmt"
	"slices"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/rollup"
	"github.com/kilndb/kiln/block/samples"
)

const (
	// wholeFrom is the level from which on all rows of a kind have sums, bucketsFrom the one from which on hours
	// and five minutes have: below a block is about as long as such a bucket.
	wholeFrom   = 2
	bucketsFrom = 4

	fiveMinutes = int64(5 * 60e9)
	anHour      = 12 * fiveMinutes
	// busy is how many profiles a bucket of five minutes must have for its sums to be much smaller.
	busy = 100
)

// kindRollups makes the rollups of one kind while its rows are copied.
type kindRollups struct {
	k      *unitKind
	writer *rollup.Writer
	// sums of the bucket at hand, per sample type and node of the new tree.
	sums [][]int64
	// fromRows says of each input that its rows have to be added, because it has no rollup that says the same.
	fromRows []bool
	nodes    []uint32
	columns  [][]int64
	source   []int64
	// series are the new numbers of the unit's series, nil if they stay; each are the sums of each.
	series []uint32
	each   seriesRollup
	memory *ledger
	// addAll and addEach say what the rows of the input at hand have to be added to.
	addAll, addEach bool
}

// rollups begins the rollups of a kind; nil if there will be none, as where not even all sums fit into int64.
func (m *merger) rollups(k *unitKind, series []uint32) (*kindRollups, error) {
	if m.w.header.Level < wholeFrom || k.huge {
		return nil, nil
	}
	r := &m.kindRollups
	r.k, r.series = k, series
	types, nodes := len(k.kind.SampleTypes), len(k.stack.Parents)
	for len(r.sums) < types {
		r.sums, r.columns = append(r.sums, nil), append(r.columns, nil)
	}
	r.sums = r.sums[:types]
	for c := range r.sums {
		r.sums[c] = resize(r.sums[c], nodes)
	}
	r.clear()
	if r.writer == nil {
		r.writer = &rollup.Writer{}
	}
	r.fromRows = r.fromRows[:0]
	for _, in := range k.inputs {
		r.fromRows = append(r.fromRows, in.rollup(0) == nil)
	}
	r.memory = m.memory
	if err := r.each.begin(k, m.memory); err != nil {
		return nil, err
	}
	return r, nil
}

// of makes ready for the rows of an input, and returns nil if they need not be added.
func (r *kindRollups) of(input uint32) *kindRollups {
	if r == nil {
		return nil
	}
	r.addAll, r.addEach = r.fromRows[input], r.each.fromRows[input]
	if !r.addAll && !(r.addEach && r.each.pays) {
		return nil
	}
	return r
}

// number returns the series id that a series of the unit has in the group.
func (r *kindRollups) number(series uint32) uint32 {
	if r.series == nil {
		return series
	}
	return r.series[series]
}

func (r *kindRollups) clear() {
	for _, s := range r.sums {
		clear(s)
	}
}

// rollup returns a rollup with buckets of that length of an input that says the sums of all series, nil if there is
// none or if a duplicate was dropped, which is in the sums.
func (in *input) rollup(bucket int64) *storagev1.Rollup {
	if m := in.rollupOf(bucket, false); m != nil {
		return m
	}
	return in.rollupOf(bucket, true)
}

func (in *input) rollupOf(bucket int64, perSeries bool) *storagev1.Rollup {
	if len(in.dropped) > 0 {
		return nil
	}
	for _, m := range in.rows.meta.GetRollups() {
		if m.GetBucket() == bucket && m.GetPerSeries() == perSeries {
			return m
		}
	}
	return nil
}

// addRuns adds the values of profile i to its stack nodes, which are in the new numbers, as the series is.
func (r *kindRollups) addRuns(s *Samples, i int, series uint32, stacks []uint32) error {
	each, places := r.placesOf(series, stacks)
	for c := range r.sums {
		run, factor, err := s.valueRun(i, c)
		if err != nil {
			return err
		}
		if r.addAll {
			if err := samples.Add(stacks, run, factor, r.sums[c]); err != nil {
				return err
			}
		}
		if each != nil {
			if err := samples.Add(places, run, factor, each.sums[c]); err != nil {
				return err
			}
		}
	}
	return nil
}

// addValues is addRuns for a profile whose values have been decoded.
func (r *kindRollups) addValues(series uint32, stacks []uint32, values [][]int64) {
	each, places := r.placesOf(series, stacks)
	for c := range values {
		if r.addAll {
			add(stacks, values[c], r.sums[c])
		}
		if each != nil {
			add(places, values[c], each.sums[c])
		}
	}
}

func (r *kindRollups) placesOf(series uint32, stacks []uint32) (*seriesSums, []uint32) {
	if !r.addEach {
		return nil, nil
	}
	return r.each.places(series, stacks)
}

// add adds values to the sums that they belong to.
func add(places []uint32, values, sums []int64) {
	for j, n := range places {
		sums[n] += values[j]
	}
}

// addRollup adds what a rollup of an input says of one bucket.
func (r *kindRollups) addRollup(ctx context.Context, in *input, m *storagev1.Rollup, bucket int64) error {
	types := len(r.sums)
	section, err := in.rows.dataset.group.loadRollup(ctx, m.GetSection(), types)
	if err != nil {
		return err
	}
	s := in.rows.rollupSamples(section, in.tree.nodes)
	for c := range types {
		r.source = resize(r.source, s.nodes)
		clear(r.source)
		if err := s.Sum(c, func(i int) bool { return section.Buckets[i] == bucket }, r.source); err != nil {
			return err
		}
		sums := r.sums[c]
		for n, v := range r.source {
			if v == 0 {
				continue
			}
			to := in.tree.to[n]
			if to >= uint32(len(sums)) {
				return in.rows.wrap(storagev1.SectionType_SECTION_TYPE_ROLLUP, fmt.Errorf("%w: stack node %d, which no row has", ErrCorrupt, n))
			}
			sums[to] += v
		}
	}
	return nil
}

// finish writes the rollups of the kind, whose rows have been copied and added.
func (r *kindRollups) finish(ctx context.Context, rw *RowsWriter, readers []*Samples) error {
	for i, in := range r.k.inputs {
		if r.fromRows[i] {
			continue
		}
		if err := r.addRollup(ctx, in, in.rollup(0), 0); err != nil {
			return err
		}
	}
	if err := r.check(); err != nil {
		return err
	}
	if err := r.whole(ctx, rw); err != nil {
		return err
	}
	if rw.g.w.header.Level < bucketsFrom {
		return nil
	}
	for _, bucket := range []int64{anHour, fiveMinutes} {
		if err := r.buckets(ctx, rw, bucket, readers); err != nil {
			return err
		}
	}
	return nil
}

// whole writes the sums of all rows, and those of each series. Where there is one series only these are written, which
// say the same.
func (r *kindRollups) whole(ctx context.Context, rw *RowsWriter) error {
	series := uint32(rollup.All)
	if r.each.only {
		series = r.ids()[0]
	}
	r.writer.Reset(len(r.sums), rw.g.w.level)
	if !r.append(0, series, rw.rows.Samples) {
		return nil // those of each series are larger
	}
	if err := rw.rollup(0, r.each.only, r.writer); err != nil {
		return err
	}
	if r.each.only || !r.each.pays {
		return nil
	}
	r.writer.Reset(len(r.sums), rw.g.w.level)
	if ok, err := r.writeEach(ctx); !ok {
		return err
	}
	return rw.rollup(0, true, r.writer)
}

// check compares the sums with those of the sources.
func (r *kindRollups) check() error {
	totals := make([]uint64, len(r.sums))
	for c, sums := range r.sums {
		for _, v := range sums {
			totals[c] += uint64(v)
		}
	}
	return r.checkTotals(totals)
}

func (r *kindRollups) checkTotals(totals []uint64) error {
	if slices.Equal(totals, r.k.expect.sums) {
		return nil
	}
	return fmt.Errorf("%w: rollups and rows of kind %q sum to %d, the sources have %d", ErrCorrupt, r.k.kind.Name, totals, r.k.expect.sums)
}

// append writes the sums at hand as one run, and reports false if the run would have so many of that many rows that
// it cannot pay.
func (r *kindRollups) append(bucket int64, series uint32, rows uint64) bool {
	r.nodes = r.nodes[:0]
	for c := range r.columns[:len(r.sums)] {
		r.columns[c] = r.columns[c][:0]
	}
	for n := range r.sums[0] {
		any := int64(0)
		for _, s := range r.sums {
			any |= s[n]
		}
		if any == 0 {
			continue
		}
		r.nodes = append(r.nodes, uint32(n))
		for c, s := range r.sums {
			r.columns[c] = append(r.columns[c], s[n])
		}
	}
	if uint64(len(r.nodes)) > rows/2 {
		return false
	}
	r.writer.Append(bucket, series, r.nodes, r.columns[:len(r.sums)])
	return true
}

// buckets writes a rollup with buckets of a length, unless it would say no more than that of all rows or not pay.
func (r *kindRollups) buckets(ctx context.Context, rw *RowsWriter, bucket int64, readers []*Samples) error {
	order := r.k.order
	if len(order) == 0 {
		return nil
	}
	of := func(i int) int64 { return floor(order[i].time, bucket) }
	n := 1
	for i := 1; i < len(order); i++ {
		if of(i) != of(i-1) {
			n++
		}
	}
	if n == 1 || bucket == fiveMinutes && len(order)/n < busy {
		return nil
	}
	r.writer.Reset(len(r.sums), rw.g.w.level)
	for i := 0; i < len(order); {
		j := i + 1
		for j < len(order) && of(j) == of(i) {
			j++
		}
		if err := r.bucket(ctx, bucket, of(i), order[i:j], readers); err != nil {
			return err
		}
		rows := uint64(0)
		for _, ref := range order[i:j] {
			n, err := readers[ref.input].rowCount(int(ref.index))
			if err != nil {
				return err
			}
			rows += uint64(n)
		}
		if !r.append(of(i), rollup.All, max(rows, 1)) {
			return nil
		}
		i = j
	}
	return rw.rollup(bucket, false, r.writer)
}

// bucket sums one bucket, which these profiles are in: from rollups of the sources where they have them for this
// bucket, or where all they have is in it, and from their rows otherwise.
func (r *kindRollups) bucket(ctx context.Context, length, bucket int64, refs []ref, readers []*Samples) error {
	r.clear()
	for i, in := range r.k.inputs {
		r.fromRows[i] = true
		m, at := in.rollup(length), bucket
		if m == nil {
			if span := in.profiles.span; in.profiles.n > 0 && floor(span[0], length) == bucket && floor(span[1], length) == bucket {
				m, at = in.rollup(0), 0
			}
		}
		if m == nil || !slices.ContainsFunc(refs, func(ref ref) bool { return int(ref.input) == i }) {
			continue
		}
		if err := r.addRollup(ctx, in, m, at); err != nil {
			return err
		}
		r.fromRows[i] = false
	}
	for _, ref := range refs {
		if !r.fromRows[ref.input] {
			continue
		}
		in := r.k.inputs[ref.input]
		stacks, values, err := readers[ref.input].Profile(int(ref.index))
		if err != nil {
			return err
		}
		for j, n := range stacks {
			stacks[j] = in.tree.to[n]
		}
		for c := range values {
			add(stacks, values[c], r.sums[c])
		}
	}
	return ctx.Err()
}
