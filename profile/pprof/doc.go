// Package pprof reads and writes profiles in the wire form that programs send: protobuf
// (perftools.profiles.Profile), usually gzipped.
//
// A Decoder fills a profile.Profile: one pass over the bytes into flat arrays, then one over the
// arrays to check every reference, so that the order of fields does not matter and nothing later needs to
// check again. Append writes a Profile as it stands; AppendStacks writes sums over a stack tree, the
// answer to a query.
//
// Input is hostile. A Decoder refuses what is not a profile (ErrMalformed) and what is larger than
// its Limits (ErrTooLarge), and never panics. It is stricter than google/pprof in a few points: a reference
// to a mapping or function that does not exist is an error, strings must be UTF-8, and there must be a
// sample type.
//
// Comments, drop_frames, keep_frames, default_sample_type and doc_url are skipped: kiln has no use for them.
package pprof
