package compactionworker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"connectrpc.com/connect"

	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
)

// reportTimeout bounds one report, its repetitions by the client included.
const reportTimeout = 30 * time.Second

// errLost is why a job ends whose lease is somebody else's.
var errLost = errors.New("lease lost")

// run runs one job to its end, whichever that is.
func (w *Worker) run(ctx context.Context, a *compactionv1.Assignment) {
	begun := time.Now()
	w.metrics.running.Inc()
	defer w.metrics.running.Dec()
	log := w.log.With("job", a.GetJob(), "level", a.GetLevel(), "sources", len(a.GetSources()))
	result, err := w.attempt(ctx, a)
	w.metrics.jobs.WithLabelValues(result).Inc()
	w.metrics.seconds.Observe(time.Since(begun).Seconds())
	if err != nil {
		log.Warn("compaction job ended without a result", "result", result, "err", err)
		return
	}
	log.Debug("compaction job done", "seconds", time.Since(begun).Seconds())
}

// attempt works on a job while its lease holds, and reports. result is for people.
func (w *Worker) attempt(ctx context.Context, a *compactionv1.Assignment) (result string, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() { w.renewLoop(ctx, a, cancel) })
	defer renewing.Wait()
	defer cancel(nil)

	m := merge{worker: w, job: a}
	err = m.run(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	switch {
	case errors.Is(err, errLost):
		m.discard()
		return "lost", err
	case err != nil:
		m.discard()
		return "failed", errors.Join(err, w.fail(ctx, a, err))
	}
	return w.complete(ctx, a, &m)
}

// complete reports success. From here on the outputs are the metastore's.
func (w *Worker) complete(ctx context.Context, a *compactionv1.Assignment, m *merge) (result string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
	defer cancel()
	_, err = w.jobs.Complete(ctx, connect.NewRequest(&compactionv1.CompleteRequest{
		Worker: w.cfg.Name, Job: a.GetJob(), Token: a.GetToken(), Outputs: m.outputs,
	}))
	if err != nil {
		return "refused", fmt.Errorf("report result: %w", err)
	}
	for _, o := range m.outputs {
		w.metrics.written.Add(float64(o.GetSize()))
	}
	for _, s := range a.GetSources() {
		w.metrics.read.Add(float64(s.GetSize()))
	}
	return "done", nil
}

// fail gives the job back.
func (w *Worker) fail(ctx context.Context, a *compactionv1.Assignment, reason error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
	defer cancel()
	if _, err := w.jobs.Fail(ctx, connect.NewRequest(&compactionv1.FailRequest{
		Worker: w.cfg.Name, Job: a.GetJob(), Token: a.GetToken(), Reason: reason.Error(),
	})); err != nil {
		return fmt.Errorf("report failure: %w", err)
	}
	return nil
}

// renewLoop renews the job's lease twice per lease until ctx ends. It cancels the job when the lease is lost, or could
// not be renewed for a whole lease.
func (w *Worker) renewLoop(ctx context.Context, a *compactionv1.Assignment, cancel context.CancelCauseFunc) {
	lease := max(time.Duration(a.GetLeaseMs())*time.Millisecond, 2*time.Millisecond)
	renewed := time.Now()
	for sleep(ctx, lease/2) {
		asked := time.Now()
		lost, err := w.renew(ctx, a, lease)
		switch {
		case lost:
			cancel(errLost)
			return
		case err == nil:
			renewed = asked
		case ctx.Err() != nil:
			return
		case time.Since(renewed) >= lease:
			cancel(fmt.Errorf("%w: it could not be renewed in time: %w", errLost, err))
			return
		default:
			w.log.Warn("lease could not be renewed", "job", a.GetJob(), "err", err)
		}
	}
}

// renew renews the lease once and says whether it belongs to somebody else.
func (w *Worker) renew(ctx context.Context, a *compactionv1.Assignment, lease time.Duration) (lost bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lease/2)
	defer cancel()
	answer, err := w.jobs.Renew(ctx, connect.NewRequest(&compactionv1.RenewRequest{
		Worker: w.cfg.Name, Leases: []*compactionv1.Lease{{Job: a.GetJob(), Token: a.GetToken()}},
	}))
	if err != nil {
		return false, err
	}
	return len(answer.Msg.GetLost()) > 0, nil
}

// recovered turns a panic into an error: one source that breaks the merge must not take the others' jobs with it.
func (w *Worker) recovered(log *slog.Logger, err *error) {
	if r := recover(); r != nil {
		w.metrics.panics.Inc()
		log.Error("compaction panicked", "panic", r, "stack", string(debug.Stack()))
		*err = errors.Join(*err, fmt.Errorf("panic: %v", r))
	}
}
