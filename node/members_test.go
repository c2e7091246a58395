package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/tenant"
)

// roll is a metastore that answers heartbeats and watches with what it is told to.
type roll struct {
	mu      sync.Mutex // guards what follows
	answer  *metastorev1.WatchResponse
	hold    chan struct{} // if not nil, heartbeats are answered when it closes
	refuses error         // watches
	stream  chan *metastorev1.WatchResponse
	left    bool
}

func (r *roll) Heartbeat(context.Context, *connect.Request[metastorev1.HeartbeatRequest]) (*connect.Response[metastorev1.HeartbeatResponse], error) {
	r.mu.Lock()
	a, hold := r.answer, r.hold
	r.mu.Unlock()
	if hold != nil {
		<-hold
	}
	return connect.NewResponse(&metastorev1.HeartbeatResponse{Members: a.GetMembers(), Placement: a.GetPlacement(), Gathering: a.GetGathering(), LeaseMs: 15_000}), nil
}

func (r *roll) Leave(context.Context, *connect.Request[metastorev1.LeaveRequest]) (*connect.Response[metastorev1.LeaveResponse], error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = true
	return connect.NewResponse(&metastorev1.LeaveResponse{}), nil
}

func (r *roll) Watch(ctx context.Context, told func(*metastorev1.WatchResponse) error) error {
	r.mu.Lock()
	refuses := r.refuses
	r.mu.Unlock()
	if refuses != nil {
		return refuses
	}
	for {
		select {
		case news, ok := <-r.stream:
			if !ok {
				return errors.New("the stream broke")
			}
			if err := told(news); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *roll) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// writersOf is a list of writers, one letter each.
func writersOf(writers string, gathering bool) *metastorev1.WatchResponse {
	news := &metastorev1.WatchResponse{Gathering: gathering}
	for _, w := range strings.Split(writers, "") {
		news.Members = append(news.Members, &metastorev1.Member{Node: w, Address: w, Roles: []string{string(SegmentWriter)}})
	}
	return news
}

// knowing runs members over a roll in a bubble.
func knowing(t *testing.T, r *roll, story func(m *members, expect func(when, writers string))) {
	synctest.Test(t, func(t *testing.T) {
		r.stream = make(chan *metastorev1.WatchResponse)
		ctx, cancel := context.WithCancel(t.Context())
		m := &members{self: &metastorev1.Member{Node: "self"}, metastore: r, log: slog.New(slog.DiscardHandler), shards: 4, closing: context.Background()}
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		story(m, func(when, writers string) {
			t.Helper()
			synctest.Wait()
			got := slices.Clone(m.candidates(0))
			slices.Sort(got)
			if strings.Join(got, "") != writers {
				t.Errorf("%s the writers are %q, want %q", when, got, writers)
			}
		})
		cancel()
		if err := <-done; err != nil || !r.left {
			t.Errorf("it ends with %v, and the node has left: %v", err, r.left)
		}
	})
}

func TestChangesAreKnownByTheWatch(t *testing.T) {
	r := &roll{answer: writersOf("ab", false)}
	knowing(t, r, func(m *members, expect func(when, writers string)) {
		expect("at first", "ab")
		r.stream <- writersOf("a", false)
		expect("when b leaves", "a")
		hold := make(chan struct{})
		r.set(func() { r.answer, r.hold = writersOf("a", false), hold })
		time.Sleep(5 * time.Second)
		synctest.Wait() // a heartbeat is under way
		r.stream <- writersOf("ac", false)
		close(hold)
		expect("when the answer to an older heartbeat comes", "ac")
		r.set(func() { r.answer, r.hold = writersOf("acd", false), nil })
		close(r.stream)
		time.Sleep(5 * time.Second)
		expect("by heartbeats while the watch is broken", "acd")
	})
}

func TestAnOlderMetastoreTellsByHeartbeats(t *testing.T) {
	r := &roll{answer: writersOf("a", false), refuses: connect.NewError(connect.CodeUnimplemented, nil)}
	knowing(t, r, func(m *members, expect func(when, writers string)) {
		expect("at first", "a")
		r.set(func() { r.answer = writersOf("ab", false) })
		time.Sleep(5 * time.Second)
		expect("after a heartbeat", "ab")
	})
}

// TestANewLeaderForgetsNobody has a leader that does not know everybody yet: for its first lease nobody is missed.
func TestANewLeaderForgetsNobody(t *testing.T) {
	rules := writersOf("abc", false)
	rules.Placement = &metastorev1.Placement{Tenants: []*metastorev1.TenantPlacement{{Tenant: "a", Shards: 3}}}
	r := &roll{answer: rules}
	knowing(t, r, func(m *members, expect func(when, writers string)) {
		expect("at first", "abc")
		r.set(func() { r.answer = writersOf("b", true) })
		time.Sleep(5 * time.Second)
		expect("by a heartbeat to a new leader", "abc")
		r.stream <- writersOf("bd", true)
		expect("by a watch of a new leader", "abcd")
		if got := m.placement().Tenants[tenant.ID("a")].Shards; got != 3 {
			t.Errorf("the tenant has %d shards while the leader has no rules, want the old 3", got)
		}
		r.stream <- writersOf("bcd", false)
		expect("when it knows everybody", "bcd")
	})
}

func TestANodeThatIsBackIsListedOnce(t *testing.T) {
	r := &roster{members: []*metastorev1.Member{
		{Node: "1", Address: "x", Roles: []string{"querybackend"}}, {Node: "2", Address: "y", Roles: []string{"querybackend"}},
		{Node: "3", Address: "x", Roles: []string{"querybackend"}},
	}}
	if got := r.addresses(QueryBackend); !slices.Equal(got, []string{"x", "y"}) {
		t.Errorf("the backends are %v", got)
	}
}
