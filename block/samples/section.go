package samples

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"github.com/kilndb/kiln/block/column"
)

// Directory says what pages a SAMPLES section has and where they are. It is immutable and safe for concurrent use.
type Directory struct {
	columns int
	// extras are the last of the columns.
	extras []Extra
	// rows[p] is the number of rows before page p; one more entry than pages.
	rows []uint64
	// raw[p*columns+c] is the inflated offset at which page p begins in column c; one more line than pages.
	raw []uint64
	// stored[p*columns+c] is the offset in the section of that page's bytes; one more entry.
	stored []uint64
	// multiples[p*columns+c] says how to make that column; nil if none of the section is made.
	multiples []factor
}

// factor says that a column is another times a number; times is 0 if it is not.
type factor struct {
	base  int
	times uint64
}

// Section is a SAMPLES section that is in memory as a whole, as immutable as its Directory.
type Section struct {
	*Directory
	data []byte
}

// Parse reads the directory of a section with so many columns of stacks and values, and after these the extra ones.
func Parse(data []byte, columns int, extras ...Extra) (*Section, error) {
	n, err := DirectoryLength(data, uint64(len(data)))
	if err != nil {
		return nil, err
	}
	start := len(data) - int(n)
	d, err := ParseDirectory(data[start:], uint64(start), columns, extras...)
	if err != nil {
		return nil, err
	}
	return &Section{Directory: d, data: data[:start]}, nil
}

// lengthSize is the size of the directory's length, with which a section ends.
const lengthSize = 4

// DirectoryLength returns how many of the last bytes of a section are its directory, given some of the last bytes and
// the length of the section.
func DirectoryLength(tail []byte, section uint64) (uint64, error) {
	if len(tail) < lengthSize {
		return 0, fmt.Errorf("%w: samples of %d bytes", column.ErrCorrupt, len(tail))
	}
	n := uint64(binary.LittleEndian.Uint32(tail[len(tail)-lengthSize:]))
	if n > section-lengthSize {
		return 0, fmt.Errorf("%w: a directory of %d bytes in samples of %d", column.ErrCorrupt, n, section)
	}
	return n + lengthSize, nil
}

// ParseDirectory reads a directory, with its length, that comes after so many bytes of pages with so many columns of stacks and
// values, and after these the extra ones.
func ParseDirectory(b []byte, size uint64, columns int, extras ...Extra) (*Directory, error) {
	columns += len(extras)
	c := column.Cursor{Data: b[:len(b)-lengthSize]}
	if got := c.Uvarint(); c.Err == nil && got != uint64(columns) {
		return nil, fmt.Errorf("%w: samples of %d columns, want %d", column.ErrCorrupt, got, columns)
	}
	// A page takes at least a byte of rows and two of lengths per column.
	pages := int(c.Below(len(c.Data)/(1+2*columns) + 1))
	if c.Err != nil {
		return nil, c.Err
	}
	d := &Directory{columns: columns, extras: extras}
	d.rows = make([]uint64, 1, pages+1)
	d.raw = make([]uint64, columns, (pages+1)*columns)
	d.stored = make([]uint64, 1, pages*columns+1)
	for p := range pages {
		if err := d.page(&c, p, size); err != nil {
			return nil, err
		}
	}
	if last := d.stored[len(d.stored)-1]; last != size {
		return nil, fmt.Errorf("%w: pages of %d bytes, but %d are there", column.ErrCorrupt, last, size)
	}
	return d, c.End()
}

// page reads the directory's line of page p.
func (d *Directory) page(c *column.Cursor, p int, size uint64) error {
	rows := c.Uvarint()
	stored := d.stored[len(d.stored)-1]
	for i := range d.columns {
		raw, n := c.Uvarint(), c.Uvarint()
		if c.Err != nil {
			return c.Err
		}
		extra := i >= d.columns-len(d.extras)
		if n == 0 && raw > 0 && !extra {
			if err := d.multiple(c, p, i, raw); err != nil {
				return err
			}
		} else if err := column.CheckLengths(raw, n); err != nil {
			return err
		}
		if rows == 0 || rows > raw && !extra {
			return fmt.Errorf("%w: page %d has %d rows in %d bytes", column.ErrCorrupt, p, rows, raw)
		}
		stored += n
		if stored > size {
			return fmt.Errorf("%w: page %d ends at %d of %d", column.ErrCorrupt, p, stored, size)
		}
		d.stored = append(d.stored, stored)
		d.raw = append(d.raw, d.raw[p*d.columns+i]+raw)
	}
	d.rows = append(d.rows, d.rows[p]+rows)
	return nil
}

// multiple reads that column i of page p is a multiple of one that is stored.
func (d *Directory) multiple(c *column.Cursor, p, i int, raw uint64) error {
	base, times := c.Below(i+1), c.Uvarint()
	if c.Err != nil {
		return c.Err
	}
	// A number of one byte or more becomes one of ten bytes or less.
	if b, isMade := int(base), d.factor(p, int(base)); b == 0 || b >= i || times == 0 || isMade.times != 0 ||
		raw > 10*(d.raw[(p+1)*d.columns+b]-d.raw[p*d.columns+b]) {
		return fmt.Errorf("%w: column %d of page %d is column %d times %d", column.ErrCorrupt, i, p, base, times)
	}
	if need := (p + 1) * d.columns; len(d.multiples) < need {
		d.multiples = append(d.multiples, make([]factor, need-len(d.multiples))...)
	}
	d.multiples[p*d.columns+i] = factor{int(base), times}
	return nil
}

func (d *Directory) factor(p, c int) factor {
	if i := p*d.columns + c; i < len(d.multiples) {
		return d.multiples[i]
	}
	return factor{}
}

// Multiple tells whether column c of page p is not stored, but column base times a factor.
func (d *Directory) Multiple(p, c int) (base int, times uint64, ok bool) {
	f := d.factor(p, c)
	return f.base, f.times, f.times != 0
}

// Multiply makes a column that is a multiple from the inflated bytes of its base; dst is as for column.Inflate.
func (d *Directory) Multiply(p, c int, base, dst []byte) ([]byte, error) {
	from, to := d.Bounds(p, c)
	b, err := multiply(dst, base, d.factor(p, c).times, int(to-from))
	if err != nil {
		return nil, fmt.Errorf("page %d, column %d: %w", p, c, err)
	}
	return b, nil
}

// Columns returns the number of columns, the stack column and extra ones included.
func (d *Directory) Columns() int { return d.columns }

// Extra returns the number of an extra column; false if the section has no such column.
func (d *Directory) Extra(e Extra) (column int, ok bool) {
	i := slices.Index(d.extras, e)
	return d.columns - len(d.extras) + i, i >= 0
}

// Pages returns the number of pages.
func (d *Directory) Pages() int { return len(d.rows) - 1 }

// Rows returns the number of rows.
func (d *Directory) Rows() uint64 { return d.rows[len(d.rows)-1] }

// Find returns the page of the stack column that holds the inflated offset; Pages() if there is none.
func (d *Directory) Find(offset uint64) int {
	return sort.Search(d.Pages(), func(p int) bool { return d.raw[(p+1)*d.columns] > offset })
}

// Bounds returns the inflated offsets at which page p begins and ends in column c.
func (d *Directory) Bounds(p, c int) (from, to uint64) {
	return d.raw[p*d.columns+c], d.raw[(p+1)*d.columns+c]
}

// Range returns where page p begins and ends in the section.
func (d *Directory) Range(p int) (from, to uint64) {
	return d.stored[p*d.columns], d.stored[(p+1)*d.columns]
}

// Stored returns the bytes of column c of page p as they are stored, given those of the page.
func (d *Directory) Stored(page []byte, p, c int) []byte {
	i, start := p*d.columns+c, d.stored[p*d.columns]
	return page[d.stored[i]-start : d.stored[i+1]-start]
}

// Inflate inflates column c of page p, given the stored bytes of the page; dst and the result are as for
// column.Inflate. A column that is a multiple is not there to inflate: see Multiply.
func (d *Directory) Inflate(page []byte, p, c int, dst []byte) ([]byte, error) {
	from, to := d.Bounds(p, c)
	b, err := column.Inflate(dst, d.Stored(page, p, c), int(to-from))
	if err != nil {
		return nil, fmt.Errorf("page %d, column %d: %w", p, c, err)
	}
	return b, nil
}

// PageRows returns the number of rows of page p.
func (d *Directory) PageRows(p int) int { return int(d.rows[p+1] - d.rows[p]) }

// Plain tells whether column c of page p is stored as it is.
func (d *Directory) Plain(p, c int) bool {
	i := p*d.columns + c
	return d.stored[i+1]-d.stored[i] == d.raw[i+d.columns]-d.raw[i]
}

// StoredPage returns the stored bytes of page p, all columns.
func (s *Section) StoredPage(p int) []byte {
	from, to := s.Range(p)
	return s.data[from:to]
}

// Stored returns the bytes of column c of page p as they are stored.
func (s *Section) Stored(p, c int) []byte { return s.Directory.Stored(s.StoredPage(p), p, c) }

// Page inflates column c of page p; dst and the result are as for column.Inflate.
func (s *Section) Page(p, c int, dst []byte) ([]byte, error) {
	if base, _, ok := s.Multiple(p, c); ok {
		b, err := s.Page(p, base, nil)
		if err != nil {
			return nil, err
		}
		return s.Multiply(p, c, b, dst)
	}
	return s.Inflate(s.StoredPage(p), p, c, dst)
}
