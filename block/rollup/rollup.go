package rollup

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/kilndb/kiln/block/column"
	"github.com/kilndb/kiln/block/samples"
)

// All in place of a series id says that a run sums all series.
const All = math.MaxUint32

// The columns of the index; one more per column of the samples follows.
const (
	colBuckets = iota // zigzag of the difference to the bucket before
	colSeries         // series id + 1; 0 is All
	colRows
	colBytes
)

// Writer writes one ROLLUP section. It is reused and not safe for concurrent use.
type Writer struct {
	samples samples.Writer
	set     column.Builder
	level   column.Level
	runs    int
	last    int64
	lengths []uint32
	index   [][]byte
	buf     []byte
}

// Reset begins a section for that many sample types.
func (w *Writer) Reset(types int, level column.Level) {
	w.samples.Reset(1+types, level, nil)
	w.level, w.runs, w.last = level, 0, 0
	for len(w.index) < colBytes+1+types {
		w.index = append(w.index, nil)
	}
	w.index = w.index[:colBytes+1+types]
	for i := range w.index {
		w.index[i] = w.index[i][:0]
	}
}

// Append writes the sums of one bucket and series, or All: ascending stack nodes and, per sample type, a sum for
// each. Runs come in the order of (series, bucket).
func (w *Writer) Append(bucket int64, series uint32, nodes []uint32, sums [][]int64) {
	w.lengths = w.samples.Append(nodes, sums, w.lengths[:0])
	w.add(colBuckets, column.Zigzag(bucket-w.last))
	w.last = bucket
	w.add(colSeries, uint64(series+1))
	w.add(colRows, uint64(len(nodes)))
	for i, n := range w.lengths {
		w.add(colBytes+i, uint64(n))
	}
	w.runs++
}

func (w *Writer) add(i int, v uint64) { w.index[i] = binary.AppendUvarint(w.index[i], v) }

// Runs returns the number of runs so far.
func (w *Writer) Runs() int { return w.runs }

// Finish appends the section to dst.
func (w *Writer) Finish(dst []byte) ([]byte, error) {
	pages, err := w.samples.Finish()
	if err != nil {
		return nil, err
	}
	w.set.Reset(w.level)
	for _, c := range w.index {
		w.set.Add(c)
	}
	w.buf = binary.AppendUvarint(w.buf[:0], uint64(w.runs))
	if w.buf, err = w.set.Append(w.buf); err != nil {
		return nil, err
	}
	dst = binary.AppendUvarint(dst, uint64(len(w.buf)))
	dst = append(dst, w.buf...)
	return append(dst, pages...), nil
}

// Section is a ROLLUP section whose index has been read. It is immutable and safe for concurrent use.
type Section struct {
	// Of each run: the bucket and the series, or All, ascending by (series, bucket); and how many rows it has.
	Buckets []int64
	Series  []uint32
	Rows    []uint32
	// Offsets[c][i] is where run i begins in column c of the samples, inflated; one more entry than runs.
	Offsets [][]uint64
	Samples *samples.Section
}

// Parse reads the index of a section for that many sample types.
func Parse(data []byte, types int) (*Section, error) {
	c := column.Cursor{Data: data}
	n := c.Uvarint()
	if c.Err == nil && n > uint64(len(data)-c.Pos) {
		c.Err = fmt.Errorf("%w: an index of %d bytes in a rollup of %d", column.ErrCorrupt, n, len(data))
	}
	if c.Err != nil {
		return nil, c.Err
	}
	index, rest := data[c.Pos:c.Pos+int(n)], data[c.Pos+int(n):]
	section, err := samples.Parse(rest, 1+types)
	if err != nil {
		return nil, err
	}
	s := &Section{Samples: section, Offsets: make([][]uint64, 1+types)}
	return s, s.decode(index)
}

// decode reads the index.
func (s *Section) decode(index []byte) error {
	c := column.Cursor{Data: index}
	runs := c.Uvarint()
	if c.Err != nil {
		return c.Err
	}
	set, err := column.Parse(index[c.Pos:], colBytes+len(s.Offsets))
	if err != nil {
		return err
	}
	var buf []byte
	numbers := func(i int) ([]uint64, error) {
		if err := set.CheckCount(i, runs); err != nil {
			return nil, err
		}
		b, err := set.Column(i, buf)
		if err != nil {
			return nil, err
		}
		if !set.Plain(i) {
			buf = b
		}
		out := make([]uint64, runs)
		return out, column.Uint64s(out, b)
	}
	buckets, err := numbers(colBuckets)
	if err != nil {
		return err
	}
	series, err := numbers(colSeries)
	if err != nil {
		return err
	}
	rows, err := numbers(colRows)
	if err != nil {
		return err
	}
	if err := s.runs(buckets, series, rows); err != nil {
		return err
	}
	for i := range s.Offsets {
		lengths, err := numbers(colBytes + i)
		if err != nil {
			return err
		}
		if err := s.offsets(i, lengths); err != nil {
			return err
		}
	}
	return nil
}

// runs checks whose sums the runs are.
func (s *Section) runs(buckets, series, rows []uint64) error {
	last := int64(0)
	for i := range buckets {
		last += column.Unzigzag(buckets[i])
		if series[i] > math.MaxUint32 || rows[i] > math.MaxUint32 {
			return fmt.Errorf("%w: run %d of series %d has %d rows", column.ErrCorrupt, i, series[i], rows[i])
		}
		id := uint32(series[i]) - 1
		if i > 0 && (id < s.Series[i-1] || id == s.Series[i-1] && last <= s.Buckets[i-1]) {
			return fmt.Errorf("%w: run %d is not after the one before it", column.ErrCorrupt, i)
		}
		s.Buckets = append(s.Buckets, last)
		s.Series = append(s.Series, id)
		s.Rows = append(s.Rows, uint32(rows[i]))
	}
	return nil
}

// offsets turns the lengths of runs into where they begin. A run has at least a byte per row.
func (s *Section) offsets(c int, lengths []uint64) error {
	out := make([]uint64, len(lengths)+1)
	for i, n := range lengths {
		if n > column.MaxRaw || n < uint64(s.Rows[i]) || s.Rows[i] == 0 && n != 0 {
			return fmt.Errorf("%w: a run of %d rows in %d bytes", column.ErrCorrupt, s.Rows[i], n)
		}
		out[i+1] = out[i] + n
	}
	s.Offsets[c] = out
	return nil
}
