// Package symbols is the byte form of names (a SYMBOLS section) and of stack trees (a TREES section).
//
// An Encoder turns profile.Symbols or a profile.StackTree with its profile.CallTree into the bytes of a
// section; DecodeSymbols and DecodeTrees do the reverse, straight into flat arrays, and check every reference. What
// they return can be indexed without further checks. docs/formats/block.md draws the columns.
package symbols
