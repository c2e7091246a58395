package otlp

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/collector/pdata/pprofile/pprofileotlp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/kilndb/kiln/distributor/otlp/otlptest"
	"github.com/kilndb/kiln/tenant"
)

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	if _, err := zw.Write(b); err != nil {
		panic(err)
	}
	if err := zw.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

func newHandler(k *keeper) *Handler {
	lim := tenant.DefaultLimits()
	lim.MaxBody, lim.MaxRequestBytes = 1<<20, 4<<20
	return NewHandler(k, func(tenant.ID) tenant.Limits { return lim }, slog.New(slog.DiscardHandler))
}

// post sends a request whose headers alternate with their values.
func post(h *Handler, body []byte, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, Path, bytes.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r.WithContext(tenant.NewContext(r.Context(), "acme")))
	return w
}

const (
	protobuf = "application/x-protobuf"
	jsonType = "application/json"
)

// statusIn reads the error of an answer in the encoding that the answer says it has.
func statusIn(t *testing.T, w *httptest.ResponseRecorder) *status.Status {
	t.Helper()
	s := &status.Status{}
	unmarshal := proto.Unmarshal
	if w.Header().Get("Content-Type") == jsonType {
		unmarshal = protojson.Unmarshal
	}
	if err := unmarshal(w.Body.Bytes(), s); err != nil {
		t.Fatalf("%q is no status: %v", w.Body, err)
	}
	return s
}

func TestHTTPTakesEveryEncoding(t *testing.T) {
	r := whole()
	for _, c := range []struct {
		contentType string
		body        []byte
	}{
		{protobuf, r.Proto()}, {"application/protobuf", r.Proto()}, {jsonType, r.JSON()}, {jsonType + "; charset=utf-8", r.JSON()},
	} {
		k := &keeper{}
		h := newHandler(k)
		plain := post(h, c.body, "Content-Type", c.contentType, versionHeader, "1")
		zipped := post(h, gzipped(c.body), "Content-Type", c.contentType, "Content-Encoding", "gzip")
		for _, w := range []*httptest.ResponseRecorder{plain, zipped} {
			want := ""
			if strings.HasPrefix(c.contentType, jsonType) {
				want = "{}"
			}
			if w.Code != http.StatusOK || w.Body.String() != want || !strings.HasPrefix(c.contentType, w.Header().Get("Content-Type")) {
				t.Errorf("%s: %d %s %q", c.contentType, w.Code, w.Header(), w.Body)
			}
		}
		if len(k.profiles) != 2 || k.profiles[0].text != k.profiles[1].text || !strings.Contains(k.profiles[0].text, "main") {
			t.Errorf("%s: stored %v", c.contentType, k.profiles)
		}
	}
}

func TestHTTPRefuses(t *testing.T) {
	body := whole().Proto()
	for name, c := range map[string]struct {
		body    []byte
		headers []string
		code    int
		says    string
		counted bool
	}{
		"no content type":   {body, nil, 415, "Content-Type", false},
		"another type":      {body, []string{"Content-Type", "text/plain"}, 415, "text/plain", false},
		"another encoding":  {body, []string{"Content-Type", protobuf, "Content-Encoding", "zstd"}, 415, "zstd", false},
		"not gzip":          {body, []string{"Content-Type", protobuf, "Content-Encoding", "gzip"}, 400, "not gzip", true},
		"half of a gzip":    {gzipped(body)[:40], []string{"Content-Type", protobuf, "Content-Encoding", "gzip"}, 400, "inflate", true},
		"garbage":           {[]byte("\xffhello"), []string{"Content-Type", protobuf}, 400, "malformed", true},
		"half a message":    {body[:len(body)-3], []string{"Content-Type", protobuf}, 400, "malformed", true},
		"another message":   {[]byte("\x0a\x02\x08\x01"), []string{"Content-Type", protobuf}, 400, "malformed", true},
		"garbage as JSON":   {[]byte("hello"), []string{"Content-Type", jsonType}, 400, "malformed", true},
		"a list as JSON":    {[]byte(`[1]`), []string{"Content-Type", jsonType}, 400, "malformed", true},
		"wrong type":        {[]byte(`{"resourceProfiles":{"scopeProfiles":1}}`), []string{"Content-Type", jsonType}, 400, "malformed", true},
		"wrong type inside": {[]byte(`{"dictionary":{"stackTable":[{"locationIndices":["x"]}]}}`), []string{"Content-Type", jsonType}, 400, "malformed", true},
		"huge index":        {[]byte(`{"dictionary":{"stackTable":[{"locationIndices":[99999999999]}]}}`), []string{"Content-Type", jsonType}, 400, "malformed", true},
		"too large":         {make([]byte, 1<<20+1), []string{"Content-Type", protobuf}, 413, "limit of 1048576", true},
		"a bomb":            {gzipped(make([]byte, 64<<20)), []string{"Content-Type", protobuf, "Content-Encoding", "gzip"}, 413, "inflate", true},
		"a bomb of objects": {gzipped(bytes.Repeat(nested(nil, 1), 200_000)), []string{"Content-Type", protobuf, "Content-Encoding", "gzip"}, 413, "decoded", true},
		"version 2":         {[]byte("not read"), []string{"Content-Type", protobuf, versionHeader, "2"}, 400, versionHeader, false},
		"version 0":         {[]byte("not read"), []string{"Content-Type", jsonType, versionHeader, "0"}, 400, versionHeader, false},
		"no version":        {[]byte("not read"), []string{"Content-Type", protobuf, versionHeader, ""}, 400, versionHeader, false},
		"two versions":      {[]byte("not read"), []string{"Content-Type", protobuf, versionHeader, "1", versionHeader, "1"}, 400, versionHeader, false},
	} {
		t.Run(name, func(t *testing.T) {
			k := &keeper{}
			w := post(newHandler(k), c.body, c.headers...)
			if w.Code != c.code || w.Header().Get("Retry-After") != "" || len(k.profiles) > 0 || (len(k.discarded) == 1) != c.counted {
				t.Errorf("%d %s, stored %v, discarded %v", w.Code, w.Header(), k.profiles, k.discarded)
			}
			message := w.Body.String()
			if w.Code != 415 || strings.Contains(name, "encoding") {
				s := statusIn(t, w)
				message = s.Message
				if codes.Code(s.Code) != codes.InvalidArgument {
					t.Errorf("code %d", s.Code)
				}
			}
			if !strings.Contains(message, c.says) {
				t.Errorf("%q does not say %q", message, c.says)
			}
		})
	}
	r := httptest.NewRequest(http.MethodGet, Path, nil)
	w := httptest.NewRecorder()
	newHandler(&keeper{}).ServeHTTP(w, r)
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != http.MethodPost {
		t.Errorf("GET: %d %s", w.Code, w.Header())
	}
	r = httptest.NewRequest(http.MethodPost, Path, bytes.NewReader(body))
	r.Header.Set("Content-Type", protobuf)
	w = httptest.NewRecorder()
	newHandler(&keeper{}).ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized || codes.Code(statusIn(t, w).Code) != codes.Unauthenticated {
		t.Errorf("without a tenant: %d %s", w.Code, w.Body)
	}
}

// A body that did not arrive is worth another try.
func TestBrokenBodiesAreSentAgain(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, Path, io.MultiReader(strings.NewReader("half"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	r.Header.Set("Content-Type", protobuf)
	w := httptest.NewRecorder()
	k := &keeper{}
	newHandler(k).ServeHTTP(w, r.WithContext(tenant.NewContext(r.Context(), "acme")))
	if s := statusIn(t, w); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" || codes.Code(s.Code) != codes.Unavailable || len(k.discarded) > 0 {
		t.Errorf("%d %s %v, discarded %v", w.Code, w.Header(), s, k.discarded)
	}
}

// three is a request of three profiles of which the second is bad.
func three() *otlptest.Request {
	r := otlptest.New()
	scope := r.Resource("service.name", "a")
	for i := range int64(3) {
		r.Sample(r.Profile(scope, at, "samples:count", "cpu:nanoseconds", 1), "f", i+1)
	}
	scope.Profiles().At(1).Samples().At(0).SetStackIndex(99)
	return r
}

func TestPartialSuccess(t *testing.T) {
	for contentType, body := range map[string][]byte{protobuf: three().Proto(), jsonType: three().JSON()} {
		k := &keeper{}
		w := post(newHandler(k), body, "Content-Type", contentType)
		reply := pprofileotlp.NewExportResponse()
		unmarshal := reply.UnmarshalProto
		if contentType == jsonType {
			unmarshal = reply.UnmarshalJSON
		}
		if err := unmarshal(w.Body.Bytes()); w.Code != http.StatusOK || err != nil {
			t.Fatalf("%d %q: %v", w.Code, w.Body, err)
		}
		partial := reply.PartialSuccess()
		if message := partial.ErrorMessage(); partial.RejectedProfiles() != 1 || !strings.HasPrefix(message, `resource 0 scope 0 profile 1 (service_name="a"): `) ||
			!strings.Contains(message, "stack 99") || strings.Contains(message, ";") {
			t.Errorf("%s: rejected %d: %s", contentType, partial.RejectedProfiles(), message)
		}
		if len(k.profiles) != 2 {
			t.Errorf("stored %v", k.profiles)
		}
	}
}

// answers are what a store may say of a profile, and what the sender is told.
var answers = []struct {
	code   connect.Code
	status int
	grpc   codes.Code
	retry  bool
}{
	{connect.CodeUnavailable, 503, codes.Unavailable, true},
	{connect.CodeAborted, 503, codes.Aborted, true},
	{connect.CodeDeadlineExceeded, 503, codes.DeadlineExceeded, true},
	{connect.CodeCanceled, 503, codes.Canceled, true},
	{connect.CodeResourceExhausted, 429, codes.ResourceExhausted, true},
	{connect.CodeInvalidArgument, 400, codes.InvalidArgument, false},
	{connect.CodeInternal, 500, codes.Internal, false},
}

// What passes makes senders try again even where most profiles are stored; what does not only if none is.
func TestFailures(t *testing.T) {
	for _, c := range answers {
		some := func(u Upload) error {
			if u.Labels.Get("service_name") == "bad" {
				return connect.NewError(c.code, errors.New("told"))
			}
			return nil
		}
		bad, mixed := otlptest.New(), otlptest.New()
		bad.Sample(bad.Profile(bad.Resource("service.name", "bad"), at, "samples:count", "cpu:nanoseconds", 1), "f", 1)
		for _, service := range []string{"good", "bad", "good"} {
			mixed.Sample(mixed.Profile(mixed.Resource("service.name", service), at, "samples:count", "cpu:nanoseconds", 1), "f", 1)
		}
		h := newHandler(&keeper{answer: some})
		w := post(h, bad.Proto(), "Content-Type", protobuf)
		if s := statusIn(t, w); w.Code != c.status || codes.Code(s.Code) != c.grpc || !strings.HasSuffix(s.Message, `(service_name="bad"): told`) {
			t.Errorf("%s: %d %v", c.code, w.Code, s)
		}
		if got := w.Header().Get("Retry-After"); (got == "1") != c.retry {
			t.Errorf("%s: Retry-After %q", c.code, got)
		}
		w = post(h, mixed.Proto(), "Content-Type", protobuf)
		if (w.Code == c.status) != c.retry || (w.Code == http.StatusOK) == c.retry {
			t.Errorf("%s for one of three: %d", c.code, w.Code)
		}
	}
}

// Of several that say when to come back the longest counts, in either protocol.
func TestSendersAreToldHowLongToWait(t *testing.T) {
	k := &keeper{answer: func(u Upload) error {
		e := connect.NewError(connect.CodeResourceExhausted, errors.New("told"))
		e.Meta().Set("Retry-After", u.Labels.Get("after"))
		return e
	}}
	r := otlptest.New()
	for _, after := range []string{"5", "17", "x"} {
		r.Sample(r.Profile(r.Resource("after", after), at, "samples:count", "cpu:nanoseconds", 1), "f", 1)
	}
	h := newHandler(k)
	if w := post(h, r.Proto(), "Content-Type", protobuf); w.Code != 429 || w.Header().Get("Retry-After") != "17" {
		t.Errorf("%d %s", w.Code, w.Header())
	}
	_, err := dial(t, h).Export(t.Context(), r.Export())
	if d := grpcstatus.Convert(err).Details(); len(d) != 1 || d[0].(*errdetails.RetryInfo).RetryDelay.AsDuration() != 17*time.Second {
		t.Errorf("%v: %v", err, d)
	}
}

func TestLongListsOfFailuresAreCut(t *testing.T) {
	var l tally
	for i := range 100 {
		l.add(origin{profile: i}, "a", errors.New("bad"))
		l.add(origin{profile: i}, "b", errors.New("bad")) // the same profile
	}
	l.add(origin{profile: 100}, "a", nil)
	reply, err := l.reply(false)
	r := pprofileotlp.NewExportResponse()
	if err != nil || r.UnmarshalProto(reply) != nil || r.PartialSuccess().RejectedProfiles() != 100 {
		t.Fatalf("%q, %v", reply, err)
	}
	if m := r.PartialSuccess().ErrorMessage(); strings.Count(m, "bad") != maxLines || !strings.HasSuffix(m, "; and 168 more") {
		t.Errorf("%s", m)
	}
}

// What a request takes decoded is counted until its last profile was filled, a message of gRPC until it is answered.
func TestMemoryIsHeld(t *testing.T) {
	k := &keeper{}
	body := three().Proto()
	if w := post(newHandler(k), body, "Content-Type", protobuf); w.Code != http.StatusOK {
		t.Fatalf("%d %q", w.Code, w.Body)
	}
	if k.most < int64(len(body)) || k.left != 0 || k.held.Load() != 0 {
		t.Errorf("over HTTP: %d bytes at most, %d once all was filled, %d in the end", k.most, k.left, k.held.Load())
	}
	if _, err := dial(t, newHandler(k)).Export(t.Context(), three().Export()); err != nil {
		t.Fatal(err)
	}
	if k.left != int64(len(body)) || k.held.Load() != 0 {
		t.Errorf("over gRPC: %d bytes once all was filled, want the message of %d; %d in the end", k.left, len(body), k.held.Load())
	}
	// Also where profiles are never filled, or nothing is decoded.
	for _, body := range [][]byte{otlptest.New().Proto(), body[:len(body)-3]} {
		post(newHandler(k), body, "Content-Type", protobuf)
		if k.held.Load() != 0 {
			t.Errorf("%d bytes are held for ever", k.held.Load())
		}
	}
	k = &keeper{full: true}
	if w := post(newHandler(k), body, "Content-Type", protobuf); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" || len(k.discarded) != 1 {
		t.Errorf("without room: %d %s, discarded %v", w.Code, w.Header(), k.discarded)
	}
	if _, err := dial(t, newHandler(k)).Export(t.Context(), three().Export()); grpcstatus.Code(err) != codes.ResourceExhausted {
		t.Errorf("without room: %v", err)
	}
}

// dial serves a handler over gRPC on loopback and returns a client of the official module.
func dial(t *testing.T, h *Handler) pprofileotlp.GRPCClient {
	t.Helper()
	mux := http.NewServeMux()
	path, handler := h.GRPC(connect.WithReadMaxBytes(1 << 20))
	mux.Handle(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r.WithContext(tenant.NewContext(r.Context(), "acme")))
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	server.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(conn.Close(), server.Close()); err != nil {
			t.Error(err)
		}
		<-served
	})
	return pprofileotlp.NewGRPCClient(conn)
}

func TestGRPC(t *testing.T) {
	k := &keeper{}
	client := dial(t, newHandler(k))
	for _, options := range [][]grpc.CallOption{nil, {grpc.UseCompressor("gzip")}} {
		reply, err := client.Export(t.Context(), whole().Export(), options...)
		if err != nil || reply.PartialSuccess().RejectedProfiles() != 0 {
			t.Fatal(err)
		}
	}
	if len(k.profiles) != 2 || k.profiles[0].text != k.profiles[1].text {
		t.Errorf("stored %v", k.profiles)
	}
	reply, err := client.Export(t.Context(), three().Export())
	if err != nil || reply.PartialSuccess().RejectedProfiles() != 1 || !strings.Contains(reply.PartialSuccess().ErrorMessage(), "profile 1") {
		t.Errorf("partial: %v, %v", reply.PartialSuccess(), err)
	}
	large := whole()
	large.String(strings.Repeat("x", 1<<20))
	_, err = client.Export(t.Context(), large.Export())
	if s := grpcstatus.Convert(err); s.Code() != codes.ResourceExhausted || len(s.Details()) > 0 {
		t.Errorf("too large: %v %v", err, s.Details()) // without RetryInfo: not to be tried again
	}
	for _, c := range answers {
		client := dial(t, newHandler(&keeper{answer: func(Upload) error { return connect.NewError(c.code, errors.New("told")) }}))
		_, err := client.Export(t.Context(), whole().Export())
		s := grpcstatus.Convert(err)
		if s.Code() != c.grpc || !strings.HasSuffix(s.Message(), "told") {
			t.Errorf("%s: %v", c.code, err)
		}
		info := &errdetails.RetryInfo{}
		for _, d := range s.Details() {
			info, _ = d.(*errdetails.RetryInfo)
		}
		if (info.GetRetryDelay().AsDuration() == retryAfter) != c.retry {
			t.Errorf("%s: retry info %v", c.code, info)
		}
	}
}

// The version is looked at before anything is read: the message here is none.
func TestGRPCRefusesOtherVersions(t *testing.T) {
	k := &keeper{}
	_, handler := newHandler(k).GRPC()
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	call := func(contentType string, versions ...string) *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+Procedure, strings.NewReader("\x00\x00\x00\x00\x05hello"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", contentType)
		for _, v := range versions {
			r.Header.Add(versionHeader, v)
		}
		resp, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	grpcError := func(r *http.Response) (code, message string) {
		return r.Header.Get("Grpc-Status") + r.Trailer.Get("Grpc-Status"), r.Header.Get("Grpc-Message") + r.Trailer.Get("Grpc-Message")
	}
	for _, versions := range [][]string{{"2"}, {"0"}, {""}, {"1", "1"}, {"1, 1"}} {
		if code, message := grpcError(call("application/grpc", versions...)); code != "3" || !strings.Contains(message, versionHeader) {
			t.Errorf("version %q: %s %s", versions, code, message)
		}
	}
	if code, message := grpcError(call("application/grpc", "1")); code != "16" { // there is no tenant here
		t.Errorf("version 1: %s %s", code, message)
	}
	if resp := call("application/json"); resp.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("JSON: %s", resp.Status)
	}
}
