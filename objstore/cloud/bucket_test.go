package cloud_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"go.uber.org/goleak"

	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/cloud"
	"github.com/kilndb/kiln/objstore/objstoretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is an S3 server on loopback with one bucket, whose requests the test may see and change.
type server struct {
	*httptest.Server
	intercept atomic.Pointer[func(http.ResponseWriter, *http.Request) (handled bool)]
}

func newServer(t *testing.T) *server {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("test"); err != nil {
		t.Fatal(err)
	}
	handler := gofakes3.New(backend).Server()
	s := new(server)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if intercept := s.intercept.Load(); intercept == nil || !(*intercept)(w, r) {
			handler.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "testsecret")
	return s
}

func (s *server) open(t *testing.T, name string) *cloud.Bucket {
	t.Helper()
	b, err := cloud.Open(t.Context(), fmt.Sprintf("s3://%s?endpoint=%s&region=us-east-1&use_path_style=true", name, s.URL))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBucket(t *testing.T) {
	objstoretest.Run(t, func(t *testing.T) objstore.Bucket { return newServer(t).open(t, "test") })
}

func TestLargeObject(t *testing.T) {
	b := newServer(t).open(t, "test")
	defer b.Close()
	data := bytes.Repeat([]byte("0123456789abcdef"), 20<<16) // 20 MiB: more than one part
	if err := b.PutFrom(t.Context(), "large", bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	got, err := b.GetRange(t.Context(), "large", 16<<20-3, 10)
	if err != nil || string(got) != "def0123456" {
		t.Errorf("a range over a border of parts: %q, %v", got, err)
	}
	most := data[:objstore.MaxPutIfAbsent]
	if err := b.PutIfAbsent(t.Context(), "large", most); !errors.Is(err, objstore.ErrExists) {
		t.Errorf("put of the largest object that can be put if absent: %v, want ErrExists", err)
	}
	err = b.PutFrom(t.Context(), "short", bytes.NewReader(data), int64(len(data))+4<<20)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("put of a source that ends in its third part: %v", err)
	}
	if _, err := b.Attributes(t.Context(), "short"); !errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("the short object: %v, want ErrNotFound", err)
	}
}

func TestMissingBucketIsNotAMissingObject(t *testing.T) {
	b := newServer(t).open(t, "none")
	defer b.Close()
	calls := map[string]error{
		"put":           b.Put(t.Context(), "k", nil),
		"put if absent": b.PutIfAbsent(t.Context(), "k", nil),
		"delete":        b.Delete(t.Context(), "k"),
		"list":          b.List(t.Context(), "", func(objstore.Attributes) error { return nil }),
	}
	_, calls["get"] = b.Get(t.Context(), "k")
	_, calls["range"] = b.GetRange(t.Context(), "k", 0, 1)
	for call, err := range calls {
		if err == nil || errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("%s in a bucket that does not exist: %v, want an error that is not ErrNotFound", call, err)
		}
	}
}

func TestStoreThatIgnoresConditions(t *testing.T) {
	s := newServer(t)
	ignore := func(_ http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("If-None-Match")
		return false
	}
	s.intercept.Store(&ignore)
	b := s.open(t, "test")
	defer b.Close()
	for range 2 {
		if err := b.PutIfAbsent(t.Context(), "k", nil); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("put if absent: %v, want ErrUnsupported", err)
		}
	}
	if err := b.Put(t.Context(), "k", nil); err != nil {
		t.Errorf("put: %v", err)
	}
}

func TestConditionIsProbedOnce(t *testing.T) {
	s := newServer(t)
	var probes atomic.Int32
	count := func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "put-if-absent") {
			probes.Add(1)
		}
		return false
	}
	s.intercept.Store(&count)
	first := s.open(t, "test")
	defer first.Close()
	for i := range 3 {
		if err := first.PutIfAbsent(t.Context(), fmt.Sprint("first/", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := probes.Swap(0); got != 2 {
		t.Errorf("%d probes of a new bucket, want 2", got)
	}
	second := s.open(t, "test")
	defer second.Close()
	if err := second.PutIfAbsent(t.Context(), "second", nil); err != nil {
		t.Fatal(err)
	}
	if got := probes.Load(); got != 1 {
		t.Errorf("%d probes of a bucket that was probed before, want 1", got)
	}
}

// A body that ends before its announced length is an error and no short object.
func TestTornDownload(t *testing.T) {
	s := newServer(t)
	b := s.open(t, "test")
	defer b.Close()
	if err := b.Put(t.Context(), "k", bytes.Repeat([]byte("x"), 1000)); err != nil {
		t.Fatal(err)
	}
	tear := func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", "1000")
		if r.Header.Get("Range") != "" {
			w.Header().Set("Content-Range", "bytes 0-999/1000")
			w.WriteHeader(http.StatusPartialContent)
		}
		w.Write(bytes.Repeat([]byte("x"), 500))
		return true
	}
	s.intercept.Store(&tear)
	if got, err := b.Get(t.Context(), "k"); err == nil {
		t.Errorf("torn get: %d bytes and no error", len(got))
	}
	if got, err := b.GetRange(t.Context(), "k", 0, 1000); err == nil {
		t.Errorf("torn range: %d bytes and no error", len(got))
	}
}

func TestCancelWhileItWaits(t *testing.T) {
	s := newServer(t)
	b := s.open(t, "test")
	defer b.Close()
	reached := make(chan struct{}, 10)
	hang := func(_ http.ResponseWriter, r *http.Request) bool {
		reached <- struct{}{}
		io.Copy(io.Discard, r.Body) // or the server does not notice who leaves
		<-r.Context().Done()
		return true
	}
	s.intercept.Store(&hang)
	for name, call := range map[string]func(context.Context) error{
		"get":  func(ctx context.Context) error { _, err := b.Get(ctx, "k"); return err },
		"put":  func(ctx context.Context) error { return b.Put(ctx, "k", []byte("x")) },
		"list": func(ctx context.Context) error { return b.List(ctx, "", nil) },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-reached; cancel() }()
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled %s: %v", name, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, u := range []string{"s3://", "gs://bucket", "s3://user:hunter2@bucket", "s3://bucket/folder", "s3://bucket?no_such_parameter=1", "s3://bucket:hunter2", "s3://%zz"} {
		b, err := cloud.Open(t.Context(), u)
		if err == nil {
			t.Errorf("open %s succeeded", u)
			b.Close()
		} else if strings.Contains(err.Error(), "user:hunter2") {
			t.Errorf("open %s: the error tells the password: %v", u, err)
		}
	}
}
