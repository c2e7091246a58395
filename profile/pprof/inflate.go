package pprof

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"

	"github.com/kilndb/kiln/internal/inflate"
)

const (
	// freeRatio is how far anything may inflate whatever the ratio: small profiles compress very well.
	freeRatio = 1 << 20
	// maxBytes bounds a profile when its Limits do not: spans are 32 bits wide.
	maxBytes = 1 << 30
	// maxDeflate is what deflate can do at best, which bounds what a trailer may promise.
	maxDeflate = 1032
)

// inflater undoes the gzip of a profile, in memory that it reuses: the fast decoder takes what nearly all clients send, and
// the general one, which takes twice as long, the rest.
type inflater struct {
	plain  inflate.Decoder
	source bytes.Reader
	gunzip gzip.Reader
}

// inflate writes the profile in body, gzipped or not, over dst. It stops as soon as the limits are passed.
func (f *inflater) inflate(dst, body []byte, lim Limits) ([]byte, error) {
	limit, byRatio := maxBytes, false
	if lim.MaxBytes > 0 {
		limit = min(limit, lim.MaxBytes)
	}
	if len(body) < 2 || body[0] != 0x1f || body[1] != 0x8b {
		if len(body) > limit {
			return dst[:0], &LimitError{"bytes", limit}
		}
		return append(dst[:0], body...), nil
	}
	if lim.MaxRatio > 0 {
		// Divide: the product may overflow.
		if len(body) < limit/lim.MaxRatio && freeRatio < limit {
			limit, byRatio = max(freeRatio, lim.MaxRatio*len(body)), true
		}
	}
	dst, err := f.plain.Gunzip(dst, body, limit)
	switch {
	case errors.Is(err, inflate.ErrUnusual):
		dst, err = f.general(dst, body, limit)
	case err != nil:
		return dst, malformed("gunzip: %w", err)
	}
	if byRatio && errors.Is(err, ErrTooLarge) {
		err = &LimitError{"bytes inflated per byte sent", lim.MaxRatio}
	}
	return dst, err
}

// general inflates gzip of any form.
func (f *inflater) general(dst, body []byte, limit int) ([]byte, error) {
	f.source.Reset(body)
	// Let go of the body: it belongs to the caller.
	defer f.source.Reset(nil)
	if err := f.gunzip.Reset(&f.source); err != nil {
		return dst[:0], malformed("gunzip: %w", notEOF(err))
	}
	// The trailer says how long the result is. It may lie, so it is a hint within bounds.
	promised := int(binary.LittleEndian.Uint32(body[len(body)-4:]))
	dst = grow(dst[:0], min(max(promised, 512), limit, len(body)*maxDeflate)+1)
	for {
		n, err := f.gunzip.Read(dst[len(dst):min(cap(dst), limit+1)])
		dst = dst[:len(dst)+n]
		switch {
		case len(dst) > limit:
			return dst, &LimitError{"bytes", limit}
		case errors.Is(err, io.EOF):
			return dst, nil
		case err != nil:
			return dst, malformed("gunzip: %w", notEOF(err))
		case len(dst) == cap(dst):
			dst = grow(dst, 2*cap(dst))
		}
	}
}

// grow returns dst with room for n bytes in all.
func grow(dst []byte, n int) []byte {
	if cap(dst) >= n {
		return dst
	}
	return append(make([]byte, 0, n), dst...)
}

// notEOF keeps an end in the middle from looking like a proper one.
func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
