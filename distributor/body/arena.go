package body

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
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
	// minRead is the least room of a buffer.
	minRead = 512
)

// Arena holds the bytes of one request, in buffers that are used again by the next: what its methods return must not be used
// after Release. Not safe for concurrent use.
type Arena struct {
	limits  tenant.Limits
	hold    func(bytes int) error
	buffers [][]byte // the first used are in use
	used    int
}

// holder is a body that counts what is made of it, and may find that there is too much.
type holder interface{ Hold(bytes int) error }

func uncounted(int) error { return nil }

var (
	arenas = sync.Pool{New: func() any { return new(Arena) }}
	gzips  = sync.Pool{New: func() any { return new(gzip.Reader) }}
)

// NewArena returns an arena for the request of a tenant with these limits.
func NewArena(r *http.Request, limits tenant.Limits) *Arena {
	a := arenas.Get().(*Arena)
	a.limits, a.hold = limits, uncounted
	if h, ok := r.Body.(holder); ok {
		a.hold = h.Hold
	}
	return a
}

// Release gives the memory back.
func (a *Arena) Release() {
	for i, buffer := range a.buffers[:a.used] {
		if cap(buffer) > maxKept {
			a.buffers[i] = nil
		}
	}
	a.used, a.hold = 0, nil
	arenas.Put(a)
}

// Read returns the body of r, inflated if its headers say that it is gzipped, and how many bytes came. An error has a status,
// or is a *connect.Error of the body.
func (a *Arena) Read(w http.ResponseWriter, r *http.Request) (body []byte, size int, err error) {
	// The names of codings are in any case, and x-gzip is an old one of gzip.
	coding := r.Header.Get("Content-Encoding")
	gzipped := strings.EqualFold(coding, "gzip") || strings.EqualFold(coding, "x-gzip")
	if !gzipped && coding != "" && !strings.EqualFold(coding, "identity") {
		return nil, 0, Errorf(http.StatusUnsupportedMediaType, "header Content-Encoding: %.40q is not supported, only gzip is", coding)
	}
	limit := int64(a.limits.MaxBody)
	if r.ContentLength > limit {
		return nil, 0, Errorf(http.StatusRequestEntityTooLarge, "the body has %d bytes, more than the limit of %d", r.ContentLength, limit)
	}
	// No more room at first than in a buffer that is kept anyway: a client may promise what it never sends. The body counts itself.
	room := int(min(max(r.ContentLength+1, minRead), maxKept))
	body, err = a.fill(http.MaxBytesReader(w, r.Body, limit), room, uncounted)
	if err != nil {
		return nil, 0, refusal(err, limit)
	}
	size = len(body)
	if gzipped {
		body, err = a.Inflate(body)
	}
	return body, size, err
}

// refusal is the error of a body that could not be read.
func refusal(err error, limit int64) error {
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return Errorf(http.StatusRequestEntityTooLarge, "the body exceeds the limit of %d bytes", limit)
	}
	if errors.Is(err, ErrLate) || errors.Is(err, os.ErrDeadlineExceeded) {
		return Errorf(http.StatusRequestTimeout, "read the body: %w", ErrLate)
	}
	if e := new(connect.Error); errors.As(err, &e) {
		return e
	}
	return Errorf(http.StatusRequestTimeout, "read the body: %w", errCut)
}

// Gzipped tells whether bytes begin like gzip.
func Gzipped(b []byte) bool { return len(b) > 2 && b[0] == 0x1f && b[1] == 0x8b }

// Inflate inflates gzipped bytes, at most to what the profiles of a request may take together.
func (a *Arena) Inflate(b []byte) ([]byte, error) { return a.InflateTo(a.limits.MaxRequestBytes, b) }

// InflateTo inflates gzipped bytes to no more than most.
func (a *Arena) InflateTo(most int, b []byte) ([]byte, error) {
	zr := gzips.Get().(*gzip.Reader)
	defer gzips.Put(zr)
	if err := zr.Reset(bytes.NewReader(b)); err != nil {
		return nil, Errorf(http.StatusBadRequest, "the body is not gzip: %w", err)
	}
	limit := min(most, max(freeRatio, len(b)*a.limits.MaxRatio))
	var inflated []byte
	var size int
	var err error
	if said := InflatedSize(b); said > limit {
		size, err = Measure(zr, limit)
	} else {
		inflated, err = a.fill(io.LimitReader(zr, int64(limit)+1), said+minRead, a.hold)
		size = len(inflated)
	}
	switch e := new(connect.Error); {
	case errors.As(err, &e):
		return nil, e
	case err != nil:
		return nil, Errorf(http.StatusBadRequest, "inflate the gzipped body: %w", err)
	case size > limit:
		return nil, Errorf(http.StatusRequestEntityTooLarge, "the body of %d gzipped bytes inflates beyond the limit of %d", len(b), limit)
	}
	return inflated, nil
}

// InflatedSize returns how large gzipped bytes say they are inflated. It may be a lie, but what is smaller than it says is no gzip.
func InflatedSize(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	return int(binary.LittleEndian.Uint32(b[len(b)-4:]))
}

// Measure finds out what is wrong with gzipped bytes that say that they are larger than limit: they are, or broken. It takes no
// memory for that.
func Measure(inflated io.Reader, limit int) (size int, err error) {
	n, err := io.Copy(io.Discard, io.LimitReader(inflated, int64(limit)+1))
	if err == nil && n <= int64(limit) {
		err = gzip.ErrChecksum
	}
	return int(n), err
}

// Copy returns all that from has, which the caller has bounded.
func (a *Arena) Copy(from io.Reader) ([]byte, error) { return a.fill(from, minRead, a.hold) }

// fill reads all that from has into the next buffer. Its memory is counted before it is there; that of a buffer which is used again,
// as far as it is used.
func (a *Arena) fill(from io.Reader, room int, count func(bytes int) error) (b []byte, err error) {
	number, counted := a.used, 0
	if a.used++; number == len(a.buffers) {
		a.buffers = append(a.buffers, nil)
	}
	defer func() { a.buffers[number] = b }()
	b = a.buffers[number][:0]
	for {
		if len(b) == cap(b) {
			room = max(room, 2*len(b))
			if err := count(room - counted); err != nil {
				return b, err
			}
			counted = room
			b = append(make([]byte, 0, room), b...)
		}
		n, readErr := from.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if more := len(b) - counted; more > 0 {
			if err := count(more); err != nil {
				return b, err
			}
			counted = len(b)
		}
		if errors.Is(readErr, io.EOF) {
			return b, nil
		}
		if readErr != nil {
			return b, readErr
		}
	}
}
