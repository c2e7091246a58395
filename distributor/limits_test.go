package distributor_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/push/v1/pushv1connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/kilndb/kiln/distributor"
	. "github.com/kilndb/kiln/segmentwriter/segmentwritertest"
	"github.com/kilndb/kiln/tenant"
)

// limitCase is what happens beyond one limit.
type limitCase struct {
	edit   func(*tenant.Limits)
	series []*pushv1.RawProfileSeries // the last one is beyond the limit
	code   connect.Code               // 0: it is stored
	says   []string
	metric string // kiln_discarded_profiles_total unless it says otherwise
	reason string
	count  float64 // 0: 1
}

// ofQuestions are the limits that bound no profile.
var ofQuestions = map[string]bool{"MaxQueryLength": true, "MaxNodes": true, "DefaultNodes": true}

func limitCases() map[string]limitCase {
	one := func(nameValues []string, profiles ...[]byte) []*pushv1.RawProfileSeries {
		return []*pushv1.RawProfileSeries{series(nameValues, profiles...)}
	}
	cpu := func(samples ...Sample) []byte { return Pprof(now.UnixNano(), []string{"cpu:nanoseconds"}, samples...) }
	stack := func(s string, labels map[string]string) Sample {
		return Sample{Stack: s, Values: []int64{1}, Labels: labels}
	}
	const invalid, later = connect.CodeInvalidArgument, connect.CodeResourceExhausted
	return map[string]limitCase{
		"MaxBody": {edit: func(l *tenant.Limits) { l.MaxBody = 5000 }, series: one(checkout(), sized(6000)),
			code: invalid, says: []string{"larger than the limit of 5000 bytes"}, reason: "body_size_limit_exceeded"},
		"MaxProfileBytes": {edit: func(l *tenant.Limits) { l.MaxProfileBytes = 5000 }, series: one(checkout(), sized(6000)),
			code: invalid, says: []string{"more than 5000 bytes"}, reason: "profile_size_limit"},
		"MaxRequestBytes": {edit: func(l *tenant.Limits) { l.MaxRequestBytes = 5000 }, series: one(checkout(), sized(6000)),
			code: invalid, says: []string{"exceed the limit of 5000 bytes after decompression"}, reason: "body_size_limit_exceeded"},
		"MaxRatio": {edit: func(l *tenant.Limits) { l.MaxRatio = 20 }, series: one(checkout(), gzipped(sized(2<<20))),
			code: invalid, says: []string{"more than 20 bytes inflated per byte sent"}, reason: "profile_size_limit"},
		"MaxSeriesPerRequest": {edit: func(l *tenant.Limits) { l.MaxSeriesPerRequest = 1 }, series: append(one(checkout(), small(1)), one(checkout(), small(1))...),
			code: invalid, says: []string{"2 series, more than the limit of 1"}, reason: "request_series_limit", count: 2},
		"MaxProfilesPerSeries": {edit: func(l *tenant.Limits) { l.MaxProfilesPerSeries = 2 }, series: one(checkout(), small(1), small(1), small(1)),
			code: invalid, says: []string{"3 profiles, more than the limit of 2"}, reason: "request_profiles_limit", count: 3},
		"MaxLabels": {edit: func(l *tenant.Limits) { l.MaxLabels = 2 }, series: one(checkout("pod", "1"), small(1)),
			code: invalid, says: []string{"3 labels are more than the limit of 2"}, reason: "max_label_names_per_series"},
		"MaxLabelName": {edit: func(l *tenant.Limits) { l.MaxLabelName = 20 }, series: one(checkout(strings.Repeat("n", 21), "1"), small(1)),
			code: invalid, says: []string{"21 bytes, more than the limit of 20"}, reason: "label_name_too_long"},
		"MaxLabelValue": {edit: func(l *tenant.Limits) { l.MaxLabelValue = 20 }, series: one(checkout("pod", strings.Repeat("v", 21)), small(1)),
			code: invalid, says: []string{`"pod"`, "21 bytes, more than the limit of 20"}, reason: "label_value_too_long"},
		"MaxSamples": {edit: func(l *tenant.Limits) { l.MaxSamples = 2 }, series: one(checkout(), cpu(stack("a", nil), stack("b", nil), stack("c", nil))),
			code: invalid, says: []string{"more than 2 samples"}, reason: "samples_limit"},
		"MaxSampleLabels": {edit: func(l *tenant.Limits) { l.MaxSampleLabels = 1 }, series: one(checkout(), cpu(stack("a", map[string]string{"x": "1", "y": "2"}))),
			code: invalid, says: []string{"more than 1 labels of a sample"}, reason: "sample_labels_limit"},
		"MaxSampleTypes": {edit: func(l *tenant.Limits) { l.MaxSampleTypes = 1 },
			series: one(checkout(), Pprof(now.UnixNano(), []string{"a:b", "c:d"}, Sample{Stack: "a", Values: []int64{1, 1}})),
			code:   invalid, says: []string{"more than 1 sample types"}, reason: "profile_size_limit"},
		"MaxStackDepth": {edit: func(l *tenant.Limits) { l.MaxStackDepth = 2 }, series: one(checkout(), cpu(stack("a;b;c", nil))),
			metric: "kiln_distributor_truncated_total", reason: "stack"},
		"MaxSymbolLength": {edit: func(l *tenant.Limits) { l.MaxSymbolLength = 11 }, series: one(checkout(), cpu(stack("abcdefghijkl", nil))),
			metric: "kiln_distributor_truncated_total", reason: "symbol"},
		"Rate": {edit: func(l *tenant.Limits) { l.Rate, l.Burst = 1000, 10 }, series: one(checkout(), small(1)),
			code: later, says: []string{"rate limit of 1000 bytes"}, reason: "rate_limited"},
		"Burst": {edit: func(l *tenant.Limits) { l.Burst = 10 }, series: one(checkout(), small(1)),
			code: later, says: []string{"burst 10"}, reason: "rate_limited"},
		"MaxActiveSeries": {edit: func(l *tenant.Limits) { l.MaxActiveSeries = 1 }, series: one(checkout("pod", "1"), small(1)),
			code: later, says: []string{"limit of 1"}, reason: "series_limit"},
		"MaxFuture": {edit: func(l *tenant.Limits) { l.MaxFuture = time.Minute }, series: one(checkout(), smallAt(now.Add(2*time.Minute), 1)),
			code: invalid, says: []string{"more than 1m0s ahead of ours"}, reason: "not_in_ingestion_window"},
		"MaxAge": {edit: func(l *tenant.Limits) { l.MaxAge = time.Hour }, series: one(checkout(), smallAt(now.Add(-2*time.Hour), 1)),
			code: invalid, says: []string{"more than 1h0m0s ago"}, reason: "not_in_ingestion_window"},
		"Retention": {edit: func(l *tenant.Limits) { l.Retention = time.Hour }, series: one(checkout(), smallAt(now.Add(-2*time.Hour), 1)),
			code: invalid, says: []string{"more than 1h0m0s ago", `service "checkout" is kept (retention)`}, reason: "not_in_ingestion_window"},
	}
}

// TestEveryLimit passes each limit by a little, over HTTP: the answer names the limit, a metric counts the reason, and
// what keeps to it is stored before.
func TestEveryLimit(t *testing.T) {
	cases := limitCases()
	for i := range reflect.TypeFor[tenant.Limits]().NumField() {
		name := reflect.TypeFor[tenant.Limits]().Field(i).Name
		c, ok := cases[name]
		switch {
		case ofQuestions[name]:
			continue
		case !ok:
			t.Errorf("nothing tests the limit %s", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			d := openTimed(t, c.edit)
			client := d.serve(t)
			send := func(list ...*pushv1.RawProfileSeries) error {
				_, err := client.Push(t.Context(), connect.NewRequest(&pushv1.PushRequest{Series: list}))
				return err
			}
			if err := send(series(checkout(), small(1))); err != nil {
				t.Fatalf("within the limit: %v", err)
			}
			err := send(c.series...)
			if c.code == 0 {
				if err != nil {
					t.Error(err)
				}
			} else {
				wantError(t, err, c.code, c.says...)
			}
			if c.code == connect.CodeResourceExhausted {
				wait(t, err)
			}
			if c.metric == "" {
				c.metric = "kiln_discarded_profiles_total"
			}
			wantMetric(t, d.door, c.metric, c.reason, max(c.count, 1))
		})
	}
}

// serve serves Push as a node does, and returns a client that gzips nothing.
func (d *timed) serve(t *testing.T) pushv1connect.PusherServiceClient {
	s := d.server(t)
	return pushv1connect.NewPusherServiceClient(s.Client(), s.URL)
}

func (d *timed) server(t *testing.T) *httptest.Server {
	mux := http.NewServeMux()
	mux.Handle(d.RPC(func(options ...connect.HandlerOption) (string, http.Handler) {
		return pushv1connect.NewPusherServiceHandler(d, options...)
	}))
	mux.Handle("/ingest", d.Guard(d.Ingest()))
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux.ServeHTTP(w, r.WithContext(acme(r.Context())))
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// counting gives zeros and knows how many were taken.
type counting struct{ left, read int }

func (c *counting) Read(p []byte) (int, error) {
	n := min(len(p), c.left)
	c.left -= n
	c.read += n
	clear(p[:n])
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// post sends a body with some headers and returns status, headers and body of the answer.
func post(t *testing.T, s *httptest.Server, path string, body io.Reader, nameValues ...string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, s.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(nameValues); i += 2 {
		r.Header.Set(nameValues[i], nameValues[i+1])
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(answer)
}

const pushPath = "/push.v1.PusherService/Push"

func TestMessagesAreBoundedAsTheyComeAndInflated(t *testing.T) {
	d := openTimed(t, func(l *tenant.Limits) { l.MaxBody = 1 << 20 })
	s := d.server(t)
	var bomb bytes.Buffer
	zw, _ := gzip.NewWriterLevel(&bomb, gzip.BestCompression)
	_, _ = io.Copy(zw, &counting{left: 256 << 20})
	_ = zw.Close()
	for _, contentType := range []string{"application/proto", "application/json"} {
		status, _, body := post(t, s, pushPath, bytes.NewReader(bomb.Bytes()), "Content-Type", contentType, "Content-Encoding", "gzip")
		if status != http.StatusBadRequest || !strings.Contains(body, "limit of 1048576 bytes once inflated") {
			t.Errorf("a bomb as %s: %d %s", contentType, status, body)
		}
		status, _, body = post(t, s, pushPath, &counting{left: 2 << 20}, "Content-Type", contentType)
		if status != http.StatusBadRequest || !strings.Contains(body, "limit of 1048576 bytes") {
			t.Errorf("2 MiB as %s: %d %s", contentType, status, body)
		}
	}
	status, _, body := post(t, s, "/ingest?name=a&format=pprof", &counting{left: 2 << 20})
	if status != http.StatusRequestEntityTooLarge || !strings.Contains(body, "1048576") {
		t.Errorf("2 MiB to /ingest: %d %s", status, body)
	}
	wantMetric(t, d.door, "kiln_discarded_profiles_total", "body_size_limit_exceeded", 3)
	// A limit that changes holds at once.
	d.limits.MaxBody = 3 << 20
	if status, _, body = post(t, s, pushPath, &counting{left: 2 << 20}, "Content-Type", "application/proto"); status != http.StatusBadRequest || strings.Contains(body, "limit") {
		t.Errorf("2 MiB under a limit of 3: %d %s", status, body)
	}
}

// TestRequestsShareTheMemory fills it with a request that waits, and wants the next refused at once, another tenant
// served, and all of it back in the end.
func TestRequestsShareTheMemory(t *testing.T) {
	d := openTimed(t, func(l *tenant.Limits) { l.Rate = 0 }, func(cfg *distributor.Config) { cfg.MaxMemory = 4 << 20 })
	s := d.server(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	gate := func() { close(arrived); <-release }
	d.gate.Store(&gate)
	first := make(chan int)
	go func() {
		body, err := proto.Marshal(&pushv1.PushRequest{Series: []*pushv1.RawProfileSeries{series(checkout(), sized(800<<10))}})
		if err != nil {
			panic(err)
		}
		resp, err := s.Client().Post(s.URL+pushPath, "application/proto", bytes.NewReader(body))
		if err != nil {
			panic(err)
		}
		resp.Body.Close()
		first <- resp.StatusCode
	}()
	<-arrived // it holds 1.6 MB of the 2 MiB that one tenant may
	d.gate.Store(nil)
	for encoding, body := range map[string][]byte{"": sized(1 << 20), "gzip": gzipped(sized(1 << 20))} {
		status, header, answer := post(t, s, "/ingest?name=a&format=pprof", bytes.NewReader(body), "Content-Encoding", encoding)
		if status != http.StatusTooManyRequests || header.Get("Retry-After") != "1" || !strings.Contains(answer, "no memory") {
			t.Errorf("encoding %q: %d, Retry-After %q: %s", encoding, status, header.Get("Retry-After"), answer)
		}
	}
	wantMetric(t, d.door, "kiln_discarded_profiles_total", "out_of_memory", 2)
	close(release)
	if status := <-first; status != http.StatusOK {
		t.Errorf("the request that was inside: %d", status)
	}
	for i := range 20 {
		if status, _, answer := post(t, s, "/ingest?name=a&format=pprof", bytes.NewReader(sized(1<<20))); status != http.StatusOK {
			t.Fatalf("request %d afterwards: %d %s", i, status, answer)
		}
	}
}

// Two bytes make a series of a hundred: they are counted before.
func TestHollowRequestsAreNotUnmarshalled(t *testing.T) {
	d := openTimed(t, func(l *tenant.Limits) { l.MaxSeriesPerRequest, l.MaxLabels, l.MaxProfilesPerSeries = 10, 4, 5 })
	s := d.server(t)
	series := func(n int) []byte { return bytes.Repeat([]byte{0x0a, 0}, n) }
	labels := func(n int) []byte { return protowire.AppendBytes([]byte{0x0a}, series(n)) }
	json := func(n int) []byte { return []byte(`{"series":[` + strings.Repeat("{},", n-1) + "{}]}") }
	for name, c := range map[string]struct {
		contentType string
		body        []byte
		says        string
	}{
		"series":      {"application/proto", series(101), "101 series, labels and profiles"},
		"labels":      {"application/proto", labels(100), "101 series, labels and profiles"},
		"JSON":        {"application/json", json(101), "101 series, labels and profiles"},
		"JSON UTF-8":  {"application/json; charset=utf-8", json(101), "101 series, labels and profiles"},
		"few series":  {"application/proto", series(100), "limit of 10"},
		"few of JSON": {"application/json", json(100), "limit of 10"},
		"cut":         {"application/proto", append(series(99), 0x0a, 7), "unmarshal"},
	} {
		status, _, answer := post(t, s, pushPath, bytes.NewReader(c.body), "Content-Type", c.contentType)
		if status != http.StatusBadRequest || !strings.Contains(answer, c.says) {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	wantMetric(t, d.door, "kiln_discarded_profiles_total", "request_series_limit", 4)
}
