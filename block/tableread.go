package block

import (
	"encoding/binary"
	"fmt"
	"math"
	"sort"
	"sync"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/kilndb/kiln/block/column"
)

// table is a PROFILES section whose metadata has been read. It is safe for concurrent use.
//
// It reads pages itself, with parquet-go's decoders of metadata and of encodings, rather than through
// parquet-go's files: those trust the lengths in page headers, and read whole columns through pooled buffers
// where a few hundred bytes are wanted.
type table struct {
	data    []byte
	rows    int64
	shape   tableShape
	columns []tableColumn

	mu sync.Mutex
	// recent is the page of each column that was decoded last: who reads many small services one after the other
	// finds most of them there. Guarded by mu; the values themselves never change.
	recent []tablePage
}

// tablePage is page number of a column, decoded; values is nil if there is none yet.
type tablePage struct {
	number int
	values []int64
}

// tableColumn says where the pages of a column are.
type tableColumn struct {
	// first row and offset of each page; both have one more entry, the number of rows and the end of the data.
	first   []int64
	offsets []int64
}

// maxPageRows is how many rows a page may have at most, whoever wrote it.
const maxPageRows = 64 << 10

// parquetMagic begins and ends a Parquet file.
const parquetMagic = "PAR1"

func parseTable(data []byte) (*table, error) {
	n := len(data)
	if n < 2*len(parquetMagic)+4 || string(data[:4]) != parquetMagic || string(data[n-4:]) != parquetMagic {
		return nil, fmt.Errorf("%w: not a Parquet file of %d bytes", ErrCorrupt, n)
	}
	footer := int64(binary.LittleEndian.Uint32(data[n-8:]))
	if footer > int64(n-12) {
		return nil, fmt.Errorf("%w: a Parquet footer of %d bytes in a file of %d", ErrCorrupt, footer, n)
	}
	var meta format.FileMetaData
	if _, err := decodeThrift(data[n-8-int(footer):n-8], &meta); err != nil {
		return nil, fmt.Errorf("footer of the profiles: %w", err)
	}
	t := &table{data: data, rows: meta.NumRows}
	if t.rows < 0 || t.rows > int64(n)*tablePageRows || len(meta.RowGroups) > 1 {
		return nil, fmt.Errorf("%w: %d rows in %d row groups", ErrCorrupt, t.rows, len(meta.RowGroups))
	}
	leaves := len(meta.Schema) - 1
	for e := len(extraNames) - 1; e >= 0; e-- {
		if leaves > 0 && meta.Schema[leaves].Name == extraNames[e] {
			t.shape.extras[e] = true
			leaves--
		}
	}
	t.shape.types = (leaves - fixedColumns - 1) / 2
	if leaves < fixedColumns+1 || leaves != fixedColumns+1+2*t.shape.types {
		return nil, fmt.Errorf("%w: profiles of %d columns", ErrCorrupt, leaves)
	}
	leaves = len(meta.Schema) - 1
	for i, name := range t.shape.names() {
		if meta.Schema[i+1].Name != name {
			return nil, fmt.Errorf("%w: column %d of the profiles is %q, want %q", ErrCorrupt, i, meta.Schema[i+1].Name, name)
		}
	}
	if len(meta.RowGroups) == 0 {
		if t.rows != 0 {
			return nil, fmt.Errorf("%w: %d rows in no row group", ErrCorrupt, t.rows)
		}
		t.columns = make([]tableColumn, leaves)
		for i := range t.columns {
			t.columns[i] = tableColumn{first: make([]int64, 1), offsets: make([]int64, 1)}
		}
		return t, nil
	}
	return t, t.index(meta.RowGroups[0].Columns)
}

// index reads where the pages of every column are.
func (t *table) index(chunks []format.ColumnChunk) error {
	if len(chunks) != len(t.shape.names()) {
		return fmt.Errorf("%w: %d columns of profiles stored", ErrCorrupt, len(chunks))
	}
	t.columns = make([]tableColumn, len(chunks))
	for i := range chunks {
		c := &chunks[i]
		if c.MetaData.Type != format.Int64 || c.MetaData.Codec != format.Uncompressed {
			return fmt.Errorf("%w: column %d of the profiles is a compressed %s", ErrCorrupt, i, c.MetaData.Type)
		}
		from, n := c.OffsetIndexOffset, int64(c.OffsetIndexLength)
		if from < 0 || n < 0 || from > int64(len(t.data)) || n > int64(len(t.data))-from {
			return fmt.Errorf("%w: page index of column %d at %d, %d bytes", ErrCorrupt, i, from, n)
		}
		var index format.OffsetIndex
		if _, err := decodeThrift(t.data[from:from+n], &index); err != nil {
			return fmt.Errorf("page index of column %d: %w", i, err)
		}
		if err := t.columns[i].fill(index.PageLocations, t.rows, int64(len(t.data))); err != nil {
			return fmt.Errorf("page index of column %d: %w", i, err)
		}
	}
	return nil
}

func (c *tableColumn) fill(pages []format.PageLocation, rows, size int64) error {
	c.first = make([]int64, len(pages)+1)
	c.offsets = make([]int64, len(pages)+1)
	for p := range pages {
		c.first[p], c.offsets[p] = pages[p].FirstRowIndex, pages[p].Offset
	}
	c.first[len(pages)], c.offsets[len(pages)] = rows, size
	if c.first[0] != 0 || c.offsets[0] < 0 {
		return fmt.Errorf("%w: the first of %d pages begins with row %d at byte %d", ErrCorrupt, len(pages), c.first[0], c.offsets[0])
	}
	for p := range pages {
		if n := c.first[p+1] - c.first[p]; n <= 0 || n > maxPageRows || c.offsets[p+1] <= c.offsets[p] {
			return fmt.Errorf("%w: page %d has %d rows and %d bytes", ErrCorrupt, p, n, c.offsets[p+1]-c.offsets[p])
		}
	}
	return nil
}

// read appends rows [from, from+n) of a column to dst, decoding only the pages they are on.
func (t *table) read(dst []int64, col int, from, n int64) ([]int64, error) {
	return t.readPages(dst, col, from, n, t.recently)
}

// readOnce is read for who has large tables and goes through them: no page is kept.
func (t *table) readOnce(dst []int64, col int, from, n int64) ([]int64, error) {
	return t.readPages(dst, col, from, n, func(col, p int) ([]int64, error) { return t.page(&t.columns[col], p) })
}

func (t *table) readPages(dst []int64, col int, from, n int64, decode func(col, p int) ([]int64, error)) ([]int64, error) {
	c := &t.columns[col]
	if from < 0 || n < 0 || from > t.rows || n > t.rows-from {
		return nil, fmt.Errorf("%w: rows %d to %d of %d", ErrCorrupt, from, from+n, t.rows)
	}
	p := sort.Search(len(c.offsets)-1, func(p int) bool { return c.first[p+1] > from })
	for ; n > 0; p++ {
		page, err := decode(col, p)
		if err != nil {
			return nil, fmt.Errorf("page %d of column %s: %w", p, t.shape.names()[col], err)
		}
		page = page[from-c.first[p]:]
		page = page[:min(n, int64(len(page)))]
		dst = append(dst, page...)
		from += int64(len(page))
		n -= int64(len(page))
	}
	return dst, nil
}

// recently returns page p of a column, decoded now or before.
func (t *table) recently(col, p int) ([]int64, error) {
	t.mu.Lock()
	if t.recent == nil {
		t.recent = make([]tablePage, len(t.columns))
	}
	recent := t.recent[col]
	t.mu.Unlock()
	if recent.values != nil && recent.number == p {
		return recent.values, nil
	}
	values, err := t.page(&t.columns[col], p)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.recent[col] = tablePage{p, values}
	t.mu.Unlock()
	return values, nil
}

// page decodes page p of a column.
func (t *table) page(c *tableColumn, p int) ([]int64, error) {
	rows := c.first[p+1] - c.first[p]
	b := t.data[c.offsets[p]:c.offsets[p+1]]
	var h format.PageHeader
	n, err := decodeThrift(b, &h)
	if err != nil {
		return nil, err
	}
	b = b[n:]
	if h.CompressedPageSize < 0 || int64(h.CompressedPageSize) > int64(len(b)) {
		return nil, fmt.Errorf("%w: %d bytes of which %d are there", ErrCorrupt, h.CompressedPageSize, len(b))
	}
	b = b[:h.CompressedPageSize]
	v2 := &h.DataPageHeaderV2
	if !v2.Valid || int64(v2.V.NumValues) != rows || v2.V.NumNulls != 0 ||
		v2.V.RepetitionLevelsByteLength != 0 || v2.V.DefinitionLevelsByteLength != 0 {
		return nil, fmt.Errorf("%w: a page of %d values where %d are wanted, or of a strange kind", ErrCorrupt, v2.V.NumValues, rows)
	}
	switch v2.V.Encoding {
	case format.Plain:
		return decodePlain(b, rows)
	case format.DeltaBinaryPacked:
		return decodeDelta(b, rows)
	}
	return nil, fmt.Errorf("%w: encoding %s", ErrCorrupt, v2.V.Encoding)
}

func decodePlain(b []byte, rows int64) ([]int64, error) {
	if rows > math.MaxInt32 || int64(len(b)) != 8*rows {
		return nil, fmt.Errorf("%w: %d values in %d bytes", ErrCorrupt, rows, len(b))
	}
	out := make([]int64, rows)
	for i := range out {
		out[i] = int64(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return out, nil
}

// maxDeltaRows bounds what delta encoding may claim: a block of 128 equal deltas takes 5 bytes.
func maxDeltaRows(n int) int64 { return 1 + 128*int64(n) }

func decodeDelta(b []byte, rows int64) ([]int64, error) {
	// The decoder makes room for the number of values that the header claims, so look at that first.
	c := column.Cursor{Data: b}
	block, parts, total := c.Uvarint(), c.Uvarint(), c.Uvarint()
	if c.Err != nil || block != 128 || parts != 4 || total != uint64(rows) || rows > maxDeltaRows(len(b)) {
		return nil, fmt.Errorf("%w: blocks of %d in %d parts, %d values where %d are wanted", ErrCorrupt, block, parts, total, rows)
	}
	out, err := parquet.DeltaBinaryPacked.DecodeInt64(make([]int64, 0, rows), b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if int64(len(out)) != rows {
		return nil, fmt.Errorf("%w: %d values where %d are wanted", ErrCorrupt, len(out), rows)
	}
	return out, nil
}
