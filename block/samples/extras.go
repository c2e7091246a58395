package samples

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/kilndb/kiln/block/column"
	"github.com/kilndb/kiln/profile"
)

// Extra is a column that a section has, after those of values, only if some profile has something to say in it. The
// run of a profile that has not is empty.
type Extra int

// The extra columns, in their order.
const (
	Spans Extra = iota
	Traces
	Times
	// NumExtras is how many there are.
	NumExtras = 3
)

// String returns the name of the column.
func (e Extra) String() string { return [NumExtras]string{"spans", "traces", "times"}[e] }

// idSize is how many bytes an id has.
func (e Extra) idSize() int { return [NumExtras]int{8, 16}[e] }

// Extras are the extra columns of one profile's rows. One that says nothing is empty.
type Extras struct {
	// Per row the span and the trace that it was taken in; zeros are none.
	Spans  []profile.SpanID
	Traces []profile.TraceID
	// When the samples of a row were seen, Unix nanoseconds, ascending: those of row i are Times[TimeEnds[i-1]:TimeEnds[i]].
	Times    []int64
	TimeEnds []uint32
}

// Reset empties the columns and keeps their memory.
func (x *Extras) Reset() {
	x.Spans, x.Traces, x.Times, x.TimeEnds = x.Spans[:0], x.Traces[:0], x.Times[:0], x.TimeEnds[:0]
}

// Bytes returns the memory that the columns hold on to.
func (x *Extras) Bytes() int {
	return 8*(cap(x.Spans)+cap(x.Times)) + 16*cap(x.Traces) + 4*cap(x.TimeEnds)
}

// Tagged tells whether rows have spans or traces: a stack node may have several rows then.
func (x *Extras) Tagged() bool { return len(x.Spans)+len(x.Traces) > 0 }

// TimesOf returns when row i was seen.
func (x *Extras) TimesOf(i int) []int64 {
	if len(x.TimeEnds) == 0 {
		return nil
	}
	from := uint32(0)
	if i > 0 {
		from = x.TimeEnds[i-1]
	}
	return x.Times[from:x.TimeEnds[i]]
}

// Unordered returns the first row that is not after the one before it by stack node, span and trace; 0 if there is none.
// Where no row has a span or a trace it does not look.
func (x *Extras) Unordered(stacks []uint32) int {
	if !x.Tagged() {
		return 0
	}
	for i := 1; i < len(stacks); i++ {
		if stacks[i] < stacks[i-1] || stacks[i] == stacks[i-1] && x.Compare(i-1, i) >= 0 {
			return i
		}
	}
	return 0
}

// Compare orders rows i and j, which are of one stack node, by their spans and traces.
func (x *Extras) Compare(i, j int) int {
	c := 0
	if len(x.Spans) > 0 {
		c = bytes.Compare(x.Spans[i][:], x.Spans[j][:])
	}
	if c == 0 && len(x.Traces) > 0 {
		c = bytes.Compare(x.Traces[i][:], x.Traces[j][:])
	}
	return c
}

// Check tells what is wrong with the columns of a profile of that many rows, "" if nothing.
func (x *Extras) Check(rows int) string {
	for _, n := range []int{len(x.Spans), len(x.Traces), len(x.TimeEnds)} {
		if n != 0 && n != rows {
			return fmt.Sprintf("%d spans, traces or times for %d rows", n, rows)
		}
	}
	last := uint32(0)
	for i, end := range x.TimeEnds {
		if end < last || int64(end) > int64(len(x.Times)) {
			return fmt.Sprintf("times of row %d end at %d of %d", i, end, len(x.Times))
		}
		if last = end; !slices.IsSorted(x.TimesOf(i)) {
			return fmt.Sprintf("times of row %d do not ascend", i)
		}
	}
	if int(last) != len(x.Times) {
		return fmt.Sprintf("%d times of which %d are of rows", len(x.Times), last)
	}
	return ""
}

func compareSpans(a, b profile.SpanID) int   { return bytes.Compare(a[:], b[:]) }
func compareTraces(a, b profile.TraceID) int { return bytes.Compare(a[:], b[:]) }

func appendSpan(dst []byte, id profile.SpanID) []byte   { return append(dst, id[:]...) }
func appendTrace(dst []byte, id profile.TraceID) []byte { return append(dst, id[:]...) }

// appendIDs appends the run of the ids of rows; nothing if all are zero. Scratch is memory that it returns.
func appendIDs[ID comparable](dst []byte, ids, scratch []ID, compare func(a, b ID) int, add func([]byte, ID) []byte) (run []byte, _ []ID) {
	var none ID
	dict := scratch[:0]
	for i, id := range ids {
		if id != none && (i == 0 || id != ids[i-1]) {
			dict = append(dict, id)
		}
	}
	if len(dict) == 0 {
		return dst, dict
	}
	slices.SortFunc(dict, compare)
	dict = slices.Compact(dict)
	dst = binary.AppendUvarint(dst, uint64(len(dict)))
	for _, id := range dict {
		dst = add(dst, id)
	}
	for _, id := range ids {
		k := -1
		if id != none {
			k, _ = slices.BinarySearchFunc(dict, id, compare)
		}
		dst = binary.AppendUvarint(dst, uint64(k+1))
	}
	return dst, dict
}

// appendTimes appends the run of the times of rows of a profile of time base; nothing if there are none. The counts stand
// before the times, which hardly compress, because they do. Differences wrap: any two times have one.
func appendTimes(dst []byte, base int64, x *Extras) []byte {
	if len(x.Times) == 0 {
		return dst
	}
	for i := range x.TimeEnds {
		dst = binary.AppendUvarint(dst, uint64(len(x.TimesOf(i))))
	}
	for i := range x.TimeEnds {
		last := base
		for _, t := range x.TimesOf(i) {
			dst = binary.AppendUvarint(dst, column.Zigzag(t-last))
			last = t
		}
	}
	return dst
}

// IDs reads runs of ids. It keeps its memory from one to the next, and refers to the run.
type IDs struct {
	size          int
	dict, numbers []byte
	used          []bool
}

// Read begins a run of spans or traces: it reads which ids there are, and no rows.
func (r *IDs) Read(run []byte, e Extra) error {
	r.size = e.idSize()
	r.dict, r.numbers = nil, nil
	if len(run) == 0 {
		return nil
	}
	n, start := binary.Uvarint(run)
	if start <= 0 || n == 0 || n > uint64(len(run)-start)/uint64(r.size) {
		return fmt.Errorf("%w: a run of %d bytes with %d %s", column.ErrCorrupt, len(run), n, e)
	}
	end := start + int(n)*r.size
	r.dict, r.numbers = run[start:end], run[end:]
	if len(bytes.Trim(r.At(0), "\x00")) == 0 {
		return fmt.Errorf("%w: a run of %s with none among them", column.ErrCorrupt, e)
	}
	for k := 1; k < int(n); k++ {
		if last, id := r.At(k-1), r.At(k); bytes.Compare(last, id) >= 0 {
			return fmt.Errorf("%w: %s %x after %x", column.ErrCorrupt, e, id, last)
		}
	}
	return nil
}

// Len returns how many ids there are.
func (r *IDs) Len() int { return len(r.dict) / r.size }

// At returns id k, ascending from 0.
func (r *IDs) At(k int) []byte { return r.dict[k*r.size : (k+1)*r.size] }

// Rows fills dst with the number of each row's id, counted from 1; 0 is none.
func (r *IDs) Rows(dst []uint32) error {
	if len(r.dict) == 0 {
		clear(dst)
		return nil
	}
	n := r.Len()
	if err := column.Uint32s(dst, r.numbers, uint64(n)+1); err != nil {
		return err
	}
	if n > len(dst) {
		return fmt.Errorf("%w: %d rows of %d spans or traces", column.ErrCorrupt, len(dst), n)
	}
	r.used = append(r.used[:0], make([]bool, n+1)...)
	left := n
	for _, k := range dst {
		if k > 0 && !r.used[k] {
			r.used[k] = true
			left--
		}
	}
	if left > 0 {
		return fmt.Errorf("%w: no row has %d of %d spans or traces", column.ErrCorrupt, left, n)
	}
	return nil
}

// readTimes appends the times of a run of a profile of time base to x.
func readTimes(x *Extras, run []byte, rows int, base int64) error {
	if len(run) == 0 {
		return nil
	}
	c := column.Cursor{Data: run}
	total := 0
	for range rows {
		total += int(c.Below(len(run) - total + 1)) // a time takes a byte at least
		x.TimeEnds = append(x.TimeEnds, uint32(total))
	}
	if c.Err == nil && (total == 0 || total > len(run)-c.Pos) {
		c.Err = fmt.Errorf("%w: %d times in %d bytes", column.ErrCorrupt, total, len(run)-c.Pos)
	}
	start := uint32(0)
	for row, end := range x.TimeEnds {
		last := base
		for i := start; i < end && c.Err == nil; i++ {
			t := last + column.Unzigzag(c.Uvarint())
			if c.Err == nil && i > start && t < last {
				return fmt.Errorf("%w: row %d was seen at %d after %d", column.ErrCorrupt, row, t, last)
			}
			x.Times = append(x.Times, t)
			last = t
		}
		start = end
	}
	return c.End()
}

// Decoder reads the extra columns of profiles. It keeps its memory from one to the next.
type Decoder struct {
	ids  IDs
	rows []uint32
}

// Bytes returns the memory that the decoder holds on to.
func (d *Decoder) Bytes() int { return 4*cap(d.rows) + cap(d.ids.used) }

// Read adds what the run of a profile with that many rows says to x, which says nothing yet in that column. Base is the
// profile's time.
func (d *Decoder) Read(x *Extras, e Extra, run []byte, rows int, base int64) error {
	if len(run) == 0 {
		return nil
	}
	if int64(rows) > int64(len(run)) {
		return fmt.Errorf("%w: %s of %d rows in %d bytes", column.ErrCorrupt, e, rows, len(run))
	}
	if e == Times {
		return readTimes(x, run, rows, base)
	}
	if err := d.ids.Read(run, e); err != nil {
		return err
	}
	d.rows = slices.Grow(d.rows[:0], rows)[:rows]
	if err := d.ids.Rows(d.rows); err != nil {
		return err
	}
	for _, k := range d.rows {
		switch {
		case k == 0 && e == Spans:
			x.Spans = append(x.Spans, profile.SpanID{})
		case k == 0:
			x.Traces = append(x.Traces, profile.TraceID{})
		case e == Spans:
			x.Spans = append(x.Spans, profile.SpanID(d.ids.At(int(k)-1)))
		default:
			x.Traces = append(x.Traces, profile.TraceID(d.ids.At(int(k)-1)))
		}
	}
	return nil
}
