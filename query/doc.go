// Package query is a question as data: how it is checked, cut into a plan, and how the partial answers to it
// are put together. It executes nothing.
//
// The messages are those of kiln.query.v1. Validate checks a Question. Plan cuts the entries that it touches
// into a tree of leaves, to be read, and inner nodes, to be merged. Every node answers with a Report, and a
// Merger makes one of many: in whatever order and grouping they come, the answer says the same.
// SeriesLabels and Bucket are the rules that everyone who reads rows for a question has to share.
//
// Messages are never changed once they were handed over, in either direction: conversions between them and
// the types of flamegraph share memory.
package query
