// Package export writes the tables of an object as ordinary Parquet files, with every name in place, for programs that
// know nothing of kiln.
//
// Object writes six files into a folder:
//
//	profiles.parquet    one row per profile and series: what, when, its labels, its totals
//	samples.parquet     one row per profile, stack and sample type whose value is not 0, with the stack's function names;
//	                    where a sample is known to be of a span or trace, one row for each of these
//	series.parquet      label sets
//	functions.parquet   locations.parquet   mappings.parquet      names, files, lines and addresses
//
// Rows are joined by the numbers in their first columns, which count through all tenants and services of the object:
// samples.profile is profiles.profile, samples.locations are locations.location, and so on. 0 is no mapping.
//
// Stacks are root first, as in folded text; inlined calls are frames of their own, and a location without names
// is 0x and its address. Pages are compressed with zstd. The columns are in rows.go.
//
// Sharp edges. The files appear when all of them are complete, in place of older ones of the same name. A stack is
// written with each of its samples: a large block becomes several times larger, but memory stays bounded by the
// names of one group and a few megabytes of rows.
package export
