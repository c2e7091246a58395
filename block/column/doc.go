// Package column turns columns of small integers and of bytes into zstd frames and back. It is what the
// sections of an object that kiln encodes itself are made of.
//
// A set of columns is a small directory followed by the frames:
//
//	u8 columns · per column: uvarint raw length · uvarint stored length · the stored bytes of every column
//
// A column whose stored length equals its raw length is kept as it is; every other is one zstd frame. Each
// column inflates alone.
//
// What is read is not trusted: every length is checked against the bytes that are there before anything is
// allocated or indexed, and the errors wrap ErrCorrupt.
package column
