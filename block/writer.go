package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/column"
	"github.com/kilndb/kiln/block/samples"
	"github.com/kilndb/kiln/block/series"
	"github.com/kilndb/kiln/block/symbols"
	"github.com/kilndb/kiln/profile"
)

// Header is what an object says of itself besides its contents.
type Header struct {
	// ID is a ULID in text form.
	ID string
	// Tenant is "" for a segment, which mixes tenants.
	Tenant string
	Shard  uint32
	// Level is 0 for a segment.
	Level uint32
	// Sources are the ids of the objects that this one is merged from.
	Sources []string
	// Writer is the node that writes.
	Writer string
}

// Writer writes one object. It is reused by Reset, which keeps its memory, and not safe for concurrent use.
//
// An error in writing stays: every later call does nothing and Finish returns it.
type Writer struct {
	out    io.Writer
	header Header
	level  column.Level
	off    uint64
	err    error
	done   bool

	meta    *storagev1.BlockMeta
	strings map[string]uint32
	kinds   map[string]uint32
	open    *GroupWriter

	// Of the section being written.
	section storagev1.SectionType
	start   uint64
	crc     uint32

	symbols symbols.Encoder
	series  series.Encoder
	buf     []byte
	group   GroupWriter
	tables  map[tableShape]*tableWriter
	idle    []*samples.Writer
}

// NewWriter begins an object that is streamed to out.
func NewWriter(out io.Writer, h Header) *Writer {
	w := &Writer{strings: map[string]uint32{}, kinds: map[string]uint32{}, tables: map[tableShape]*tableWriter{}}
	w.Reset(out, h)
	return w
}

// Reset begins another object, whatever became of the last.
func (w *Writer) Reset(out io.Writer, h Header) {
	if w.open != nil {
		w.open.release()
	}
	w.out, w.header, w.level = out, h, compression(h.Level)
	w.off, w.err, w.done, w.section = 0, nil, false, 0
	w.open = nil
	clear(w.strings)
	clear(w.kinds)
	w.meta = &storagev1.BlockMeta{}
	w.meta.Strings = []string{""}
	w.strings[""] = 0
	w.meta.Id, w.meta.Tenant, w.meta.Shard, w.meta.Level = h.ID, w.ref(h.Tenant), h.Shard, h.Level
	w.meta.Sources, w.meta.Writer = slices.Clone(h.Sources), w.ref(h.Writer)
	w.write([]byte(magic))
	w.write([]byte{version})
}

// Bytes is about the memory that the writer holds on to between two objects.
func (w *Writer) Bytes() int {
	const ofTable = 256 << 10 // buffers and schema
	n := cap(w.buf) + w.symbols.Bytes() + w.series.Bytes() + ofTable*len(w.tables)
	for _, s := range w.idle {
		n += s.Bytes()
	}
	return n
}

// ref returns the index of s in the footer's strings.
func (w *Writer) ref(s string) uint32 {
	i, ok := w.strings[s]
	if !ok {
		i = uint32(len(w.meta.Strings))
		w.strings[s] = i
		w.meta.Strings = append(w.meta.Strings, s)
	}
	return i
}

// kind returns the index of k in the footer's kinds.
func (w *Writer) kind(k profile.Kind) uint32 {
	key := k.Key()
	i, ok := w.kinds[key]
	if ok {
		return i
	}
	i = uint32(len(w.meta.Kinds))
	w.kinds[key] = i
	m := &storagev1.Kind{Name: w.ref(k.Name), PeriodType: w.ref(k.PeriodType), PeriodUnit: w.ref(k.PeriodUnit)}
	for _, t := range k.SampleTypes {
		m.SampleTypes = append(m.SampleTypes, &storagev1.SampleType{Type: w.ref(t.Type), Unit: w.ref(t.Unit)})
	}
	w.meta.Kinds = append(w.meta.Kinds, m)
	return i
}

// fail records the first error.
func (w *Writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

func (w *Writer) misuse(format string, args ...any) {
	w.fail(fmt.Errorf("%w: %s", ErrMisuse, fmt.Sprintf(format, args...)))
}

func (w *Writer) write(b []byte) {
	if w.err != nil {
		return
	}
	if _, err := w.out.Write(b); err != nil {
		w.fail(fmt.Errorf("write object %s at byte %d: %w", w.header.ID, w.off, err))
		return
	}
	w.off += uint64(len(b))
	if w.section != 0 {
		w.crc = crc32.Update(w.crc, castagnoli, b)
	}
}

// begin opens a section; the bytes written until end are it.
func (w *Writer) begin(t storagev1.SectionType) {
	w.section, w.start, w.crc = t, w.off, 0
}

// end closes the section and returns its line of the table of contents.
func (w *Writer) end() *storagev1.Section {
	s := &storagev1.Section{Type: w.section, Offset: w.start, Length: w.off - w.start, Crc: w.crc}
	w.section = 0
	return s
}

// sectionWriter streams into the section that is open.
type sectionWriter struct{ w *Writer }

func (s sectionWriter) Write(b []byte) (int, error) {
	s.w.write(b)
	return len(b), s.w.err
}

// Finish ends the object and returns its footer, which the caller may keep.
func (w *Writer) Finish() (*storagev1.BlockMeta, error) {
	if w.open != nil {
		w.misuse("a group is still open")
	}
	if w.done {
		w.misuse("the object has ended already")
	}
	if w.err == nil {
		w.err = w.finishMeta()
	}
	if w.err != nil {
		w.done = true
		return nil, w.err
	}
	footer, err := encodeFooter(w.buf[:0], w.meta, w.off)
	if err != nil {
		w.fail(err)
	}
	w.write(footer)
	w.buf = footer
	w.done = true
	if w.err != nil {
		return nil, w.err
	}
	return w.meta, nil
}

// Abort ends the object without a footer: what was written so far is no object, and Finish will refuse.
func (w *Writer) Abort() {
	w.fail(errAborted)
	w.done = true
	if w.open != nil {
		w.open.release()
		w.open = nil
	}
}

var errAborted = errors.New("object aborted")

// finishMeta sorts the datasets and computes what is known only at the end.
func (w *Writer) finishMeta() error {
	m := w.meta
	name := func(i uint32) string { return m.Strings[i] }
	slices.SortFunc(m.Datasets, func(a, b *storagev1.Dataset) int {
		if c := strings.Compare(name(a.Tenant), name(b.Tenant)); c != 0 {
			return c
		}
		return strings.Compare(name(a.Service), name(b.Service))
	})
	for i, d := range m.Datasets {
		if i > 0 && d.Tenant == m.Datasets[i-1].Tenant && d.Service == m.Datasets[i-1].Service {
			return fmt.Errorf("%w: service %q of tenant %q is in two groups", ErrMisuse, name(d.Service), name(d.Tenant))
		}
		slices.SortStableFunc(d.Rows, func(a, b *storagev1.Rows) int { return int(a.Kind) - int(b.Kind) })
		if i == 0 || d.MinTime < m.MinTime {
			m.MinTime = d.MinTime
		}
		if i == 0 || d.MaxTime > m.MaxTime {
			m.MaxTime = d.MaxTime
		}
	}
	return nil
}

// encodeFooter appends footer and tail of an object whose sections end at off to dst, and sets the size.
func encodeFooter(dst []byte, m *storagev1.BlockMeta, off uint64) ([]byte, error) {
	m.Size = 1 // any but 0, which would not be encoded: the width is fixed
	n := proto.Size(m)
	if n > maxFooter {
		return nil, fmt.Errorf("%w: a footer of %d bytes, limit %d", ErrMisuse, n, maxFooter)
	}
	m.Size = off + uint64(n) + uint64(tailSize)
	if m.Size > math.MaxInt64 {
		return nil, fmt.Errorf("%w: an object of %d bytes", ErrMisuse, m.Size)
	}
	dst, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(dst, m)
	if err != nil {
		return nil, fmt.Errorf("encode footer: %w", err)
	}
	if len(dst) != n {
		return nil, fmt.Errorf("encode footer: %d bytes, expected %d", len(dst), n)
	}
	crc := crc32.Checksum(dst, castagnoli)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(n))
	dst = binary.LittleEndian.AppendUint32(dst, crc)
	dst = append(dst, version)
	return append(dst, magic...), nil
}
