package block

import (
	"bytes"
	"cmp"
	"fmt"
	"math"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/samples"
	"github.com/kilndb/kiln/profile"
)

// RowsWriter writes the profiles of one kind of one service.
type RowsWriter struct {
	g       *GroupWriter
	service string
	kind    profile.Kind
	trees   uint32
	nodes   uint32

	rows *storagev1.Rows // nil until the first profile
	// split: when the sums would pass int64 other Rows of the kind begin, instead of a refusal. full: they begin now.
	split, full bool
	parts       []*storagev1.Rows // all of the kind
	samples     *kindSamples
	sums        []int64
	raw         uint64 // inflated bytes so far
	// extras are the bytes in extra columns, of all parts.
	extras  extraTotals
	last    Profile
	scratch rowScratch
}

// rowScratch is the memory of one Append.
type rowScratch struct {
	totals  []int64
	sums    []int64
	lengths []uint32
	extras  extraLengths
}

// Append writes one profile: for each stack node, ascending, one value per sample type in values[type]. Profiles
// come in order of (time, series, id); several may be equal in all three. An error wraps ErrProfile if the profile
// itself is at fault; then it is not part of the object, which stays good for the others.
func (r *RowsWriter) Append(p Profile, stacks []uint32, values [][]int64) error {
	return r.AppendExtras(p, stacks, values, &Extras{})
}

// AppendExtras is Append for rows of which more is known than stacks and values. They ascend by (stack node, span, trace)
// and differ in one of these.
func (r *RowsWriter) AppendExtras(p Profile, stacks []uint32, values [][]int64, x *Extras) error {
	if r.g.w.err != nil {
		return r.g.w.err
	}
	if len(values) != len(r.kind.SampleTypes) {
		return fmt.Errorf("%w: %d columns of values for %d sample types", ErrProfile, len(values), len(r.kind.SampleTypes))
	}
	totals := r.scratch.totals[:0]
	for i, vs := range values {
		if len(vs) != len(stacks) {
			return fmt.Errorf("%w: %d values for %d stacks", ErrProfile, len(vs), len(stacks))
		}
		total, ok := sum(vs)
		if !ok {
			return fmt.Errorf("%w: a negative value, or a total beyond int64, of sample type %d", ErrProfile, i)
		}
		totals = append(totals, total)
	}
	r.scratch.totals = totals
	if err := checkExtras(stacks, x); err != nil {
		return err
	}
	if err := r.check(&p, stacks, totals, x.Tagged()); err != nil {
		return err
	}
	r.begin()
	r.scratch.lengths = r.samples.writer.Append(stacks, values, r.scratch.lengths[:0])
	r.scratch.extras = r.samples.writer.AppendExtras(x, p.Time)
	r.commit(&p, len(stacks), totals)
	return r.g.w.err
}

// appendRuns is Append for a profile whose values are runs of another object, with the totals it has there.
func (r *RowsWriter) appendRuns(p Profile, stacks []uint32, runs []samples.Run, extras *extraRuns, totals []int64) error {
	if err := r.check(&p, stacks, totals, taggedRuns(extras)); err != nil {
		return err
	}
	r.begin()
	r.scratch.lengths = r.samples.writer.AppendRuns(stacks, runs, r.scratch.lengths[:0])
	r.scratch.extras = r.samples.writer.AppendExtraRuns(extras)
	r.commit(&p, len(stacks), totals)
	return r.g.w.err
}

// beginPage makes ready for a page that is copied; false if that is not worth it.
func (r *RowsWriter) beginPage() bool {
	return r.g.samplesOf(r.g.w.kind(r.kind), len(r.kind.SampleTypes)).writer.Begin()
}

// appendCopied is Append for a profile of a page that is copied, with the lengths of its other runs.
func (r *RowsWriter) appendCopied(p Profile, stacks []uint32, values []uint32, extras extraLengths, totals []int64) error {
	if err := r.check(&p, stacks, totals, taggedLengths(&extras)); err != nil {
		return err
	}
	r.begin()
	r.scratch.lengths = append(r.scratch.lengths[:0], r.samples.writer.AppendStacks(stacks))
	r.scratch.lengths = append(r.scratch.lengths, values...)
	r.scratch.extras = extras
	r.commit(&p, len(stacks), totals)
	return r.g.w.err
}

// check refuses what the format cannot hold, before anything is changed. In a tagged profile a stack node may have a row
// for each span and trace.
func (r *RowsWriter) check(p *Profile, stacks []uint32, totals []int64, tagged bool) error {
	for i := 1; i < len(stacks); i++ {
		if stacks[i] <= stacks[i-1] && (stacks[i] < stacks[i-1] || !tagged) {
			return fmt.Errorf("%w: stack node %d after %d", ErrProfile, stacks[i], stacks[i-1])
		}
	}
	if n := len(stacks); n > 0 && stacks[n-1] >= r.nodes {
		return fmt.Errorf("%w: stack node %d of %d", ErrProfile, stacks[n-1], r.nodes)
	}
	if int64(p.Series) >= int64(len(r.g.series)) {
		return fmt.Errorf("%w: series %d of %d", ErrProfile, p.Series, len(r.g.series))
	}
	if r.rows != nil && p.compare(&r.last) < 0 {
		return fmt.Errorf("%w: profile of time %d, series %d after time %d, series %d",
			ErrProfile, p.Time, p.Series, r.last.Time, r.last.Series)
	}
	r.scratch.sums = r.scratch.sums[:0]
	for i, t := range totals {
		if t >= 0 && r.sums[i] > math.MaxInt64-t && r.split {
			r.full = true
		} else if t < 0 || r.sums[i] > math.MaxInt64-t {
			return fmt.Errorf("%w: values of sample type %d add up to more than int64 holds", ErrProfile, i)
		}
		r.scratch.sums = append(r.scratch.sums, r.sums[i]+t)
	}
	if r.full {
		r.scratch.sums = append(r.scratch.sums[:0], totals...)
	}
	return nil
}

// compare orders profiles by (time, series, id).
func (p *Profile) compare(o *Profile) int {
	if c := cmp.Compare(p.Time, o.Time); c != 0 {
		return c
	}
	if c := cmp.Compare(p.Series, o.Series); c != 0 {
		return c
	}
	return bytes.Compare(p.ID[:], o.ID[:])
}

// begin makes the footer's lines when the first profile comes.
func (r *RowsWriter) begin() {
	if r.rows != nil && !r.full {
		return
	}
	if r.full {
		r.full, r.raw, r.sums = false, 0, make([]int64, len(r.sums))
	}
	g := r.g
	kind := g.w.kind(r.kind)
	r.samples = g.samplesOf(kind, len(r.kind.SampleTypes))
	r.rows = &storagev1.Rows{
		Kind:         kind,
		FirstProfile: uint64(g.rows.rows),
		Sums:         r.sums,
		TreesSection: r.trees,
		ColumnStarts: r.samples.writer.Offsets(nil),
	}
	r.samples.rows = append(r.samples.rows, r.rows)
	r.samples.extraStarts = append(r.samples.extraStarts, r.samples.writer.ExtraOffsets())
	r.parts = append(r.parts, r.rows)
	if g.dataset == nil {
		g.dataset = &storagev1.Dataset{
			Tenant: g.meta.Tenant, Service: g.w.ref(r.service), Group: g.index, MinTime: math.MaxInt64, MaxTime: math.MinInt64,
		}
		g.w.meta.Datasets = append(g.w.meta.Datasets, g.dataset)
		g.used.reset(len(g.series))
	}
	g.dataset.Rows = append(g.dataset.Rows, r.rows)
}

// commit counts a profile whose runs have been written.
func (r *RowsWriter) commit(p *Profile, rows int, totals []int64) {
	copy(r.sums, r.scratch.sums)
	r.rows.Profiles++
	r.rows.Samples += uint64(rows)
	raw := uint64(0)
	for _, n := range r.scratch.lengths {
		raw += uint64(n)
	}
	for _, n := range r.scratch.extras {
		raw += uint64(n)
	}
	r.extras.add(&r.scratch.extras)
	r.raw += raw
	r.samples.raw += raw
	d := r.g.dataset
	d.MinTime, d.MaxTime = min(d.MinTime, p.Time), max(d.MaxTime, p.Time)
	r.g.rows.append(r.rows.Kind, p, rows, totals, r.scratch.lengths, &r.scratch.extras)
	r.g.use(p.Series)
	r.last = *p
}

// sum adds values up; false if one is negative or the total does not fit.
func sum(values []int64) (total int64, ok bool) {
	all := int64(0)
	for _, v := range values {
		all |= v
		total += v
		all |= total // once it overflows, the sign stays in all
	}
	return total, all >= 0
}
