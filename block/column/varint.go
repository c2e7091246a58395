package column

import (
	"encoding/binary"
	"fmt"
)

// Cursor reads mixed items of an untrusted byte slice and remembers its first error.
type Cursor struct {
	Data []byte
	Pos  int
	Err  error
}

// Byte reads one byte, 0 after an error.
func (c *Cursor) Byte() byte {
	if c.Err != nil {
		return 0
	}
	if c.Pos >= len(c.Data) {
		c.Err = fmt.Errorf("%w: ends at byte %d", ErrCorrupt, c.Pos)
		return 0
	}
	c.Pos++
	return c.Data[c.Pos-1]
}

// Uvarint reads one uvarint, 0 after an error.
func (c *Cursor) Uvarint() uint64 {
	if c.Err != nil {
		return 0
	}
	v, n := binary.Uvarint(c.Data[c.Pos:])
	if n <= 0 {
		c.Err = fmt.Errorf("%w: no number at byte %d of %d", ErrCorrupt, c.Pos, len(c.Data))
		return 0
	}
	c.Pos += n
	return v
}

// Below reads one uvarint that must be less than limit.
func (c *Cursor) Below(limit int) uint32 {
	v := c.Uvarint()
	if c.Err == nil && v >= uint64(limit) {
		c.Err = fmt.Errorf("%w: reference %d of %d", ErrCorrupt, v, limit)
		return 0
	}
	return uint32(v)
}

// End reports an error if something is left.
func (c *Cursor) End() error {
	if c.Err == nil && c.Pos != len(c.Data) {
		c.Err = fmt.Errorf("%w: %d bytes too many", ErrCorrupt, len(c.Data)-c.Pos)
	}
	return c.Err
}

// Uint32s fills dst with the uvarints of src, of which each must be below limit and none may be left.
func Uint32s(dst []uint32, src []byte, limit uint64) error {
	if err := count(len(dst), src); err != nil {
		return err
	}
	pos := 0
	for i := range dst {
		if pos >= len(src) {
			return fmt.Errorf("%w: %d of %d numbers", ErrCorrupt, i, len(dst))
		}
		v := uint64(src[pos])
		pos++
		if v >= 0x80 {
			if pos < len(src) && src[pos] < 0x80 { // two bytes, as most that are not one
				v = v&0x7f | uint64(src[pos])<<7
				pos++
			} else {
				var n int
				if v, n = binary.Uvarint(src[pos-1:]); n <= 0 {
					return fmt.Errorf("%w: number %d is malformed", ErrCorrupt, i)
				}
				pos += n - 1
			}
		}
		if v >= limit {
			return fmt.Errorf("%w: number %d is %d, limit %d", ErrCorrupt, i, v, limit)
		}
		dst[i] = uint32(v)
	}
	return rest(len(src) - pos)
}

// Uint64s fills dst with the uvarints of src, of which none may be left.
func Uint64s(dst []uint64, src []byte) error {
	if err := count(len(dst), src); err != nil {
		return err
	}
	pos := 0
	for i := range dst {
		if pos < len(src) && src[pos] < 0x80 {
			dst[i] = uint64(src[pos])
			pos++
			continue
		}
		v, n := binary.Uvarint(src[pos:])
		if n <= 0 {
			return fmt.Errorf("%w: number %d of %d is missing or malformed", ErrCorrupt, i, len(dst))
		}
		pos += n
		dst[i] = v
	}
	return rest(len(src) - pos)
}

func count(n int, src []byte) error {
	if n > len(src) {
		return fmt.Errorf("%w: %d numbers in %d bytes", ErrCorrupt, n, len(src))
	}
	return nil
}

func rest(n int) error {
	if n != 0 {
		return fmt.Errorf("%w: %d bytes too many", ErrCorrupt, n)
	}
	return nil
}

// Zigzag maps small numbers of either sign to small numbers.
func Zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }

// Unzigzag is the inverse of Zigzag.
func Unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }
