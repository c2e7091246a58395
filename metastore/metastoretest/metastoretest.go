// Package metastoretest runs a real metastore in a test: a Raft group of one over a temporary directory.
//
// A Server serves until the test ends. It implements the four generated client interfaces itself, by calling the
// metastore that runs now, so what a role was given stays valid across Restart and Kill.
package metastoretest

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kilndb/kiln/metastore"
	"github.com/kilndb/kiln/metastore/compaction"
)

// readyWithin bounds how long a start may take, on a machine that is busy with other tests.
const readyWithin = 30 * time.Second

// Server is a metastore that can be stopped and started.
type Server struct {
	t      testing.TB
	dir    string
	bucket metastore.Bucket
	change []func(*metastore.Config)

	mu      sync.Mutex
	current *metastore.Metastore
	stop    func() error
}

// Start runs a metastore that deletes replaced objects from bucket and keeps its snapshots there, and waits until it is ready. change may adapt the
// default configuration.
func Start(t testing.TB, bucket metastore.Bucket, change ...func(*metastore.Config)) *Server {
	t.Helper()
	s := &Server{t: t, dir: t.TempDir(), bucket: bucket, change: change}
	s.start()
	t.Cleanup(func() {
		if err := s.halt(); err != nil {
			t.Errorf("stop metastore: %v", err)
		}
	})
	return s
}

// Retention makes a metastore drop what is older than keep says, and rewrite objects of which a part was dropped.
func Retention(keep func(tenant, service string) time.Duration, rewriteAfter time.Duration) func(*metastore.Config) {
	return func(c *metastore.Config) { c.Retention, c.RewriteAfter = keep, rewriteAfter }
}

// Deep makes a metastore merge objects up to a level, a few at a time, as soon as there are two or one is old enough.
func Deep(top uint32, age time.Duration) func(*metastore.Config) {
	return func(c *metastore.Config) {
		c.Levels = nil
		for level := range top {
			c.Levels = append(c.Levels, compaction.Level{Level: level, MinSources: 2, MaxAge: age, MaxSources: 4, MaxBytes: 1 << 40})
		}
	}
}

// Metastore returns the metastore that runs now.
func (s *Server) Metastore() *metastore.Metastore {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// Restart stops the metastore in good order and starts it again.
func (s *Server) Restart() {
	s.t.Helper()
	if err := s.halt(); err != nil {
		s.t.Fatalf("stop metastore: %v", err)
	}
	s.start()
}

// Kill starts a metastore over the files as they are now, without anything having been closed or flushed, and drops the
// one that ran: what a kill -9 leaves. No call may be in progress, or the copy would not be of one moment.
func (s *Server) Kill() {
	s.t.Helper()
	image := s.t.TempDir()
	if err := os.CopyFS(image, os.DirFS(s.dir)); err != nil {
		s.t.Fatalf("copy data directory: %v", err)
	}
	if err := s.halt(); err != nil { // it knows nothing of the image
		s.t.Fatalf("stop metastore: %v", err)
	}
	s.dir = image
	s.start()
}

func (s *Server) start() {
	s.t.Helper()
	cfg := metastore.DefaultConfig(s.dir)
	for _, change := range s.change {
		change(&cfg)
	}
	m, err := metastore.Open(cfg, s.bucket, slog.New(slog.NewTextHandler(s.t.Output(), nil)), prometheus.NewRegistry())
	if err != nil {
		s.t.Fatalf("open metastore: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	s.mu.Lock()
	s.current = m
	s.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	s.mu.Unlock()
	soon, enough := context.WithTimeout(context.Background(), readyWithin)
	defer enough()
	if err := s.ready(soon); err != nil {
		s.t.Fatalf("metastore is not ready: %v", err)
	}
}

func (s *Server) halt() error {
	s.mu.Lock()
	stop := s.stop
	s.mu.Unlock()
	return stop()
}

// ready waits until the metastore is.
func (s *Server) ready(ctx context.Context) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		err := s.Metastore().Ready()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}
