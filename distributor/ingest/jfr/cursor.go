package jfr

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// ErrMalformed is returned when the input is not a recording. The message says where and why.
var ErrMalformed = errors.New("malformed recording")

// cursor reads a chunk from front to back. After the first error it stands still and everything it reads is zero, so
// that callers need to look at err only where they loop.
type cursor struct {
	b   []byte
	i   int
	err error
}

func (c *cursor) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: byte %d of the chunk: %w", ErrMalformed, c.i, fmt.Errorf(format, args...))
		c.i = len(c.b)
	}
}

// left returns how many bytes there still are.
func (c *cursor) left() int { return len(c.b) - c.i }

// bytes returns the next n bytes, which must not be changed.
func (c *cursor) bytes(n uint64) []byte {
	if n > uint64(c.left()) {
		c.fail("%d bytes are missing", n-uint64(c.left()))
		return nil
	}
	c.i += int(n)
	return c.b[c.i-int(n) : c.i]
}

func (c *cursor) byte() byte {
	if c.i >= len(c.b) {
		c.fail("a byte is missing")
		return 0
	}
	c.i++
	return c.b[c.i-1]
}

// varint reads an integer of up to nine bytes, seven bits in each of the first eight, low bits first. Most have one.
func (c *cursor) varint() uint64 {
	if c.i < len(c.b) && c.b[c.i] < 0x80 {
		c.i++
		return uint64(c.b[c.i-1])
	}
	return c.longVarint()
}

func (c *cursor) longVarint() uint64 {
	v := uint64(0)
	for shift := 0; shift < 56; shift += 7 {
		b := c.byte()
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	return v | uint64(c.byte())<<56
}

// count reads how many things follow, each of which takes at least one byte.
func (c *cursor) count() int {
	n := c.varint()
	if n > uint64(c.left()) {
		c.fail("%d elements in %d bytes", n, c.left())
		return 0
	}
	return int(n)
}

// How a string is written.
const (
	stringNull     = 0
	stringEmpty    = 1
	stringConstant = 2 // a number in the pool of strings
	stringUTF8     = 3
	stringChars    = 4 // UTF-16 units as varints
	stringLatin1   = 5
)

// string reads a string. Those in the pool of strings come back empty: nothing that is looked at is there.
func (c *cursor) string() []byte {
	switch encoding := c.byte(); encoding {
	case stringNull, stringEmpty:
	case stringConstant:
		c.varint()
	case stringUTF8:
		return c.bytes(c.varint())
	case stringChars:
		var text []byte
		for range c.count() {
			text = utf8.AppendRune(text, rune(c.varint()))
		}
		return text
	case stringLatin1:
		var text []byte
		for _, b := range c.bytes(c.varint()) {
			text = utf8.AppendRune(text, rune(b))
		}
		return text
	default:
		c.fail("a string has the unknown encoding %d", encoding)
	}
	return nil
}

// skipString does what string does without making one.
func (c *cursor) skipString() {
	switch encoding := c.byte(); encoding {
	case stringNull, stringEmpty:
	case stringConstant:
		c.varint()
	case stringUTF8, stringLatin1:
		c.bytes(c.varint())
	case stringChars:
		for range c.count() {
			c.varint()
		}
	default:
		c.fail("a string has the unknown encoding %d", encoding)
	}
}
