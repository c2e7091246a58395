package segmentwriter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/internal/spare"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/segmentwriter/delta"
	"github.com/kilndb/kiln/segmentwriter/head"
	"github.com/kilndb/kiln/tenant"
)

// Bucket is where segments go. A put must be atomic, durable when it returns nil, and the same when repeated.
type Bucket interface {
	Put(ctx context.Context, key string, data []byte) error
}

// Index registers segments. Registering the same id again must do nothing.
type Index interface {
	AddSegments(context.Context, *connect.Request[metastorev1.AddSegmentsRequest]) (*connect.Response[metastorev1.AddSegmentsResponse], error)
}

// keepHeads and keepEncoders are how many bytes of heads and encoders that nobody uses stay for the next segment, however long it
// takes to come: those of a few moments with few pushes.
const (
	keepHeads    = 8 << 20
	keepEncoders = 8 << 20
)

// Writer gathers profiles and writes segments. It is safe for concurrent use.
type Writer struct {
	cfg     Config
	bucket  Bucket
	index   Index
	log     *slog.Logger
	metrics *metrics
	deltas  *delta.Tracker

	heads    spare.Pool[*head.Head] // empty ones
	encoders spare.Pool[*encoder]
	// writePart writes one part of a segment; a test may put a worse one in its place.
	writePart func(*part, *block.Writer) error
	puts      *budget
	// pace, hedges and retries say when a put is made again.
	pace            pace
	hedges, retries credit

	// bytes is the memory of everything gathered and in flight.
	bytes   atomic.Int64
	flights sync.WaitGroup

	mu     sync.Mutex // guards what follows
	shards map[uint32]*shard
	// stopBy is when the last flight must end; zero before the writer is drained.
	stopBy time.Time
	closed bool
}

// New returns a writer, which works from now on and until Run ends.
func New(cfg Config, bucket Bucket, index Index, log *slog.Logger, reg prometheus.Registerer) (*Writer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	deltas, err := delta.New(cfg.Deltas, reg)
	if err != nil {
		return nil, err
	}
	w := &Writer{cfg: cfg, bucket: bucket, index: index, log: log, deltas: deltas, shards: map[uint32]*shard{}, puts: newBudget(cfg.PutsPerSecond)}
	w.hedges, w.retries = credit{most: hedgeCredit, left: 1}, credit{most: retryCredit, left: retryCredit}
	w.metrics = newMetrics(reg, func() float64 { return float64(w.bytes.Load()) })
	w.heads.New, w.heads.Keep = head.New, keepHeads
	w.encoders.New, w.encoders.Keep = func() *encoder { return new(encoder) }, keepEncoders
	w.writePart = func(p *part, to *block.Writer) error { return p.head.Write(string(p.tenant), to) }
	return w, nil
}

// Append takes a profile of tenant t for a shard. p must be decoded, validated and normalised, with its time set;
// series is what it was sent with, sorted, __name__ and service_name among it. If it says that p is cumulative, p is
// changed to what happened since the profile before it. When Append returns, p may be reused.
//
// wait blocks until the profile is durable, which it is if and only if wait returns nil, or until its context ends.
// All errors are *connect.Error: ResourceExhausted, InvalidArgument and those with the header Refused mean that nothing was
// stored, others that it is not known. A profile without samples is durable at once.
func (w *Writer) Append(ctx context.Context, t tenant.ID, shard uint32, series labels.Labels, id profile.ID, p *profile.Profile) (wait func(context.Context) error, err error) {
	if err := ctx.Err(); err != nil {
		return nil, contextError(err)
	}
	if len(p.Series) == 0 {
		return func(context.Context) error { return nil }, nil
	}
	if held := w.bytes.Load(); held >= w.cfg.MaxBytes {
		return nil, w.refuse(connect.CodeResourceExhausted, reasonMemory, "the segment writer holds %d bytes, its limit is %d", held, w.cfg.MaxBytes)
	}
	s, err := w.shard(shard)
	if err != nil {
		return nil, err
	}
	change, err := w.deltas.Take(t, series, id, p, time.Now())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if len(p.Series) == 0 { // nothing happened
		change.Settle(true)
		return func(context.Context) error { return nil }, nil
	}
	part, err := s.append(t, series, id, p, change)
	if err != nil {
		change.Settle(false)
		return nil, err
	}
	return part.wait, nil
}

// shard returns the shard of that id, made if need be.
func (w *Writer) shard(id uint32) (*shard, error) {
	if id >= w.cfg.MaxShards {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("shard %d is not below %d", id, w.cfg.MaxShards))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, w.refuseStopping()
	}
	s := w.shards[id]
	if s == nil {
		s = &shard{id: id, writer: w, hurried: !w.stopBy.IsZero(), cadence: cadence{linger: w.cfg.Linger, budget: w.puts}}
		w.shards[id] = s
	}
	return s, nil
}

// Drain ends all lingering: what is gathered is flushed at once, and so is what still comes. All of it has its answer when the
// stop timeout is over. It is for the time in which the doors close, so that nobody inside is kept waiting; Run must end next.
func (w *Writer) Drain() {
	w.mu.Lock()
	if w.stopBy.IsZero() {
		w.stopBy = time.Now().Add(w.cfg.StopTimeout)
	}
	shards := maps.Clone(w.shards)
	w.mu.Unlock()
	for _, s := range shards {
		s.hurry()
	}
}

// Run returns when ctx has ended and everything that was appended is answered: no new profiles are taken then, what
// was gathered is flushed, and what cannot be within the stop timeout, which began with Drain if that was called, fails.
func (w *Writer) Run(ctx context.Context) error {
	<-ctx.Done()
	w.Drain()
	w.mu.Lock()
	w.closed = true
	shards := w.shards
	w.mu.Unlock() // no shard is added from here on
	for _, s := range shards {
		s.close()
	}
	w.flights.Wait()
	return nil
}

// deadline returns when a flight that starts now must end.
func (w *Writer) deadline() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := time.Now().Add(w.cfg.FlushTimeout)
	if !w.stopBy.IsZero() && w.stopBy.Before(d) {
		return w.stopBy
	}
	return d
}

// borrowHead returns an empty head; returnHead takes it back.
func (w *Writer) borrowHead() *head.Head { return w.heads.Get() }

// returnHead empties a head for the next segment. One that is far larger than its last use needed is left to the
// garbage collector: it may have served one large push, and would be cleared for every small one.
func (w *Writer) returnHead(h *head.Head) {
	const small, much = 1 << 20, 8
	if held := h.Bytes(); held > small && held > much*h.Size() {
		return
	}
	h.Reset()
	w.heads.Put(h, h.Bytes())
}

// Refused is the header of an error that proves that nothing was taken, so that the profile may be given to another writer. Its
// value is the reason. Without it an answer may come from something between the two ends that knows nothing of the profile's fate.
const Refused = "Kiln-Refused"

// refuse returns the error of a profile that is not taken.
func (w *Writer) refuse(code connect.Code, reason, format string, args ...any) *connect.Error {
	w.metrics.refused(reason)
	err := connect.NewError(code, fmt.Errorf(format, args...))
	err.Meta().Set(Refused, reason)
	return err
}

func (w *Writer) refuseStopping() error {
	return w.refuse(connect.CodeUnavailable, reasonStopping, "the segment writer is stopping")
}

func contextError(err error) error {
	code := connect.CodeCanceled
	if errors.Is(err, context.DeadlineExceeded) {
		code = connect.CodeDeadlineExceeded
	}
	return connect.NewError(code, fmt.Errorf("wait for the segment: %w", err))
}
