package column

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// Builder collects the columns of one section. It is reused.
type Builder struct {
	level  Level
	dir    []byte
	frames []byte
	count  int
	err    error
	// like is another set, whose columns are taken as they are stored where they are equal.
	like    *Set
	inflate []byte
}

// Reset begins a new set.
func (b *Builder) Reset(level Level) {
	b.level, b.dir, b.frames, b.count, b.err, b.like = level, b.dir[:0], b.frames[:0], 0, nil, nil
}

// Bytes is the memory that the builder holds on to.
func (b *Builder) Bytes() int { return cap(b.dir) + cap(b.frames) + cap(b.inflate) }

// Like says that the columns to come may be equal to those of s, which was compressed at the same level. Inflating one to see
// costs a fraction of compressing it again.
func (b *Builder) Like(s Set) { b.like = &s }

// Add compresses raw as the next column and keeps no reference to it.
func (b *Builder) Add(raw []byte) {
	if len(raw) > MaxRaw {
		b.err = fmt.Errorf("column %d has %d bytes, limit %d", b.count, len(raw), MaxRaw)
		return
	}
	start := len(b.frames)
	if stored, ok := b.equal(raw); ok {
		b.frames = append(b.frames, stored...)
	} else {
		b.frames = Compress(b.frames, raw, b.level)
	}
	b.dir = binary.AppendUvarint(b.dir, uint64(len(raw)))
	b.dir = binary.AppendUvarint(b.dir, uint64(len(b.frames)-start))
	b.count++
}

// equal returns the stored form of the next column if the other set holds the same.
func (b *Builder) equal(raw []byte) ([]byte, bool) {
	s, i := b.like, b.count
	if s == nil || i >= len(s.raw) || s.raw[i] != len(raw) {
		return nil, false
	}
	got, err := s.Column(i, b.inflate)
	if err != nil {
		return nil, false // it will be noticed where it is read
	}
	if !s.Plain(i) {
		b.inflate = got
	}
	return s.stored(i), bytes.Equal(got, raw)
}

// Append appends the set to dst. It is an error if a column was larger than any reader accepts.
func (b *Builder) Append(dst []byte) ([]byte, error) {
	if b.count > math.MaxUint8 {
		panic(fmt.Sprintf("column: %d columns in a set", b.count))
	}
	b.like = nil
	dst = append(dst, byte(b.count))
	dst = append(dst, b.dir...)
	return append(dst, b.frames...), b.err
}

// Set is a set of columns as stored.
type Set struct {
	data []byte
	// raw lengths, and where the stored bytes end.
	raw, ends []int
}

// Parse reads the directory of a set that has that many columns and takes up all of data.
func Parse(data []byte, columns int) (Set, error) {
	c := Cursor{Data: data}
	if n := c.Byte(); c.Err == nil && int(n) != columns {
		return Set{}, fmt.Errorf("%w: %d columns, want %d", ErrCorrupt, n, columns)
	}
	lengths := make([]int, 2*columns)
	s := Set{raw: lengths[:columns:columns], ends: lengths[columns:]}
	end := uint64(0)
	for i := range columns {
		raw, stored := c.Uvarint(), c.Uvarint()
		if c.Err != nil {
			return Set{}, c.Err
		}
		if err := CheckLengths(raw, stored); err != nil {
			return Set{}, err
		}
		end += stored
		if end > uint64(len(data)) {
			return Set{}, fmt.Errorf("%w: columns of %d bytes in a section of %d", ErrCorrupt, end, len(data))
		}
		s.raw[i], s.ends[i] = int(raw), int(end)
	}
	s.data = data[c.Pos:]
	if int(end) != len(s.data) {
		return Set{}, fmt.Errorf("%w: columns of %d bytes, but %d are there", ErrCorrupt, end, len(s.data))
	}
	return s, c.Err
}

// Raw returns the inflated length of column i.
func (s *Set) Raw(i int) int { return s.raw[i] }

// Plain tells whether column i is stored as it is.
func (s *Set) Plain(i int) bool { return len(s.stored(i)) == s.raw[i] }

func (s *Set) stored(i int) []byte {
	start := 0
	if i > 0 {
		start = s.ends[i-1]
	}
	return s.data[start:s.ends[i]]
}

// Column returns column i inflated; dst and the result are as for Inflate.
func (s *Set) Column(i int, dst []byte) ([]byte, error) {
	return Inflate(dst, s.stored(i), s.raw[i])
}

// CheckCount tells whether column i can hold n items of at least one byte each: call it before making room
// for them.
func (s *Set) CheckCount(i int, n uint64) error {
	if n > uint64(s.raw[i]) {
		return fmt.Errorf("%w: %d items in a column of %d bytes", ErrCorrupt, n, s.raw[i])
	}
	return nil
}
