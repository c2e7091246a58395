// Package rollup is the byte form of sums per stack node (a ROLLUP section): runs as in package samples, one for
// each bucket of time and series, and an index that says whose sums each run is.
//
//	uvarint length of the index | index | SAMPLES form
//	index: uvarint runs | set of columns: bucket, series, rows, bytes of the run in each column
package rollup
