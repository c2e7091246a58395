// Package head gathers the profiles of one tenant for a segment.
//
// There is one type, Head. Append interns a profile: each distinct name, location and stack is kept once, and what is
// left of a profile is rows of numbers in flat columns, one set of columns per service and kind. Write sorts the rows
// and hands everything to a block.Writer as one group. Reset empties a head and keeps its memory, which is most of
// what makes ingesting cheap; heads are meant to be pooled.
//
// # Sharp edges
//
// A Head is not safe for concurrent use.
//
// A profile whose samples carry labels becomes one row per label set. Where two of its label sets lead to the same
// series (a label that the profile was sent with wins over one of a sample), they become one row: rows with the same
// series, time and id are copies of each other everywhere else, and all but one would be dropped.
//
// Samples of a row that differ in their span or trace stay apart. Where a profile says of its samples when they were
// seen, a sample keeps the times of all that it is the sum of.
//
// Bytes is the memory that a head holds on to, Size what it uses of it. The first bounds memory, the second decides
// when a segment is large enough.
package head
