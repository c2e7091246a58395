package inflate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

var (
	// ErrUnusual is returned when the input is not one plain member that fits the limit. It may be good gzip.
	ErrUnusual = errors.New("not a plain gzip member")

	// ErrCorrupt is returned when the input is a gzip member that is damaged.
	ErrCorrupt = errors.New("corrupt gzip member")
)

const (
	headerSize  = 10
	trailerSize = 8
	// maxRatio is what deflate can do at best: 258 bytes for two bits, and a little for the bits that came before.
	maxRatio = 1032
	// slack is scratch behind the output: whether a symbol fits is found out once it is written. Between two looks there
	// are at most two literals and a copy of 258 bytes, rounded up to sixteens.
	slack = 320
)

// Decoder decompresses one input after the other. The zero value is ready for use; not safe for concurrent use.
type Decoder struct {
	src []byte
	out []byte
	// size is how long the output will be, if the trailer tells the truth.
	size int
	// end is where in src the trailer begins. While pos <= end there are eight bytes to read at pos.
	end int

	// pos is what has been read of src. Of that, the lowest n bits of bits have not been used. Bits above
	// those are what follows in src, or 0; n is negative when more was used than there is.
	pos  int
	bits uint64
	n    int
	// o is what has been written of out.
	o int

	lengths   [maxLiterals + maxDistances]uint8
	precode   [1 << precodeBits]uint32
	literals  [literalTable]uint32
	distances [distanceTable]uint32
}

// Gunzip decompresses src into the memory of dst, overwriting it, and returns the output. It is at most limit bytes long. The
// errors wrap ErrUnusual or ErrCorrupt; with them comes what was decompressed until then.
func (d *Decoder) Gunzip(dst, src []byte, limit int) ([]byte, error) {
	if len(src) < headerSize+trailerSize || src[0] != 0x1f || src[1] != 0x8b || src[2] != 8 || src[3] != 0 {
		return dst[:0], fmt.Errorf("%w: header", ErrUnusual)
	}
	d.end = len(src) - trailerSize
	sum, size := binary.LittleEndian.Uint32(src[d.end:]), int64(binary.LittleEndian.Uint32(src[d.end+4:]))
	if size > int64(limit) || size > maxRatio*int64(len(src)) {
		return dst[:0], fmt.Errorf("%w: the trailer says %d bytes", ErrUnusual, size)
	}
	d.size = int(size)
	if cap(dst) < d.size+slack {
		dst = make([]byte, d.size+slack)
	}
	d.src, d.out = src, dst[:d.size+slack:d.size+slack]
	defer func() { d.src, d.out = nil, nil }()
	d.pos, d.bits, d.n, d.o = headerSize, 0, 0, 0
	if err := d.blocks(); err != nil {
		return dst[:d.o], err
	}
	if at := d.pos - d.n>>3; at != d.end {
		return dst[:d.o], fmt.Errorf("%w: deflate ends at byte %d and the trailer begins at %d", ErrUnusual, at, d.end)
	}
	out := d.out[:d.size]
	if d.o != d.size {
		return dst[:d.o], fmt.Errorf("%w: %d bytes, and the trailer says %d", ErrCorrupt, d.o, d.size)
	}
	if got := crc32.ChecksumIEEE(out); got != sum {
		return dst[:d.o], fmt.Errorf("%w: checksum %08x, and the trailer says %08x", ErrCorrupt, got, sum)
	}
	return dst[:d.size], nil // with all its room, for the next
}

// blocks decodes all blocks.
func (d *Decoder) blocks() error {
	for last := false; !last; {
		d.refill()
		last = d.take(1) == 1
		var err error
		switch kind := d.take(2); kind {
		case 0:
			err = d.stored()
		case 1:
			d.fixed()
			err = d.symbols()
		case 2:
			if err = d.dynamic(); err == nil {
				err = d.symbols()
			}
		default:
			err = d.corrupt("block type 3")
		}
		if err == nil && d.n < 0 {
			err = d.cut()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// refill makes n at least 56, unless the trailer has been reached: then there are all bits that belong to deflate.
func (d *Decoder) refill() {
	if d.pos <= d.end {
		d.bits |= binary.LittleEndian.Uint64(d.src[d.pos:]) << (d.n & 63)
		d.pos += (63 - d.n) >> 3
		d.n |= 56
	}
}

// take returns the next bits; there is room for what a few calls after a refill take.
func (d *Decoder) take(bits int) int {
	v := d.bits & (1<<(bits&63) - 1)
	d.bits >>= bits & 63
	d.n -= bits
	return int(v)
}

// stored copies a block that is not compressed.
func (d *Decoder) stored() error {
	// To the next byte, and back to what was read ahead.
	at := d.pos - d.n>>3
	if d.n < 0 || at > d.end-4 {
		return d.cut()
	}
	length, inverse := binary.LittleEndian.Uint16(d.src[at:]), binary.LittleEndian.Uint16(d.src[at+2:])
	if length != ^inverse {
		return d.corrupt("length of a stored block")
	}
	at += 4
	if int(length) > d.end-at {
		return d.cut()
	}
	if int(length) > d.size-d.o {
		return d.long()
	}
	d.o += copy(d.out[d.o:], d.src[at:at+int(length)])
	d.pos, d.bits, d.n = at+int(length), 0, 0
	return nil
}

// corrupt says what is wrong, unless it was found behind the end of deflate, where anything may be.
func (d *Decoder) corrupt(what string) error {
	if at := d.pos - d.n>>3; at <= d.end {
		return fmt.Errorf("%w: %s before byte %d", ErrCorrupt, what, at)
	}
	return d.cut()
}

// cut says that deflate goes on where the trailer should begin.
func (d *Decoder) cut() error {
	return fmt.Errorf("%w: deflate goes on past byte %d", ErrUnusual, d.end)
}

// long says that the output is longer than the trailer says.
func (d *Decoder) long() error {
	return fmt.Errorf("%w: more than the %d bytes that the trailer says", ErrUnusual, d.size)
}
