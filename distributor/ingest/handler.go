package ingest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/tenant"
)

// retryAfter is what a client is told to wait when we are full or cannot store and the store does not say how long, in
// seconds: about as long as an election takes.
const retryAfter = "1"

// Upload is the profile of one request.
type Upload struct {
	// Labels of the series without the kind (__name__), which the sample types decide.
	Labels labels.Labels
	// Kind returns the kind of the decoded profile.
	Kind func(*profile.Profile) string
	// Profile is pprof, gzipped or raw. It must not be used after Store has returned.
	Profile []byte
	// Start is when the capture began if the profile itself does not say, Unix nanoseconds.
	Start int64
}

// Store takes a profile. It returns nil once the profile is durable, else a *connect.Error whose code says whose
// fault it is and whose message says what is wrong; the Retry-After of its Meta, if any, becomes the header.
type Store interface {
	Store(ctx context.Context, id tenant.ID, upload Upload) error
}

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
		h.fail(w, r, statusErrorf(http.StatusMethodNotAllowed, "method %s is not allowed, POST is", r.Method))
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
		return statusErrorf(http.StatusUnauthorized, "no tenant: set the header %s", tenant.Header)
	}
	p, err := parseParams(r.URL.Query(), r.Header.Get("Content-Type"), h.now())
	if err != nil {
		return &statusError{http.StatusBadRequest, err}
	}
	b := getBuffers()
	defer b.release()
	body, err := b.read(w, r, p.form, h.limits(id))
	if err != nil {
		return err
	}
	var config sampleTypes
	if p.form {
		if body, config, err = b.readForm(body, p.boundary); err != nil {
			return &statusError{http.StatusBadRequest, err}
		}
	}
	if len(body) == 0 {
		return statusErrorf(http.StatusBadRequest, "the profile is empty")
	}
	return h.store.Store(ctx, id, Upload{Labels: p.labels, Kind: config.kind, Profile: body, Start: p.from.UnixNano()})
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
	body, err := json.Marshal(struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}{code, message})
	if err != nil {
		panic(err) // two strings: cannot fail
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that left cannot be told
}

// statusOf returns the HTTP status of an error and the name of its code, the same that Connect uses.
func statusOf(err error) (int, string) {
	if e := new(statusError); errors.As(err, &e) {
		return e.status, codeOfStatus(e.status).String()
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
	default:
		return connect.CodeInvalidArgument
	}
}
