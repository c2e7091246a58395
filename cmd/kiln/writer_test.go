package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/push/v1/pushv1connect"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
)

// The moments in the life of a segment at which a gate can stop its writer.
const (
	beforePut    = "before the put"
	inPut        = "in the middle of the put"
	afterPut     = "after the put"
	beforeCommit = "before the commit"
	afterCommit  = "after the commit"
)

// gate stands between a writer and what it writes to. One request at a time can be told to stop at a moment.
type gate struct {
	mu      sync.Mutex
	moment  string        // guarded by mu; empty: none
	reached chan struct{} // guarded by mu
}

// arm has the next request that comes to the moment wait there until its sender is gone. The channel is closed when it has come.
func (g *gate) arm(moment string) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.moment, g.reached = moment, make(chan struct{})
	return g.reached
}

// stops tells whether a request is stopped at the moment, and returns when its sender is gone then.
func (g *gate) stops(moment string, r *http.Request) bool {
	g.mu.Lock()
	if g.moment != moment {
		g.mu.Unlock()
		return false
	}
	g.moment = ""
	close(g.reached)
	g.mu.Unlock()
	if moment != inPut { // whose sender sees the connection break
		<-r.Context().Done()
	}
	return true
}

// around serves a request with a moment on either side of it.
func (g *gate) around(before, after string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if after == afterPut && g.stops(inPut, r) {
			_, _ = io.CopyN(io.Discard, r.Body, 100)
			panic(http.ErrAbortHandler)
		}
		body, err := io.ReadAll(r.Body) // the server watches the connection once it has read all of it
		if err != nil || g.stops(before, r) {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r.WithContext(context.WithoutCancel(r.Context())))
		if g.stops(after, r) {
			return
		}
		header := w.Header()
		for name, values := range answer.Header() {
			header[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	})
}

// bucket starts an S3 server whose puts of segments go through the gate, and take that long, and returns its URL as a bucket.
func (g *gate) bucket(t *testing.T, put time.Duration) string {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "testsecret")
	objects := s3mem.New()
	if err := objects.CreateBucket("profiles"); err != nil {
		t.Fatal(err)
	}
	store := gofakes3.New(objects).Server()
	gated := g.around(beforePut, afterPut, store)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/segments/") {
			store.ServeHTTP(w, r)
			return
		}
		time.Sleep(put)
		gated.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return fmt.Sprintf("s3://profiles?endpoint=%s&region=us-east-1&use_path_style=true", s.URL)
}

// metastore starts a proxy of a metastore, where registrations go through the gate, and returns its address.
func (g *gate) metastore(t *testing.T, at string) string {
	t.Helper()
	target, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	h2c := new(http.Protocols)
	h2c.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: h2c}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport, proxy.ErrorLog = transport, log.New(io.Discard, "", 0) // it is told of every writer that dies
	gated := g.around(beforeCommit, afterCommit, proxy)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == metastorev1connect.IndexServiceAddSegmentsProcedure {
			gated.ServeHTTP(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	s.Config.Protocols = h2c
	s.Start()
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// pushNumbered pushes profile i of the crash test, with an id that is always the same.
func pushNumbered(client pushv1connect.PusherServiceClient, i int, body []byte) error {
	_, err := client.Push(context.Background(), connect.NewRequest(&pushv1.PushRequest{Series: []*pushv1.RawProfileSeries{{
		Labels:  []*typesv1.LabelPair{{Name: "__name__", Value: "mutex"}, {Name: "service_name", Value: "numbered"}, {Name: "push", Value: fmt.Sprint(i)}},
		Samples: []*pushv1.RawSample{{RawProfile: body, ID: fmt.Sprintf("01234567-89ab-cdef-0123-%012d", i)}},
	}}}))
	return err
}

// TestAWriterIsKilledAtEveryMoment kills the process of a writer at each moment between a push and its answer, and repeats the push
// until it succeeds: every profile must be there once.
func TestAWriterIsKilledAtEveryMoment(t *testing.T) {
	g := new(gate)
	bucket, dir := g.bucket(t, 0), t.TempDir()
	store := serve(t, "--roles", "metastore,compactionworker", "--data-dir", dir, "--bucket", bucket, "--compact-after", "24h")
	index := g.metastore(t, store.url)
	writer := serve(t, "--roles", "segmentwriter", "--metastore", index, "--bucket", bucket, "--data-dir", t.TempDir())
	door := serve(t, "--roles", "distributor,querybackend,queryfrontend", "--metastore", store.host(), "--bucket", bucket, "--data-dir", t.TempDir())
	client := pushv1connect.NewPusherServiceClient(&http.Client{Timeout: 30 * time.Second}, door.url)
	base, start := oracle.Parse(corpus.Get("regexp-mutex-1").Gzipped), time.Now().Add(-time.Minute).Truncate(time.Millisecond)

	moments := []string{beforePut, afterPut, beforeCommit, afterCommit, inPut}
	want := map[int]int64{}
	for i, moment := range moments {
		total, body := numbered(base, i, start)
		want[i] = total
		reached := g.arm(moment)
		answer := make(chan error, 1)
		go func() { answer <- pushNumbered(client, i, body) }()
		select {
		case <-reached:
		case err := <-answer:
			t.Fatalf("%s: the push did not come there: %v", moment, err)
		}
		if moment == inPut { // and the writer lives: it puts the segment again
			if err := <-answer; err != nil {
				t.Errorf("%s: %v", moment, err)
			}
			continue
		}
		writer.kill()
		if err := <-answer; err == nil {
			t.Errorf("%s: the push was acknowledged by a writer that was dead", moment)
		}
		writer = serve(t, "--roles", "segmentwriter", "--metastore", index, "--bucket", bucket, "--data-dir", t.TempDir(), "--http", writer.host())
		begun := time.Now()
		for err := pushNumbered(client, i, body); err != nil; err = pushNumbered(client, i, body) {
			if time.Since(begun) > 5*time.Second {
				t.Fatalf("%s: after the restart: %v", moment, err)
			}
		}
	}
	store.stop() // copies of a push meet in a compaction of both
	store = serve(t, "--roles", "metastore,compactionworker", "--data-dir", dir, "--bucket", bucket, "--compact-after", "1ms", "--http", store.host())
	waitNoSegments(t, store)
	stored := pushesStored(t, door, start)
	for i, moment := range moments {
		if stored[i] != want[i] {
			t.Errorf("%s: the push is there with %d, want %d", moment, stored[i], want[i])
		}
	}
}

// TestTerminateDuringPushes tells a process to stop while pushes to a slow bucket keep coming.
func TestTerminateDuringPushes(t *testing.T) {
	g := new(gate)
	bucket, dir := g.bucket(t, 300*time.Millisecond), t.TempDir()
	p := serve(t, "--data-dir", dir, "--bucket", bucket, "--compact-after", "24h")
	base, start := oracle.Parse(corpus.Get("regexp-mutex-1").Gzipped), time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	client := pushv1connect.NewPusherServiceClient(&http.Client{Timeout: 40 * time.Second}, p.url)
	var mu sync.Mutex
	next, acks, acked := 0, 0, map[int]int64{}
	enough := make(chan struct{})
	var senders sync.WaitGroup
	for range 16 {
		senders.Go(func() {
			for err := error(nil); err == nil; { // until the door is closed
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				total, body := numbered(base, i, start)
				if err = pushNumbered(client, i, body); err == nil {
					mu.Lock()
					acked[i] = total
					if acks++; acks == 48 {
						close(enough)
					}
					mu.Unlock()
				}
			}
		})
	}
	<-enough
	begun := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-p.ended
	if took := time.Since(begun); took > 30*time.Second {
		t.Errorf("stopped after %s", took)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.output())
	}
	senders.Wait()
	p = serve(t, "--data-dir", dir, "--bucket", bucket, "--compact-after", "1ms")
	waitNoSegments(t, p)
	stored := pushesStored(t, p, start)
	for i := range next {
		total, _ := numbered(base, i, start)
		if got := stored[i]; got != total && (acked[i] != 0 || got != 0) {
			t.Errorf("push %d, acknowledged %t, is there with %d, want %d", i, acked[i] != 0, got, total)
		}
	}
}
