package samples

import (
	"encoding/binary"

	"github.com/kilndb/kiln/block/column"
	"github.com/kilndb/kiln/profile"
)

// extraPageBytes is how many bytes of extra columns a page has at most before the next profile begins another: a row may
// have been seen a thousand times.
const extraPageBytes = 1 << 20

// extraWriter writes the extra columns of a section. Which of them there are is known at its end.
type extraWriter struct {
	columns [NumExtras][]byte // the page at hand, inflated
	starts  [NumExtras]uint64 // inflated bytes of finished pages
	pages   []extraPage
	spans   []profile.SpanID
	traces  []profile.TraceID
}

// extraPage is what the directory says of one page.
type extraPage struct {
	// line is where the line of the other columns ends in their directory.
	line        int
	raw, stored [NumExtras]uint64
}

func (w *extraWriter) reset() {
	for e := range w.columns {
		w.columns[e] = w.columns[e][:0]
	}
	w.starts = [NumExtras]uint64{}
	w.pages = w.pages[:0]
}

// bytes returns how many the page at hand has.
func (w *extraWriter) bytes() (n int) {
	for _, c := range w.columns {
		n += len(c)
	}
	return n
}

// held is the memory that the writer holds on to.
func (w *extraWriter) held() int {
	n := 8*cap(w.spans) + 16*cap(w.traces)
	for _, c := range w.columns {
		n += cap(c)
	}
	return n
}

// AppendExtras writes the extra columns of the profile that was appended last, whose time is base, and returns the length
// of its run in each. The caller has checked them.
func (w *Writer) AppendExtras(x *Extras, base int64) (lengths [NumExtras]uint32) {
	c := &w.extra.columns
	before := [NumExtras]int{len(c[0]), len(c[1]), len(c[2])}
	c[Spans], w.extra.spans = appendIDs(c[Spans], x.Spans, w.extra.spans, compareSpans, appendSpan)
	c[Traces], w.extra.traces = appendIDs(c[Traces], x.Traces, w.extra.traces, compareTraces, appendTrace)
	c[Times] = appendTimes(c[Times], base, x)
	for e := range lengths {
		lengths[e] = uint32(len(c[e]) - before[e])
	}
	return lengths
}

// AppendExtraRuns is AppendExtras for runs that are taken as they are.
func (w *Writer) AppendExtraRuns(runs *[NumExtras][]byte) (lengths [NumExtras]uint32) {
	for e, run := range runs {
		w.extra.columns[e] = append(w.extra.columns[e], run...)
		lengths[e] = uint32(len(run))
	}
	return lengths
}

// ExtraOffsets returns where the next run begins in each inflated extra column.
func (w *Writer) ExtraOffsets() (offsets [NumExtras]uint64) {
	for e, c := range w.extra.columns {
		offsets[e] = w.extra.starts[e] + uint64(len(c))
	}
	return offsets
}

// Extras tells which of the extra columns the section has.
func (w *Writer) Extras() (all []Extra) {
	for e, n := range w.ExtraOffsets() {
		if n > 0 {
			all = append(all, Extra(e))
		}
	}
	return all
}

// cutExtras ends the page at hand, the line of whose other columns is complete.
func (w *Writer) cutExtras() {
	p := extraPage{line: len(w.dir)}
	for e, c := range w.extra.columns {
		if len(c) == 0 {
			continue
		}
		w.frame = column.Compress(w.frame[:0], c, w.level)
		w.write(w.frame)
		p.raw[e], p.stored[e] = uint64(len(c)), uint64(len(w.frame))
		w.extra.starts[e] += uint64(len(c))
		w.extra.columns[e] = c[:0]
	}
	w.extra.pages = append(w.extra.pages, p)
}

// copyExtras is cutExtras for a page of another section.
func (w *Writer) copyExtras(s *Directory, p int, page []byte) {
	line := extraPage{line: len(w.dir)}
	for e := range w.extra.columns {
		c, ok := s.Extra(Extra(e))
		if !ok {
			continue
		}
		from, to := s.Bounds(p, c)
		stored := s.Stored(page, p, c)
		w.write(stored)
		line.raw[e], line.stored[e] = to-from, uint64(len(stored))
		w.extra.starts[e] += to - from
	}
	w.extra.pages = append(w.extra.pages, line)
}

// directory appends the lines of all pages to dst, with the extra columns that the section has.
func (w *Writer) directory(dst []byte) []byte {
	extras := w.Extras()
	if len(extras) == 0 {
		return append(dst, w.dir...)
	}
	from := 0
	for _, p := range w.extra.pages {
		dst = append(dst, w.dir[from:p.line]...)
		from = p.line
		for _, e := range extras {
			dst = binary.AppendUvarint(dst, p.raw[e])
			dst = binary.AppendUvarint(dst, p.stored[e])
		}
	}
	return dst
}
