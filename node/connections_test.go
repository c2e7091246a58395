package node_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/node/nodetest"
)

// dial opens a connection and closes it with the test.
func dial(t *testing.T, n *nodetest.Node) net.Conn {
	t.Helper()
	c, err := n.Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// closed waits until the other end has closed a connection, and returns what it said before.
func closed(c net.Conn) (string, error) {
	said, err := io.ReadAll(c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return string(said), errors.New("it is still open")
	}
	return string(said), nil
}

// framed is a connection that speaks HTTP/2 by hand.
func framed(t *testing.T, n *nodetest.Node) (*http2.Framer, net.Conn) {
	c := dial(t, n)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(c, c)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return f, c
}

// headers is a block of HTTP/2 headers of a POST.
func headers(path string, nameValues ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	all := append([]string{":method", "POST", ":scheme", "http", ":authority", "kiln:4040", ":path", path, "x-scope-orgid", "mallory"}, nameValues...)
	for i := 0; i < len(all); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]})
	}
	return b.Bytes()
}

func TestSlowAndLongHeaders(t *testing.T) {
	n := hostile(t, func(cfg *node.Config) { cfg.HeaderTimeout = 300 * time.Millisecond })
	long := strings.Repeat("x", 1000)
	besides(t, n, func() {
		for name, c := range map[string]struct{ send, says string }{
			"nothing":           {"", ""},
			"half a line":       {"POST /inge", ""},
			"half of headers":   {"POST /ingest?name=x HTTP/1.1\r\nHost: kiln\r\nX-Scope", ""},
			"many headers":      {"POST /ingest HTTP/1.1\r\nHost: kiln\r\n" + strings.Repeat("X-Y: "+long+"\r\n", 100), "431"},
			"a long header":     {"POST /ingest HTTP/1.1\r\nHost: kiln\r\nX-Y: " + strings.Repeat(long, 100) + "\r\n\r\n", "431"},
			"a long line":       {"POST /ingest?name=" + strings.Repeat(long, 100) + " HTTP/1.1\r\nHost: kiln\r\n\r\n", "431"},
			"NUL in the tenant": {"POST /ingest?name=x HTTP/1.1\r\nHost: kiln\r\nX-Scope-OrgID: a\x00b\r\nContent-Length: 0\r\n\r\n", "400"},
			"two lengths":       {"POST /ingest?name=x HTTP/1.1\r\nHost: kiln\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "400"},
			"no HTTP":           {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400"},
		} {
			conn := dial(t, n)
			go func() { _, _ = io.WriteString(conn, c.send) }() // the door may close before it has read all
			said, err := closed(conn)
			if err != nil || !strings.Contains(said, c.says) {
				t.Errorf("%s: %q, %v", name, said, err)
			}
		}
	})
}

// A flood of CONTINUATION frames, and of headers in one stream, end the connection.
func TestHeaderFloodsOverHTTP2(t *testing.T) {
	n := hostile(t, nil)
	besides(t, n, func() {
		f, c := framed(t, n)
		go func() {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers("/ingest")})
			field := headers("/ingest", "x-y", strings.Repeat("x", 10_000))
			for f.WriteContinuation(1, false, field) == nil { // for ever
			}
		}()
		if _, err := closed(c); err != nil {
			t.Errorf("a flood of CONTINUATION: %v", err)
		}
	})
	r, err := http.NewRequest(http.MethodPost, n.URL()+"/ingest?name=x&format=pprof", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Scope-OrgID", "mallory")
	r.Header.Set("X-Y", strings.Repeat("x", 200_000))
	if resp, err := n.HTTP().Do(r); err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("200 kB of headers: %s", resp.Status)
		}
	}
}

// TestRapidReset opens streams and resets them at once, faster than they can be served.
func TestRapidReset(t *testing.T) {
	n := hostile(t, nil)
	before := runtime.NumGoroutine()
	var most atomic.Int64
	besides(t, n, func() {
		var group sync.WaitGroup
		for range 4 {
			f, c := framed(t, n)
			group.Go(func() {
				read := make(chan struct{})
				go func() { defer close(read); _, _ = io.Copy(io.Discard, c) }()
				block := headers("/ingest?name=x&format=pprof", "content-length", "1000000")
				for i := range 5000 {
					id := uint32(2*i + 1)
					if f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true}) != nil ||
						f.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
						break // the door is closed: good
					}
					if i%100 == 0 {
						most.Store(max(most.Load(), int64(runtime.NumGoroutine()-before)))
					}
				}
				c.Close()
				<-read
			})
		}
		group.Wait()
	})
	if most := most.Load(); most > 4*(250+50)+200 {
		t.Errorf("%d goroutines served streams that were reset", most)
	}
}

// TestStreamsAreBoundedPerConnection wants the bound announced and kept.
func TestStreamsAreBoundedPerConnection(t *testing.T) {
	n := hostile(t, nil)
	f, _ := framed(t, n)
	announced := uint32(0)
	for announced == 0 {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() {
			announced, _ = s.Value(http2.SettingMaxConcurrentStreams)
		}
	}
	if announced != 250 {
		t.Errorf("announced %d streams, want 250", announced)
	}
	if err := f.WriteSettingsAck(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for i := range uint32(300) {
			if f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: headers("/ingest?name=x&format=pprof"), EndHeaders: true}) != nil {
				return
			}
		}
	}()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("no stream beyond the bound was refused: %v", err)
		}
		if reset, ok := frame.(*http2.RSTStreamFrame); ok {
			if reset.StreamID <= 500 {
				t.Errorf("stream %d was refused", reset.StreamID)
			}
			return
		}
	}
}

// TestIdleConnectionsMakeRoom opens twice as many connections as there is room for, which then do nothing.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	const room = 500
	n := hostile(t, func(cfg *node.Config) { cfg.MaxConnections = room })
	before := runtime.NumGoroutine()
	besides(t, n, func() {
		conns := make([]net.Conn, 0, 2*room)
		for i := range 2 * room {
			switch i % 3 {
			case 0: // a client that has not said a word
				conns = append(conns, dial(t, n))
			case 1: // one that keeps its connection alive
				c := dial(t, n)
				fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: kiln\r\n\r\n")
				if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusOK {
					t.Fatalf("connection %d is not served: %v", i, err)
				}
				conns = append(conns, c)
			case 2:
				f, c := framed(t, n)
				if frame, err := f.ReadFrame(); err != nil {
					t.Fatalf("connection %d is not served: %v, %v", i, frame, err)
				}
				conns = append(conns, c)
			}
		}
		open := len(conns)
		for deadline := time.Now().Add(10 * time.Second); open > room && time.Now().Before(deadline); { // the last are on their way
			open = 0
			for _, c := range conns {
				_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
				if _, err := closed(c); err != nil {
					open++
				}
			}
		}
		if open > room || open < room/2 {
			t.Errorf("%d of %d connections are open, want about %d", open, len(conns), room)
		}
		if most := runtime.NumGoroutine() - before; most > 8*room {
			t.Errorf("%d goroutines for %d connections", most, room)
		}
	})
}
