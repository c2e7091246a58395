package node

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kilndb/kiln/internal/memnet"
)

// openDoor serves a handler as a node does, for clients of either version of HTTP.
func openDoor(t *testing.T, change func(*Config), handler func(*Node) http.Handler) (http1, http2 *http.Client) {
	t.Helper()
	network := memnet.New()
	n := &Node{cfg: DefaultConfig(), env: Env{Log: slog.New(slog.DiscardHandler)}}
	change(&n.cfg)
	l, err := network.Listen("kiln:4040")
	if err != nil {
		t.Fatal(err)
	}
	d := n.newDoor(l, handler(n), func() {}, func() time.Time { return time.Now().Add(time.Second) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- d.Run(ctx) }()
	http1 = &http.Client{Transport: &http.Transport{DialContext: network.DialContext}}
	http2 = &http.Client{Transport: transport(network)}
	t.Cleanup(func() {
		http1.CloseIdleConnections()
		http2.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return http1, http2
}

const doorURL = "http://kiln:4040/"

// One client has as many calls inside at once as it likes: the bound on a connection is none on a client.
func TestStreamsBoundNoClient(t *testing.T) {
	const calls = 3 * maxStreams
	var inside atomic.Int64
	all := make(chan struct{})
	_, client := openDoor(t, func(*Config) {}, func(*Node) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			if inside.Add(1) == calls {
				close(all)
			}
			<-all
		})
	})
	client.Timeout = 20 * time.Second
	var group sync.WaitGroup
	for range calls {
		group.Go(func() {
			resp, err := client.Post(doorURL, "", strings.NewReader("x"))
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
		})
	}
	group.Wait()
	if n := inside.Load(); n < calls {
		t.Errorf("%d of %d calls were inside at once", n, calls)
		close(all)
	}
}

// The deadline is the body's: what takes longer to answer is not cancelled by it.
func TestAnswersMayTakeLongerThanBodies(t *testing.T) {
	const timeout = 50 * time.Millisecond
	http1, http2 := openDoor(t, func(cfg *Config) { cfg.BodyTimeout = timeout }, func(n *Node) http.Handler {
		return n.door(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.ReadAll(r.Body); err != nil {
				http.Error(w, err.Error(), http.StatusRequestTimeout)
				return
			}
			select {
			case <-r.Context().Done():
				http.Error(w, "cancelled", http.StatusInternalServerError)
			case <-time.After(4 * timeout):
			}
		}))
	})
	for name, client := range map[string]*http.Client{"HTTP/1": http1, "HTTP/2": http2} {
		for _, body := range []io.Reader{nil, strings.NewReader("question")} {
			resp, err := client.Post(doorURL, "", body)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%s: %s", name, resp.Status)
			}
		}
		slow, end := io.Pipe()
		resp, err := client.Post(doorURL, "", slow)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusRequestTimeout {
				t.Errorf("%s: a body that never ends: %s", name, resp.Status)
			}
		}
		end.Close()
	}
}

// conn is a connection that tells when it is closed.
type conn struct {
	net.Conn
	closed bool
}

func (c *conn) Close() error { c.closed = true; return nil }

func TestTheLongestIdleMakesRoom(t *testing.T) {
	all := newConnections(3)
	open := func() *conn {
		c := &conn{}
		all.changed(c, http.StateNew)
		return c
	}
	a, b, c := open(), open(), open()
	all.changed(a, http.StateActive)
	all.changed(b, http.StateActive)
	all.changed(a, http.StateIdle) // after c
	d := open()
	if !c.closed || a.closed || b.closed || d.closed {
		t.Error("the one that is idle for the longest stays")
	}
	all.changed(c, http.StateClosed)
	all.changed(a, http.StateActive)
	all.changed(d, http.StateActive)
	if e := open(); !e.closed || a.closed || b.closed || d.closed {
		t.Error("a newcomer takes the place of one that is busy")
	}
	all.changed(b, http.StateClosed)
	if f := open(); f.closed {
		t.Error("one that left leaves no room")
	}
	if len(all.open) != 3 || all.idle.Len() != 1 {
		t.Errorf("%d connections are remembered, %d idle", len(all.open), all.idle.Len())
	}
}
