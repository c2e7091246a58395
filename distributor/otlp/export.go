package otlp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/tenant"
)

// Upload is what is stored of a profile: its samples of one service.
type Upload struct {
	// Labels of the series, sorted, with __name__ and service_name.
	Labels labels.Labels
	// ID is the same when the same request is sent again.
	ID profile.ID
	// Fill fills a profile that was Reset, with references that are all valid. It may be called once, until Store returns, also
	// beside the Fill of others. Its errors are those of a pprof.Decoder. It holds on to the decoded request until it
	// was called.
	Fill func(*profile.Profile) error
}

// Store takes the profiles of a request.
type Store interface {
	// Store returns for each profile nil once it is durable, else a *connect.Error whose code says whose fault it is and
	// whose message says what is wrong; the Retry-After of its Meta, if any, is passed on. size is that of the request as
	// it came.
	Store(ctx context.Context, id tenant.ID, size int, uploads []Upload) []error
	// Turn waits until a request may be decoded; done is called when it is. Where the context ends before, the error is a
	// *connect.Error.
	Turn(ctx context.Context, id tenant.ID) (done func(), err error)
	// Hold counts memory that a request takes beside its body over HTTP, until release is called, which may be done from any
	// goroutine. Where there is no room the error wraps a *connect.Error.
	Hold(id tenant.ID, bytes int) (release func(), err error)
	// Check refuses labels that no series of a tenant may have.
	Check(series labels.Labels, lim tenant.Limits) error
	// Discard counts profiles that are not handed over because of what is in them, or requests that are too large.
	Discard(err error, profiles int)
}

// The errors of a request that is refused as a whole.
var (
	// ErrMalformed is returned when a request is not one.
	ErrMalformed = errors.New("malformed request")
	// ErrTooLarge is returned when a request exceeds a limit for its size.
	ErrTooLarge = errors.New("the request is too large")
	// ErrTooMany is returned when a request has too many profiles.
	ErrTooMany = errors.New("too many profiles")
	// ErrPanic is returned when a request cannot be decoded through a mistake of ours.
	ErrPanic = errors.New("an error of the server")
)

// capture is a profile of a request: what is stored of it, or why nothing is.
type capture struct {
	origin
	first, count int // of the uploads
	err          error
}

// exporter stores requests, whatever way they came.
type exporter struct {
	store   Store
	limits  func(tenant.ID) tenant.Limits
	shape   *shape
	fillers sync.Pool // of *filler
	log     *slog.Logger
}

// maxKept bounds the memory that a filler may keep for the next profile.
const maxKept = 4 << 20

// export stores the profiles of a request and returns the encoded answer. The errors are *connect.Error.
func (x *exporter) export(ctx context.Context, id tenant.ID, body []byte, size int, isJSON bool) ([]byte, error) {
	lim := x.limits(id)
	e, release, err := x.decode(ctx, id, body, lim, isJSON)
	if err != nil {
		x.store.Discard(err, 1)
		return nil, refused(err)
	}
	defer release()
	uploads, captures := x.split(e, &identities{body: body}, lim)
	afterAll(uploads, release)
	if len(uploads) > lim.MaxSeriesPerRequest {
		err := fmt.Errorf("%w: the request has more than the limit of %d, counting those of each service", ErrTooMany, lim.MaxSeriesPerRequest)
		x.store.Discard(err, len(captures))
		return nil, refused(err)
	}
	results := x.store.Store(ctx, id, size, uploads)
	var t tally
	for _, c := range captures {
		if c.err != nil {
			x.store.Discard(c.err, 1)
		}
		t.add(c.origin, "", c.err)
		for i := c.first; i < c.first+c.count; i++ {
			t.add(c.origin, uploads[i].Labels.Get(labels.ServiceName), results[i])
		}
	}
	return t.reply(isJSON)
}

// refused returns the error for a request, or a profile of one, that will never be taken.
func refused(err error) *connect.Error {
	e := new(connect.Error)
	if errors.As(err, &e) {
		return e
	}
	return connect.NewError(connect.CodeInvalidArgument, err)
}

// afterAll has done called when the last of uploads was filled, which is when nobody needs the decoded request any more.
func afterAll(uploads []Upload, done func()) {
	left := new(atomic.Int64)
	left.Store(int64(len(uploads)))
	for i := range uploads {
		fill := uploads[i].Fill
		uploads[i].Fill = func(p *profile.Profile) error {
			err := fill(p)
			if fill = nil; left.Add(-1) == 0 {
				done()
			}
			return err
		}
	}
}

// decode decodes a request, after a look at how much memory that will take: it is held until release is called, which may be done
// more than once. A panic is a mistake of the decoder that some request brought to light: that request fails, the process goes on.
func (x *exporter) decode(ctx context.Context, id tenant.ID, body []byte, lim tenant.Limits, isJSON bool) (e *export, release func(), err error) {
	done, err := x.store.Turn(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	held := func() {}
	defer func() {
		done()
		if p := recover(); p != nil {
			x.log.Error("panic while a request was decoded", "panic", p, "stack", string(debug.Stack()))
			err = connect.NewError(connect.CodeInternal, fmt.Errorf("the request could not be decoded: %w", ErrPanic))
		}
		if err != nil {
			held()
		}
	}()
	check := x.shape.check
	if isJSON {
		check = checkJSON
	}
	size, err := check(body, lim.MaxRequestBytes)
	if err != nil {
		return nil, nil, err
	}
	free, err := x.store.Hold(id, size)
	if err != nil {
		return nil, nil, err
	}
	held = sync.OnceFunc(free)
	e, err = decodeExport(body, isJSON)
	return e, held, err
}

// split returns the profiles of a request, and of each what is to be stored. It ends soon after the uploads are more
// than a request may have.
func (x *exporter) split(e *export, ids *identities, lim tenant.Limits) (uploads []Upload, captures []capture) {
	check := func(attributes labels.Labels) error { return x.store.Check(attributes, lim) }
	e.each(check, func(o origin, attributes labels.Labels, err error, from otlpProfile) {
		c := capture{origin: o, first: len(uploads)}
		var h header
		if err == nil {
			h, err = e.read(from)
		}
		var parts []part
		if err == nil && len(uploads) <= lim.MaxSeriesPerRequest {
			parts, err = e.parts(from, serviceOf(attributes))
		}
		k := kindOf(h)
		for _, part := range parts {
			if len(uploads) > lim.MaxSeriesPerRequest {
				break
			}
			series := seriesOf(attributes, part.service, k.name)
			uploads = append(uploads, Upload{Labels: series, ID: ids.of(h.id, o, series, k), Fill: func(p *profile.Profile) error {
				f := x.fillers.Get().(*filler)
				err := f.fill(e, from, h, k, part, lim, p)
				if f.bytes() <= maxKept {
					x.fillers.Put(f)
				}
				return err
			}})
		}
		c.count, c.err = len(uploads)-c.first, err
		captures = append(captures, c)
	})
	return uploads, captures
}

// tally is what became of the profiles of a request.
type tally struct {
	last            origin
	total, rejected int
	bad             bool // the last profile counts as rejected
	worst           *connect.Error
	wait            time.Duration // the longest that one asks for
	lines           []string
	more            int
}

// maxLines bounds how many failures an answer lists, so that it stays readable and fits a header.
const maxLines = 32

// add takes the result of a profile, or of its samples of one service.
func (t *tally) add(o origin, service string, err error) {
	if t.total == 0 || o != t.last {
		t.total++
		t.last, t.bad = o, false
	}
	if err == nil {
		return
	}
	e := refused(err)
	if !t.bad {
		t.bad = true
		t.rejected++
	}
	if t.worst == nil || severity(e.Code()) > severity(t.worst.Code()) {
		t.worst = e
	}
	t.wait = max(t.wait, waitOf(e))
	if len(t.lines) == maxLines {
		t.more++
		return
	}
	name := o.String()
	if service != "" {
		name += fmt.Sprintf(" (service_name=%.80q)", service)
	}
	t.lines = append(t.lines, name+": "+e.Message())
}

// reply returns the answer for all profiles together. A mistake of ours counts as a refusal: it would be made again.
func (t *tally) reply(isJSON bool) ([]byte, error) {
	message := strings.Join(t.lines, "; ")
	if t.more > 0 {
		message += fmt.Sprintf("; and %d more", t.more)
	}
	if t.worst != nil && (retryable(t.worst.Code()) || t.rejected == t.total) {
		e := connect.NewError(t.worst.Code(), errors.New(message))
		if t.wait > 0 {
			e.Meta().Set(retryHeader, strconv.Itoa(int(t.wait.Seconds())))
		}
		return nil, e
	}
	return encodeReply(t.rejected, message, isJSON)
}

// passing are the codes of what passes by itself, in order of severity. Senders are told to try again.
var passing = []connect.Code{
	connect.CodeCanceled, connect.CodeResourceExhausted, connect.CodeDeadlineExceeded, connect.CodeAborted, connect.CodeUnavailable,
}

func retryable(c connect.Code) bool { return slices.Contains(passing, c) }

// retryHeader says after how many seconds to try again.
const retryHeader = "Retry-After"

// waitOf returns how long to wait before what failed with e is tried again; 0 if it should not be.
func waitOf(e *connect.Error) time.Duration {
	if !retryable(e.Code()) {
		return 0
	}
	if seconds, err := strconv.Atoi(e.Meta().Get(retryHeader)); err == nil && seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	return retryAfter
}

// severity orders codes: what is in a profile, then mistakes of ours, then what passes.
func severity(c connect.Code) int {
	if c == connect.CodeInvalidArgument {
		return 0
	}
	return 2 + slices.Index(passing, c)
}
