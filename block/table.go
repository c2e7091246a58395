package block

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"

	"github.com/parquet-go/parquet-go"

	"github.com/kilndb/kiln/block/samples"
	"github.com/kilndb/kiln/profile"
)

// tablePageRows is how many rows a page of the PROFILES table has: few enough that reading one small service of a
// shared table decodes little else, and enough that page headers cost less than a byte per row.
const tablePageRows = 1024

// The columns of the PROFILES table before those of the sample types.
const (
	colKind = iota
	colTime
	colSeries
	colIDHigh
	colIDLow
	colDuration
	colPeriod
	colSamples
	fixedColumns
)

var fixedNames = [fixedColumns]string{"kind", "time", "series", "id_hi", "id_lo", "duration", "period", "samples"}

// extraNames are the columns at the end, those of extra columns that no profile has left out.
var extraNames = [samples.NumExtras]string{"span_bytes", "trace_bytes", "time_bytes"}

// tableShape is what decides which columns a table has: sample types and extra columns.
type tableShape struct {
	types  int
	extras [samples.NumExtras]bool
}

// names returns the names of the columns.
func (s tableShape) names() []string {
	names := append([]string{}, fixedNames[:]...)
	for i := range s.types {
		names = append(names, fmt.Sprintf("total_%d", i))
	}
	names = append(names, "stack_bytes")
	for i := range s.types {
		names = append(names, fmt.Sprintf("value_bytes_%d", i))
	}
	for e, has := range s.extras {
		if has {
			names = append(names, extraNames[e])
		}
	}
	return names
}

// Where columns are in a table.
func totalColumn(i int) int               { return fixedColumns + i }
func (s tableShape) stackBytes() int      { return fixedColumns + s.types }
func (s tableShape) valueBytes(i int) int { return fixedColumns + s.types + 1 + i }
func (s tableShape) extraBytes(e samples.Extra) (i int, ok bool) {
	i = s.valueBytes(s.types)
	for _, has := range s.extras[:e] {
		if has {
			i++
		}
	}
	return i, s.extras[e]
}

// extraOf returns the extra column whose lengths are in column i.
func (s tableShape) extraOf(i int) samples.Extra {
	for e := range samples.Extra(samples.NumExtras) {
		if at, ok := s.extraBytes(e); ok && at == i {
			return e
		}
	}
	panic(fmt.Sprintf("block: no column %d in a table of %+v", i, s))
}

// Profile is one row of the PROFILES table as it is appended.
type Profile struct {
	// Time is Unix nanoseconds.
	Time int64
	// Series is an index into the label sets of the group.
	Series           uint32
	ID               profile.ID
	Duration, Period int64
}

// rowBuffer holds the rows of a group's PROFILES table until the group is closed, column by column, because
// only then is it known how many sample types the table must hold. All but the rows of the last page are packed as the
// table will have them, into a quarter: a group may have millions.
type rowBuffer struct {
	rows   int
	packed []packedRows
	size   int64 // of what is packed
	// The rows that are not packed.
	fixed   [fixedColumns][]int64
	totals  [][]int64
	lengths [][]int64                  // the stack column first
	extras  [samples.NumExtras][]int64 // empty as long as all are 0
	has     [samples.NumExtras]bool    // whether some row, packed or not, has something there
}

// packedRows are the rows of one page: columns of delta encoding, where nil is nothing but zeros.
type packedRows struct {
	fixed           [fixedColumns][]byte
	totals, lengths [][]byte
	extras          [][]byte
}

// pack packs the rows of a whole page.
func (b *rowBuffer) pack() {
	var p packedRows
	for i, column := range b.fixed {
		p.fixed[i] = b.encode(column)
		b.fixed[i] = column[:0]
	}
	p.totals, p.lengths, p.extras = b.packAll(b.totals), b.packAll(b.lengths), b.packAll(b.extras[:])
	b.packed = append(b.packed, p)
}

func (b *rowBuffer) packAll(columns [][]int64) [][]byte {
	packed := make([][]byte, len(columns))
	for i, column := range columns {
		if len(column) > 0 {
			packed[i] = b.encode(pad(column, tablePageRows))
		}
		columns[i] = column[:0]
	}
	return packed
}

func (b *rowBuffer) encode(column []int64) []byte {
	out, err := parquet.DeltaBinaryPacked.EncodeInt64(nil, column)
	if err != nil {
		panic(fmt.Sprintf("block: encode numbers: %v", err)) // there is nothing that could fail
	}
	out = slices.Clip(out)
	b.size += int64(len(out)) + 24
	return out
}

// held is the memory that the rows take, besides that of one page.
func (b *rowBuffer) held() int64 { return b.size }

func (b *rowBuffer) reset() {
	b.rows, b.size = 0, 0
	clear(b.packed)
	b.packed = b.packed[:0]
	for i := range b.fixed {
		b.fixed[i] = b.fixed[i][:0]
	}
	b.totals, b.lengths = b.totals[:0], b.lengths[:0]
	for e := range b.extras {
		b.extras[e] = b.extras[e][:0]
	}
	b.has = [samples.NumExtras]bool{}
}

func (b *rowBuffer) append(kind uint32, p *Profile, rows int, totals []int64, lengths []uint32, extras *extraLengths) {
	open := b.rows - len(b.packed)*tablePageRows
	if open == tablePageRows {
		b.pack()
		open = 0
	}
	for i, v := range [fixedColumns]int64{
		int64(kind), p.Time, int64(p.Series), int64(binary.BigEndian.Uint64(p.ID[:8])), int64(binary.BigEndian.Uint64(p.ID[8:])),
		p.Duration, p.Period, int64(rows),
	} {
		b.fixed[i] = append(b.fixed[i], v)
	}
	b.totals = grow(b.totals, len(totals))
	for i, v := range totals {
		b.totals[i] = append(pad(b.totals[i], open), v)
	}
	b.lengths = grow(b.lengths, len(lengths))
	for i, v := range lengths {
		b.lengths[i] = append(pad(b.lengths[i], open), int64(v))
	}
	for e, v := range extras {
		if v > 0 {
			b.extras[e] = append(pad(b.extras[e], open), int64(v))
			b.has[e] = true
		}
	}
	b.rows++
}

// grow makes room for n columns; those that come back from an earlier group are emptied.
func grow(columns [][]int64, n int) [][]int64 {
	for len(columns) < n {
		if len(columns) < cap(columns) {
			columns = columns[:len(columns)+1]
			columns[len(columns)-1] = columns[len(columns)-1][:0]
		} else {
			columns = append(columns, nil)
		}
	}
	return columns
}

// pad fills a column with zeros up to n: rows of kinds with fewer sample types have none there.
func pad(column []int64, n int) []int64 {
	for len(column) < n {
		column = append(column, 0)
	}
	return column
}

// shape returns what the table must have room for.
func (b *rowBuffer) shape() tableShape {
	return tableShape{types: len(b.totals), extras: b.has}
}

// column calls f with the rows of column i of a table of that shape, page by page. They live until f returns.
func (b *rowBuffer) column(s tableShape, i int, f func([]int64) error) error {
	open := func() []int64 { return b.fixed[i] }
	packed := func(p *packedRows) []byte { return p.fixed[i] }
	switch {
	case i < fixedColumns:
	case i < s.stackBytes():
		i -= fixedColumns
		open = func() []int64 { return at(b.totals, i) }
		packed = func(p *packedRows) []byte { return at(p.totals, i) }
	case i < s.valueBytes(s.types):
		i -= s.stackBytes()
		open = func() []int64 { return at(b.lengths, i) }
		packed = func(p *packedRows) []byte { return at(p.lengths, i) }
	default:
		e := s.extraOf(i)
		open = func() []int64 { return b.extras[e] }
		packed = func(p *packedRows) []byte { return at(p.extras, int(e)) }
	}
	for p := range b.packed {
		column := make([]int64, 0, tablePageRows)
		if bytes := packed(&b.packed[p]); bytes != nil {
			var err error
			if column, err = parquet.DeltaBinaryPacked.DecodeInt64(column, bytes); err != nil {
				return err
			}
		}
		if err := f(pad(column, tablePageRows)); err != nil {
			return err
		}
	}
	if b.rows == 0 {
		return nil
	}
	return f(pad(open(), b.rows-len(b.packed)*tablePageRows))
}

// at returns item i, nil if there are fewer.
func at[T any](items [][]T, i int) []T {
	if i < len(items) {
		return items[i]
	}
	return nil
}

// tableWriter writes PROFILES tables of one shape.
//
// It keeps the schema, which reflection makes dear to build, and a new parquet.Writer per table: Writer.Reset of
// parquet-go v0.32.0 erases the names of columns that the next file's metadata should repeat
// (parquet-go issue 602), which kiln's own reader would not miss and every other would.
type tableWriter struct {
	shape  tableShape
	schema *parquet.Schema
	out    *bufio.Writer
	values []parquet.Value
}

func newTableWriter(s tableShape) *tableWriter {
	return &tableWriter{
		shape: s, schema: tableSchema(s), out: bufio.NewWriterSize(nil, 64<<10), values: make([]parquet.Value, tablePageRows),
	}
}

func (t *tableWriter) writer(rows int) *parquet.GenericWriter[any] {
	options := []parquet.WriterOption{
		// Pages are not compressed: delta encoding leaves 20 bytes of a row besides its random id, and a reader that
		// inflates nothing cannot be made to inflate too much.
		parquet.Compression(&parquet.Uncompressed),
		parquet.PageBufferSize(8 * min(max(rows, 1), tablePageRows)),
		parquet.WriteBufferSize(0),
		parquet.CreatedBy("kiln", "1", ""),
	}
	// Readers skip pages by kind, time and series. What pages hold of anything else would only take room: a small
	// table is mostly footer.
	for _, name := range t.shape.names()[colIDHigh:] {
		options = append(options, parquet.SkipPageBounds(name), parquet.SkipPageStatistics(name))
	}
	return parquet.NewGenericWriter[any](t.out, append(options, t.schema)...)
}

// tableSchema describes the table by a struct, because parquet.Group would sort the columns by name.
func tableSchema(s tableShape) *parquet.Schema {
	var fields []reflect.StructField
	for i, name := range s.names() {
		tag := name + ",delta"
		switch i {
		case colTime:
			tag += ",timestamp(nanosecond)"
		case colIDHigh, colIDLow:
			tag = name + ",plain"
		}
		fields = append(fields, reflect.StructField{
			Name: fmt.Sprintf("Column%d", i),
			Type: reflect.TypeFor[int64](),
			Tag:  reflect.StructTag(fmt.Sprintf("parquet:%q", tag)),
		})
	}
	return parquet.NewSchema("profiles", parquet.SchemaOf(reflect.New(reflect.StructOf(fields)).Interface()))
}

// write writes the table of the buffer's rows.
func (t *tableWriter) write(out io.Writer, b *rowBuffer) error {
	t.out.Reset(out)
	w := t.writer(b.rows)
	for i, cw := range w.ColumnWriters() {
		err := b.column(t.shape, i, func(page []int64) error {
			for j, v := range page {
				t.values[j] = parquet.Int64Value(v)
			}
			// A full page is flushed by the writer itself: all columns have the same rows on a page.
			_, err := cw.WriteRowValues(t.values[:len(page)])
			return err
		})
		if err != nil {
			return fmt.Errorf("write column %s of the profiles: %w", t.shape.names()[i], err)
		}
	}
	if err := errors.Join(w.Close(), t.out.Flush()); err != nil {
		return fmt.Errorf("write the profiles: %w", err)
	}
	return nil
}
