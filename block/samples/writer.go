package samples

import (
	"bytes"
	"encoding/binary"
	"io"

	"github.com/kilndb/kiln/block/column"
)

// PageRows is where a page is cut: at the last profile border before it, or after a profile that is
// larger. 64k rows inflate to about 256 KiB, which stays in a core's cache, and lose 1 % of the compression.
const PageRows = 64 << 10

// Writer writes one SAMPLES section. It is reused and not safe for concurrent use.
type Writer struct {
	level column.Level
	out   io.Writer // nil: pages are kept
	kept  []byte
	err   error

	columns [][]byte // the page at hand, inflated
	// made[c] says what column c of the page at hand has been a multiple of so far; then columns[c] is empty.
	made    []made
	starts  []uint64 // inflated bytes of finished pages, per column
	rows    int      // of the page at hand
	pages   int
	total   uint64 // rows of finished pages
	dir     []byte
	frame   []byte
	scratch []uint32
	lengths []uint32 // of the runs of the profile at hand
	stored  []int    // the columns of the page at hand that are not multiples
	extra   extraWriter
}

// made is a column that is not written because it is a multiple of another.
type made struct {
	factor
	raw int // how many bytes it would take
}

// Run is the values of one profile in one column: bytes, or those of an earlier column times a factor.
type Run struct {
	Bytes []byte
	// Factor, if it is not 0, says that the run is that of column Base, whose run has bytes, times Factor, and would
	// take Length bytes. See Multiplier.
	Base   int
	Factor uint64
	Length int
}

// Reset begins a section with that many columns, the stack column included. If out is nil finished
// pages are kept until Finish; otherwise each is written as soon as it is cut.
func (w *Writer) Reset(columns int, level column.Level, out io.Writer) {
	w.level, w.out, w.err = level, out, nil
	w.kept, w.dir = w.kept[:0], w.dir[:0]
	w.rows, w.pages, w.total = 0, 0, 0
	for len(w.columns) < columns {
		w.columns = append(w.columns, nil)
	}
	w.columns = w.columns[:columns]
	for i := range w.columns {
		w.columns[i] = w.columns[i][:0]
	}
	w.made = append(w.made[:0], make([]made, columns)...)
	w.lengths = append(w.lengths[:0], make([]uint32, columns)...)
	w.starts = append(w.starts[:0], make([]uint64, columns)...)
	w.extra.reset()
}

// Bytes is the memory that the writer holds on to.
func (w *Writer) Bytes() int {
	n := cap(w.kept) + cap(w.dir) + cap(w.frame) + 4*cap(w.scratch) + w.extra.held()
	for _, c := range w.columns[:cap(w.columns)] {
		n += cap(c)
	}
	return n
}

// Offsets appends to dst where the next run begins in each inflated column.
func (w *Writer) Offsets(dst []uint64) []uint64 {
	for i := range w.columns {
		dst = append(dst, w.starts[i]+uint64(w.raw(i)))
	}
	return dst
}

// raw is how many inflated bytes column c of the page at hand has.
func (w *Writer) raw(c int) int { return len(w.columns[c]) + w.made[c].raw }

// Append writes the rows of one profile: ascending stack nodes and, per sample type, a value for each. It
// appends the length of the run in each column to lengths. The caller has checked order and sign.
func (w *Writer) Append(stacks []uint32, values [][]int64, lengths []uint32) []uint32 {
	lengths = w.appendStacks(stacks, lengths)
	for c := len(values); c > 0; c-- { // a column may have to be made of an earlier one, as that was before
		w.appendValues(c, values)
	}
	w.rows += len(stacks)
	return append(lengths, w.lengths[1:]...)
}

// appendValues appends the values of one profile to column c.
func (w *Writer) appendValues(c int, values [][]int64) {
	if w.lengths[c] = 0; len(values[c-1]) == 0 {
		return
	}
	if f, raw := w.multipleOfValues(c, values); raw > 0 {
		w.made[c].factor = f
		w.made[c].raw += raw
		w.lengths[c] = uint32(raw)
		return
	}
	w.makeColumn(c)
	col := w.columns[c]
	before := len(col)
	for _, v := range values[c-1] {
		col = binary.AppendUvarint(col, uint64(v))
	}
	w.columns[c] = col
	w.lengths[c] = uint32(len(col) - before)
}

// multipleOfValues tells whether column c may go on, or begin, as a multiple, and how many bytes the values at hand
// would take; 0 if it may not.
func (w *Writer) multipleOfValues(c int, values [][]int64) (f factor, raw int) {
	if f = w.made[c].factor; f.times != 0 {
		return multipleOf(f, values[c-1], values[f.base-1])
	}
	if len(w.columns[c]) > 0 {
		return factor{}, 0
	}
	for base := 1; base < c; base++ {
		if f, raw = multipleOf(factor{base: base}, values[c-1], values[base-1]); raw > 0 {
			return f, raw
		}
	}
	return factor{}, 0
}

// AppendRuns writes the rows of one profile whose value runs are taken as they are.
func (w *Writer) AppendRuns(stacks []uint32, runs []Run, lengths []uint32) []uint32 {
	lengths = w.appendStacks(stacks, lengths)
	for c := len(runs); c > 0; c-- {
		w.appendValueRun(c, runs)
	}
	w.rows += len(stacks)
	return append(lengths, w.lengths[1:]...)
}

// appendValueRun appends one run to column c.
func (w *Writer) appendValueRun(c int, runs []Run) {
	r := &runs[c-1]
	if w.lengths[c] = 0; len(r.Bytes)+r.Length == 0 {
		return // no rows
	}
	if r.Factor == 0 {
		w.makeColumn(c)
		w.columns[c] = append(w.columns[c], r.Bytes...)
		w.lengths[c] = uint32(len(r.Bytes))
		return
	}
	w.lengths[c] = uint32(r.Length)
	f := factor{r.Base, r.Factor}
	if w.made[c].factor == f || w.raw(c) == 0 {
		w.made[c].factor = f
		w.made[c].raw += r.Length
		return
	}
	w.makeColumn(c)
	w.columns[c] = appendMultiple(w.columns[c], runs[r.Base-1].Bytes, r.Factor)
}

// makeColumn makes the bytes of a column that was a multiple until now. Its base must not have more rows yet.
func (w *Writer) makeColumn(c int) {
	if m := w.made[c]; m.times != 0 {
		w.columns[c] = appendMultiple(w.columns[c], w.columns[m.base], m.times)
		w.made[c] = made{}
	}
}

// appendStacks begins the rows of a profile.
func (w *Writer) appendStacks(stacks []uint32, lengths []uint32) []uint32 {
	w.room(len(stacks))
	return w.appendRun(stacks, lengths)
}

// appendRun is appendStacks on the page at hand.
func (w *Writer) appendRun(stacks []uint32, lengths []uint32) []uint32 {
	col := w.columns[0]
	before := len(col)
	last := uint32(0)
	for _, s := range stacks {
		col = binary.AppendUvarint(col, uint64(s-last))
		last = s
	}
	w.columns[0] = col
	return append(lengths, uint32(len(col)-before))
}

// room cuts the page if the next profile does not fit.
func (w *Writer) room(rows int) {
	if w.rows > 0 && (w.rows+rows > PageRows || w.extra.bytes() >= extraPageBytes) {
		w.cut()
	}
}

func (w *Writer) cut() {
	w.dir = binary.AppendUvarint(w.dir, uint64(w.rows))
	for i := range w.columns {
		if w.raw(i) < smallestMultiple {
			w.makeColumn(i)
		}
		c := w.columns[i]
		w.dir = binary.AppendUvarint(w.dir, uint64(w.raw(i)))
		if base, factor := w.multipleOf(i); base > 0 {
			w.dir = append(w.dir, 0)
			w.dir = binary.AppendUvarint(w.dir, uint64(base))
			w.dir = binary.AppendUvarint(w.dir, factor)
			continue
		}
		w.stored = append(w.stored, i)
		w.frame = column.Compress(w.frame[:0], c, w.level)
		w.dir = binary.AppendUvarint(w.dir, uint64(len(w.frame)))
		w.write(w.frame)
	}
	for i, c := range w.columns {
		w.starts[i] += uint64(w.raw(i))
		w.columns[i], w.made[i] = c[:0], made{}
	}
	w.stored = w.stored[:0]
	w.cutExtras()
	w.total += uint64(w.rows)
	w.rows = 0
	w.pages++
}

// Begin cuts the page at hand, so that a whole page can be copied. It reports false, and does nothing, if that
// would leave a page of a few rows.
func (w *Writer) Begin() bool {
	if w.rows > 0 && w.rows < PageRows/8 {
		return false
	}
	if w.rows > 0 {
		w.cut()
	}
	return true
}

// AppendStacks writes the stack nodes of a profile of a page that is copied, and returns the length of their run.
func (w *Writer) AppendStacks(stacks []uint32) uint32 {
	w.scratch = w.appendRun(stacks, w.scratch[:0])
	w.rows += len(stacks)
	return w.scratch[0]
}

// CopyPage ends a page whose stack nodes have been written and whose other columns are those of page p of another
// section, as they are stored there. Stacks are its inflated stack column: if all nodes have the numbers they had, that
// is copied too.
func (w *Writer) CopyPage(s *Directory, p int, page, stacks []byte) {
	w.dir = binary.AppendUvarint(w.dir, uint64(w.rows))
	if bytes.Equal(w.columns[0], stacks) {
		w.frame = append(w.frame[:0], s.Stored(page, p, 0)...)
	} else {
		w.frame = column.Compress(w.frame[:0], w.columns[0], w.level)
	}
	w.dir = binary.AppendUvarint(w.dir, uint64(len(w.columns[0])))
	w.dir = binary.AppendUvarint(w.dir, uint64(len(w.frame)))
	w.write(w.frame)
	w.starts[0] += uint64(len(w.columns[0]))
	w.columns[0] = w.columns[0][:0]
	for c := 1; c < len(w.columns); c++ {
		from, to := s.Bounds(p, c)
		w.dir = binary.AppendUvarint(w.dir, to-from)
		w.starts[c] += to - from
		if base, times, ok := s.Multiple(p, c); ok {
			w.dir = append(w.dir, 0)
			w.dir = binary.AppendUvarint(w.dir, uint64(base))
			w.dir = binary.AppendUvarint(w.dir, times)
			continue
		}
		stored := s.Stored(page, p, c)
		w.dir = binary.AppendUvarint(w.dir, uint64(len(stored)))
		w.write(stored)
	}
	w.copyExtras(s, p, page)
	w.total += uint64(w.rows)
	w.rows = 0
	w.pages++
}

// multipleOf returns the stored value column that column c of the page at hand is a multiple of, and its factor; 0 if
// there is none.
func (w *Writer) multipleOf(c int) (base int, factor uint64) {
	if f := w.made[c].factor; f.times != 0 {
		return f.base, f.times
	}
	if c == 0 || len(w.columns[c]) < smallestMultiple {
		return 0, 0
	}
	for _, base := range w.stored {
		if base == 0 {
			continue
		}
		if factor, ok := multiple(w.columns[base], w.columns[c]); ok {
			return base, factor
		}
	}
	return 0, 0
}

func (w *Writer) write(b []byte) {
	if w.out == nil {
		w.kept = append(w.kept, b...)
	} else if w.err == nil {
		_, w.err = w.out.Write(b)
	}
}

// Finish writes the last page and the directory. It returns the section if pages were kept, or the first
// error of out. The result lives until the next Reset.
func (w *Writer) Finish() ([]byte, error) {
	if w.rows > 0 {
		w.cut()
	}
	w.frame = binary.AppendUvarint(w.frame[:0], uint64(len(w.columns)+len(w.Extras())))
	w.frame = binary.AppendUvarint(w.frame, uint64(w.pages))
	w.frame = w.directory(w.frame)
	w.frame = binary.LittleEndian.AppendUint32(w.frame, uint32(len(w.frame)))
	w.write(w.frame)
	return w.kept, w.err
}
