package profile

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
)

// SpanID names the span of a request that a sample was taken in; zero if none.
type SpanID [8]byte

// TraceID names the trace that a span belongs to; zero if none.
type TraceID [16]byte

// ParseSpanID reads the 16 hexadecimal digits of an id; false if it is something else, or all zeros.
func ParseSpanID(text string) (id SpanID, ok bool) {
	ok = parseID(id[:], []byte(text)) && id != SpanID{}
	return id, ok
}

// ParseTraceID reads the 32 hexadecimal digits of an id; false if it is something else, or all zeros.
func ParseTraceID(text string) (id TraceID, ok bool) {
	ok = parseID(id[:], []byte(text)) && id != TraceID{}
	return id, ok
}

// String returns the hexadecimal digits of the id, "" if it is none.
func (id SpanID) String() string {
	if id == (SpanID{}) {
		return ""
	}
	return hex.EncodeToString(id[:])
}

// String returns the hexadecimal digits of the id, "" if it is none.
func (id TraceID) String() string {
	if id == (TraceID{}) {
		return ""
	}
	return hex.EncodeToString(id[:])
}

// request is what the labels of a sample say about the request that it was taken in.
type request struct {
	span  SpanID
	trace TraceID
}

// read takes in a label if it is about the request, and tells whether it is, and whether its value is an id.
// profile_id is what clients called span_id once.
func (r *request) read(key, value []byte) (is, valid bool) {
	switch string(key) {
	case "span_id", "profile_id":
		var span SpanID
		if valid = parseID(span[:], value) && span != (SpanID{}); valid && (r.span == (SpanID{}) || len(key) == len("span_id")) {
			r.span = span
		}
		return true, valid
	case "trace_id":
		var trace TraceID
		if valid = parseID(trace[:], value) && trace != (TraceID{}); valid {
			r.trace = trace
		}
		return true, valid
	default:
		return false, false
	}
}

// parseID reads exactly as many hexadecimal digits as an id has.
func parseID(id, text []byte) bool {
	if len(text) != 2*len(id) {
		return false
	}
	_, err := hex.Decode(id, text)
	return err == nil
}

// requestOf returns what the columns say about sample i.
func (p *Profile) requestOf(i int) (r request) {
	if len(p.Spans) > 0 {
		r.span = p.Spans[i]
	}
	if len(p.Traces) > 0 {
		r.trace = p.Traces[i]
	}
	return r
}

// setRequest writes the columns of sample i. A column begins with the first sample that has something to say; those
// before it, of count in all, have not.
func (p *Profile) setRequest(i, count int, r request) {
	if len(p.Spans) == 0 && r.span != (SpanID{}) {
		p.Spans = cleared(p.Spans, count)
	}
	if len(p.Traces) == 0 && r.trace != (TraceID{}) {
		p.Traces = cleared(p.Traces, count)
	}
	if len(p.Spans) > 0 {
		p.Spans[i] = r.span
	}
	if len(p.Traces) > 0 {
		p.Traces[i] = r.trace
	}
}

// cutRequests leaves the columns of the first samples, and none that says nothing of them.
func (p *Profile) cutRequests(samples int) {
	p.Spans, p.Traces = cutIDs(p.Spans, samples), cutIDs(p.Traces, samples)
}

func cutIDs[ID comparable](ids []ID, samples int) []ID {
	var none ID
	ids = ids[:min(samples, len(ids))]
	if !slices.ContainsFunc(ids, func(id ID) bool { return id != none }) {
		return ids[:0]
	}
	return ids
}

// cleared returns n zeros in the memory of s.
func cleared[T any](s []T, n int) []T {
	s = slices.Grow(s[:0], n)[:n]
	clear(s)
	return s
}

func (r *request) hash(h uint64) uint64 {
	h = mix(h, binary.LittleEndian.Uint64(r.span[:]))
	h = mix(h, binary.LittleEndian.Uint64(r.trace[:]))
	return mix(h, binary.LittleEndian.Uint64(r.trace[8:]))
}
