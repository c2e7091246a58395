package ingest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/distributor/body"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/tenant"
)

var now = time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)

// shelf is a store that decodes and remembers what it is given.
type shelf struct {
	uploads  []Upload
	kinds    []string
	profiles []*profile.Profile
	refused  int
	turns    int // that are not done
	err      error
}

func (s *shelf) Store(_ context.Context, id tenant.ID, uploads []Upload) error {
	if id != "acme" || s.turns != 0 {
		return fmt.Errorf("tenant %s with %d turns that are not done", id, s.turns)
	}
	for _, u := range uploads {
		p := new(profile.Profile)
		p.Reset()
		var err error
		if u.Fill != nil {
			err = u.Fill(p)
		} else {
			err = pprof.NewDecoder().Decode(u.Profile, pprof.Limits{MaxBytes: 4 << 20}, p)
		}
		if err == nil && u.Fix != nil {
			err = u.Fix(p)
		}
		if err != nil {
			return connect.NewError(connect.CodeInvalidArgument, err)
		}
		u.Profile = slices.Clone(u.Profile)
		s.uploads, s.kinds, s.profiles = append(s.uploads, u), append(s.kinds, u.Kind(p)), append(s.profiles, p)
	}
	return s.err
}

func (s *shelf) Turn(ctx context.Context, id tenant.ID) (func(), error) {
	if ctx.Err() != nil || id != "acme" {
		return nil, connect.NewError(connect.CodeUnavailable, fmt.Errorf("wait as %s: %w", id, ctx.Err()))
	}
	s.turns++
	return func() { s.turns-- }, nil
}

func (s *shelf) Refused(error) { s.refused++ }

// part is one part of a form.
type part struct{ name, file, content string }

func form(parts ...part) (body, contentType string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, p := range parts {
		f, _ := w.CreateFormFile(p.name, p.file)
		_, _ = io.WriteString(f, p.content)
	}
	_ = w.Close()
	return b.String(), w.FormDataContentType()
}

func gzipOf(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return b.String()
}

// send sends a request of tenant acme to a handler over store.
func send(t *testing.T, store Store, query, contentType, body string, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	limits := tenant.DefaultLimits()
	limits.MaxBody, limits.MaxRequestBytes = 1<<20, 2<<20
	h := NewHandler(store, func(tenant.ID) tenant.Limits { return limits }, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	r := httptest.NewRequest(http.MethodPost, "/ingest?"+query, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	r = r.WithContext(tenant.NewContext(r.Context(), "acme"))
	for _, e := range edit {
		e(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func cpu() string  { return string(corpus.Get("api-gateway-cpu-0").Gzipped) }
func raw() string  { return string(corpus.Get("api-gateway-cpu-0").Raw()) }
func heap() string { return string(corpus.Get("api-gateway-heap-0").Gzipped) }

func TestWhatThePyroscopeGoClientSends(t *testing.T) {
	// The parts, query and labels of github.com/grafana/pyroscope-go v1.4.3.
	name := "name=checkout%7B__session_id__%3D294b1ad6a2a9d1c5%2Cotel.scope.name%3Dcom.grafana.pyroscope%2Fgo%2Cregion%3Deu%7D"
	query := name + "&aggregationType=sum&from=1774958390000000000&sampleRate=100&spyName=gospy&units=samples&until=1774958400000000000"
	store := &shelf{}
	body, contentType := form(part{"profile", "profile.pprof", cpu()})
	if w := send(t, store, query, contentType, body); w.Code != http.StatusOK || w.Body.Len() != 0 {
		t.Fatalf("answer %d %s", w.Code, w.Body)
	}
	body, contentType = form(part{"profile", "profile.pprof", heap()},
		part{"sample_type_config", "sample_type_config.json", `{"alloc_objects":{"units":"objects"},"inuse_space":{"units":"bytes","aggregation":"average"}}`})
	query = name + "&aggregationType=&from=1774958390000000000&sampleRate=100&spyName=gospy&units=&until=1774958400000000000"
	if w := send(t, store, query, contentType, body); w.Code != http.StatusOK {
		t.Fatalf("answer %d %s", w.Code, w.Body)
	}
	want := labels.FromStrings("__delta__", "false", "__session_id__", "294b1ad6a2a9d1c5",
		"otel.scope.name", "com.grafana.pyroscope/go", "pyroscope_spy", "gospy", "region", "eu", "service_name", "checkout")
	for i, u := range store.uploads {
		if labels.Compare(u.Labels, want) != 0 {
			t.Errorf("upload %d has labels %s, want %s", i, u.Labels, want)
		}
		if u.Start != 1774958390000000000 {
			t.Errorf("upload %d starts at %d", i, u.Start)
		}
	}
	if want := []string{"process_cpu", "memory"}; !slices.Equal(store.kinds, want) {
		t.Errorf("kinds %v, want %v", store.kinds, want)
	}
	if string(store.uploads[0].Profile) != cpu() {
		t.Error("the profile is not what was sent")
	}
}

func TestEveryWayToSendAProfile(t *testing.T) {
	body, contentType := form(part{"profile", "p", cpu()})
	rawForm, rawFormType := form(part{"profile", "p", raw()})
	encoded := func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }
	for name, send := range map[string]func(store Store) *httptest.ResponseRecorder{
		"gzipped body": func(s Store) *httptest.ResponseRecorder {
			return send(t, s, "name=a&format=pprof", "", cpu())
		},
		"raw body": func(s Store) *httptest.ResponseRecorder {
			return send(t, s, "name=a&format=pprof", "application/octet-stream", raw())
		},
		"body that says it is gzipped": func(s Store) *httptest.ResponseRecorder {
			return send(t, s, "name=a&format=pprof", "", gzipOf(raw()), encoded)
		},
		"body gzipped twice": func(s Store) *httptest.ResponseRecorder {
			return send(t, s, "name=a&format=pprof", "", gzipOf(cpu()), encoded)
		},
		"form":                    func(s Store) *httptest.ResponseRecorder { return send(t, s, "name=a", contentType, body) },
		"form that names format":  func(s Store) *httptest.ResponseRecorder { return send(t, s, "name=a&format=pprof", contentType, body) },
		"form with a raw profile": func(s Store) *httptest.ResponseRecorder { return send(t, s, "name=a", rawFormType, rawForm) },
		"gzipped form": func(s Store) *httptest.ResponseRecorder {
			return send(t, s, "name=a", contentType, gzipOf(body), encoded)
		},
		"form gzipped without word": func(s Store) *httptest.ResponseRecorder { return send(t, s, "name=a", contentType, gzipOf(body)) },
	} {
		t.Run(name, func(t *testing.T) {
			store := &shelf{}
			if w := send(store); w.Code != http.StatusOK {
				t.Fatalf("answer %d %s", w.Code, w.Body)
			}
			var got, want profile.Profile
			d := pprof.NewDecoder()
			if err := errors.Join(d.Decode(store.uploads[0].Profile, pprof.Limits{MaxBytes: 4 << 20}, &got),
				d.Decode([]byte(cpu()), pprof.Limits{MaxBytes: 4 << 20}, &want)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Data, want.Data) {
				t.Error("the profile is not what was sent")
			}
			if store.uploads[0].Start != now.UnixNano() {
				t.Errorf("without from it starts at %d, want now", store.uploads[0].Start)
			}
		})
	}
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	pprofForm, contentType := form(part{"profile", "p", cpu()})
	forms := func(parts ...part) [2]string { b, c := form(parts...); return [2]string{b, c} }
	prev := forms(part{"profile", "p", cpu()}, part{"prev_profile", "p", cpu()})
	none := forms(part{"profil", "p", cpu()})
	twice := forms(part{"profile", "p", cpu()}, part{"profile", "p", cpu()})
	config := forms(part{"profile", "p", cpu()}, part{"sample_type_config", "c", `{"a":`})
	many := forms(slices.Repeat([]part{{"other", "o", "x"}}, 20)...)
	for _, c := range []struct {
		name, query, contentType, body string
		edit                           func(*http.Request)
		status                         int
		says                           string
	}{
		{"no name", "", contentType, pprofForm, nil, 400, "parameter name"},
		{"bad name", "name=a%20b", contentType, pprofForm, nil, 400, "invalid service name"},
		{"bad label name", "name=a{x-y=1}", contentType, pprofForm, nil, 400, "x-y"},
		{"bad from", "name=a&from=soon", contentType, pprofForm, nil, 400, "parameter from"},
		{"from beyond time", "name=a&from=99991231&until=99991231", contentType, pprofForm, nil, 400, "parameter from"},
		{"bad until", "name=a&until=later", contentType, pprofForm, nil, 400, "parameter until"},
		{"until before from", "name=a&from=now-1h&until=now-2h", contentType, pprofForm, nil, 400, "before from"},
		{"aggregation", "name=a&aggregationType=median", contentType, pprofForm, nil, 400, "aggregationType"},
		{"unknown format", "name=a&format=svg", "", "x", nil, 400, `"svg"`},
		{"no boundary", "name=a", "multipart/form-data", pprofForm, nil, 400, "boundary"},
		{"form without profile", "name=a", none[1], none[0], nil, 400, "no part profile"},
		{"two profiles", "name=a", twice[1], twice[0], nil, 400, "more than one part profile"},
		{"many parts", "name=a", many[1], many[0], nil, 400, "more than 16 parts"},
		{"previous profile", "name=a", prev[1], prev[0], nil, 400, "prev_profile"},
		{"bad config", "name=a", config[1], config[0], nil, 400, "sample_type_config"},
		{"cut form", "name=a", contentType, pprofForm[:len(pprofForm)/2], nil, 400, "read the form"},
		{"empty body", "name=a&format=pprof", "", "", nil, 400, "empty"},
		{"not a profile", "name=a&format=pprof", "", "hello", nil, 400, "malformed profile"},
		{"cut gzip", "name=a&format=pprof", "", cpu()[:1000], nil, 400, "gunzip"},
		{"not gzip though it says so", "name=a&format=pprof", "", raw(), func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, 400, "not gzip"},
		{"other encoding", "name=a&format=pprof", "", raw(), func(r *http.Request) { r.Header.Set("Content-Encoding", "br") }, 415, `"br"`},
		{"body too large", "name=a&format=pprof", "", strings.Repeat("x", 1<<20+1), nil, 413, "1048576"},
		{"body too large without a length", "name=a&format=pprof", "", strings.Repeat("x", 1<<20+1), func(r *http.Request) { r.ContentLength = -1 }, 413, "1048576"},
		{"bomb", "name=a&format=pprof", "", gzipOf(strings.Repeat("\x00", 3<<20)), func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, 413, "inflates beyond"},
		{"broken body", "name=a&format=pprof", "", "", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(brokenReader{}), -1 }, 408, "read the body"},
		{"no tenant", "name=a", contentType, pprofForm, func(r *http.Request) { *r = *r.WithContext(context.Background()) }, 401, tenant.Header},
		{"get", "name=a", contentType, pprofForm, func(r *http.Request) { r.Method = http.MethodGet }, 405, "POST"},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := &shelf{}
			edit := c.edit
			if edit == nil {
				edit = func(*http.Request) {}
			}
			w := send(t, store, c.query, c.contentType, c.body, edit)
			var answer struct{ Code, Message string }
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
				t.Fatalf("answer %q: %v", w.Body, err)
			}
			if w.Code != c.status || !strings.Contains(answer.Message, c.says) || answer.Code == "" {
				t.Errorf("answer %d %s, want %d and %q", w.Code, w.Body, c.status, c.says)
			}
			if len(store.uploads) != 0 {
				t.Error("something was stored")
			}
		})
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestWhatTheStoreSaysBecomesAStatus(t *testing.T) {
	for code, want := range map[connect.Code]int{
		connect.CodeInvalidArgument:   400,
		connect.CodePermissionDenied:  403,
		connect.CodeResourceExhausted: 429,
		connect.CodeUnavailable:       503,
		connect.CodeAborted:           503,
		connect.CodeDeadlineExceeded:  503,
		connect.CodeInternal:          500,
	} {
		w := send(t, &shelf{err: connect.NewError(code, errors.New("told you"))}, "name=a&format=pprof", "", cpu())
		if w.Code != want || !strings.Contains(w.Body.String(), `"message":"told you"`) {
			t.Errorf("%s is answered with %d %s, want %d", code, w.Code, w.Body, want)
		}
		if retry := w.Header().Get("Retry-After") != ""; retry != (want == 429 || want == 503) {
			t.Errorf("%s: Retry-After is %q", code, w.Header().Get("Retry-After"))
		}
	}
}

func TestWhenACaptureWas(t *testing.T) {
	minute := func(n int) time.Time { return now.Add(time.Duration(n) * time.Minute) }
	for query, want := range map[string][2]time.Time{
		"":                            {now, now},
		"from=now-2min":               {minute(-2), now},
		"from=now-2min&until=now-1m":  {minute(-2), minute(-1)},
		"from=now-2min&until=now-2m":  {minute(-2), minute(-2)},
		"until=now-1m":                {minute(-1), minute(-1)},
		"from=now%2B2min":             {minute(2), minute(2)}, // a clock that is ahead of ours
		"from=1774958340":             {minute(-1), now},
		"from=1774958340000":          {minute(-1), now},
		"from=1774958340000000":       {minute(-1), now},
		"from=1774958340000000000":    {minute(-1), now},
		"from=2026-03-31T11:59:00Z":   {minute(-1), now},
		"from=20260331&until=now-12h": {minute(-720), minute(-720)},
	} {
		values, err := url.ParseQuery("name=a&" + query)
		if err != nil {
			t.Fatal(err)
		}
		p, err := parseParams(values, "", now)
		if err != nil || !p.from.Equal(want[0]) || !p.until.Equal(want[1]) {
			t.Errorf("%s: from %s until %s, %v; want %s", query, p.from, p.until, err, want)
		}
	}
}

func TestNameBecomesLabels(t *testing.T) {
	for name, want := range map[string]labels.Labels{
		"checkout":                             labels.FromStrings("service_name", "checkout"),
		"checkout.cpu{}":                       labels.FromStrings("service_name", "checkout.cpu"),
		"a{region=eu, zone=1}":                 labels.FromStrings("service_name", "a", "region", "eu", "zone", "1"),
		"a{service_name=b,x=}":                 labels.FromStrings("service_name", "b", "app_name", "a"),
		"a{service_name=b,app_name=c}":         labels.FromStrings("service_name", "b", "app_name", "c"),
		"a{pyroscope_spy=gospy}":               labels.FromStrings("service_name", "a", "pyroscope_spy", "gospy"),
		"a{__private__=1,__session_id__=cafe}": labels.FromStrings("service_name", "a", "__session_id__", "cafe"),
	} {
		p, err := parseParams(url.Values{"name": {name}}, "", now)
		got := p.series(p.app)
		if want = want.With(labels.Delta, "false"); err != nil || labels.Compare(got, want) != 0 {
			t.Errorf("%s has labels %s, %v; want %s", name, got, err, want)
		}
	}
}

func TestSampleTypesDecideTheKind(t *testing.T) {
	goroutines := sampleTypes{"goroutine": {DisplayName: "goroutines"}}
	mutex := sampleTypes{"contentions": {DisplayName: "mutex_count"}, "delay": {DisplayName: "mutex_duration"}}
	block := sampleTypes{"contentions": {DisplayName: "block_count"}, "delay": nil}
	for _, c := range []struct {
		config sampleTypes
		types  []string
		want   string
	}{
		{nil, []string{"samples", "cpu"}, "process_cpu"},
		{nil, []string{"cpu", "wall"}, "wall"},
		{nil, []string{"alloc_objects", "alloc_space", "inuse_objects", "inuse_space"}, "memory"},
		{nil, []string{"objects", "space"}, "memory"},
		{mutex, []string{"contentions", "delay"}, "mutex"},
		{block, []string{"contentions", "delay"}, "block"},
		{goroutines, []string{"goroutine"}, "goroutines"},
		{nil, []string{"goroutine"}, "goroutine"},
		{nil, []string{"contentions", "delay"}, "delay"},
		{nil, []string{"workspace"}, "workspace"},
	} {
		var p profile.Profile
		p.Strings = []profile.Span{{}}
		for _, name := range c.types {
			p.Strings = append(p.Strings, profile.Span{Off: uint32(len(p.Data)), Len: uint32(len(name))})
			p.Data = append(p.Data, name...)
			p.SampleTypes = append(p.SampleTypes, profile.ValueType{Type: uint32(len(p.Strings) - 1)})
		}
		if got := c.config.kind(&p); got != c.want {
			t.Errorf("sample types %v are of kind %q, want %q", c.types, got, c.want)
		}
	}
}

func FuzzForm(f *testing.F) {
	content, contentType := form(part{"profile", "p", "x"}, part{"sample_type_config", "c", "{}"})
	f.Add([]byte(content), contentType)
	f.Add([]byte(content), "multipart/form-data; boundary=x")
	f.Fuzz(func(t *testing.T, content []byte, contentType string) {
		p, err := parseParams(map[string][]string{"name": {"a"}}, contentType, now)
		if err != nil || !p.form {
			return
		}
		a := body.NewArena(httptest.NewRequest(http.MethodPost, "/ingest", nil), tenant.DefaultLimits())
		defer a.Release()
		_, _ = readForm(a, content, p.boundary, "profile") // must not panic
	})
}
