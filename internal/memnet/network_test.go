package memnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect returns both ends of a connection to addr, where it listens.
func connect(t *testing.T, n *Network, addr string) (near, far net.Conn) {
	t.Helper()
	l, err := n.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- conn
	}()
	near, err = n.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	far = <-accepted
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func TestStream(t *testing.T) {
	n := New()
	near, far := connect(t, n, "a:80")
	if near.RemoteAddr().String() != "a:80" || far.LocalAddr().String() != "a:80" || near.RemoteAddr().Network() != "mem" {
		t.Errorf("addresses: %v, %v", near.RemoteAddr(), far.LocalAddr())
	}
	// Far more than the buffer, both ways at once, in pieces of any size.
	const size = 20 * pipeCapacity
	var wg sync.WaitGroup
	for _, ends := range [][2]net.Conn{{near, far}, {far, near}} {
		sent := make([]byte, size)
		for i := range sent {
			sent[i] = byte(rand.Uint32())
		}
		wg.Go(func() {
			for rest := sent; len(rest) > 0; {
				piece := rest[:min(len(rest), 1+rand.IntN(3*pipeCapacity))]
				if k, err := ends[0].Write(piece); err != nil || k != len(piece) {
					t.Errorf("write: %d of %d bytes, %v", k, len(piece), err)
					return
				}
				rest = rest[len(piece):]
			}
		})
		wg.Go(func() {
			var got []byte
			for len(got) < size {
				piece := make([]byte, 1+rand.IntN(2*pipeCapacity))
				k, err := ends[1].Read(piece)
				if err != nil {
					t.Errorf("read: %v", err)
					return
				}
				got = append(got, piece[:k]...)
			}
			if !bytes.Equal(got, sent) {
				t.Error("what was read is not what was written")
			}
		})
	}
	wg.Wait()
}

func TestBufferIsBounded(t *testing.T) {
	near, _ := connect(t, New(), "a")
	near.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	n, err := near.Write(make([]byte, 2*pipeCapacity))
	if n != pipeCapacity || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write that nobody reads: %d bytes, %v; want %d and the deadline", n, err, pipeCapacity)
	}
}

func TestClose(t *testing.T) {
	near, far := connect(t, New(), "a")
	if _, err := near.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	if err := near.Close(); err != nil {
		t.Fatal(err)
	}
	if err := near.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
	if got, err := io.ReadAll(far); err != nil || string(got) != "last words" {
		t.Errorf("the other end reads %q, %v", got, err)
	}
	if _, err := far.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write to who has closed: %v", err)
	}
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	if _, err := near.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
}

func TestCloseUnblocks(t *testing.T) {
	near, far := connect(t, New(), "a")
	errs := make(chan error, 3)
	go func() { _, err := near.Read(make([]byte, 1)); errs <- err }()
	go func() { _, err := near.Write(make([]byte, 2*pipeCapacity)); errs <- err }()
	go func() { _, err := far.Write(make([]byte, 2*pipeCapacity)); errs <- err }()
	near.Close()
	for range 3 {
		if err := <-errs; !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("unblocked with %v", err)
		}
	}
}

func TestDeadlines(t *testing.T) {
	near, far := connect(t, New(), "a")
	buf := make([]byte, 1)
	timesOut := func(when time.Time) {
		t.Helper()
		near.SetReadDeadline(when)
		_, err := near.Read(buf)
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v, want a timeout", err)
		}
	}
	timesOut(time.Now().Add(-time.Second))
	timesOut(time.Now().Add(time.Millisecond))
	timesOut(time.Unix(1, 0)) // as net/http does, to interrupt a read

	// A deadline that comes while the read waits, from elsewhere.
	near.SetDeadline(time.Time{})
	failed := make(chan error, 1)
	go func() { _, err := near.Read(buf); failed <- err }()
	near.SetReadDeadline(time.Now())
	if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("interrupted read: %v", err)
	}

	// Moved away, it is as if it had never been.
	near.SetReadDeadline(time.Now().Add(time.Millisecond))
	near.SetReadDeadline(time.Time{})
	go far.Write([]byte("x"))
	if _, err := near.Read(buf); err != nil || buf[0] != 'x' {
		t.Errorf("read without a deadline: %q, %v", buf, err)
	}
}

func TestRefused(t *testing.T) {
	n := New()
	refused := func(why string) {
		t.Helper()
		_, err := n.DialContext(t.Context(), "tcp", "a:80")
		var op *net.OpError
		if !errors.Is(err, syscall.ECONNREFUSED) || !errors.As(err, &op) || op.Op != "dial" {
			t.Errorf("dial of an address %s: %v, want connection refused", why, err)
		}
	}
	refused("that nobody listens at")
	l, err := n.Listen("a:80")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Listen("a:80"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second listen: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	refused("whose listener has closed")
	if l, err = n.Listen("a:80"); err != nil {
		t.Errorf("listen at an address that is free again: %v", err)
	}
	l.Close()
}

func TestListenAtAnyAddress(t *testing.T) {
	n := New()
	if _, err := n.Listen("mem:2"); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{"mem:2": true}
	for range 3 {
		l, err := n.Listen("")
		if err != nil || seen[l.Addr().String()] {
			t.Fatalf("listen: %v, %v; want a new address", l, err)
		}
		seen[l.Addr().String()] = true
	}
}

func TestListenerCloseUnblocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		l, err := n.Listen("a")
		if err != nil {
			t.Fatal(err)
		}
		errs := make(chan error, 1)
		go func() { _, err := n.DialContext(t.Context(), "tcp", "a"); errs <- err }()
		synctest.Wait() // the dial waits for somebody to accept
		l.Close()
		if err := <-errs; !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("waiting dial: %v", err)
		}

		if l, err = n.Listen("a"); err != nil {
			t.Fatal(err)
		}
		go func() { _, err := l.Accept(); errs <- err }()
		synctest.Wait()
		l.Close()
		if err := <-errs; !errors.Is(err, net.ErrClosed) {
			t.Errorf("waiting accept: %v", err)
		}
	})
}

func TestDialEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		l, err := n.Listen("a")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.DialContext(ctx, "tcp", "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial that nobody accepts: %v", err)
		}
		if c := n.cuts["a"]; len(c.pipes) != 0 {
			t.Errorf("%d pipes are left", len(c.pipes))
		}
	})
}

func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		near, far := connect(t, n, "a")
		n.Partition("a", true)

		// Nothing arrives, not even the end, until the deadline does.
		if _, err := near.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		near.Close()
		far.SetReadDeadline(time.Now().Add(time.Hour))
		if k, err := far.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read behind the cut: %d bytes, %v", k, err)
		}
		if _, err := far.Write([]byte("x")); err != nil {
			t.Errorf("write behind the cut, to one that closed unseen: %v", err)
		}

		// A dial waits for as long as it may.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := n.DialContext(ctx, "tcp", "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial over the cut: %v", err)
		}
		dialled := make(chan error, 1)
		go func() { _, err := n.DialContext(t.Context(), "tcp", "a"); dialled <- err }()
		synctest.Wait()
		select {
		case err := <-dialled:
			t.Fatalf("dial over the cut returned %v", err)
		default:
		}

		// Another address is not concerned.
		otherNear, otherFar := connect(t, n, "b")
		go otherNear.Write([]byte("b"))
		if _, err := otherFar.Read(make([]byte, 1)); err != nil {
			t.Errorf("read of an address that is not cut: %v", err)
		}

		n.Partition("a", false)
		far.SetReadDeadline(time.Time{})
		if got, err := io.ReadAll(far); err != nil || string(got) != "hello" {
			t.Errorf("read after the cut was healed: %q, %v", got, err)
		}
		if _, err := far.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write after the cut was healed: %v", err)
		}
		if err := <-dialled; !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial after the cut was healed: %v, want refused, as nobody listens by now", err)
		}
		far.Close()
		if left := len(n.cuts["a"].pipes); left != 0 {
			t.Errorf("%d pipes are left of closed connections", left)
		}
	})
}

func protocols(set func(*http.Protocols, bool)) *http.Protocols {
	p := new(http.Protocols)
	set(p, true)
	return p
}

// serve runs a real HTTP server at addr and returns a real client of it.
func serve(t *testing.T, n *Network, addr string, p *http.Protocols, h http.Handler) *http.Client {
	t.Helper()
	l, err := n.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h, Protocols: p}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	transport := &http.Transport{DialContext: n.DialContext, Protocols: p}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := server.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return &http.Client{Transport: transport}
}

func TestHTTP(t *testing.T) {
	for name, c := range map[string]struct {
		protocols *http.Protocols
		major     int
	}{
		"HTTP/1": {protocols((*http.Protocols).SetHTTP1), 1},
		"h2c":    {protocols((*http.Protocols).SetUnencryptedHTTP2), 2},
	} {
		t.Run(name, func(t *testing.T) {
			client := serve(t, New(), "server:80", c.protocols, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Proto", fmt.Sprint(r.ProtoMajor))
				body, err := io.ReadAll(r.Body) // whole, as HTTP/1 does not read on once it answers
				if err != nil {
					t.Error(err)
				}
				w.Write(body)
			}))
			var wg sync.WaitGroup
			for i := range 50 {
				wg.Go(func() {
					body := strings.Repeat(fmt.Sprintf("%02d", i), 1+i*5000)
					resp, err := client.Post("http://server:80/", "text/plain", strings.NewReader(body))
					if err != nil {
						t.Error(err)
						return
					}
					defer resp.Body.Close()
					got, err := io.ReadAll(resp.Body)
					if err != nil || string(got) != body {
						t.Errorf("request %d: %d of %d bytes came back, %v", i, len(got), len(body), err)
					}
					if resp.ProtoMajor != c.major || resp.Header.Get("X-Proto") != fmt.Sprint(c.major) {
						t.Errorf("spoken: %s", resp.Proto)
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestHTTPClientLeaves(t *testing.T) {
	for name, p := range map[string]*http.Protocols{
		"HTTP/1": protocols((*http.Protocols).SetHTTP1),
		"h2c":    protocols((*http.Protocols).SetUnencryptedHTTP2),
	} {
		t.Run(name, func(t *testing.T) {
			reached, left := make(chan struct{}), make(chan struct{})
			client := serve(t, New(), "server:80", p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(reached)
				<-r.Context().Done()
				close(left)
			}))
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-reached; cancel() }()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://server:80/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp, err := client.Do(req); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled request: %v, %v", resp, err)
			}
			<-left // the server has noticed
		})
	}
}

func TestHTTPOverAPartition(t *testing.T) {
	n := New()
	client := serve(t, n, "server:80", protocols((*http.Protocols).SetUnencryptedHTTP2), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	ask := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://server:80/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := ask(time.Minute); err != nil {
		t.Fatal(err)
	}
	n.Partition("server:80", true)
	if err := ask(20 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("over the cut: %v", err)
	}
	n.Partition("server:80", false)
	if err := ask(time.Minute); err != nil {
		t.Errorf("after the cut was healed: %v", err)
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	n := New()
	l, err := n.Listen("a")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.Copy(conn, conn)
	}()
	conn, err := n.DialContext(b.Context(), "tcp", "a")
	if err != nil {
		b.Fatal(err)
	}
	message := make([]byte, 1<<10)
	b.SetBytes(2 << 10)
	for b.Loop() {
		if _, err := conn.Write(message); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, message); err != nil {
			b.Fatal(err)
		}
	}
	conn.Close()
	<-done
}
