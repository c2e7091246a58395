package client_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/client"
	"github.com/kilndb/kiln/metastore/metastoretest"
	"github.com/kilndb/kiln/objstore/memory"
)

// member is a door of a metastore that may break, or not lead.
type member struct {
	*httptest.Server
	// breakAfter is how many bytes of an answer get out; negative: all.
	breakAfter atomic.Int64
	// elsewhere, if it is not empty, is where requests are sent on to.
	elsewhere atomic.Pointer[string]
	broken    chan struct{} // has room
}

// open opens a door. Errors are those of a member that does not lead.
func open(t *testing.T, s *metastoretest.Server) *member {
	m := &member{broken: make(chan struct{}, 100)}
	m.breakAfter.Store(-1)
	refuse := connect.WithInterceptors(refusal{t, m})
	mux := http.NewServeMux()
	mux.Handle(metastorev1connect.NewIndexPagesServiceHandler(s.Metastore().IndexPages(), refuse))
	mux.Handle(metastorev1connect.NewMembershipWatchServiceHandler(s.Metastore().MembershipWatch(), refuse))
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux.ServeHTTP(&breaking{ResponseWriter: w, member: m}, r)
	}))
	t.Cleanup(m.Close)
	return m
}

// breaking is an answer that breaks off.
type breaking struct {
	http.ResponseWriter
	member *member
	sent   int64
}

func (b *breaking) Flush() { b.ResponseWriter.(http.Flusher).Flush() }

func (b *breaking) Write(p []byte) (int, error) {
	if most := b.member.breakAfter.Load(); most >= 0 && b.sent > most {
		b.member.broken <- struct{}{}
		panic(http.ErrAbortHandler)
	}
	b.sent += int64(len(p))
	return b.ResponseWriter.Write(p)
}

// refusal answers for members that do not lead.
type refusal struct {
	t      *testing.T
	member *member
}

func (r refusal) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }
func (r refusal) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}
func (r refusal) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if to := r.member.elsewhere.Load(); to != nil {
			return notLeader(r.t, *to)
		}
		return next(ctx, conn)
	}
}

// fill registers entries of that many bytes each, and returns their ids.
func fill(t *testing.T, s *metastoretest.Server, entries, bytes int) (ids []string) {
	t.Helper()
	for range entries {
		ids = append(ids, ulid.MustNew(ulid.Now(), rand.Reader).String())
	}
	for batch := range slices.Chunk(ids, max(1, min(1000, (16<<20)/bytes))) {
		req := &metastorev1.AddSegmentsRequest{}
		for _, id := range batch {
			req.Segments = append(req.Segments, &storagev1.BlockMeta{
				Id: id, Size: 1, Strings: []string{"", "a", "web"}, Groups: []*storagev1.Group{{Tenant: 1}},
				Datasets: []*storagev1.Dataset{{Tenant: 1, Service: 2, LabelFilter: make([]byte, bytes)}},
			})
		}
		if _, err := s.AddSegments(t.Context(), connect.NewRequest(req)); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

var finding = connect.NewRequest(&metastorev1.FindRequest{Tenants: []string{"a"}})

func idsOf(answer *connect.Response[metastorev1.FindResponse]) (ids []string) {
	for _, m := range answer.Msg.GetEntries() {
		ids = append(ids, m.GetId())
	}
	return ids
}

// TestALargeAnswerOfOneView has a leader break off in the middle of an answer of 50 MB, and the index change before another is asked.
func TestALargeAnswerOfOneView(t *testing.T) {
	s := metastoretest.Start(t, memory.New())
	ids := fill(t, s, 5000, 10_000)
	old, leader := open(t, s), open(t, s)
	// No message may be larger than a page and one entry, also where messages are limited.
	c := client.New([]string{old.URL, leader.URL}, httpClient(t), connect.WithReadMaxBytes(1<<20+20_000))
	answer, err := c.Find(t.Context(), finding)
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.Msg.GetEntries()) != len(ids) {
		t.Fatalf("%d entries, want %d", len(answer.Msg.GetEntries()), len(ids))
	}

	nowhere := ""
	leader.elsewhere.Store(&nowhere)
	old.breakAfter.Store(25 << 20)
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		<-old.broken
		ids = append(ids, fill(t, s, 10, 10_000)...)
		old.elsewhere.Store(&leader.URL)
		leader.elsewhere.Store(nil)
	}()
	answer, err = c.Find(t.Context(), finding)
	<-changed
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ids)
	if got := idsOf(answer); !slices.Equal(got, ids) {
		t.Errorf("%d entries are found, want the %d of the new view", len(got), len(ids))
	}
}

func TestAnAnswerIsNotWaitedForAfterItsCall(t *testing.T) {
	s := metastoretest.Start(t, memory.New())
	fill(t, s, 1000, 10_000)
	m := open(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c := client.New([]string{m.URL}, &http.Client{Transport: cutting{transport, cancel}})
	if _, err := c.Find(ctx, finding); connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("a call that was cancelled ends with %v", err)
	}
}

// cutting cancels a call once its answer begins.
type cutting struct {
	http.RoundTripper
	cancel context.CancelFunc
}

func (c cutting) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(r)
	c.cancel()
	return resp, err
}

// TestAWatchFollowsTheLeader has the member that is watched lose the lead, break, and be gone.
func TestAWatchFollowsTheLeader(t *testing.T) {
	s := metastoretest.Start(t, memory.New())
	a, b := open(t, s), open(t, s)
	c := client.New([]string{a.URL, b.URL}, httpClient(t))
	ctx, cancel := context.WithCancel(t.Context())
	told, end := make(chan *metastorev1.WatchResponse, 100), make(chan error, 1)
	go func() {
		end <- c.Watch(ctx, func(news *metastorev1.WatchResponse) error { told <- news; return nil })
	}()
	joined := 0
	join := func() {
		joined++
		node := fmt.Sprint("n", joined)
		if _, err := s.Heartbeat(t.Context(), connect.NewRequest(&metastorev1.HeartbeatRequest{Member: &metastorev1.Member{Node: node, Address: node + ":1"}})); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(when string) {
		t.Helper()
		soon := time.After(20 * time.Second)
		for {
			select {
			case news := <-told:
				if len(news.GetMembers()) == joined {
					return
				}
			case <-soon:
				t.Fatalf("%s the watch does not tell of %d members", when, joined)
			}
		}
	}
	expect("at first")
	join()
	expect("when one joins")
	a.elsewhere.Store(&b.URL) // a does not lead any more
	a.CloseClientConnections()
	join()
	expect("when another leads")
	b.breakAfter.Store(0)
	join()
	<-b.broken
	b.breakAfter.Store(-1)
	expect("after the connection broke")
	a.elsewhere.Store(nil)
	b.CloseClientConnections()
	b.Close()
	join()
	expect("when the first leads again")
	cancel()
	if err := <-end; connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("a watch that is not wanted any more ends with %v", err)
	}
}

func TestAnOlderMetastoreHasNoWatch(t *testing.T) {
	r := &refusing{errors: func(int32) error { return nil }}
	err := client.New([]string{serve(t, r)}, httpClient(t)).Watch(t.Context(), func(*metastorev1.WatchResponse) error { return nil })
	if connect.CodeOf(err) != connect.CodeUnimplemented {
		t.Errorf("it ends with %v", err)
	}
}
