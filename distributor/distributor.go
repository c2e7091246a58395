package distributor

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kilndb/kiln/distributor/ingest"
	"github.com/kilndb/kiln/distributor/otlp"
	"github.com/kilndb/kiln/distributor/relabel"
	"github.com/kilndb/kiln/internal/spare"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/tenant"
)

// SegmentWriter makes profiles durable.
type SegmentWriter interface {
	// Append takes a profile for a shard. series is sorted and has __name__ and service_name; p is decoded, validated
	// and normalised and has its time. Append may change p, returns soon, and p may be reused then. wait, which the
	// caller must call, blocks until the profile is durable or will not be, or until its context ends. The errors are
	// *connect.Error.
	Append(ctx context.Context, t tenant.ID, shard uint32, series labels.Labels, id profile.ID, p *profile.Profile) (wait func(context.Context) error, err error)
}

// Distributor takes profiles. It is safe for concurrent use and has no state but memory that it reuses.
type Distributor struct {
	cfg      Config
	writer   SegmentWriter
	log      *slog.Logger
	metrics  *metrics
	ingest   *ingest.Handler
	otlp     *otlp.Handler
	decoders spare.Pool[*decoding]
	queue    *queue        // before the decoders
	readers  *queue        // before those who read what is not pprof
	turn     atomic.Uint64 // counts profiles
	accounts *accounts
	memory   *memory // of the requests that are inside
	seed     maphash.Seed
}

// decoding is what it takes to decode a profile.
type decoding struct {
	decoder *pprof.Decoder
	profile profile.Profile
	hashes  []uint64 // of its series
}

func newDecoding() *decoding { return &decoding{decoder: pprof.NewDecoder()} }

// bytes is the memory that the decoding holds on to.
func (d *decoding) bytes() int { return d.profile.Bytes() + d.decoder.Bytes() + 8*cap(d.hashes) }

const (
	// maxKept bounds the memory that a decoding may keep for the next profile: a few are much larger than the rest.
	maxKept = 16 << 20
	// keepDecoders is how many bytes of decodings stay, however long the next profile takes to come.
	keepDecoders = 4 << 20
)

// New returns a distributor that hands profiles to writer.
func New(cfg Config, writer SegmentWriter, log *slog.Logger, reg prometheus.Registerer) (*Distributor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d := &Distributor{
		cfg: cfg, writer: writer, log: log, metrics: newMetrics(reg),
		decoders: spare.Pool[*decoding]{New: newDecoding, Keep: keepDecoders},
		queue:    newQueue(cfg.Concurrency),
		readers:  newQueue(runtime.GOMAXPROCS(0) + 1), // one for each core, and one for another tenant
		accounts: newAccounts(cfg.Now), memory: newMemory(cfg.MaxMemory), seed: maphash.MakeSeed(),
	}
	d.ingest = ingest.NewHandler(store{d}, cfg.Limits, cfg.Now, log)
	d.otlp = otlp.NewHandler(otlpStore{d}, cfg.Limits, log)
	return d, nil
}

// Ingest returns the handler of POST /ingest. The tenant comes with the context of the request.
func (d *Distributor) Ingest() http.Handler { return d.ingest }

// store is the distributor as the /ingest handler sees it.
type store struct{ d *Distributor }

// Store makes the profiles of a request durable: all are handed to the writer before any is waited for.
func (s store) Store(ctx context.Context, t tenant.ID, in []ingest.Upload) error {
	defer s.d.observe(time.Now())
	r := &request{tenant: t, limits: s.d.cfg.Limits(t), rules: s.d.rules(t)}
	uploads := make([]upload, len(in))
	for i, u := range in {
		uploads[i] = upload{series: u.Labels, kind: u.Kind, body: u.Profile, fix: u.Fix, fill: u.Fill, start: u.Start}
	}
	var failures []failure
	for i, err := range s.d.storeAll(ctx, r, uploads) {
		if err == nil {
			continue
		}
		s.d.metrics.discard(reasonOf(err), 1)
		if len(in) == 1 {
			return answerTo(err)
		}
		failures = append(failures, failure{series: i, err: err, what: in[i].What})
	}
	return joinFailures(failures)
}

// Turn waits for a reader.
func (s store) Turn(ctx context.Context, t tenant.ID) (done func(), err error) {
	return s.d.reader(ctx, t)
}

// reader waits until a request may be read that is not pprof, which takes much longer. However many such requests one tenant has
// here, those of others are read meanwhile.
func (d *Distributor) reader(ctx context.Context, t tenant.ID) (done func(), err error) {
	if err := d.readers.enter(ctx, t, false); err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, fmt.Errorf("wait for other requests to be read: %w", err))
	}
	return func() { d.readers.leave(t) }, nil
}

// Refused counts a request whose profiles could not be read.
func (s store) Refused(err error) {
	if errors.Is(err, ingest.ErrPanic) {
		s.d.metrics.discard(reasonPanic, 1)
		return
	}
	s.d.metrics.discard(reasonOf(refuseDecode(err)), 1)
}

func (d *Distributor) observe(start time.Time) {
	d.metrics.seconds.Observe(time.Since(start).Seconds())
}

// request is what the profiles of one request share.
type request struct {
	tenant tenant.ID
	limits tenant.Limits
	rules  *relabel.Rules
	// decoded counts the bytes of all profiles once decompressed, those of bad ones too.
	decoded atomic.Int64

	// begun: one of the profiles has been let in, and so are the others.
	begun atomic.Bool

	admission sync.Once // sets the rest
	account   *account
	refused   error
}

// upload is one profile of a request.
type upload struct {
	// series is what the profile was sent with. If kind is nil it is complete and checked; else kind names it.
	series labels.Labels
	kind   func(*profile.Profile) string
	id     string // as sent, or empty
	body   []byte
	fix    func(*profile.Profile) error // changes the decoded profile first of all, or nil
	fill   func(*profile.Profile) error // fills a profile that was Reset, instead of decoding body; its references are valid
	start  int64                        // the time of a profile that has none; 0: ours

	index, profile int // where it stands in a push

	pieces []piece // what rules cut off it
}

// append decodes a profile, checks it and hands it to the writer. A panic is a mistake of ours that some profile brought
// to light: that profile fails, the process goes on.
func (d *Distributor) append(ctx context.Context, r *request, u *upload) (wait func(context.Context) error, err error) {
	if err := d.admit(r); err != nil {
		return nil, err
	}
	if err := d.queue.enter(ctx, r.tenant, !r.begun.Load()); err != nil {
		return nil, err
	}
	r.begun.Store(true)
	d.charge(r, len(u.body)) // what it inflates to follows
	defer func() {
		d.queue.leave(r.tenant)
		if p := recover(); p != nil {
			d.log.Error("panic while a profile was taken", "tenant", r.tenant, "panic", p, "stack", string(debug.Stack()))
			err = refuse(reasonPanic, "the profile could not be taken: an error of the server")
		}
	}()
	dec := d.decoders.Get()
	series, id, err := d.prepare(dec, r, u)
	if err == nil {
		wait, err = d.writer.Append(ctx, r.tenant, d.shard(r.tenant, series), series, id, &dec.profile)
	}
	switch {
	case errors.Is(err, errDropped):
		d.metrics.discard(reasonRelabel, 1)
		wait, err = func(context.Context) error { return nil }, nil
	case err == nil && len(u.pieces) > 0:
		wait = d.appendPieces(ctx, r.tenant, u, id, wait)
	}
	if held := dec.bytes(); held <= maxKept { // and not after a panic
		d.decoders.Put(dec, held)
	}
	return wait, err
}

// shard returns where a profile goes.
func (d *Distributor) shard(t tenant.ID, series labels.Labels) uint32 {
	// Whoever computes deltas has seen the profile before: it is where the series was.
	sticky := series.Get(labels.Delta) == "true"
	return d.cfg.Placement().Shard(t, series.Get(labels.ServiceName), series.Hash(), d.turn.Add(1), sticky)
}

// prepare decodes a profile into dec.profile and brings it into the form in which it is stored.
func (d *Distributor) prepare(dec *decoding, r *request, u *upload) (labels.Labels, profile.ID, error) {
	d.metrics.received.Inc()
	d.metrics.bytes.Add(float64(len(u.body)))
	id, err := readID(u.id)
	if err != nil {
		return nil, id, err
	}
	p := &dec.profile
	size, err := d.decode(dec, r, u)
	if err != nil {
		return nil, id, err
	}
	d.metrics.rawBytes.Add(float64(size))
	series := u.series
	if u.kind != nil {
		series = series.With(labels.Name, u.kind(p))
	}
	if err := checkTime(p, u.start, d.cfg.Now(), r.limits); err != nil {
		return nil, id, err
	}
	report, err := p.Normalise(profile.Limits{MaxStackDepth: r.limits.MaxStackDepth, MaxSymbolLength: r.limits.MaxSymbolLength})
	if err != nil {
		return nil, id, &refusal{reasonMalformed, err}
	}
	d.metrics.normalised(report, p.Samples())
	for _, s := range p.Series {
		if err := checkLabels(s.Labels, r.limits); err != nil {
			return nil, id, fmt.Errorf("labels of samples: %w", err)
		}
	}
	if series, err = r.relabel(u, series, p); err != nil {
		return nil, id, err
	}
	if err := d.checkKept(r, series, p); err != nil {
		return nil, id, err
	}
	if err := d.checkActive(dec, r, series, p); err != nil {
		return nil, id, err
	}
	for _, piece := range u.pieces {
		if err := d.checkActive(dec, r, piece.series, piece.profile); err != nil {
			return nil, id, err
		}
	}
	return series, id, nil
}

func readID(s string) (profile.ID, error) {
	if s == "" {
		return profile.NewID(), nil
	}
	id, err := profile.ParseID(s)
	if err != nil {
		return id, &refusal{reasonProfileID, err}
	}
	return id, nil
}

// decode decodes or fills a profile unless the profiles of its request have reached their limit together. It returns how
// large the profile is once decompressed.
func (d *Distributor) decode(dec *decoding, r *request, u *upload) (size int, err error) {
	limit := int64(r.limits.MaxRequestBytes)
	if r.decoded.Load() < limit {
		size, err = dec.read(u, r.limits)
		d.charge(r, size-len(u.body)) // of a bad profile too: the work is done
		if sum := r.decoded.Add(int64(size)); err != nil {
			return size, refuseDecode(err)
		} else if sum <= limit {
			return size, nil
		}
	}
	return size, refuse(reasonBody, "the profiles of the request exceed the limit of %d bytes after decompression", limit)
}

// read brings the profile of an upload into d.profile and returns how large it is, also of a bad one.
func (d *decoding) read(u *upload, lim tenant.Limits) (size int, err error) {
	p := &d.profile
	if u.fill != nil {
		p.Reset()
		if err = u.fill(p); err == nil {
			err = checkFilled(p, lim)
		}
		return p.Size(), err
	}
	err = d.decoder.Decode(u.body, pprof.LimitsOf(lim), p)
	if err == nil && u.fix != nil {
		err = u.fix(p)
	}
	return len(p.Data), err
}
