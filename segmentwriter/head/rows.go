package head

import (
	"math"
	"slices"

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
}

// mark is the state of rows before a profile.
type mark struct{ rows, stacks, values int }

func (r *rows) reset(service string, kind profile.Kind) {
	r.service, r.kind = service, kind
	r.rows, r.stacks, r.values = r.rows[:0], r.stacks[:0], r.values[:0]
	r.sums = slices.Grow(r.sums[:0], len(kind.SampleTypes))[:len(kind.SampleTypes)]
	clear(r.sums)
}

func (r *rows) mark() mark {
	r.old = append(r.old[:0], r.sums...)
	return mark{len(r.rows), len(r.stacks), len(r.values)}
}

// rollback forgets what was appended since the last mark.
func (r *rows) rollback(m mark) {
	r.rows, r.stacks, r.values = r.rows[:m.rows], r.stacks[:m.stacks], r.values[:m.values]
	copy(r.sums, r.old)
}

// bytes returns the memory that the columns hold on to, used or not.
func (r *rows) bytes() int { return 64*cap(r.rows) + 4*cap(r.stacks) + 8*cap(r.values) }

// bytesSince returns the memory of what was appended since the last mark.
func (r *rows) bytesSince(m mark) int {
	return 64*(len(r.rows)-m.rows) + 4*(len(r.stacks)-m.stacks) + 8*(len(r.values)-m.values)
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
