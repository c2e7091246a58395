// Package inspecttest makes objects out of profiles for tests: segments as a segment-writer would write them, in the
// simplest way there is, and blocks out of segments.
package inspecttest
