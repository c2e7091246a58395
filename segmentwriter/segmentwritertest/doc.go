// Package segmentwritertest has what tests around a segment-writer need: an index that fails on
// command, a Writer over it and a bucket that does, small profiles written down as text, and a reader of everything that was stored.
package segmentwritertest
