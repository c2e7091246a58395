package inflate_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"testing"

	"github.com/kilndb/kiln/internal/inflate"
)

// limit is what tests allow an output to be.
const limit = 1 << 20

// reference says what the standard library makes of src.
func reference(src []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(src))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, limit+1))
}

// plain tells whether src is what a Decoder says it takes, given that it is good gzip of that content.
func plain(src, content []byte) bool {
	source := bytes.NewReader(src)
	r, err := gzip.NewReader(source)
	if err != nil {
		return false
	}
	r.Multistream(false)
	if _, err := io.Copy(io.Discard, io.LimitReader(r, limit+1)); err != nil {
		return false
	}
	return src[3] == 0 && len(content) <= limit && source.Len() == 0
}

// checker compares a Decoder, the same for all inputs, with the standard library.
type checker struct {
	inflate.Decoder
	memory []byte
}

// check fails unless both say the same of src; it returns our error.
func (c *checker) check(t testing.TB, src []byte) error {
	t.Helper()
	src = bytes.Clone(src)
	src = src[:len(src):len(src)] // so that reading on would panic
	want, wantErr := reference(src)
	got, err := c.Gunzip(c.memory, src, limit)
	if cap(got) > limit+4096 {
		t.Fatalf("%d bytes of memory for a limit of %d", cap(got), limit)
	}
	c.memory = got
	switch {
	case err == nil && wantErr != nil:
		t.Fatalf("accepted what the standard library refuses: %v", wantErr)
	case err == nil && !bytes.Equal(got, want):
		t.Fatalf("%d bytes differ from the standard library's %d", len(got), len(want))
	case errors.Is(err, inflate.ErrCorrupt) && wantErr == nil:
		t.Fatalf("the standard library accepts it: %v", err)
	case errors.Is(err, inflate.ErrUnusual) && wantErr == nil && plain(src, want):
		t.Fatalf("it is plain: %v", err)
	case err != nil && !errors.Is(err, inflate.ErrCorrupt) && !errors.Is(err, inflate.ErrUnusual):
		t.Fatalf("error of another kind: %v", err)
	}
	return err
}

// member wraps deflate as gzip. Where it is damaged the trailer is that of what can be read of it.
func member(deflated []byte) []byte {
	content, _ := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(deflated)), limit+1)) // damage is allowed
	out := append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, deflated...)
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(content))
	return binary.LittleEndian.AppendUint32(out, uint32(len(content)))
}

// stream writes deflate by hand, bit by bit.
type stream struct {
	bytes []byte
	used  int // bits of the last byte
}

// bits writes the lowest n bits of v, lowest first.
func (s *stream) bits(v, n int) *stream {
	for i := range n {
		if s.used%8 == 0 {
			s.bytes = append(s.bytes, 0)
			s.used = 0
		}
		s.bytes[len(s.bytes)-1] |= byte(v>>i&1) << s.used
		s.used++
	}
	return s
}

// code writes n bits of a code, highest first.
func (s *stream) code(v, n int) *stream {
	for i := n - 1; i >= 0; i-- {
		s.bits(v>>i, 1)
	}
	return s
}

// fixed writes a symbol of the fixed code.
func (s *stream) fixed(symbol int) *stream {
	switch {
	case symbol < 144:
		return s.code(0x30+symbol, 8)
	case symbol < 256:
		return s.code(0x190+symbol-144, 9)
	case symbol < 280:
		return s.code(symbol-256, 7)
	default:
		return s.code(0xc0+symbol-280, 8)
	}
}

// header begins the last block, of that type.
func header(kind int) *stream { return new(stream).bits(1, 1).bits(kind, 2) }

// dynamic begins the last block with codes of these lengths, which are sent without repetitions.
func dynamic(literals, distances []int) *stream {
	s := header(2).bits(len(literals)-257, 5).bits(len(distances)-1, 5).bits(19-4, 4)
	// Sixteen lengths have codes of four bits each, repetitions have none.
	for _, symbol := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} {
		if symbol < 16 {
			s.bits(4, 3)
		} else {
			s.bits(0, 3)
		}
	}
	for _, l := range append(append([]int{}, literals...), distances...) {
		s.code(l, 4)
	}
	return s
}

// lengths returns n code lengths of which these are not 0.
func lengths(n int, of map[int]int) []int {
	l := make([]int, n)
	for symbol, length := range of {
		l[symbol] = length
	}
	return l
}
