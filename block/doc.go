// Package block is the object format: one object, a segment or a block, as bytes.
//
//	"KILN" version u8
//	section section section ...
//	footer: protobuf kiln.storage.v1.BlockMeta
//	u32 footer length · u32 CRC-32C of the footer · version u8 · "KILN"          (little endian)
//
// A footer names groups, datasets and sections. A group is what datasets of one tenant share; each
// of its sections (SYMBOLS, SERIES, TREES, SAMPLES, ROLLUP, PROFILES) can be read, checked and decoded alone.
// docs/formats/block.md draws every byte.
//
// There are two sides. A Writer streams an object to an io.Writer, group by group, and Finish returns its
// BlockMeta. A Reader opens a BlockMeta over a Source, which is a bucket's object seen through two methods, and
// gives Datasets, their Rows, and from those symbols, trees, profiles and samples. Merge does both: it makes one
// sorted object of a tenant's datasets in many.
//
// Sharp edges. Whoever appends to a RowsWriter must look at its error: a refused profile is not in
// the object, and the object stays good for the others. What a Reader returns is shared and must not be changed.
// Bytes that are not as written give ErrCorrupt, which names object and section; nothing here panics on
// stored bytes, whatever they are.
package block
