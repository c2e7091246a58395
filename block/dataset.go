package block

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"runtime/debug"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/samples"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// Dataset is one service's rows in an object.
type Dataset struct {
	Tenant, Service string
	// MinTime and MaxTime are those of the oldest and the newest profile, Unix nanoseconds.
	MinTime, MaxTime int64
	// Rows are the service's kinds; several of one kind where the sums of one would pass int64.
	Rows []*Rows

	group *group
}

// Rows are the profiles of one kind of one service.
type Rows struct {
	Kind profile.Kind
	// ProfileCount and SampleCount are how many profiles and rows of samples there are.
	ProfileCount, SampleCount int
	// Sums are the sums of all values per sample type.
	Sums []int64

	dataset   *Dataset
	meta      *storagev1.Rows
	exclusion *Exclusion
}

func newDataset(r *Reader, m *storagev1.Dataset, excluded []labels.Selector) *Dataset {
	name := func(i uint32) string { return r.meta.Strings[i] }
	d := &Dataset{
		Tenant: name(m.GetTenant()), Service: name(m.GetService()), MinTime: m.GetMinTime(), MaxTime: m.GetMaxTime(),
		group: r.groups[m.GetGroup()],
	}
	for _, rows := range m.GetRows() {
		d.Rows = append(d.Rows, &Rows{
			Kind: r.kinds[rows.GetKind()], ProfileCount: int(rows.GetProfiles()), SampleCount: int(rows.GetSamples()), Sums: rows.GetSums(),
			dataset: d, meta: rows, exclusion: newExclusion(excluded, r.kinds[rows.GetKind()]),
		})
	}
	return d
}

// Sorted tells whether names, siblings and stacks are in the total order and trees have call trees.
func (d *Dataset) Sorted() bool { return d.group.meta.GetSorted() }

// Symbols returns the names of the dataset's group.
func (d *Dataset) Symbols(ctx context.Context) (*profile.Symbols, error) {
	return d.group.loadNames(ctx)
}

// Series returns the label sets of the dataset's group, indexed by series id.
func (d *Dataset) Series(ctx context.Context) ([]labels.Labels, error) {
	return d.group.loadSeries(ctx)
}

// Trees returns the stack tree that samples refer to and its call tree, which is nil if the dataset is not
// sorted. In a segment all datasets of a tenant share one tree.
func (r *Rows) Trees(ctx context.Context) (*profile.StackTree, *profile.CallTree, error) {
	t, err := r.dataset.group.loadTrees(ctx, r.meta.GetTreesSection())
	return t.stack, t.call, err
}

// Profiles are the rows of the PROFILES table of one kind of one service, column by column, ascending by (time,
// series, id).
type Profiles struct {
	Times []int64
	// Series are indexes into the label sets of the dataset.
	Series             []uint32
	IDs                []profile.ID
	Durations, Periods []int64
	// Samples counts the rows of each profile.
	Samples []uint32
	// Totals are sums of values, per sample type and profile.
	Totals [][]int64

	// offsets[c][i] is where the run of profile i begins in column c of the samples, inflated; one more entry
	// than profiles.
	offsets [][]uint64
	// extras are the columns that are the extra ones; 0: there is none.
	extras [samples.NumExtras]int
}

// Len returns the number of profiles.
func (p *Profiles) Len() int { return len(p.Times) }

// Profiles reads the rows of the PROFILES table, and decodes only the pages they are on.
func (r *Rows) Profiles(ctx context.Context) (p *Profiles, err error) {
	defer r.recover(storagev1.SectionType_SECTION_TYPE_PROFILES, &err)
	t, err := r.dataset.group.loadProfiles(ctx)
	if err != nil {
		return nil, err
	}
	series, err := r.dataset.group.loadSeries(ctx)
	if err != nil {
		return nil, err
	}
	d := profileDecoder{t: t, read: t.read, from: int64(r.meta.GetFirstProfile()), n: int64(r.meta.GetProfiles())}
	p = d.decode(r, uint64(len(series)), r.meta.GetColumnStarts())
	d.checkSamples(r, p)
	if d.err != nil {
		return nil, r.wrap(storagev1.SectionType_SECTION_TYPE_PROFILES, d.err)
	}
	return p, nil
}

// profileDecoder reads columns of a range of rows. The first error stays.
type profileDecoder struct {
	t       *table
	read    func(dst []int64, column int, from, n int64) ([]int64, error) // of the table
	from, n int64
	buf     []int64
	err     error
}

// column reads a column whose values must be within [0, limit).
func (d *profileDecoder) column(i int, limit uint64) []int64 {
	if d.err != nil {
		return nil
	}
	d.buf, d.err = d.read(d.buf[:0], i, d.from, d.n)
	for _, v := range d.buf {
		if uint64(v) >= limit && d.err == nil {
			d.err = fmt.Errorf("%w: column %s has %d, limit %d", ErrCorrupt, d.t.shape.names()[i], v, limit)
		}
	}
	if d.err != nil {
		return nil
	}
	return d.buf
}

// own reads a column of any values into memory of its own.
func (d *profileDecoder) own(i int) (out []int64) {
	if d.err == nil {
		out, d.err = d.read(nil, i, d.from, d.n)
	}
	return out
}

func (d *profileDecoder) uint32s(i int, limit uint64) []uint32 {
	column := d.column(i, limit)
	out := make([]uint32, len(column))
	for j, v := range column {
		out[j] = uint32(v)
	}
	return out
}

// decode reads the rows, whose runs begin at those offsets in the columns of the samples. Of what comes with an error
// nothing is to be believed.
func (d *profileDecoder) decode(r *Rows, series uint64, starts []uint64) *Profiles {
	types := len(r.Kind.SampleTypes)
	if types > d.t.shape.types {
		d.err = fmt.Errorf("%w: a table for %d sample types, want %d", ErrCorrupt, d.t.shape.types, types)
		return nil
	}
	for _, k := range d.column(colKind, math.MaxUint32) {
		if uint32(k) != r.meta.GetKind() {
			d.err = fmt.Errorf("%w: a row of kind %d among those of %d", ErrCorrupt, k, r.meta.GetKind())
			return nil
		}
	}
	p := &Profiles{
		Times:     d.own(colTime),
		Series:    d.uint32s(colSeries, series),
		Durations: d.own(colDuration),
		Periods:   d.own(colPeriod),
		Samples:   d.uint32s(colSamples, math.MaxUint32),
		IDs:       d.ids(),
	}
	for i := range types {
		p.Totals = append(p.Totals, d.own(totalColumn(i)))
	}
	p.offsets = append(p.offsets, d.offsets(d.t.shape.stackBytes(), starts[0], p.Samples))
	for i := range types {
		p.offsets = append(p.offsets, d.offsets(d.t.shape.valueBytes(i), starts[1+i], p.Samples))
	}
	for i, e := range ExtrasOf(r.meta) {
		p.extras[e] = 1 + types + i
		p.offsets = append(p.offsets, d.extraOffsets(e, starts[1+types+i], p.Samples))
	}
	return p
}

// checkSamples compares all rows with what the footer says of them.
func (d *profileDecoder) checkSamples(r *Rows, p *Profiles) {
	if d.err != nil {
		return
	}
	total := uint64(0)
	for _, n := range p.Samples {
		total += uint64(n)
	}
	if total != r.meta.GetSamples() {
		d.err = fmt.Errorf("%w: profiles have %d rows of samples, the footer says %d", ErrCorrupt, total, r.meta.GetSamples())
	}
}

func (d *profileDecoder) ids() []profile.ID {
	high := d.own(colIDHigh)
	low := d.own(colIDLow)
	if d.err != nil {
		return nil
	}
	ids := make([]profile.ID, len(high))
	for i := range ids {
		binary.BigEndian.PutUint64(ids[i][:8], uint64(high[i]))
		binary.BigEndian.PutUint64(ids[i][8:], uint64(low[i]))
	}
	return ids
}

// offsets turns the lengths of runs into where they begin. A run has at least a byte per row.
func (d *profileDecoder) offsets(i int, start uint64, rows []uint32) []uint64 {
	return d.runs(i, start, rows, false)
}

// extraOffsets is offsets for an extra column, in which a run may be empty.
func (d *profileDecoder) extraOffsets(e samples.Extra, start uint64, rows []uint32) []uint64 {
	i, ok := d.t.shape.extraBytes(e)
	if !ok && d.err == nil {
		d.err = fmt.Errorf("%w: a table without the lengths of %s", ErrCorrupt, e)
	}
	return d.runs(i, start, rows, true)
}

func (d *profileDecoder) runs(i int, start uint64, rows []uint32, extra bool) []uint64 {
	lengths := d.column(i, math.MaxUint32)
	if d.err != nil {
		return nil
	}
	out := make([]uint64, len(lengths)+1)
	out[0] = start
	for j, n := range lengths {
		if uint64(n) < uint64(rows[j]) && !(extra && n == 0) || rows[j] == 0 && n != 0 {
			d.err = fmt.Errorf("%w: a run of %d rows in %d bytes", ErrCorrupt, rows[j], n)
		}
		out[j+1] = out[j] + uint64(n)
	}
	return out
}

// wrap names object and section in an error.
func (r *Rows) wrap(t storagev1.SectionType, err error) error {
	return fmt.Errorf("object %s, section %s, service %q: %w", r.dataset.group.r.meta.GetId(), t, r.dataset.Service, err)
}

// recover turns a panic of a decoder into an error.
func (r *Rows) recover(t storagev1.SectionType, err *error) {
	if p := recover(); p != nil {
		*err = r.wrap(t, fmt.Errorf("%w: %v\n%s", ErrCorrupt, p, debug.Stack()))
	}
}
