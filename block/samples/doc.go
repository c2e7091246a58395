// Package samples is the byte form of the rows of one kind in one group (a SAMPLES section): a column of stack
// nodes and one column of values per sample type, as uvarints, in pages that inflate alone.
//
// Within a profile the stack nodes ascend and are stored as the distance to the one before, beginning anew at each
// profile: the bytes of one profile's rows, its run, mean the same wherever they are copied. A Writer takes
// profiles or runs and cuts pages of about 64k rows at profile borders, at the same rows in all columns. A
// Section finds and inflates pages.
//
// Behind the values stand extra columns (Extra), if any profile of the section has something to say there: the span and
// the trace that a row was taken in, and when its samples were seen.
package samples
