package metastore

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/fsm"
	"github.com/kilndb/kiln/metastore/index"
	"github.com/kilndb/kiln/metastore/raftnode"
)

const (
	maxCapacity = 256 // jobs that one poll may ask for
	maxWait     = 30 * time.Second
	maxWorker   = 256 // bytes of a worker's name

	// returnTimeout bounds how long a job is given back for a worker that went away.
	returnTimeout = 5 * time.Second
)

// workerService serves WorkerService.
type workerService struct{ m *Metastore }

// Poll waits for work and leases it.
func (s workerService) Poll(ctx context.Context, req *connect.Request[compactionv1.PollRequest]) (*connect.Response[compactionv1.PollResponse], error) {
	r := req.Msg
	wait := time.Duration(r.GetWaitMs()) * time.Millisecond
	switch {
	case r.GetWorker() == "" || len(r.GetWorker()) > maxWorker:
		return nil, invalid(fmt.Sprintf("worker: %d bytes, want 1 to %d", len(r.GetWorker()), maxWorker))
	case r.GetCapacity() == 0 || r.GetCapacity() > maxCapacity:
		return nil, invalid(fmt.Sprintf("capacity: %d, want 1 to %d", r.GetCapacity(), maxCapacity))
	case wait > maxWait:
		return nil, invalid(fmt.Sprintf("wait_ms: %v is above %v", wait, maxWait))
	}
	t, err := s.m.leading(ctx)
	if err != nil {
		return nil, coded(err)
	}
	p := &poll{worker: r.GetWorker(), capacity: int(r.GetCapacity()), excludes: r.GetExcludes(), answer: make(chan []*compactionv1.Assignment, 1)}
	if !t.dispatch.add(p) {
		return nil, coded(fmt.Errorf("%w: the term has ended", raftnode.ErrUnavailable))
	}
	assignments, err := s.await(ctx, t, p, wait)
	if err != nil {
		return nil, coded(err)
	}
	return connect.NewResponse(&compactionv1.PollResponse{Assignments: assignments}), nil
}

// await returns p's jobs, or none when the wait is over.
func (s workerService) await(ctx context.Context, t *term, p *poll, wait time.Duration) ([]*compactionv1.Assignment, error) {
	over := time.NewTimer(wait)
	defer over.Stop()
	select {
	case got := <-p.answer:
		if got == nil {
			return nil, fmt.Errorf("%w: the term has ended", raftnode.ErrUnavailable)
		}
		return got, nil
	case <-over.C:
	case <-ctx.Done():
	}
	if t.dispatch.withdraw(p) {
		return nil, ctx.Err()
	}
	got := <-p.answer // the dispatcher has it in hand, and answers for sure
	if err := ctx.Err(); err != nil {
		s.giveBack(ctx, p, got)
		return nil, err
	}
	return got, nil
}

// giveBack fails the jobs of a worker that was gone before it could be told of them.
func (s workerService) giveBack(ctx context.Context, p *poll, jobs []*compactionv1.Assignment) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), returnTimeout)
	defer cancel()
	for _, a := range jobs {
		if err := s.fail(ctx, a.GetJob(), a.GetToken(), "worker "+p.worker+" went away before it got the job"); err != nil {
			s.m.log.Warn("compaction job could not be given back", "job", a.GetJob(), "err", err)
		}
	}
}

// Renew extends leases in the leader's memory.
func (s workerService) Renew(ctx context.Context, req *connect.Request[compactionv1.RenewRequest]) (*connect.Response[compactionv1.RenewResponse], error) {
	t, err := s.m.leading(ctx)
	if err != nil {
		return nil, coded(err)
	}
	var lost []string
	err = s.m.state.View(func(tx *fsm.Tx) error {
		for _, l := range req.Msg.GetLeases() {
			j, err := s.m.machine.jobs.Job(tx, l.GetJob())
			if err != nil {
				return err
			}
			if j.GetState() != storagev1.JobState_JOB_STATE_RUNNING || j.GetToken() != l.GetToken() || j.GetWorker() != req.Msg.GetWorker() {
				lost = append(lost, l.GetJob())
				continue
			}
			t.dispatch.renew(l.GetJob(), l.GetToken(), time.Now())
		}
		return nil
	})
	if err != nil {
		return nil, coded(err)
	}
	return connect.NewResponse(&compactionv1.RenewResponse{Lost: lost}), nil
}

// Complete replaces a job's sources by its outputs.
func (s workerService) Complete(ctx context.Context, req *connect.Request[compactionv1.CompleteRequest]) (*connect.Response[compactionv1.CompleteResponse], error) {
	r := req.Msg
	for _, m := range r.GetOutputs() {
		if err := index.CheckNew(m); err != nil {
			return nil, coded(err)
		}
	}
	result, err := propose[reported](ctx, s.m, &storagev1.Command{Body: &storagev1.Command_CompleteJob{
		CompleteJob: &storagev1.CompleteJob{Job: r.GetJob(), Token: r.GetToken(), Outputs: r.GetOutputs()},
	}})
	if err == nil {
		err = result.refused
	}
	if err != nil {
		return nil, coded(err)
	}
	s.drop(r.GetJob())
	return connect.NewResponse(&compactionv1.CompleteResponse{}), nil
}

// Fail gives a job back.
func (s workerService) Fail(ctx context.Context, req *connect.Request[compactionv1.FailRequest]) (*connect.Response[compactionv1.FailResponse], error) {
	r := req.Msg
	s.m.log.Warn("compaction job failed", "job", r.GetJob(), "worker", r.GetWorker(), "reason", r.GetReason())
	if err := s.fail(ctx, r.GetJob(), r.GetToken(), r.GetReason()); err != nil {
		return nil, coded(err)
	}
	return connect.NewResponse(&compactionv1.FailResponse{}), nil
}

func (s workerService) fail(ctx context.Context, job string, token uint64, reason string) error {
	result, err := propose[reported](ctx, s.m, &storagev1.Command{Body: &storagev1.Command_FailJob{
		FailJob: &storagev1.FailJob{Job: job, Token: token, Reason: reason},
	}})
	if err != nil {
		return err
	}
	if result.refused == nil {
		s.drop(job)
	}
	return result.refused
}

func (s workerService) drop(job string) {
	if t := s.m.term.Load(); t != nil {
		t.dispatch.drop(job)
	}
}
