package inflate

import "math/bits"

// Limits of deflate: RFC 1951, section 3.2.
const (
	maxCode      = 15
	endOfBlock   = 256
	maxLiterals  = 288 // two more than a dynamic block may have: the fixed code has them
	maxDistances = 32
	dynLiterals  = 286
	dynDistances = 30
	precodes     = 19
)

// Tables. A code is looked up by its first bits; longer ones lead to a second table, of which each has as many bits
// as the longest code needs. Sizes are rounded up to powers of two, so that a masked index needs no check.
const (
	precodeBits   = 7
	literalBits   = 11
	distanceBits  = 8
	literalTable  = 1 << 13 // 2048 + 143 × 16: two codes at least share a second table
	distanceTable = 1 << 12 // 256 + 16 × 128
)

// An entry of a table says what to do with the bits in front:
//
//	 0..5   bits to drop: code and extra bits
//	 8..15  literal
//	 8..11  length or distance: bits of the code     12..15  extra bits
//	16..30  length or distance without the extra bits
//	 8..11  second table: its bits                   16..28  its place
//	29      it is a literal
//	31      none of these: end of block if bit 30 is set as well, nothing if it stands alone (bits that are no
//	        code), else a second table
const (
	isLiteral = 1 << 29 // in a table of distances, 29 and 30 belong to the distance
	isEnd     = 1 << 30
	isSpecial = 1 << 31
	noCode    = isSpecial
)

// extraBits and bases of lengths 257..285 and distances 0..29.
var (
	lengthExtra = [...]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	lengthBase  = [...]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}

	distanceExtra = [...]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
	distanceBase  = [...]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}

	// precodeOrder is the order in which the lengths of the code of code lengths are sent.
	precodeOrder = [precodes]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
)

// literalEntry is the entry of a literal or length whose code has that many bits.
func literalEntry(symbol, code int) uint32 {
	switch {
	case symbol < endOfBlock:
		return isLiteral | uint32(symbol)<<8 | uint32(code)
	case symbol == endOfBlock:
		return isEnd | isSpecial | uint32(code)
	case symbol-257 < len(lengthBase):
		return withExtra(lengthBase[symbol-257], lengthExtra[symbol-257], code)
	default:
		return noCode // of the fixed code
	}
}

func distanceEntry(symbol, code int) uint32 {
	if symbol >= len(distanceBase) {
		return noCode // of the fixed code
	}
	return withExtra(distanceBase[symbol], distanceExtra[symbol], code)
}

func precodeEntry(symbol, code int) uint32 { return uint32(symbol)<<16 | uint32(code) }

func withExtra(base uint16, extra uint8, code int) uint32 {
	return uint32(base)<<16 | uint32(extra)<<12 | uint32(code)<<8 | uint32(code) + uint32(extra)
}

// build fills a table whose first part is looked up by width bits, for the code that the lengths of its symbols
// define. It tells whether that is a code: every sequence of bits means something, or there is one code alone, of
// one bit, or there is none.
func build(table []uint32, width int, lengths []uint8, entry func(symbol, code int) uint32) bool {
	var count [maxCode + 1]int
	for _, l := range lengths {
		count[l]++
	}
	longest := 0
	var next [maxCode + 2]int
	for l := 1; l <= maxCode; l++ {
		next[l+1] = (next[l] + count[l]) << 1
		if count[l] > 0 {
			longest = l
		}
	}
	if end := next[longest] + count[longest]; longest == 0 || end == 1 && longest == 1 {
		for i := range table[:1<<width] {
			table[i] = noCode
		}
	} else if end != 1<<longest {
		return false
	}
	// In the order of codes, those that are too long for the first table come last.
	used := 1 << width
	if longest > width {
		for prefix := next[width] + count[width]; prefix < 1<<width; prefix++ {
			table[reverse(prefix, width)] = isSpecial | uint32(used)<<16 | uint32(longest-width)<<8 | uint32(width)
			used += 1 << (longest - width)
		}
	}
	for symbol, l := range lengths {
		if l == 0 {
			continue
		}
		length := int(l)
		code := reverse(next[length], length)
		next[length]++
		part, size := table, width
		if length > width {
			// In the second table, by what is left of the code.
			part, size = table[table[code&(1<<width-1)]>>16&(1<<13-1):], longest-width
			code, length = code>>width, length-width
		}
		e := entry(symbol, length)
		for i := code; i < 1<<size; i += 1 << length {
			part[i] = e
		}
	}
	return true
}

// reverse returns a code as it stands in the input, where the first bit is the lowest.
func reverse(code, length int) int { return int(bits.Reverse16(uint16(code)) >> (16 - length)) }
