package distributor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/kilndb/kiln/distributor"
	"github.com/kilndb/kiln/labels"
	. "github.com/kilndb/kiln/segmentwriter/segmentwritertest"
	"github.com/kilndb/kiln/tenant"
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }

func (c *clock) pass(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.t = c.t.Add(d) }

// timed is a distributor that stores nothing, beside others, with a clock.
type timed struct {
	*door
	clock  *clock
	limits tenant.Limits
	others int
	// gate is what a profile passes before it is durable.
	gate atomic.Pointer[func()]
}

func openTimed(t testing.TB, edit func(*tenant.Limits), config ...func(*distributor.Config)) *timed {
	t.Helper()
	d := &timed{door: &door{metrics: prometheus.NewRegistry()}, clock: &clock{t: now}, limits: tenant.DefaultLimits()}
	edit(&d.limits)
	cfg := distributor.DefaultConfig()
	cfg.Now = d.clock.now
	cfg.Limits = func(tenant.ID) tenant.Limits { return d.limits }
	cfg.Distributors = func() int { return 1 + d.others }
	for _, c := range config {
		c(&cfg)
	}
	accept := writerFunc(func(context.Context, labels.Labels) (func(context.Context) error, error) {
		if gate := d.gate.Load(); gate != nil {
			(*gate)()
		}
		return func(context.Context) error { return nil }, nil
	})
	var err error
	if d.Distributor, err = distributor.New(cfg, accept, slog.New(slog.DiscardHandler), d.metrics); err != nil {
		t.Fatal(err)
	}
	return d
}

// sized is a profile of n bytes.
func sized(n int) []byte {
	p := func(pad int) []byte {
		return Pprof(now.UnixNano(), []string{"cpu:nanoseconds"}, Sample{Stack: strings.Repeat("x", pad), Values: []int64{1}})
	}
	pad := n
	for range 3 { // lengths of lengths change with it
		pad += n - len(p(pad))
	}
	b := p(pad)
	if len(b) != n {
		panic(fmt.Sprintf("%d bytes, want %d", len(b), n))
	}
	return b
}

// wait returns the Retry-After of an error, and compares it with the detail for gRPC clients.
func wait(t testing.TB, err error) int {
	t.Helper()
	e := new(connect.Error)
	if !errors.As(err, &e) || len(e.Details()) != 1 {
		t.Fatalf("%v has not one detail", err)
	}
	seconds, atoiErr := strconv.Atoi(e.Meta().Get("Retry-After"))
	detail, valueErr := e.Details()[0].Value()
	if atoiErr != nil || valueErr != nil {
		t.Fatalf("%v: %v, %v", err, atoiErr, valueErr)
	}
	exact := detail.(*errdetails.RetryInfo).GetRetryDelay().AsDuration()
	if diff := time.Duration(seconds)*time.Second - exact; diff < 0 || diff >= time.Second {
		t.Errorf("Retry-After says %d seconds, the detail %s", seconds, exact)
	}
	return seconds
}

func TestATenantKeepsToItsRate(t *testing.T) {
	d := openTimed(t, func(l *tenant.Limits) { l.Rate, l.Burst = 10_000, 20_000 })
	send := func(n int) error { t.Helper(); return push(t, d, series(checkout(), sized(n))) }
	if err := errors.Join(send(15_000), send(15_000)); err != nil { // the second finds something left
		t.Fatal(err)
	}
	err := send(1000) // 10,000 are owed
	wantError(t, err, connect.CodeResourceExhausted, "acme", "rate limit of 10000 bytes", "burst 20000")
	if got := wait(t, err); got != 2 {
		t.Errorf("Retry-After %d", got)
	}
	wantMetric(t, d.door, "kiln_discarded_profiles_total", "rate_limited", 1)
	if _, err := d.Push(tenant.NewContext(t.Context(), "globex"), connect.NewRequest(&pushv1.PushRequest{
		Series: []*pushv1.RawProfileSeries{series(checkout(), sized(1000))}})); err != nil {
		t.Errorf("another tenant: %v", err)
	}
	d.clock.pass(1002 * time.Millisecond)
	if err := send(1000); err != nil {
		t.Errorf("after the wait: %v", err)
	}
	d.clock.pass(time.Hour)
	if err := errors.Join(send(19_999), send(1000)); err != nil {
		t.Errorf("after a long pause the burst is whole: %v", err)
	}
	if err := send(1000); err == nil {
		t.Error("and not more than whole")
	}
	d.limits.Rate = 0
	if err := send(100_000); err != nil {
		t.Errorf("a rate of 0 is none: %v", err)
	}
}

// The long-run rate holds for requests of any size, those beyond the burst too.
func TestNoRequestIsTooLargeToPass(t *testing.T) {
	d := openTimed(t, func(l *tenant.Limits) { l.Rate, l.Burst = 100_000, 100_000 })
	passed, started := 0, d.clock.now()
	for d.clock.now().Sub(started) < 100*time.Second {
		err := push(t, d, series(checkout(), sized(100_000), sized(100_000)), series(checkout("pod", "1"), sized(100_000)))
		if err == nil {
			passed += 300_000
			continue
		}
		if strings.Contains(err.Error(), "series 0") {
			t.Fatalf("a part of a request was refused: %v", err)
		}
		d.clock.pass(time.Duration(wait(t, err)) * time.Second)
	}
	if want := 100 * 100_000; passed < want*9/10 || passed > want+600_000 {
		t.Errorf("%d bytes passed in 100 s, want about %d", passed, want)
	}
}

func TestWhatAProfileInflatesToCounts(t *testing.T) {
	for name, body := range map[string][]byte{
		"good":       gzipped(sized(900_000)),
		"a bomb":     gzipped(make([]byte, 64<<20)),
		"bad inside": gzipped(append(make([]byte, 900_000), 0xff)),
	} {
		d := openTimed(t, func(l *tenant.Limits) { l.Rate, l.Burst = 100_000, 500_000 })
		_ = push(t, d, series(checkout(), body))
		err := push(t, d, series(checkout(), small(1)))
		wantError(t, err, connect.CodeResourceExhausted, "rate limit")
		if got := wait(t, err); got < 4 {
			t.Errorf("%s: Retry-After %d, want 4 at least", name, got)
		}
	}
}

// Bombs in one request stop at its limit together, although none of them decodes.
func TestBadProfilesCountForTheLimitOfTheRequest(t *testing.T) {
	d := openTimed(t, func(l *tenant.Limits) { l.MaxRequestBytes, l.Rate = 8<<20, 0 })
	bomb := gzipped(make([]byte, 64<<20))
	err := push(t, d, series(checkout(), bomb, bomb, bomb, bomb, bomb, bomb, bomb, bomb, bomb, bomb))
	wantError(t, err, connect.CodeInvalidArgument, "limit of 8388608 bytes after decompression")
}

func TestDistributorsShareTheRate(t *testing.T) {
	d := openTimed(t, func(l *tenant.Limits) { l.Rate, l.Burst = 10_000, 10_000 })
	d.others = 4
	if err := push(t, d, series(checkout(), sized(20_000))); err != nil {
		t.Fatal(err)
	}
	err := push(t, d, series(checkout(), small(1)))
	if got := wait(t, err); got != 6 || !strings.Contains(err.Error(), "equal part") {
		t.Errorf("10000 bytes at 2000 a second take %d s: %v", got, err)
	}
}

func TestIngestSaysWhenToComeBack(t *testing.T) {
	d := openTimed(t, func(l *tenant.Limits) { l.Rate, l.Burst = 10_000, 10_000 })
	send := func() *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "/ingest?name=a&format=pprof", bytes.NewReader(sized(40_000)))
		w := httptest.NewRecorder()
		d.Ingest().ServeHTTP(w, r.WithContext(acme(t.Context())))
		return w
	}
	if w := send(); w.Code != http.StatusOK {
		t.Fatalf("answer %d %s", w.Code, w.Body)
	}
	if w := send(); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "4" || !strings.Contains(w.Body.String(), "rate limit of 10000") {
		t.Errorf("answer %d, Retry-After %q: %s", w.Code, w.Header().Get("Retry-After"), w.Body)
	}
}

// What a refusal says of time reaches senders of OpenTelemetry too.
func TestOTLPSaysWhenToComeBack(t *testing.T) {
	d := openTimed(t, func(l *tenant.Limits) { l.Rate, l.Burst = 10_000, 10_000 })
	if err := push(t, d, series(checkout(), sized(40_000))); err != nil {
		t.Fatal(err)
	}
	w := export(t, d.Distributor, counted(now, "main").Proto())
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "4" || !strings.Contains(w.Body.String(), "rate limit of 10000") {
		t.Errorf("answer %d, Retry-After %q: %q", w.Code, w.Header().Get("Retry-After"), w.Body)
	}
}

func TestActiveSeriesAreBounded(t *testing.T) {
	d := openTimed(t, func(l *tenant.Limits) { l.MaxActiveSeries = 3 })
	send := func(pod string) error { t.Helper(); return push(t, d, series(checkout("pod", pod), small(1))) }
	if err := errors.Join(send("1"), send("2"), send("3"), send("1")); err != nil {
		t.Fatal(err)
	}
	err := send("4")
	wantError(t, err, connect.CodeResourceExhausted, "acme", "3 active series", "limit of 3")
	wait(t, err)
	wantMetric(t, d.door, "kiln_discarded_profiles_total", "series_limit", 1)
	if err := errors.Join(send("1"), send("2"), send("3")); err != nil {
		t.Errorf("series that were there go on: %v", err)
	}
	// Kinds and sessions of a program are no series of their own.
	if err := push(t, d, series([]string{"__name__", "memory", "service_name", "checkout", "pod", "1", "__session_id__", "x"}, small(1))); err != nil {
		t.Errorf("another kind: %v", err)
	}
	d.clock.pass(4 * time.Minute)
	if err := errors.Join(send("1"), send("2")); err != nil {
		t.Fatal(err)
	}
	d.clock.pass(4 * time.Minute)
	if err := send("1"); err != nil {
		t.Fatal(err)
	}
	if err := send("4"); err == nil {
		t.Error("8 minutes are too soon to forget")
	}
	d.clock.pass(4 * time.Minute) // series 3 is 12 minutes old
	if err := send("4"); err != nil {
		t.Errorf("a series that ended still counts: %v", err)
	}
	if err := errors.Join(send("1"), send("2")); err != nil {
		t.Errorf("a series that goes on was forgotten: %v", err)
	}
	d.clock.pass(time.Hour)
	if err := errors.Join(send("5"), send("6"), send("7")); err != nil {
		t.Errorf("after an hour: %v", err)
	}
}

// Labels of samples make series; a profile comes in with all of its series or not at all.
func TestSeriesOfSamplesCount(t *testing.T) {
	d := openTimed(t, func(l *tenant.Limits) { l.MaxActiveSeries = 5 })
	of := func(from, to int) []byte {
		var samples []Sample
		for i := from; i < to; i++ {
			samples = append(samples, Sample{Stack: "main", Values: []int64{1}, Labels: map[string]string{"user": fmt.Sprint(i)}})
		}
		return Pprof(now.UnixNano(), []string{"cpu:nanoseconds"}, samples...)
	}
	if err := push(t, d, series(checkout(), of(0, 4))); err != nil {
		t.Fatal(err)
	}
	wantError(t, push(t, d, series(checkout(), of(3, 6))), connect.CodeResourceExhausted, "4 active series", "3 of this profile", "limit of 5")
	if err := push(t, d, series(checkout(), of(0, 5))); err != nil {
		t.Errorf("none of the refused profile may be left: %v", err)
	}
}

func TestAFloodOfSeriesEndsAtTheLimit(t *testing.T) {
	d := openTimed(t, func(*tenant.Limits) {})
	refused := 0
	for i := range 30_000 {
		if err := push(t, d, series(checkout("id", strconv.Itoa(i)), small(1))); err != nil {
			wantError(t, err, connect.CodeResourceExhausted, "limit of 20000")
			refused++
		}
	}
	if refused != 10_000 {
		t.Errorf("refused %d of 30000 series, want 10000", refused)
	}
	d.limits.MaxActiveSeries = 0
	if err := push(t, d, series(checkout("id", "one more"), small(1))); err != nil {
		t.Errorf("0 is no limit: %v", err)
	}
}
