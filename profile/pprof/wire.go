package pprof

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Wire types of protobuf.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// Tags as they stand in the input: field number and wire type. Those of all our fields take one byte.
const (
	varint1, varint2, varint3, varint4, varint5  = 1<<3 | wireVarint, 2<<3 | wireVarint, 3<<3 | wireVarint, 4<<3 | wireVarint, 5<<3 | wireVarint
	varint6, varint7, varint8, varint9, varint10 = 6<<3 | wireVarint, 7<<3 | wireVarint, 8<<3 | wireVarint, 9<<3 | wireVarint, 10<<3 | wireVarint
	varint12, varint13, varint14, varint15       = 12<<3 | wireVarint, 13<<3 | wireVarint, 14<<3 | wireVarint, 15<<3 | wireVarint
	bytes1, bytes2, bytes3, bytes4, bytes5       = 1<<3 | wireBytes, 2<<3 | wireBytes, 3<<3 | wireBytes, 4<<3 | wireBytes, 5<<3 | wireBytes
	bytes6, bytes11, bytes13                     = 6<<3 | wireBytes, 11<<3 | wireBytes, 13<<3 | wireBytes

	// maxTag is the largest tag that protobuf has: field numbers are of 29 bits.
	maxTag = 1<<32 - 1
)

// bad is the position after something that is cut off.
const bad = -1

// next reads the field at b[i], which must exist. It returns its tag, its value and the position after
// it; the value of a length-delimited field is its length, so that its bytes are b[n-v:n]. Of any other wire
// type, or if the tag is longer than those that we know, only the tag is read: pass it on to skip. n is bad
// and the tag 0 if the field is cut off.
func next(b []byte, i int) (tag byte, v uint64, n int) {
	tag = b[i]
	n = i + 1
	if tag >= 0x80 || tag&5 != 0 {
		return tag, 0, n
	}
	if n < len(b) && b[n] < 0x80 {
		v = uint64(b[n])
		n++
	} else if v, n = varint(b, n); n < 0 {
		return 0, 0, bad
	}
	if tag&7 == wireBytes {
		if v > uint64(len(b)-n) {
			return 0, 0, bad
		}
		n += int(v)
	}
	return tag, v, n
}

// small does what next does for varint fields whose value takes one or two bytes, and says so; it is inlined.
func small(b []byte, i int) (tag byte, v uint64, n int, ok bool) {
	if i+2 < len(b) {
		// Without a branch: whether there is a second byte cannot be guessed.
		more := uint64(b[i+1] >> 7)
		tag, v, n = b[i], uint64(b[i+1]&0x7f)|uint64(b[i+2])&-more<<7, i+2+int(more)
		ok = tag&(0x80|7) == wireVarint && v < 1<<14
	}
	return
}

// varint reads a varint at b[i] and returns the position after it, or bad.
func varint(b []byte, i int) (uint64, int) {
	// Addresses in a program of less than 256 MiB take four bytes, numbers of names two.
	if b := b[i:]; len(b) >= 4 {
		v := uint64(b[0]&0x7f) | uint64(b[1]&0x7f)<<7
		if b[0] >= 0x80 && b[1] < 0x80 {
			return v, i + 2
		}
		if v |= uint64(b[2]&0x7f) << 14; b[0]&b[1] >= 0x80 && b[2] < 0x80 {
			return v, i + 3
		}
		if v |= uint64(b[3]&0x7f) << 21; b[0]&b[1]&b[2] >= 0x80 && b[3] < 0x80 {
			return v, i + 4
		}
	}
	v, n := binary.Uvarint(b[i:])
	if n <= 0 {
		return 0, bad
	}
	return v, i + n
}

// skip passes over a field that we do not know: it begins at b[i], n is what next said. It returns bad if the
// field is cut off. known is the highest number of the message's fields that we do know: those come here only if they
// have a wrong wire type, or a tag of more bytes than it needs, which nobody writes.
func skip(b []byte, i, n, known int) (int, error) {
	if n < 0 {
		return bad, nil
	}
	tag, i := varint(b, i)
	if i < 0 {
		return bad, nil
	}
	number := tag >> 3
	if number == 0 || tag > maxTag {
		return i, fmt.Errorf("field number %d is not valid", number)
	}
	if number <= uint64(known) {
		return i, fmt.Errorf("field %d may not have the wire type %d", number, tag&7)
	}
	switch tag & 7 {
	case wireVarint:
		_, i = varint(b, i)
	case wireFixed64:
		i = advance(b, i, 8)
	case wireBytes:
		var v uint64
		if v, i = varint(b, i); i >= 0 {
			i = advance(b, i, v)
		}
	case wireFixed32:
		i = advance(b, i, 4)
	default:
		return i, fmt.Errorf("field %d has the wire type %d, which profiles do not have", number, tag&7)
	}
	return i, nil
}

func advance(b []byte, i int, n uint64) int {
	if n > uint64(len(b)-i) {
		return bad
	}
	return i + int(n)
}

// Writing. The numbers of all our fields are below 16, so a tag is one byte. A field whose value is 0 is
// left out, as proto3 does.

func appendVarint(dst []byte, field int, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return appendUvarint(append(dst, byte(field<<3|wireVarint)), v)
}

func appendUvarint(dst []byte, v uint64) []byte { return binary.AppendUvarint(dst, v) }

func appendBool(dst []byte, field int, v bool) []byte {
	if !v {
		return dst
	}
	return appendVarint(dst, field, 1)
}

// appendBytes writes the field even if it is empty: it is one of a list.
func appendBytes(dst []byte, field int, b []byte) []byte {
	dst = append(dst, byte(field<<3|wireBytes))
	dst = appendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

// open begins a nested message; what follows is its content until shut is called with the same mark.
func open(dst []byte, field int) (out []byte, mark int) {
	dst = append(dst, byte(field<<3|wireBytes))
	// Room for a length of one byte, which nearly all have.
	dst = append(dst, 0)
	return dst, len(dst)
}

// shut ends a nested message: it writes the length and, if that needs more than a byte, makes room.
func shut(dst []byte, mark int) []byte {
	n := len(dst) - mark
	if n < 0x80 {
		dst[mark-1] = byte(n)
		return dst
	}
	var length [binary.MaxVarintLen64]byte
	w := binary.PutUvarint(length[:], uint64(n))
	return slices.Replace(dst, mark-1, mark, length[:w]...)
}
