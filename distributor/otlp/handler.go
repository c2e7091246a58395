package otlp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/kilndb/kiln/distributor/body"
	"github.com/kilndb/kiln/tenant"
)

const (
	// Path is where the Handler answers over HTTP.
	Path = "/v1development/profiles"
	// ServiceName is the gRPC service, Procedure its one method.
	ServiceName = "opentelemetry.proto.collector.profiles.v1development.ProfilesService"
	Procedure   = "/" + ServiceName + "/Export"

	// retryAfter is what a sender is told to wait where nobody knows better: about as long as an election takes.
	retryAfter = time.Second
)

// Handler answers requests over HTTP (ServeHTTP) and gRPC (GRPC). The tenant comes with the context of a request.
type Handler struct {
	exporter exporter
	log      *slog.Logger
}

// NewHandler returns a handler that hands profiles to store.
func NewHandler(store Store, limits func(tenant.ID) tenant.Limits, log *slog.Logger) *Handler {
	return &Handler{log: log, exporter: exporter{
		store: store, limits: limits, shape: newShape(), log: log,
		fillers: sync.Pool{New: func() any { return new(filler) }},
	}}
}

// ServeHTTP answers in the encoding of the request: protobuf or JSON.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	isJSON := mediaType == "application/json"
	switch {
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, fmt.Sprintf("method %.20s is not allowed, POST is", r.Method), http.StatusMethodNotAllowed)
		return
	case err != nil || !isJSON && mediaType != "application/x-protobuf" && mediaType != "application/protobuf":
		http.Error(w, fmt.Sprintf("header Content-Type: %.80q is none of application/x-protobuf, application/protobuf and application/json", r.Header.Get("Content-Type")), http.StatusUnsupportedMediaType)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	reply, err := h.post(w, r, isJSON)
	if err != nil {
		h.fail(w, r, isJSON, err)
		return
	}
	_, _ = w.Write(reply) // a client that left cannot be told
}

func (h *Handler) post(w http.ResponseWriter, r *http.Request, isJSON bool) ([]byte, error) {
	id, ok := tenant.FromContext(r.Context())
	if !ok {
		return nil, noTenant()
	}
	if err := checkVersion(r.Header.Values(versionHeader)); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	a := body.NewArena(r, h.exporter.limits(id))
	defer a.Release()
	content, size, err := a.Read(w, r)
	if err != nil {
		return nil, h.unread(err)
	}
	return h.exporter.export(r.Context(), id, content, size, isJSON)
}

// unread returns the error of a body that could not be read. Senders try again after 503, but not after 408.
func (h *Handler) unread(err error) error {
	e := new(body.Error)
	if !errors.As(err, &e) {
		return err
	}
	switch e.Status {
	case http.StatusRequestTimeout:
		return connect.NewError(connect.CodeUnavailable, errors.New(e.Error()))
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		h.exporter.store.Discard(err, 1)
	}
	return err
}

func noTenant() error {
	return connect.NewError(connect.CodeUnauthenticated, fmt.Errorf("no tenant: set the header %s", tenant.Header))
}

// fail answers with an error. Outages are logged where they happen; here only what nobody else would tell.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, isJSON bool, err error) {
	e := refused(err)
	status, message := statusOf(e), &status.Status{Code: int32(e.Code()), Message: e.Message()}
	h.log.DebugContext(r.Context(), "request refused", "status", status, "error", e.Message())
	if wait := waitOf(e); wait > 0 {
		w.Header().Set(retryHeader, strconv.Itoa(int(wait.Seconds())))
	}
	marshal := proto.Marshal
	if isJSON {
		marshal = protojson.Marshal
	}
	message.Message = strings.ToValidUTF8(message.Message, "\uFFFD")
	answer, err := marshal(message)
	if err != nil {
		panic(err) // a number and a text: cannot fail
	}
	w.WriteHeader(status)
	_, _ = w.Write(answer)
}

// statusOf returns the HTTP status of an error. Senders try again after 429 and 503.
func statusOf(err *connect.Error) int {
	if e := new(body.Error); errors.As(err, &e) {
		return e.Status
	}
	if errors.Is(err, ErrTooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	switch code := err.Code(); code {
	case connect.CodeInvalidArgument:
		return http.StatusBadRequest
	case connect.CodeUnauthenticated:
		return http.StatusUnauthorized
	case connect.CodePermissionDenied:
		return http.StatusForbidden
	case connect.CodeResourceExhausted:
		return http.StatusTooManyRequests
	default:
		if retryable(code) {
			return http.StatusServiceUnavailable
		}
		return http.StatusInternalServerError
	}
}

// GRPC returns the path and the handler of the gRPC service. The options bound messages.
func (h *Handler) GRPC(options ...connect.HandlerOption) (string, http.Handler) {
	export := connect.NewUnaryHandler(Procedure, h.call, slices.Concat(options, []connect.HandlerOption{connect.WithCodec(codec{})})...)
	errs := connect.NewErrorWriter()
	return Procedure, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			http.Error(w, fmt.Sprintf("this is gRPC; over HTTP it is POST %s", Path), http.StatusUnsupportedMediaType)
			return
		}
		// Here and not in call: before the message is read.
		if err := checkVersion(r.Header.Values(versionHeader)); err != nil {
			_ = errs.Write(w, r, connect.NewError(connect.CodeInvalidArgument, err)) // the client is gone if this fails
			return
		}
		export.ServeHTTP(w, r)
	})
}

func (h *Handler) call(ctx context.Context, req *connect.Request[message]) (*connect.Response[message], error) {
	id, ok := tenant.FromContext(ctx)
	if !ok {
		return nil, noTenant()
	}
	reply, err := h.answer(ctx, id, req.Msg.bytes)
	if err == nil {
		return connect.NewResponse(&message{reply}), nil
	}
	e := refused(err)
	if wait := waitOf(e); wait > 0 {
		detail, err := connect.NewErrorDetail(&errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
		if err != nil {
			panic(err) // a number: cannot fail
		}
		e.AddDetail(detail)
	}
	return nil, e
}

// answer is export for a message, which nobody has counted since it was taken out of its envelope.
func (h *Handler) answer(ctx context.Context, id tenant.ID, message []byte) ([]byte, error) {
	release, err := h.exporter.store.Hold(id, len(message))
	if err != nil {
		h.exporter.store.Discard(err, 1)
		return nil, err
	}
	defer release()
	return h.exporter.export(ctx, id, message, len(message), false)
}

// message is a message that is not decoded yet.
type message struct{ bytes []byte }

// codec leaves messages as they are. Connect uses it for the status of errors as well, which is protobuf.
type codec struct{}

// Name is that of the encoding that gRPC has by default.
func (codec) Name() string { return "proto" }

// Marshal returns the bytes of a message.
func (codec) Marshal(m any) ([]byte, error) {
	switch m := m.(type) {
	case *message:
		return m.bytes, nil
	case proto.Message:
		return proto.Marshal(m)
	}
	return nil, fmt.Errorf("marshal %T: not a message of this service", m)
}

// Unmarshal makes a message of a copy of b, which is used again.
func (codec) Unmarshal(b []byte, m any) error {
	to, ok := m.(*message)
	if !ok {
		return fmt.Errorf("unmarshal %T: not a message of this service", m)
	}
	to.bytes = slices.Clone(b)
	return nil
}
