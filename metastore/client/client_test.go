package client_test

import (
	"context"
	"crypto/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"
	"go.uber.org/goleak"

	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	"github.com/kilndb/kiln/api/kiln/compaction/v1/compactionv1connect"
	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/client"
	"github.com/kilndb/kiln/metastore/metastoretest"
	"github.com/kilndb/kiln/objstore/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve serves the index with h and returns its address.
func serve(t *testing.T, h metastorev1connect.IndexServiceHandler) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(metastorev1connect.NewIndexServiceHandler(h))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// refusing is a metastore that answers with errors first, then successfully.
type refusing struct {
	metastorev1connect.UnimplementedIndexServiceHandler
	calls  atomic.Int32
	errors func(call int32) error
}

func (r *refusing) AddSegments(context.Context, *connect.Request[metastorev1.AddSegmentsRequest]) (*connect.Response[metastorev1.AddSegmentsResponse], error) {
	if err := r.errors(r.calls.Add(1)); err != nil {
		return nil, err
	}
	return connect.NewResponse(&metastorev1.AddSegmentsResponse{}), nil
}

func notLeader(t *testing.T, leader string) error {
	t.Helper()
	err := connect.NewError(connect.CodeFailedPrecondition, nil)
	detail, failed := connect.NewErrorDetail(&metastorev1.NotLeader{Leader: leader})
	if failed != nil {
		t.Fatal(failed)
	}
	err.AddDetail(detail)
	return err
}

func httpClient(t *testing.T) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

var adding = connect.NewRequest(&metastorev1.AddSegmentsRequest{})

func TestItFollowsTheLeader(t *testing.T) {
	leader := &refusing{errors: func(int32) error { return nil }}
	address := serve(t, leader)
	follower := &refusing{errors: func(int32) error { return notLeader(t, address) }}
	c := client.New([]string{serve(t, follower)}, httpClient(t)) // the leader is not on the list
	for range 5 {
		if _, err := c.AddSegments(t.Context(), adding); err != nil {
			t.Fatal(err)
		}
	}
	if follower.calls.Load() != 1 || leader.calls.Load() != 5 {
		t.Errorf("%d calls of the follower and %d of the leader, want 1 and 5", follower.calls.Load(), leader.calls.Load())
	}
}

func TestItRidesOutAnElection(t *testing.T) {
	for name, failure := range map[string]error{
		"no leader":       notLeader(t, ""),
		"unavailable":     connect.NewError(connect.CodeUnavailable, nil),
		"unknown outcome": connect.NewError(connect.CodeAborted, nil),
	} {
		fails := func(call int32) error {
			if call <= 1 {
				return failure
			}
			return nil
		}
		c := client.New([]string{"127.0.0.1:1", serve(t, &refusing{errors: fails}), serve(t, &refusing{errors: fails})}, httpClient(t))
		if _, err := c.AddSegments(t.Context(), adding); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// unanswered is a network where dials to some addresses are not answered.
type unanswered struct {
	http.RoundTripper
	hosts sync.Map
}

func (u *unanswered) RoundTrip(r *http.Request) (*http.Response, error) {
	if _, ok := u.hosts.Load(r.URL.Host); ok {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: context.DeadlineExceeded}
	}
	return u.RoundTripper.RoundTrip(r)
}

func TestALeaderThatVanishesIsLookedForElsewhere(t *testing.T) {
	never := func(int32) error { return nil }
	first, second := serve(t, &refusing{errors: never}), serve(t, &refusing{errors: never})
	network := &unanswered{RoundTripper: httpClient(t).Transport}
	c := client.New([]string{first, second}, &http.Client{Transport: network})
	for _, gone := range []string{"", first} {
		network.hosts.Store(gone, true)
		if _, err := c.AddSegments(t.Context(), adding); err != nil {
			t.Errorf("without %q: %v", gone, err)
		}
	}
}

func TestOtherErrorsAreFinal(t *testing.T) {
	for _, code := range []connect.Code{connect.CodeInvalidArgument, connect.CodeFailedPrecondition, connect.CodeInternal, connect.CodeResourceExhausted} {
		r := &refusing{errors: func(int32) error { return connect.NewError(code, nil) }}
		_, err := client.New([]string{serve(t, r)}, httpClient(t)).AddSegments(t.Context(), adding)
		if connect.CodeOf(err) != code || r.calls.Load() != 1 {
			t.Errorf("%v after %d calls, want %v after one", err, r.calls.Load(), code)
		}
	}
}

func TestTheContextBoundsIt(t *testing.T) {
	r := &refusing{errors: func(int32) error { return connect.NewError(connect.CodeUnavailable, nil) }}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := client.New([]string{serve(t, r)}, httpClient(t)).AddSegments(ctx, adding)
	if code := connect.CodeOf(err); code != connect.CodeUnavailable && code != connect.CodeDeadlineExceeded {
		t.Errorf("it ends with %v", err)
	}
	if r.calls.Load() < 2 {
		t.Error("it gave up before its deadline")
	}
}

func TestAgainstARealMetastore(t *testing.T) {
	server := metastoretest.Start(t, memory.New())
	mux := http.NewServeMux()
	mux.Handle(metastorev1connect.NewIndexServiceHandler(server))
	mux.Handle(metastorev1connect.NewMembershipServiceHandler(server))
	mux.Handle(compactionv1connect.NewWorkerServiceHandler(server))
	mux.Handle(compactionv1connect.NewJobServiceHandler(server))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	c := client.New([]string{s.URL}, httpClient(t))

	add := func() {
		id := ulid.MustNew(ulid.Now(), rand.Reader).String()
		_, err := c.AddSegments(t.Context(), connect.NewRequest(&metastorev1.AddSegmentsRequest{Segments: []*storagev1.BlockMeta{{
			Id: id, Size: 1, Strings: []string{"", "a", "web"}, Groups: []*storagev1.Group{{Tenant: 1}},
			Datasets: []*storagev1.Dataset{{Tenant: 1, Service: 2}},
		}}}))
		if err != nil {
			t.Fatal(err)
		}
	}
	entries := func() int {
		answer, err := c.Find(t.Context(), connect.NewRequest(&metastorev1.FindRequest{Tenants: []string{"a"}}))
		if err != nil {
			t.Fatal(err)
		}
		return len(answer.Msg.GetEntries())
	}
	add()
	server.Restart()
	add()
	server.Kill()
	add()
	if got := entries(); got != 3 {
		t.Errorf("%d entries, want 3", got)
	}
	if _, err := c.Heartbeat(t.Context(), connect.NewRequest(&metastorev1.HeartbeatRequest{Member: &metastorev1.Member{Node: "n", Address: "n:1"}})); err != nil {
		t.Error(err)
	}
	if _, err := c.Leave(t.Context(), connect.NewRequest(&metastorev1.LeaveRequest{Node: "n"})); err != nil {
		t.Error(err)
	}
	if _, err := c.Poll(t.Context(), connect.NewRequest(&compactionv1.PollRequest{Worker: "w", Capacity: 1})); err != nil {
		t.Error(err)
	}
	if answer, err := c.Renew(t.Context(), connect.NewRequest(&compactionv1.RenewRequest{Worker: "w", Leases: []*compactionv1.Lease{{Job: "x", Token: 1}}})); err != nil || len(answer.Msg.GetLost()) != 1 {
		t.Errorf("renew: %v, %v", answer, err)
	}
	if _, err := c.Fail(t.Context(), connect.NewRequest(&compactionv1.FailRequest{Worker: "w", Job: "x"})); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("fail: %v", err)
	}
	if _, err := c.Complete(t.Context(), connect.NewRequest(&compactionv1.CompleteRequest{Worker: "w", Job: "x"})); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("complete: %v", err)
	}
	if answer, err := c.List(t.Context(), connect.NewRequest(&compactionv1.ListRequest{})); err != nil || answer.Msg.GetLevels()[0].GetEntries() != 3 {
		t.Errorf("list: %v, %v", answer, err)
	}
}
