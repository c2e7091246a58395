package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/gzip"

	"github.com/kilndb/kiln/tenant"
)

const (
	// maxKept is the largest buffer that waits for the next request: the few that are larger are not worth it.
	maxKept = 1 << 20
	// freeRatio is what a gzipped body may inflate to whatever the ratio.
	freeRatio = 1 << 20
)

// statusError is an error with the HTTP status that tells it.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

func statusErrorf(status int, format string, args ...any) error {
	return &statusError{status, fmt.Errorf(format, args...)}
}

// buffers holds the bytes of one request: as they came, inflated, the profile of a form, and that inflated. They are
// reused by the next.
type buffers struct {
	body, inflated, part, inflatedPart bytes.Buffer
	// hold counts memory that the request takes beside its body.
	hold func(n int) error
}

// uncounted holds what is too little to count.
func uncounted(int) error { return nil }

// holder is a body that counts what is made of it, and may find that there is too much.
type holder interface{ Hold(n int) error }

var bufferPool = sync.Pool{New: func() any { return new(buffers) }}

func getBuffers() *buffers { return bufferPool.Get().(*buffers) }

func (b *buffers) release() {
	for _, buf := range []*bytes.Buffer{&b.body, &b.inflated, &b.part, &b.inflatedPart} {
		if buf.Cap() > maxKept {
			*buf = bytes.Buffer{}
		}
		buf.Reset()
	}
	b.hold = nil
	bufferPool.Put(b)
}

// read returns the body of r, inflated where the request is gzipped as a whole. mayBeGzip says of a body that it may
// look like gzip and be left alone.
func (b *buffers) read(w http.ResponseWriter, r *http.Request, mayBeGzip bool, limits tenant.Limits) ([]byte, error) {
	b.hold = uncounted
	if h, ok := r.Body.(holder); ok {
		b.hold = h.Hold
	}
	limit := int64(limits.MaxBody)
	if r.ContentLength > limit {
		return nil, statusErrorf(http.StatusRequestEntityTooLarge, "the body has %d bytes, more than the limit of %d", r.ContentLength, limit)
	}
	// No more than one that is kept anyway: a client may promise what it never sends.
	b.body.Grow(int(min(max(r.ContentLength, 0), maxKept-bytes.MinRead)) + bytes.MinRead)
	if _, err := b.body.ReadFrom(http.MaxBytesReader(w, r.Body, limit)); err != nil {
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			return nil, statusErrorf(http.StatusRequestEntityTooLarge, "the body exceeds the limit of %d bytes", limit)
		}
		if full := new(connect.Error); errors.As(err, &full) {
			return nil, full
		}
		return nil, statusErrorf(http.StatusRequestTimeout, "read the body: %w", err)
	}
	body := b.body.Bytes()
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
		if !mayBeGzip && gzipped(body) {
			return inflate(&b.inflated, body, b.hold, limits)
		}
		return body, nil
	case "gzip":
		return inflate(&b.inflated, body, b.hold, limits)
	default:
		return nil, statusErrorf(http.StatusUnsupportedMediaType, "header Content-Encoding: %.40q is not supported, only gzip is", encoding)
	}
}

func gzipped(b []byte) bool { return len(b) > 2 && b[0] == 0x1f && b[1] == 0x8b }

var gzipPool = sync.Pool{New: func() any { return new(gzip.Reader) }}

// inflate inflates a body into to, which hold counts, at most to what the profiles of a request may take together.
func inflate(to *bytes.Buffer, body []byte, hold func(int) error, limits tenant.Limits) ([]byte, error) {
	zr := gzipPool.Get().(*gzip.Reader)
	defer gzipPool.Put(zr)
	if err := zr.Reset(bytes.NewReader(body)); err != nil {
		return nil, statusErrorf(http.StatusBadRequest, "the body is not gzip: %w", err)
	}
	limit := int64(min(limits.MaxRequestBytes, max(freeRatio, len(body)*limits.MaxRatio)))
	n, err := to.ReadFrom(&held{io.LimitReader(zr, limit+1), hold})
	if full := new(connect.Error); errors.As(err, &full) {
		return nil, full
	}
	if err != nil {
		return nil, statusErrorf(http.StatusBadRequest, "inflate the gzipped body: %w", err)
	}
	if n > limit {
		return nil, statusErrorf(http.StatusRequestEntityTooLarge, "the body of %d gzipped bytes inflates beyond the limit of %d", len(body), limit)
	}
	return to.Bytes(), nil
}

// held is a reader whose bytes are counted as memory.
type held struct {
	io.Reader
	hold func(n int) error
}

// Read implements io.Reader.
func (h *held) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if e := h.hold(n); e != nil {
		return 0, e
	}
	return n, err
}
