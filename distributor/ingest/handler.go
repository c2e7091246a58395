package ingest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/distributor/body"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/tenant"
)

// retryAfter is what a client is told to wait when we are full or cannot store and the store does not say how long, in
// seconds: about as long as an election takes.
const retryAfter = "1"

// Upload is a profile of a request.
type Upload struct {
	// Labels of the series without the kind (__name__), which the sample types decide.
	Labels labels.Labels
	// Kind returns the kind of the decoded profile.
	Kind func(*profile.Profile) string
	// Profile is pprof, gzipped or raw. It must not be used after Store has returned.
	Profile []byte
	// Fix, which may be nil, changes the decoded profile before anything else looks at it.
	Fix func(*profile.Profile) error
	// Fill is used instead of Profile and Fix for profiles that did not come as pprof: it writes the profile into one
	// that was Reset. It may be called once, and not after Store has returned.
	Fill func(*profile.Profile) error
	// What says in messages which of several profiles of a request this is.
	What string
	// Start is when the capture began if the profile itself does not say, Unix nanoseconds.
	Start int64
}

// Store takes the profiles of a request.
type Store interface {
	// Store returns nil once all profiles are durable, else a *connect.Error whose code says whose fault it is and whose
	// message says which profile is not durable and why; the Retry-After of its Meta, if any, becomes the header.
	Store(ctx context.Context, id tenant.ID, uploads []Upload) error
	// Turn waits until a request may be read whose profiles are not pprof; done is called when it is. Where the context ends before,
	// the error is a *connect.Error.
	Turn(ctx context.Context, id tenant.ID) (done func(), err error)
	// Refused counts a request whose profiles could not be read, or that does not say what they are.
	Refused(err error)
}

// ErrPanic is returned when a profile cannot be read through a mistake of ours.
var ErrPanic = errors.New("the profile could not be read")

// Handler answers POST /ingest. The tenant comes with the context of the request.
type Handler struct {
	store  Store
	limits func(tenant.ID) tenant.Limits
	now    func() time.Time
	log    *slog.Logger
}

// NewHandler returns a handler that hands profiles to store.
func NewHandler(store Store, limits func(tenant.ID) tenant.Limits, now func() time.Time, log *slog.Logger) *Handler {
	return &Handler{store: store, limits: limits, now: now, log: log}
}

// ServeHTTP answers 200 without a body once the profile is durable, and otherwise a JSON object with a code and a
// message. 503 and 429 say when to come back; a push that got one may be sent again.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		h.fail(w, r, body.Errorf(http.StatusMethodNotAllowed, "method %s is not allowed, POST is", r.Method))
		return
	}
	if err := h.ingest(w, r); err != nil {
		h.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (h *Handler) ingest(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	id, ok := tenant.FromContext(ctx)
	if !ok {
		return body.Errorf(http.StatusUnauthorized, "no tenant: set the header %s", tenant.Header)
	}
	p, err := parseParams(r.URL.Query(), r.Header.Get("Content-Type"), h.now())
	if err != nil {
		h.store.Refused(err)
		return body.Errorf(http.StatusBadRequest, "%w", err)
	}
	limits := h.limits(id)
	a := body.NewArena(r, limits)
	defer a.Release()
	content, _, err := a.Read(w, r)
	var uploads []Upload
	if err == nil {
		uploads, err = h.read(ctx, id, &p, a, content, limits)
	}
	if err != nil {
		if status, _ := statusOf(err); status == http.StatusBadRequest || status == http.StatusRequestEntityTooLarge {
			h.store.Refused(err)
		}
		return err
	}
	if len(uploads) == 0 {
		return nil // a recording of nothing that is stored
	}
	return h.store.Store(ctx, id, uploads)
}

// read reads the profiles of a request. A panic is a mistake of ours that some body brought to light: that request
// fails, and would again, so the client is told not to repeat it.
func (h *Handler) read(ctx context.Context, id tenant.ID, p *params, a *body.Arena, content []byte, limits tenant.Limits) (uploads []Upload, err error) {
	if p.format != formatPprof {
		done, err := h.store.Turn(ctx, id)
		if err != nil {
			return nil, err
		}
		defer done()
	}
	defer func() {
		if x := recover(); x != nil {
			h.log.ErrorContext(ctx, "panic while a profile was read", "format", p.format, "panic", x, "stack", string(debug.Stack()))
			uploads, err = nil, body.Errorf(http.StatusBadRequest, "format %s: %w", p.format, ErrPanic)
		}
	}()
	return p.read(a, content, limits)
}

// fail answers with an error. Outages are logged where they happen; here only what nobody else would tell.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, code := statusOf(err)
	message, retry := err.Error(), retryAfter
	if e := new(connect.Error); errors.As(err, &e) {
		message = e.Message() // without the code, which has a field of its own
		retry = cmp.Or(e.Meta().Get("Retry-After"), retry)
	}
	h.log.DebugContext(r.Context(), "ingest refused", "status", status, "error", message)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retry)
	}
	answer, err := json.Marshal(struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}{code, message})
	if err != nil {
		panic(err) // two strings: cannot fail
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(answer, '\n')) // a client that left cannot be told
}

// statusOf returns the HTTP status of an error and the name of its code, the same that Connect uses.
func statusOf(err error) (int, string) {
	if e := new(body.Error); errors.As(err, &e) {
		return e.Status, codeOfStatus(e.Status).String()
	}
	code := connect.CodeOf(err)
	switch code {
	case connect.CodeInvalidArgument:
		return http.StatusBadRequest, code.String()
	case connect.CodeUnauthenticated:
		return http.StatusUnauthorized, code.String()
	case connect.CodePermissionDenied:
		return http.StatusForbidden, code.String()
	case connect.CodeResourceExhausted:
		return http.StatusTooManyRequests, code.String()
	case connect.CodeUnavailable, connect.CodeAborted, connect.CodeDeadlineExceeded, connect.CodeCanceled:
		return http.StatusServiceUnavailable, code.String()
	default:
		return http.StatusInternalServerError, code.String()
	}
}

func codeOfStatus(status int) connect.Code {
	switch status {
	case http.StatusUnauthorized:
		return connect.CodeUnauthenticated
	case http.StatusMethodNotAllowed:
		return connect.CodeUnimplemented
	case http.StatusRequestTimeout:
		return connect.CodeDeadlineExceeded
	case http.StatusServiceUnavailable:
		return connect.CodeUnavailable
	default:
		return connect.CodeInvalidArgument
	}
}
