package compactionworker

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	"github.com/kilndb/kiln/api/kiln/compaction/v1/compactionv1connect"
	"github.com/kilndb/kiln/internal/spare"
	"github.com/kilndb/kiln/objstore"
)

// The pauses after a poll that failed, doubling, each with jitter.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Bucket is what a worker needs of the bucket.
type Bucket interface {
	objstore.Getter
	objstore.Putter
	objstore.Deleter
}

// Worker runs compaction jobs.
type Worker struct {
	cfg     Config
	bucket  Bucket
	jobs    compactionv1connect.WorkerServiceClient
	log     *slog.Logger
	metrics *metrics
	presses spare.Pool[*press]
}

// New returns a worker that takes its jobs from the metastore's worker service.
func New(cfg Config, bucket Bucket, jobs compactionv1connect.WorkerServiceClient, log *slog.Logger, reg prometheus.Registerer) (*Worker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Worker{
		cfg: cfg, bucket: bucket, jobs: jobs, log: log.With("worker", cfg.Name), metrics: newMetrics(reg),
		presses: spare.Pool[*press]{New: newPress, Keep: keepPresses},
	}, nil
}

// errStopping is why a job ends that is not finished when the worker's grace is over.
var errStopping = errors.New("worker is stopping")

// Run takes and runs jobs until ctx ends, lets those that are running finish within the grace, and returns.
func (w *Worker) Run(ctx context.Context) error {
	working, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var running sync.WaitGroup
	free := make(chan struct{}, w.cfg.Jobs) // one for every job that could be taken
	for range w.cfg.Jobs {
		free <- struct{}{}
	}
	w.pollLoop(ctx, free, func(a *compactionv1.Assignment) {
		running.Go(func() {
			defer func() { free <- struct{}{} }()
			w.run(working, a)
		})
	})
	late := time.AfterFunc(w.cfg.StopGrace, func() { stop(errStopping) })
	defer late.Stop()
	running.Wait()
	return nil
}

// pollLoop asks for as many jobs as there are free places, and starts them.
func (w *Worker) pollLoop(ctx context.Context, free chan struct{}, start func(*compactionv1.Assignment)) {
	pause := firstPause
	for {
		capacity := take(ctx, free)
		if capacity == 0 {
			return
		}
		answer, err := w.jobs.Poll(ctx, connect.NewRequest(&compactionv1.PollRequest{
			Worker: w.cfg.Name, Capacity: uint32(capacity), WaitMs: uint32(w.cfg.PollWait.Milliseconds()), Excludes: true,
		}))
		var assignments []*compactionv1.Assignment
		if err == nil {
			// More than was asked for would have no place to run: their leases end.
			assignments = answer.Msg.GetAssignments()
			assignments = assignments[:min(len(assignments), capacity)]
		}
		for _, a := range assignments {
			start(a) // gives its place back
		}
		for range capacity - len(assignments) {
			free <- struct{}{}
		}
		if err == nil {
			pause = firstPause
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if pause == lastPause { // an election takes less than it takes to get here
			w.log.Warn("no compaction jobs could be asked for", "err", err)
		}
		if !sleep(ctx, pause/2+rand.N(pause)) {
			return
		}
		pause = min(2*pause, lastPause)
	}
}

// take waits for a free place and takes all there are. It returns 0 when ctx has ended.
func take(ctx context.Context, free chan struct{}) (n int) {
	select {
	case <-free:
		n++
	case <-ctx.Done():
		return 0
	}
	for {
		select {
		case <-free:
			n++
		default:
			return n
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
