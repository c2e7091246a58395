package block

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"

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
// only then is it known how many sample types the table must hold.
type rowBuffer struct {
	rows    int
	fixed   [fixedColumns][]int64
	totals  [][]int64
	lengths [][]int64                  // the stack column first
	extras  [samples.NumExtras][]int64 // empty as long as all are 0
}

func (b *rowBuffer) reset() {
	b.rows = 0
	for i := range b.fixed {
		b.fixed[i] = b.fixed[i][:0]
	}
	b.totals, b.lengths = b.totals[:0], b.lengths[:0]
	for e := range b.extras {
		b.extras[e] = b.extras[e][:0]
	}
}

func (b *rowBuffer) append(kind uint32, p *Profile, rows int, totals []int64, lengths []uint32, extras *extraLengths) {
	for i, v := range [fixedColumns]int64{
		int64(kind), p.Time, int64(p.Series), int64(binary.BigEndian.Uint64(p.ID[:8])), int64(binary.BigEndian.Uint64(p.ID[8:])),
		p.Duration, p.Period, int64(rows),
	} {
		b.fixed[i] = append(b.fixed[i], v)
	}
	b.totals = grow(b.totals, len(totals))
	for i, v := range totals {
		b.totals[i] = append(pad(b.totals[i], b.rows), v)
	}
	b.lengths = grow(b.lengths, len(lengths))
	for i, v := range lengths {
		b.lengths[i] = append(pad(b.lengths[i], b.rows), int64(v))
	}
	for e, v := range extras {
		if v > 0 {
			b.extras[e] = append(pad(b.extras[e], b.rows), int64(v))
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
	s := tableShape{types: len(b.totals)}
	for e, lengths := range b.extras {
		s.extras[e] = len(lengths) > 0
	}
	return s
}

// column returns column i of the table.
func (b *rowBuffer) column(i int) []int64 {
	s := b.shape()
	switch {
	case i < fixedColumns:
		return b.fixed[i]
	case i < s.stackBytes():
		i -= fixedColumns
		b.totals[i] = pad(b.totals[i], b.rows)
		return b.totals[i]
	case i < s.valueBytes(s.types):
		i -= s.stackBytes()
		b.lengths = grow(b.lengths, s.types+1)
		b.lengths[i] = pad(b.lengths[i], b.rows)
		return b.lengths[i]
	}
	for e := range b.extras {
		if at, ok := s.extraBytes(samples.Extra(e)); ok && at == i {
			b.extras[e] = pad(b.extras[e], b.rows)
			return b.extras[e]
		}
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
	out    bytes.Buffer
	values []parquet.Value
}

func newTableWriter(s tableShape) *tableWriter {
	return &tableWriter{shape: s, schema: tableSchema(s), values: make([]parquet.Value, tablePageRows)}
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
	return parquet.NewGenericWriter[any](&t.out, append(options, t.schema)...)
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

// write returns the table of the buffer's rows. The bytes live until the next call.
func (t *tableWriter) write(b *rowBuffer) ([]byte, error) {
	t.out.Reset()
	w := t.writer(b.rows)
	for i, cw := range w.ColumnWriters() {
		column := b.column(i)
		for len(column) > 0 {
			n := min(len(column), tablePageRows)
			for j, v := range column[:n] {
				t.values[j] = parquet.Int64Value(v)
			}
			// A full page is flushed by the writer itself: all columns have the same rows on a page.
			if _, err := cw.WriteRowValues(t.values[:n]); err != nil {
				return nil, fmt.Errorf("write column %s of the profiles: %w", t.shape.names()[i], err)
			}
			column = column[n:]
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write the profiles: %w", err)
	}
	return t.out.Bytes(), nil
}
