// Package inflate decompresses gzip whose size is known: all of the input is in memory, the output is made in one
// piece, and nothing is kept but two tables. That is nearly twice as fast as a reader that must be able to stop
// after every byte.
//
// There is one type, Decoder. It takes the plain case, one member without optional header fields, which is what
// compressors write when they compress a message:
//
//	1f 8b 08 00 · time u32 · 2 bytes   header
//	deflate (RFC 1951)
//	CRC-32 u32 · size u32              trailer
//
// The output is made as large as the trailer says, after that number has been compared with the caller's limit and
// with what deflate can do at best, so it never grows, and a bomb costs what the limit allows. Both numbers of the trailer
// are verified.
//
// # Sharp edges
//
// What is not plain is refused with ErrUnusual: it may well be good gzip, and a general reader can tell. ErrCorrupt is
// final. Codes are checked as strictly as compress/flate does, neither more nor less.
//
// The output has some bytes of scratch behind its end, up to its capacity.
package inflate
