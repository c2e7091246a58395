package metastore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/objstore/memory"
)

// watcher is somebody who watches the members of a metastore.
type watcher struct {
	end chan error

	mu   sync.Mutex
	told []string // the nodes, one string for each message
	last *metastorev1.WatchResponse
	busy chan struct{} // if not nil, messages are taken when something is received from it
}

// watching starts a watcher whose messages are taken at once, or if slow one by one as it is told to.
func watching(ctx context.Context, r *running, slow bool) *watcher {
	w := &watcher{end: make(chan error, 1)}
	if slow {
		w.busy = make(chan struct{})
	}
	go func() {
		w.end <- r.Watch(ctx, func(news *metastorev1.WatchResponse) error {
			var nodes []string
			for _, m := range news.GetMembers() {
				nodes = append(nodes, m.GetNode())
			}
			w.mu.Lock()
			w.told, w.last = append(w.told, strings.Join(nodes, " ")), news
			w.mu.Unlock()
			if w.busy != nil {
				<-w.busy
			}
			return nil
		})
	}()
	return w
}

// take returns what the watcher was told since it was last asked.
func (w *watcher) take() []string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	told := w.told
	w.told = nil
	return told
}

func (w *watcher) expect(t *testing.T, when string, want ...string) {
	t.Helper()
	if got := w.take(); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("%s the watcher is told %q, want %q", when, got, want)
	}
}

func (r *running) beat(node string) *metastorev1.HeartbeatResponse {
	r.t.Helper()
	answer, err := r.Membership().Heartbeat(r.t.Context(), connect.NewRequest(&metastorev1.HeartbeatRequest{
		Member: &metastorev1.Member{Node: node, Address: node + ":4040", Roles: []string{"segmentwriter"}},
	}))
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.Msg
}

func TestWatchersAreToldOfEveryChangeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serving(t, t.TempDir(), memory.New())
		r.beat("a")
		w := watching(t.Context(), r, false)
		w.expect(t, "at first", "a")
		time.Sleep(time.Second)
		r.beat("b")
		w.expect(t, "when b joins", "a b")
		time.Sleep(time.Second)
		r.beat("b")
		w.expect(t, "when b is still there")
		if _, err := r.Membership().Leave(t.Context(), connect.NewRequest(&metastorev1.LeaveRequest{Node: "b"})); err != nil {
			t.Fatal(err)
		}
		w.expect(t, "when b leaves", "a")

		for node := range 20 {
			r.beat(fmt.Sprintf("c%02d", node))
		}
		time.Sleep(2 * watchPause)
		if got := w.take(); len(got) > 2 || !strings.HasSuffix(got[len(got)-1], "c19") {
			t.Errorf("of 20 that join together the watcher is told %d times: %q", len(got), got)
		}
		if !w.last.GetGathering() {
			t.Error("a leader of some seconds says that it knows everybody")
		}

		for range 3 {
			time.Sleep(r.cfg.MemberLease / 3)
			r.beat("a")
		}
		w.take()
		if w.last.GetGathering() || len(w.last.GetMembers()) != 1 {
			t.Errorf("after a lease the watcher knows %v", w.last)
		}
		time.Sleep(r.cfg.MemberLease - time.Millisecond)
		w.expect(t, "before a's lease ends")
		time.Sleep(time.Millisecond)
		w.expect(t, "when a's lease ends", "")

		for range 60 { // the leader sees that one service needs more than one shard
			m := segment(newID(), 1, dataset{"a", "web", 1, 2})
			m.Size, m.Datasets[0].Rows = 64<<20, []*storagev1.Rows{{Samples: 1}}
			r.term.Load().placement.Observe(m, time.Now())
			time.Sleep(5 * time.Second)
		}
		w.take()
		if rules := w.last.GetPlacement().GetTenants(); len(rules) != 1 || rules[0].GetTenant() != "a" {
			t.Errorf("the watcher is told the rules %v", rules)
		}
		r.stop()
		if err := <-w.end; connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("when the term ends the watcher is told %v", err)
		}
	})
}

func TestASlowWatcherIsToldTheNewestState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serving(t, t.TempDir(), memory.New())
		ctx, cancel := context.WithCancel(t.Context())
		slow := watching(ctx, r, true)
		slow.expect(t, "at first", "")
		for node := range 9 {
			r.beat(fmt.Sprint("n", node))
			time.Sleep(time.Second)
		}
		slow.busy <- struct{}{}
		slow.expect(t, "when it listens again", "n0 n1 n2 n3 n4 n5 n6 n7 n8")
		if n := value(t, r, "kiln_metastore_watchers"); n != 1 {
			t.Errorf("%v watchers are counted, want 1", n)
		}
		cancel()
		close(slow.busy)
		if err := <-slow.end; connect.CodeOf(err) != connect.CodeCanceled {
			t.Errorf("it ends with %v", err)
		}
		if n := value(t, r, "kiln_metastore_watchers"); n != 0 {
			t.Errorf("%v watchers are counted, want none", n)
		}
		lost := errors.New("lost")
		if err := r.Watch(t.Context(), func(*metastorev1.WatchResponse) error { return lost }); !errors.Is(err, lost) {
			t.Errorf("a watcher that cannot be told ends with %v", err)
		}
	})
}
