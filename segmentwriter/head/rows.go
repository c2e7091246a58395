package head

import (
	"math"
	"slices"
	"unsafe"

	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/profile"
)

// rows are the profiles of one service and kind in order of arrival.
type rows struct {
	service string
	kind    profile.Kind

	rows []row
	// stacks holds numbers of the head's stack set, and values as many values for each as the kind has types.
	stacks []uint32
	values []int64
	// extras are those of rows that have them; each says where its own begin.
	extras block.Extras
	// sums are the sums of each type.
	sums []int64
	old  []int64 // the sums at the last mark
}

// row is one profile of one series.
type row struct {
	time, duration, period int64
	series                 uint32
	id                     profile.ID
	// first and count say which stacks are the row's.
	first, count uint32
	extras       rowExtras
}

// rowExtras are where the extra columns of a row begin in those of all, plus 1; 0: it has none. If it has any, equal
// samples of it have not been summed yet.
type rowExtras struct{ spans, traces, times uint32 }

func (x rowExtras) any() bool { return x != rowExtras{} }

// mark is the state of rows before a profile.
type mark struct{ rows, stacks, values, spans, traces, timeEnds, times int }

func (r *rows) reset(service string, kind profile.Kind) {
	r.service, r.kind = service, kind
	r.rows, r.stacks, r.values = r.rows[:0], r.stacks[:0], r.values[:0]
	r.extras.Reset()
	r.sums = slices.Grow(r.sums[:0], len(kind.SampleTypes))[:len(kind.SampleTypes)]
	clear(r.sums)
}

func (r *rows) mark() mark {
	r.old = append(r.old[:0], r.sums...)
	x := &r.extras
	return mark{len(r.rows), len(r.stacks), len(r.values), len(x.Spans), len(x.Traces), len(x.TimeEnds), len(x.Times)}
}

// rollback forgets what was appended since the last mark.
func (r *rows) rollback(m mark) {
	r.rows, r.stacks, r.values = r.rows[:m.rows], r.stacks[:m.stacks], r.values[:m.values]
	x := &r.extras
	x.Spans, x.Traces, x.TimeEnds, x.Times = x.Spans[:m.spans], x.Traces[:m.traces], x.TimeEnds[:m.timeEnds], x.Times[:m.times]
	copy(r.sums, r.old)
}

// bytes returns the memory that the columns hold on to, used or not.
func (r *rows) bytes() int {
	return rowBytes*cap(r.rows) + 4*cap(r.stacks) + 8*cap(r.values) + r.extras.Bytes()
}

const rowBytes = int(unsafe.Sizeof(row{}))

// bytesSince returns the memory of what was appended since the last mark.
func (r *rows) bytesSince(m mark) int {
	x := &r.extras
	return rowBytes*(len(r.rows)-m.rows) + 4*(len(r.stacks)-m.stacks+len(x.TimeEnds)-m.timeEnds) +
		8*(len(r.values)-m.values+len(x.Spans)-m.spans+len(x.Times)-m.times) + 16*(len(x.Traces)-m.traces)
}

// beginExtras says where the extra columns of the next row will be, which is one of p.
func (r *rows) beginExtras(p *profile.Profile) (x rowExtras) {
	if len(p.Spans) > 0 {
		x.spans = uint32(len(r.extras.Spans)) + 1
	}
	if len(p.Traces) > 0 {
		x.traces = uint32(len(r.extras.Traces)) + 1
	}
	if len(p.TimeEnds) > 0 {
		x.times = uint32(len(r.extras.TimeEnds)) + 1
	}
	return x
}

// appendApart adds a sample of p with its extra columns, apart from others of its stack.
func (r *rows) appendApart(stack uint32, p *profile.Profile, sample int) error {
	if err := r.count(p.Row(sample)); err != nil {
		return err
	}
	r.stacks = append(r.stacks, stack)
	r.values = append(r.values, p.Row(sample)...)
	x := &r.extras
	if len(p.Spans) > 0 {
		x.Spans = append(x.Spans, p.Spans[sample])
	}
	if len(p.Traces) > 0 {
		x.Traces = append(x.Traces, p.Traces[sample])
	}
	if len(p.TimeEnds) > 0 {
		x.Times = append(x.Times, p.TimesOf(sample)...)
		x.TimeEnds = append(x.TimeEnds, uint32(len(x.Times)))
	}
	return nil
}

// count adds values, none of which is negative, to the sums. An object states its sums, so they must fit; whatever
// a reader adds up of it then fits as well.
func (r *rows) count(values []int64) error {
	for i, v := range values {
		if v > math.MaxInt64-r.sums[i] {
			return overflow(r.kind, i)
		}
		r.sums[i] += v
	}
	return nil
}

// addTo adds values to those of a sample that is there. It cannot overflow: count has added them to a larger sum.
func (r *rows) addTo(sample uint32, values []int64) {
	at := r.values[int(sample)*len(values):]
	for i, v := range values {
		at[i] += v
	}
}
