package client_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	segmentwriterv1 "github.com/kilndb/kiln/api/kiln/segmentwriter/v1"
	"github.com/kilndb/kiln/api/kiln/segmentwriter/v1/segmentwriterv1connect"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/objstore/objstoretest"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/segmentwriter"
	"github.com/kilndb/kiln/segmentwriter/client"
	. "github.com/kilndb/kiln/segmentwriter/segmentwritertest"
	"github.com/kilndb/kiln/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var series = labels.FromStrings("__name__", "process_cpu", "service_name", "checkout")

// serve starts a server for a service and returns its address.
func serve(t *testing.T, s segmentwriterv1connect.SegmentWriterServiceHandler) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(segmentwriterv1connect.NewSegmentWriterServiceHandler(s))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// to returns a client that has these candidates for every shard.
func to(t *testing.T, addresses ...string) *client.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return client.New(&http.Client{Transport: transport}, client.Local{}, func(uint32) []string { return addresses }, slog.New(slog.DiscardHandler))
}

func push(t *testing.T, c *client.Client, p *profile.Profile, id profile.ID) error {
	t.Helper()
	wait, err := c.Append(t.Context(), "acme", 3, series, id, p)
	if err != nil {
		t.Fatal(err)
	}
	return wait(t.Context())
}

// stub is a writer with one answer.
type stub struct {
	code    connect.Code // 0: success
	refused string       // the value of the header that says that nothing was taken; or empty
	calls   atomic.Int32
	began   chan struct{} // if not nil, closed by the first call, which then waits for its context to end
}

func (s *stub) Append(ctx context.Context, _ *connect.Request[segmentwriterv1.AppendRequest]) (*connect.Response[segmentwriterv1.AppendResponse], error) {
	s.calls.Add(1)
	if s.began != nil {
		close(s.began)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if s.code != 0 {
		err := connect.NewError(s.code, errors.New("stub"))
		if s.refused != "" {
			err.Meta().Set(segmentwriter.Refused, s.refused)
		}
		return nil, err
	}
	return connect.NewResponse(&segmentwriterv1.AppendResponse{}), nil
}

// closedAddress returns an address where nobody listens.
func closedAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestWhatIsSentIsStored(t *testing.T) {
	w := Open(t, Config())
	c := to(t, serve(t, segmentwriter.NewService(w.Writer)))
	var parsed []corpus.File
	for i, name := range []string{"api-gateway-cpu-0", "compiler-cpu-0", "regexp-cpu-1", "net-http-cpu-0"} {
		f := corpus.Get(name)
		parsed = append(parsed, f)
		p := Decode(f.Gzipped)
		p.TimeNanos = 42
		if i%2 == 1 {
			p.Wire, p.Data = 0, append(p.Data, "no pprof"...) // it must be encoded
		}
		if err := push(t, c, p, profile.ID{1}); err != nil {
			t.Fatal(err)
		}
	}
	rows := w.Rows(t)
	for _, r := range rows {
		if r.Tenant != "acme" || r.Time != 42 || r.ID != (profile.ID{1}) || r.Labels.Get("service_name") != "checkout" {
			t.Errorf("row %+v", r)
		}
	}
	want := map[string]int64{}
	for _, f := range parsed {
		for stack, v := range oracle.Sum("cpu", oracle.Parse(f.Gzipped)).Locations {
			want[stack] += v
		}
	}
	if got := Sum(rows, "cpu"); !maps.Equal(got, want) {
		t.Errorf("%d stacks differ from the oracle's %d", len(got), len(want))
	}
	if m := w.Index.Entries()[0]; m.GetShard() != 3 {
		t.Errorf("shard %d, want 3", m.GetShard())
	}
}

func TestTheNextCandidateGetsOnlyWhatTheFirstSurelyHasNot(t *testing.T) {
	small := func() *profile.Profile {
		return Decode(Pprof(1, []string{"cpu:nanoseconds"}, Sample{Stack: "a", Values: []int64{1}}))
	}
	for _, c := range []struct {
		code    connect.Code
		refused string
		next    bool
	}{
		{connect.CodeResourceExhausted, "memory", true},
		{connect.CodeUnavailable, "stopping", true},
		{0, "", false},
		{connect.CodeResourceExhausted, "", false}, // from something between that was asked too much, who knows when
		{connect.CodeUnavailable, "", false},
		{connect.CodeAborted, "", false},
		{connect.CodeDeadlineExceeded, "", false},
		{connect.CodeInternal, "", false},
		{connect.CodeInvalidArgument, "", false},
	} {
		first, second := &stub{code: c.code, refused: c.refused}, &stub{}
		err := push(t, to(t, serve(t, first), serve(t, second)), small(), profile.ID{})
		if tried := second.calls.Load() == 1; tried != c.next || first.calls.Load() != 1 {
			t.Errorf("after %s %q the second got %d calls", c.code, c.refused, second.calls.Load())
		}
		if c.code == 0 || c.next {
			if err != nil {
				t.Errorf("after %s: %v", c.code, err)
			}
		} else if connect.CodeOf(err) != c.code {
			t.Errorf("error %v, want %s", err, c.code)
		}
	}
	second := &stub{}
	if err := push(t, to(t, closedAddress(t), serve(t, second)), small(), profile.ID{}); err != nil || second.calls.Load() != 1 {
		t.Errorf("first unreachable: %v, the second got %d calls", err, second.calls.Load())
	}
}

// TestWritersSayThatTheyTookNothing has real writers refuse, over the network: the next one must get the profile.
func TestWritersSayThatTheyTookNothing(t *testing.T) {
	small := func() *profile.Profile {
		return Decode(Pprof(1, []string{"cpu:nanoseconds"}, Sample{Stack: "a", Values: []int64{1}}))
	}
	for name, refusing := range map[string]func() *Writer{
		"stopping": func() *Writer {
			w := Open(t, Config())
			w.Stop()
			return w
		},
		"full": func() *Writer {
			cfg := Config()
			cfg.MaxSegmentBytes, cfg.Flights = 1, 1
			w := Open(t, cfg)
			w.Bucket.Hold(objstoretest.BeforePut)
			t.Cleanup(w.Bucket.Heal)
			for range 2 { // in flight, and gathered
				if _, err := w.Append(t.Context(), "acme", 3, series, profile.NewID(), small()); err != nil {
					t.Fatal(err)
				}
			}
			return w
		},
	} {
		second := Open(t, Config())
		c := to(t, serve(t, segmentwriter.NewService(refusing().Writer)), serve(t, segmentwriter.NewService(second.Writer)))
		if err := push(t, c, small(), profile.NewID()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(second.Rows(t)); n != 1 {
			t.Errorf("%s: the second writer has %d profiles, want 1", name, n)
		}
	}
}

func TestNotEveryPushGoesToADeadWriterFirst(t *testing.T) {
	first, second := &stub{code: connect.CodeUnavailable, refused: "stopping"}, &stub{}
	c := to(t, serve(t, first), serve(t, second))
	p := Decode(Pprof(1, []string{"cpu:nanoseconds"}, Sample{Stack: "a", Values: []int64{1}}))
	begun := time.Now()
	const pushes = 100
	for range pushes {
		if err := push(t, c, p, profile.ID{}); err != nil {
			t.Fatal(err)
		}
	}
	// One more for each rest that is over meanwhile; the first rest is no shorter than 50 ms.
	if n, most := int(first.calls.Load()), 1+int(time.Since(begun)/(50*time.Millisecond)); n > most {
		t.Errorf("%d of %d pushes went to the writer that is gone, want at most %d", n, pushes, most)
	}
	if n := second.calls.Load(); n != pushes {
		t.Errorf("%d pushes came to the other, want %d", n, pushes)
	}
}

func TestWithoutAWriterAPushIsUnavailable(t *testing.T) {
	p := Decode(Pprof(1, []string{"cpu:nanoseconds"}, Sample{Stack: "a", Values: []int64{1}}))
	if err := push(t, to(t), p, profile.ID{}); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("no candidates: %v", err)
	}
	address := closedAddress(t)
	err := push(t, to(t, address), p, profile.ID{})
	if connect.CodeOf(err) != connect.CodeUnavailable || strings.Contains(err.Error(), address) {
		t.Errorf("unreachable: %v", err)
	}
}

func TestACallEndsWithItsWait(t *testing.T) {
	p := Decode(Pprof(1, []string{"cpu:nanoseconds"}, Sample{Stack: "a", Values: []int64{1}}))
	s := &stub{began: make(chan struct{})}
	wait, err := to(t, serve(t, s)).Append(context.Background(), "acme", 1, series, profile.ID{}, p)
	if err != nil {
		t.Fatal(err)
	}
	<-s.began
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := wait(ctx); connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("%v, want canceled", err)
	}
}

func TestTheProfileMayBeReusedAtOnce(t *testing.T) {
	w := Open(t, Config())
	c := to(t, serve(t, segmentwriter.NewService(w.Writer)))
	p := Decode(Pprof(1, []string{"cpu:nanoseconds"}, Sample{Stack: "a", Values: []int64{1}}))
	wait, err := c.Append(t.Context(), "acme", 1, series, profile.ID{}, p)
	if err != nil {
		t.Fatal(err)
	}
	clear(p.Data)
	if err := wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rows := w.Rows(t); len(rows) != 1 || !slices.Equal(rows[0].Names["a"], []int64{1}) {
		t.Errorf("rows %v", rows)
	}
}

// Spans, traces and times are stored as they were pushed, also of a profile that never was in wire form.
func TestNothingIsLostBetweenProcesses(t *testing.T) {
	const one, two, trace = "00f067aa0ba902b7", "00f067aa0ba902b8", "4bf92f3577b34da6a3ce929d0e0e4736"
	types := []string{"cpu:nanoseconds"}
	samples := func(with bool) []Sample {
		all := []Sample{
			{Stack: "main;work", Values: []int64{1}, Labels: map[string]string{"span_id": two, "route": "/"}},
			{Stack: "main;work", Values: []int64{0}, Times: []int64{7}},
			{Stack: "main;work", Values: []int64{4}, Labels: map[string]string{"span_id": one, "trace_id": trace}},
			{Stack: "main;work", Values: []int64{4}, Labels: map[string]string{"span_id": one, "trace_id": trace}},
			{Stack: "rest", Values: []int64{8}},
		}
		if with {
			all[0].Times, all[2].Times, all[3].Times = []int64{40}, []int64{math.MaxInt64, 3}, []int64{math.MinInt64, 3}
		}
		return all
	}
	bare := Profile(1, types, samples(true)...)
	bare.Wire, bare.Spans, bare.Traces, bare.Times, bare.TimeEnds = 0, nil, nil, nil, nil
	direct := Decode(Pprof(1, types, Sample{Stack: "a", Values: []int64{1}}, Sample{Stack: "b", Values: []int64{2}}))
	direct.Wire, direct.Spans, direct.Times, direct.TimeEnds = 0, []profile.SpanID{{}, {9}}, []int64{5}, []uint32{1, 1}
	for name, p := range map[string]*profile.Profile{
		"all of it": Profile(1, types, samples(true)...), "spans alone": Profile(1, types, samples(false)...),
		"none": Decode(Pprof(1, types, samples(false)[1:2]...)), "no wire": bare, "filled in": direct,
	} {
		local, remote := Open(t, Config()), Open(t, Config())
		wait, err := local.Append(t.Context(), "acme", 3, series, profile.ID{1}, p)
		if err != nil {
			t.Fatal(err)
		}
		if err := wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := push(t, to(t, serve(t, segmentwriter.NewService(remote.Writer))), p, profile.ID{1}); err != nil {
			t.Fatal(err)
		}
		want, got := fmt.Sprint(local.Rows(t)), fmt.Sprint(remote.Rows(t))
		if got != want || name != "none" && len(want) < 100 {
			t.Errorf("%s: stored\n%s, in one process\n%s", name, got, want)
		}
	}
}

// A profile that a distributor took may be longer once it is encoded for the way.
func TestWhatOneProcessTakesAnotherDoes(t *testing.T) {
	cfg := Config()
	lim := tenant.DefaultLimits()
	cfg.Limits = func(tenant.ID) tenant.Limits { return lim }
	var samples []Sample
	for i := range 1000 {
		samples = append(samples, Sample{Stack: fmt.Sprint("f", i%10, ";g", i), Values: []int64{1<<62/1000 + int64(i)}})
	}
	p := Profile(1, []string{"cpu:nanoseconds"}, samples...)
	p.Wire = 0
	lim.MaxProfileBytes = len(pprof.Append(nil, p)) - 1
	w := Open(t, cfg)
	if err := push(t, to(t, serve(t, segmentwriter.NewService(w.Writer))), p, profile.ID{1}); err != nil {
		t.Error(err)
	}
	lim.MaxProfileBytes /= 8
	if err := push(t, to(t, serve(t, segmentwriter.NewService(w.Writer))), p, profile.ID{2}); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("one that no distributor would have taken: %v", err)
	}
}

func TestTheServiceChecksWhatItIsSent(t *testing.T) {
	w := Open(t, Config())
	s := segmentwriter.NewService(w.Writer)
	good := func() *segmentwriterv1.AppendRequest {
		return &segmentwriterv1.AppendRequest{
			Tenant: "acme", Shard: 1, Id: make([]byte, 16), Time: 1,
			Labels:  []*segmentwriterv1.Label{{Name: "__name__", Value: "process_cpu"}, {Name: "service_name", Value: "a"}},
			Profile: Pprof(1, []string{"cpu:nanoseconds"}, Sample{Stack: "a", Values: []int64{1}}),
		}
	}
	for name, spoil := range map[string]func(*segmentwriterv1.AppendRequest){
		"tenant":     func(r *segmentwriterv1.AppendRequest) { r.Tenant = ".." },
		"no tenant":  func(r *segmentwriterv1.AppendRequest) { r.Tenant = "" },
		"shard":      func(r *segmentwriterv1.AppendRequest) { r.Shard = 1 << 31 },
		"short id":   func(r *segmentwriterv1.AppendRequest) { r.Id = r.Id[:15] },
		"long id":    func(r *segmentwriterv1.AppendRequest) { r.Id = make([]byte, 17) },
		"no kind":    func(r *segmentwriterv1.AppendRequest) { r.Labels = r.Labels[1:] },
		"no service": func(r *segmentwriterv1.AppendRequest) { r.Labels = r.Labels[:1] },
		"unsorted":   func(r *segmentwriterv1.AppendRequest) { slices.Reverse(r.Labels) },
		"twice": func(r *segmentwriterv1.AppendRequest) {
			r.Labels = append(r.Labels, r.Labels[1])
		},
		"profile":         func(r *segmentwriterv1.AppendRequest) { r.Profile = []byte("hello") },
		"spans":           func(r *segmentwriterv1.AppendRequest) { r.Spans = make([]byte, 9) },
		"a span too many": func(r *segmentwriterv1.AppendRequest) { r.Spans = make([]byte, 16) },
		"traces":          func(r *segmentwriterv1.AppendRequest) { r.Traces = make([]byte, 8) },
		"counts":          func(r *segmentwriterv1.AppendRequest) { r.Seen = []uint32{0, 0} },
		"times":           func(r *segmentwriterv1.AppendRequest) { r.Times = []int64{1} },
		"many times":      func(r *segmentwriterv1.AppendRequest) { r.Seen, r.Times = []uint32{math.MaxUint32}, []int64{1} },
	} {
		r := good()
		spoil(r)
		if _, err := s.Append(t.Context(), connect.NewRequest(r)); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v, want invalid argument", name, err)
		}
	}
	if n := len(w.Index.Entries()); n != 0 {
		t.Errorf("%d entries", n)
	}
	if _, err := s.Append(t.Context(), connect.NewRequest(good())); err != nil {
		t.Errorf("a good one: %v", err)
	}
}
