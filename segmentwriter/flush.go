package segmentwriter

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
)

// maxBackoff bounds the pause between two attempts.
const maxBackoff = 2 * time.Second

// outage is an error of the bucket or the index. Its text is fit for clients: the cause, which may name hosts and
// paths, is for the log.
type outage struct {
	what  string
	cause error
}

func (o *outage) Error() string { return o.what }
func (o *outage) Unwrap() error { return o.cause }

// flush makes a segment durable and answers all its pushes.
func (w *Writer) flush(shard uint32, seg *segment) {
	start := time.Now()
	ctx, cancel := context.WithDeadline(context.Background(), w.deadline())
	defer cancel()
	err := w.store(ctx, shard, seg)
	for _, p := range seg.parts {
		w.discard(p) // those that are left when encoding failed as a whole
		if p.err == nil {
			p.err = err
		}
		p.settle() // before anybody tries again
	}
	close(seg.done)
	w.metrics.flushSeconds.Observe(time.Since(start).Seconds())
}

// store makes a segment durable. Its error is that of all parts that have none of their own. A panic is a mistake of
// ours and fails the segment, not the process.
func (w *Writer) store(ctx context.Context, shard uint32, seg *segment) (err *connect.Error) {
	defer func() {
		if r := recover(); r != nil {
			w.log.Error("panic while a segment was flushed", "shard", shard, "panic", r, "stack", string(debug.Stack()))
			err = w.failed(seg, reasonEncode, connect.CodeInternal, "the segment could not be written", fmt.Errorf("panic: %v", r))
		}
	}()
	e := w.encoders.Get()
	err = w.storeWith(ctx, e, shard, seg)
	w.returnEncoder(e) // not after a panic
	return err
}

// storeWith encodes a segment, puts it and registers it.
func (w *Writer) storeWith(ctx context.Context, e *encoder, shard uint32, seg *segment) *connect.Error {
	meta, err := w.encode(e, shard, seg)
	if err != nil {
		return w.failed(seg, reasonEncode, connect.CodeInternal, "the segment could not be encoded", err)
	}
	if meta == nil {
		return nil // every part has an error of its own
	}
	size := int64(e.object.Len())
	w.bytes.Add(size)
	defer w.release(e, size)
	if err := w.put(ctx, block.Key(meta), e); err != nil {
		return w.failed(seg, reasonPut, connect.CodeUnavailable, "the object store does not take the segment", err)
	}
	dropped, err := w.register(ctx, meta)
	if err != nil {
		if connect.CodeOf(err) == connect.CodeOutOfRange {
			return w.failed(seg, reasonIndex, connect.CodeInvalidArgument, deletedMessage, err)
		}
		if !ambiguous(err) {
			return w.failed(seg, reasonIndex, connect.CodeInternal, "the index refuses the segment", err)
		}
		return w.failed(seg, reasonIndex, connect.CodeUnavailable, "the index does not confirm the segment", err)
	}
	w.failDropped(seg, shard, dropped)
	profiles := seg.unanswered()
	w.metrics.written(size, profiles)
	w.log.Debug("segment written", "id", meta.GetId(), "shard", shard, "bytes", size, "profiles", profiles)
	return nil
}

func (w *Writer) failed(seg *segment, reason string, code connect.Code, what string, cause error) *connect.Error {
	profiles := seg.unanswered()
	w.metrics.failed(reason, profiles)
	w.log.Error("segment failed", "reason", reason, "profiles", profiles, "error", cause)
	return connect.NewError(code, &outage{what, cause})
}

// encoder is what encoding a segment takes, reused by the next one.
type encoder struct {
	object bytes.Buffer
	writer *block.Writer // nil before the first segment
	// suspect is set when a put failed: something below may still be reading the object, whatever it promised, and
	// would send the bytes of the next one under this one's key.
	suspect bool
	// puts are those that read the object; of a hedged one some may still when the first has succeeded.
	puts   sync.WaitGroup
	hedged bool
}

// begin returns a writer for an empty object.
func (e *encoder) begin(h block.Header) *block.Writer {
	e.object.Reset()
	if e.writer == nil {
		e.writer = block.NewWriter(&e.object, h)
	} else {
		e.writer.Reset(&e.object, h)
	}
	return e.writer
}

// bytes is the memory that the encoder holds on to.
func (e *encoder) bytes() int {
	n := e.object.Cap()
	if e.writer != nil {
		n += e.writer.Bytes()
	}
	return n
}

// abort ends an object that will not be one. A writer that saw a panic is not used again.
func (e *encoder) abort() {
	e.writer.Abort()
	e.writer = nil
}

// returnEncoder keeps an encoder for the next segment, unless its object is larger than one should ever be, or suspect.
func (w *Writer) returnEncoder(e *encoder) {
	if e.object.Cap() <= w.cfg.MaxSegmentBytes && !e.suspect {
		w.encoders.Put(e, e.bytes())
	}
}

// encode writes the segment into e.object, without the parts that fail, and gives their heads back. It returns nil if
// no part is left.
func (w *Writer) encode(e *encoder, shard uint32, seg *segment) (*storagev1.BlockMeta, error) {
	id, err := newID()
	if err != nil {
		return nil, err
	}
	header := block.Header{ID: id.String(), Shard: shard, Writer: w.cfg.Node}
	parts := writable(seg.parts)
	for len(parts) > 0 {
		to := e.begin(header)
		bad, err := w.writeParts(parts, to)
		if err == nil {
			meta, err := to.Finish()
			if err != nil {
				return nil, err
			}
			for _, p := range parts {
				w.discard(p)
			}
			return meta, nil
		}
		// What was written of the part cannot be taken back: start over without it.
		e.abort()
		w.failPart(parts[bad], shard, err)
		parts = slices.Delete(parts, bad, bad+1)
	}
	return nil, nil
}

// newID returns the id of a segment, which is its key. Its time is for people and for the index; 80 random bits make sure that no two
// writers ever draw the same.
func newID() (ulid.ULID, error) {
	id, err := ulid.New(ulid.Now(), rand.Reader)
	if err != nil {
		return id, fmt.Errorf("draw an id: %w", err)
	}
	return id, nil
}

// writable returns the parts that have something to write, sorted by tenant.
func writable(all []*part) []*part {
	var parts []*part
	for _, p := range all {
		if p.err == nil && p.profiles > 0 {
			parts = append(parts, p)
		}
	}
	slices.SortFunc(parts, func(a, b *part) int { return strings.Compare(string(a.tenant), string(b.tenant)) })
	return parts
}

// failPart answers all pushes of a part with an error.
func (w *Writer) failPart(p *part, shard uint32, cause error) {
	w.metrics.failed(reasonEncode, p.profiles)
	w.log.Error("part of a segment failed", "tenant", p.tenant, "shard", shard, "profiles", p.profiles, "error", cause)
	p.err = connect.NewError(connect.CodeInternal, &outage{"the profiles of this moment could not be encoded", cause})
	w.drop(p)
}

// writeParts writes one group per part. If one fails, by an error or a panic, it says which.
func (w *Writer) writeParts(parts []*part, to *block.Writer) (bad int, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	for bad = range parts {
		if err := w.writePart(parts[bad], to); err != nil {
			return bad, err
		}
	}
	return 0, nil
}

// discard gives the head of a part back.
func (w *Writer) discard(p *part) {
	if p.head != nil {
		w.returnHead(p.head)
	}
	w.drop(p)
}

// drop forgets the head of a part: one that failed is in nobody knows what state.
func (w *Writer) drop(p *part) {
	w.bytes.Add(-int64(p.bytes))
	p.head, p.bytes = nil, 0
}

// deletedMessage is what clients are told of profiles as old as data that was deleted.
const deletedMessage = "profiles of that time were deleted, and no others are taken in their place"

// failDropped answers the pushes of the tenants whose datasets the index did not take. It does not know which of a
// tenant's pushes they came with; what else those brought is stored, as may be with any push that fails.
func (w *Writer) failDropped(seg *segment, shard uint32, dropped []*metastorev1.DroppedDataset) {
	for _, d := range dropped {
		for _, p := range seg.parts {
			if string(p.tenant) != d.GetTenant() || p.err != nil {
				continue
			}
			w.metrics.failed(reasonIndex, p.profiles)
			w.log.Warn("the index did not take a part of a segment", "tenant", p.tenant, "service", d.GetService(), "shard", shard, "segment", d.GetSegment())
			p.err = connect.NewError(connect.CodeInvalidArgument, errors.New(deletedMessage))
		}
	}
}

// register has the index commit the segment, and returns the datasets that it did not take. It is proposed again until
// the deadline while the outcome is not known.
func (w *Writer) register(ctx context.Context, meta *storagev1.BlockMeta) (dropped []*metastorev1.DroppedDataset, err error) {
	request := &metastorev1.AddSegmentsRequest{Segments: []*storagev1.BlockMeta{meta}}
	for attempt := 1; ; attempt++ {
		err := w.attempt(ctx, func(ctx context.Context) error {
			answer, err := w.index.AddSegments(ctx, connect.NewRequest(request))
			if err == nil {
				dropped = answer.Msg.GetDropped()
			}
			return err
		})
		if err == nil {
			return dropped, nil
		}
		if !ambiguous(err) || !w.pause(ctx, attempt) {
			return nil, fmt.Errorf("register segment %s, attempt %d: %w", meta.GetId(), attempt, err)
		}
		w.log.Warn("segment not registered, proposing it again", "id", meta.GetId(), "attempt", attempt, "error", err)
	}
}

// ambiguous tells whether an error of the index leaves open what became of a proposal, or is about to pass.
func ambiguous(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	switch connect.CodeOf(err) {
	case connect.CodeAborted, connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled,
		connect.CodeFailedPrecondition, // there is no leader, or not the one that was asked
		connect.CodeResourceExhausted, connect.CodeUnknown:
		return true
	}
	return false
}

// attempt calls fn with a deadline of its own.
func (w *Writer) attempt(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.AttemptTimeout)
	defer cancel()
	return fn(ctx)
}

// pause waits before the attempt that follows; false if there is no time for one.
func (w *Writer) pause(ctx context.Context, attempt int) bool {
	longest := min(w.cfg.Backoff<<min(attempt-1, 16), maxBackoff)
	timer := time.NewTimer(longest/2 + mathrand.N(longest/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
