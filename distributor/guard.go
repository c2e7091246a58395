package distributor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/gzip"
	"google.golang.org/protobuf/proto"

	"github.com/kilndb/kiln/distributor/body"
	"github.com/kilndb/kiln/tenant"
)

// Guard bounds what the bodies of requests cost before anything in them has been looked at: each by the limit of its
// tenant, all of a tenant and all of everybody by memory. Every handler that takes profiles stands behind it. The tenant
// comes with the context of the request. Where the distributor is overloaded, the body is not even read. The handler
// counts the bodies that are too large for it.
func (d *Distributor) Guard(next http.Handler) http.Handler { return d.guard(next, false) }

// guard is Guard; handlers of calls do not hear of messages that could not be read.
func (d *Distributor) guard(next http.Handler, calls bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, ok := tenant.FromContext(r.Context())
		if !ok {
			next.ServeHTTP(w, r) // which refuses it
			return
		}
		b := &counted{ReadCloser: r.Body, limit: int64(d.cfg.Limits(id).MaxBody), held: hold{memory: d.memory, tenant: id}}
		defer b.held.release()
		if d.queue.full(id) { // it would be read for nothing
			b.reason, b.err = reasonOverload, answerTo(errOverload())
		}
		guarded := r.WithContext(context.WithValue(r.Context(), bodyKey{}, b))
		guarded.Body = b
		next.ServeHTTP(w, guarded)
		if b.err != nil && (calls || b.reason != reasonBody) {
			d.metrics.discard(b.reason, 1) // nobody knows how many there were
		}
	})
}

// RPC returns the handler of a service behind Guard. Build makes it with more options: messages are inflated here, so
// that a bomb ends at the limit of its tenant, and counted before they are unmarshalled.
func (d *Distributor) RPC(build func(...connect.HandlerOption) (path string, handler http.Handler)) (string, http.Handler) {
	path, _ := build()
	handlers := &handlersBySize{build: func(most messageSize) http.Handler {
		_, h := build(
			codecs(most.elements, func() { d.metrics.discard(reasonRequestSeries, 1) }),
			connect.WithCompression("gzip",
				func() connect.Decompressor { return &gunzip{most: most, memory: d.memory} },
				func() connect.Compressor { return gzip.NewWriter(io.Discard) }),
			connect.WithInterceptors(connect.UnaryInterceptorFunc(holdMessage)))
		return h
	}}
	return path, d.guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _ := tenant.FromContext(r.Context())
		limits := d.cfg.Limits(id)
		handlers.get(messageSize{limits.MaxBody, limits.MaxRatio, elements(limits)}).ServeHTTP(w, r)
	}), true)
}

// handlersBySize keeps a handler for every limit there is: the few that the limits file names.
type handlersBySize struct {
	build func(messageSize) http.Handler
	all   sync.Map // of http.Handler by messageSize
}

// messageSize bounds the message of a call.
type messageSize struct{ bytes, ratio, elements int }

// freeRatio is what a gzipped message may inflate to whatever the ratio.
const freeRatio = 1 << 20

func (s *handlersBySize) get(most messageSize) http.Handler {
	if h, ok := s.all.Load(most); ok {
		return h.(http.Handler)
	}
	h, _ := s.all.LoadOrStore(most, s.build(most))
	return h.(http.Handler)
}

// counted is the body of a request, which ends at its limits. Not safe for concurrent use.
type counted struct {
	io.ReadCloser
	limit int64
	read  int64
	held  hold

	err    error // why it ended
	reason string
}

type bodyKey struct{}

// Read implements io.Reader.
func (b *counted) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if left := b.limit - b.read + 1; int64(len(p)) > left {
		p = p[:left]
	}
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if b.read > b.limit {
		b.reason = reasonBody
		b.err = connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("the body is larger than the limit of %d bytes: %w", b.limit, &http.MaxBytesError{Limit: b.limit}))
		return 0, b.err
	}
	if e := b.Hold(n); e != nil {
		return 0, e
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = connect.NewError(connect.CodeDeadlineExceeded, fmt.Errorf("read the body: %w", body.ErrLate))
	}
	return n, err
}

// Hold counts n bytes that were made of the body and are kept until the request is answered, such as what it inflated
// to. There may be no room for them.
func (b *counted) Hold(n int) error {
	if b.err == nil && !b.held.grow(int64(n)) {
		b.reason = reasonMemory
		b.err = answerTo(errMemory())
	}
	return b.err
}

// holdMessage counts the message of a call for as long as it is served.
func holdMessage(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		b, guarded := ctx.Value(bodyKey{}).(*counted)
		if msg, ok := req.Any().(proto.Message); ok && guarded {
			if err := b.Hold(proto.Size(msg)); err != nil {
				return nil, err
			}
		}
		return next(ctx, req)
	}
}

// gunzip inflates the message of a call. What it has made is counted until the call has the message and counts that.
type gunzip struct {
	gzip.Reader
	most   messageSize
	memory *memory

	limit int
	said  int // how much there will be
	made  int
	held  hold
}

// Reset implements connect.Decompressor.
func (g *gunzip) Reset(src io.Reader) error {
	g.limit, g.said, g.made, g.held = g.most.bytes, 0, 0, hold{memory: g.memory}
	if zipped, ok := src.(*bytes.Buffer); ok {
		g.said = body.InflatedSize(zipped.Bytes())
		if zipped.Len() < g.limit/g.most.ratio {
			g.limit = min(g.limit, max(freeRatio, zipped.Len()*g.most.ratio))
		}
	}
	return g.Reader.Reset(src)
}

// Read implements connect.Decompressor.
func (g *gunzip) Read(p []byte) (int, error) {
	n, err := 0, error(nil)
	if g.said > g.limit {
		g.made, err = body.Measure(&g.Reader, g.limit)
	} else {
		n, err = g.Reader.Read(p)
		g.made += n
	}
	switch {
	case g.made > g.limit:
		return 0, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("the message is larger than the limit of %d bytes once inflated (at most %d, and %d times what was sent)", g.limit, g.most.bytes, g.most.ratio))
	case !g.held.grow(2 * int64(n)): // it is read into a buffer that grows by doubling
		return 0, answerTo(errMemory())
	case err != nil && !errors.Is(err, io.EOF):
		return n, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("inflate the message: %w", err))
	}
	return n, err
}

// Close implements connect.Decompressor.
func (g *gunzip) Close() error {
	g.held.release()
	return g.Reader.Close()
}
