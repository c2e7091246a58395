package samples

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"github.com/kilndb/kiln/block/column"
)

// Section is a SAMPLES section whose directory has been read. It is immutable and safe for concurrent use.
type Section struct {
	data    []byte
	columns int
	// extras are the last of the columns.
	extras []Extra
	// rows[p] is the number of rows before page p; one more entry than pages.
	rows []uint64
	// raw[p*columns+c] is the inflated offset at which page p begins in column c; one more line than pages.
	raw []uint64
	// stored[p*columns+c] is the offset in data of that page's bytes; one more entry.
	stored []uint64
	// multiples[p*columns+c] says how to make that column; nil if none of the section is made.
	multiples []factor
}

// factor says that a column is another times a number; times is 0 if it is not.
type factor struct {
	base  int
	times uint64
}

// Parse reads the directory of a section with so many columns of stacks and values, and after these the extra ones.
func Parse(data []byte, columns int, extras ...Extra) (*Section, error) {
	columns += len(extras)
	if len(data) < 4 {
		return nil, fmt.Errorf("%w: samples of %d bytes", column.ErrCorrupt, len(data))
	}
	end := len(data) - 4
	n := int64(binary.LittleEndian.Uint32(data[end:]))
	if n > int64(end) {
		return nil, fmt.Errorf("%w: a directory of %d bytes in samples of %d", column.ErrCorrupt, n, len(data))
	}
	start := end - int(n)
	c := column.Cursor{Data: data[start:end]}
	if got := c.Uvarint(); c.Err == nil && got != uint64(columns) {
		return nil, fmt.Errorf("%w: samples of %d columns, want %d", column.ErrCorrupt, got, columns)
	}
	// A page takes at least a byte of rows and two of lengths per column.
	pages := int(c.Below(len(c.Data)/(1+2*columns) + 1))
	if c.Err != nil {
		return nil, c.Err
	}
	s := &Section{data: data[:start], columns: columns, extras: extras}
	s.rows = make([]uint64, 1, pages+1)
	s.raw = make([]uint64, columns, (pages+1)*columns)
	s.stored = make([]uint64, 1, pages*columns+1)
	for p := range pages {
		if err := s.page(&c, p); err != nil {
			return nil, err
		}
	}
	if last := s.stored[len(s.stored)-1]; last != uint64(start) {
		return nil, fmt.Errorf("%w: pages of %d bytes, but %d are there", column.ErrCorrupt, last, start)
	}
	return s, c.End()
}

// page reads the directory's line of page p.
func (s *Section) page(c *column.Cursor, p int) error {
	rows := c.Uvarint()
	stored := s.stored[len(s.stored)-1]
	for i := range s.columns {
		raw, n := c.Uvarint(), c.Uvarint()
		if c.Err != nil {
			return c.Err
		}
		extra := i >= s.columns-len(s.extras)
		if n == 0 && raw > 0 && !extra {
			if err := s.multiple(c, p, i, raw); err != nil {
				return err
			}
		} else if err := column.CheckLengths(raw, n); err != nil {
			return err
		}
		if rows == 0 || rows > raw && !extra {
			return fmt.Errorf("%w: page %d has %d rows in %d bytes", column.ErrCorrupt, p, rows, raw)
		}
		stored += n
		if stored > uint64(len(s.data)) {
			return fmt.Errorf("%w: page %d ends at %d of %d", column.ErrCorrupt, p, stored, len(s.data))
		}
		s.stored = append(s.stored, stored)
		s.raw = append(s.raw, s.raw[p*s.columns+i]+raw)
	}
	s.rows = append(s.rows, s.rows[p]+rows)
	return nil
}

// multiple reads that column i of page p is a multiple of one that is stored.
func (s *Section) multiple(c *column.Cursor, p, i int, raw uint64) error {
	base, times := c.Below(i+1), c.Uvarint()
	if c.Err != nil {
		return c.Err
	}
	// A number of one byte or more becomes one of ten bytes or less.
	if b, isMade := int(base), s.factor(p, int(base)); b == 0 || b >= i || times == 0 || isMade.times != 0 ||
		raw > 10*(s.raw[(p+1)*s.columns+b]-s.raw[p*s.columns+b]) {
		return fmt.Errorf("%w: column %d of page %d is column %d times %d", column.ErrCorrupt, i, p, base, times)
	}
	if need := (p + 1) * s.columns; len(s.multiples) < need {
		s.multiples = append(s.multiples, make([]factor, need-len(s.multiples))...)
	}
	s.multiples[p*s.columns+i] = factor{int(base), times}
	return nil
}

func (s *Section) factor(p, c int) factor {
	if i := p*s.columns + c; i < len(s.multiples) {
		return s.multiples[i]
	}
	return factor{}
}

// Multiple tells whether column c of page p is not stored, but column base times a factor.
func (s *Section) Multiple(p, c int) (base int, times uint64, ok bool) {
	f := s.factor(p, c)
	return f.base, f.times, f.times != 0
}

// Multiply makes a column that is a multiple from the inflated bytes of its base; dst is as for column.Inflate.
func (s *Section) Multiply(p, c int, base, dst []byte) ([]byte, error) {
	from, to := s.Bounds(p, c)
	b, err := multiply(dst, base, s.factor(p, c).times, int(to-from))
	if err != nil {
		return nil, fmt.Errorf("page %d, column %d: %w", p, c, err)
	}
	return b, nil
}

// Columns returns the number of columns, the stack column and extra ones included.
func (s *Section) Columns() int { return s.columns }

// Extra returns the number of an extra column; false if the section has no such column.
func (s *Section) Extra(e Extra) (column int, ok bool) {
	i := slices.Index(s.extras, e)
	return s.columns - len(s.extras) + i, i >= 0
}

// Pages returns the number of pages.
func (s *Section) Pages() int { return len(s.rows) - 1 }

// Rows returns the number of rows.
func (s *Section) Rows() uint64 { return s.rows[len(s.rows)-1] }

// Find returns the page of the stack column that holds the inflated offset; Pages() if there is none.
func (s *Section) Find(offset uint64) int {
	return sort.Search(s.Pages(), func(p int) bool { return s.raw[(p+1)*s.columns] > offset })
}

// Bounds returns the inflated offsets at which page p begins and ends in column c.
func (s *Section) Bounds(p, c int) (from, to uint64) {
	return s.raw[p*s.columns+c], s.raw[(p+1)*s.columns+c]
}

// Page inflates column c of page p; dst and the result are as for column.Inflate.
func (s *Section) Page(p, c int, dst []byte) ([]byte, error) {
	if base, _, ok := s.Multiple(p, c); ok {
		b, err := s.Page(p, base, nil)
		if err != nil {
			return nil, err
		}
		return s.Multiply(p, c, b, dst)
	}
	i := p*s.columns + c
	b, err := column.Inflate(dst, s.data[s.stored[i]:s.stored[i+1]], int(s.raw[i+s.columns]-s.raw[i]))
	if err != nil {
		return nil, fmt.Errorf("page %d, column %d: %w", p, c, err)
	}
	return b, nil
}

// PageRows returns the number of rows of page p.
func (s *Section) PageRows(p int) int { return int(s.rows[p+1] - s.rows[p]) }

// Stored returns the bytes of column c of page p as they are stored.
func (s *Section) Stored(p, c int) []byte {
	i := p*s.columns + c
	return s.data[s.stored[i]:s.stored[i+1]]
}

// Plain tells whether column c of page p is stored as it is.
func (s *Section) Plain(p, c int) bool {
	i := p*s.columns + c
	return s.stored[i+1]-s.stored[i] == s.raw[i+s.columns]-s.raw[i]
}
