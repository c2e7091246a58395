package segmentwritertest

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/objstore/objstoretest"
	"github.com/kilndb/kiln/segmentwriter"
)

// Writer is a running segmentwriter.Writer and what it writes to.
type Writer struct {
	*segmentwriter.Writer
	Bucket  *objstoretest.Faulty
	Index   *Index
	Metrics *prometheus.Registry
	stop    func()
}

// Config returns the configuration of a writer that does not linger and gives up after seconds.
func Config() segmentwriter.Config {
	cfg := segmentwriter.DefaultConfig()
	cfg.Node, cfg.Linger, cfg.Backoff = "test", 0, time.Millisecond
	return cfg
}

// Open starts a writer, which stops with the test at the latest.
func Open(t testing.TB, cfg segmentwriter.Config) *Writer {
	t.Helper()
	w := &Writer{Bucket: objstoretest.NewFaulty(memory.New()), Index: &Index{}, Metrics: prometheus.NewRegistry()}
	var err error
	if w.Writer, err = segmentwriter.New(cfg, w.Bucket, w.Index, slog.New(slog.DiscardHandler), w.Metrics); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stopped := false
	w.stop = func() {
		cancel()
		if stopped {
			return
		}
		stopped = true
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(w.stop)
	return w
}

// Stop ends the writer and returns when it has ended.
func (w *Writer) Stop() { w.stop() }

// Rows returns everything that is stored.
func (w *Writer) Rows(t testing.TB) []Row {
	t.Helper()
	rows, err := Read(context.Background(), w.Bucket, w.Index.Entries())
	if err != nil {
		t.Fatal(err)
	}
	return rows
}
