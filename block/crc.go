package block

import "math/bits"

// CRCs of pieces, read in any order, make that of the whole: the CRC of a followed by b is that of a moved on by the
// length of b, plus that of b. Moving on by n bits is multiplying by x^n, in polynomials over GF(2) modulo Castagnoli's,
// with the lowest power in the highest bit as crc32 has it.

const (
	// castagnoliReversed is the polynomial without x^32.
	castagnoliReversed = 0x82f63b78
	crcOne             = 1 << 31
)

// joinCRC returns the CRC of two pieces of bytes behind each other, given those of both and the length of the second.
func joinCRC(a, b uint32, length uint64) uint32 { return crcTimes(crcPower(length), a) ^ b }

// crcTimes multiplies two polynomials.
func crcTimes(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		if a&crcOne != 0 {
			product ^= b
		}
		b = b>>1 ^ castagnoliReversed&-(b&1)
	}
	return product
}

// crcPower returns x^(8n).
func crcPower(n uint64) uint32 {
	power := uint32(crcOne)
	square := uint32(crcOne >> 8) // x^8
	for range bits.Len64(n) {
		if n&1 != 0 {
			power = crcTimes(square, power)
		}
		square = crcTimes(square, square)
		n >>= 1
	}
	return power
}
