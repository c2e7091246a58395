package otlp

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
	// maxBuffer is the largest buffer that waits for the next request: the few that are larger are not worth it.
	maxBuffer = 1 << 20
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

// holder is a body that counts what is made of it, and may find that there is too much.
type holder interface{ Hold(n int) error }

// buffers holds the bytes of one request. Its fields are reused by the next.
type buffers struct {
	body, inflated bytes.Buffer
}

var (
	bufferPool = sync.Pool{New: func() any { return new(buffers) }}
	gzipPool   = sync.Pool{New: func() any { return new(gzip.Reader) }}
)

func getBuffers() *buffers { return bufferPool.Get().(*buffers) }

func (b *buffers) release() {
	for _, buf := range []*bytes.Buffer{&b.body, &b.inflated} {
		if buf.Cap() > maxBuffer {
			*buf = bytes.Buffer{}
		}
		buf.Reset()
	}
	bufferPool.Put(b)
}

// read returns the body of r, inflated, and its size as it came.
func (b *buffers) read(w http.ResponseWriter, r *http.Request, lim tenant.Limits) ([]byte, int, error) {
	limit := int64(lim.MaxBody)
	tooLarge := fmt.Errorf("%w: the body exceeds the limit of %d bytes", ErrTooLarge, limit)
	if r.ContentLength > limit {
		return nil, 0, tooLarge
	}
	// No more than a buffer that is kept anyway: a sender may promise what it never sends.
	b.body.Grow(int(min(max(r.ContentLength, 0), maxBuffer-bytes.MinRead)) + bytes.MinRead)
	if _, err := b.body.ReadFrom(http.MaxBytesReader(w, r.Body, limit)); err != nil {
		if e := new(http.MaxBytesError); errors.As(err, &e) {
			return nil, 0, tooLarge
		}
		if full := new(connect.Error); errors.As(err, &full) {
			return nil, 0, full
		}
		return nil, 0, &statusError{http.StatusRequestTimeout, fmt.Errorf("read the body: %w", err)}
	}
	body := b.body.Bytes()
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
		return body, len(body), nil
	case "gzip":
		inflated, err := b.inflate(body, lim)
		if counted, ok := r.Body.(holder); ok && err == nil {
			err = counted.Hold(len(inflated))
		}
		return inflated, len(body), err
	default:
		return nil, 0, &statusError{http.StatusUnsupportedMediaType, fmt.Errorf("header Content-Encoding: %.40q is not supported, only gzip is", encoding)}
	}
}

func (b *buffers) inflate(body []byte, lim tenant.Limits) ([]byte, error) {
	zr := gzipPool.Get().(*gzip.Reader)
	defer gzipPool.Put(zr)
	if err := zr.Reset(bytes.NewReader(body)); err != nil {
		return nil, fmt.Errorf("%w: the body is not gzip: %w", ErrMalformed, err)
	}
	limit := int64(min(lim.MaxRequestBytes, max(freeRatio, len(body)*lim.MaxRatio)))
	n, err := b.inflated.ReadFrom(io.LimitReader(zr, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%w: inflate the gzipped body: %w", ErrMalformed, err)
	}
	if n > limit {
		return nil, fmt.Errorf("%w: %d gzipped bytes inflate beyond the limit of %d", ErrTooLarge, len(body), limit)
	}
	return b.inflated.Bytes(), nil
}
