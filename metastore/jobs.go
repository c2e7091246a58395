package metastore

import (
	"context"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"

	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/fsm"
)

// jobService serves JobService.
type jobService struct{ m *Metastore }

// List returns the waiting jobs, the running and the latest finished, each oldest first. A limit cuts the list at its
// end. A parked job is one that waits, has compaction.MaxFailures and one source. Finished jobs are those that this
// member saw finishing since it started.
func (s jobService) List(ctx context.Context, req *connect.Request[compactionv1.ListRequest]) (*connect.Response[compactionv1.ListResponse], error) {
	if _, err := s.m.readIndex(ctx); err != nil {
		return nil, coded(err)
	}
	summary := s.m.machine.jobs.Summary()
	answer := &compactionv1.ListResponse{Tombstones: uint64(summary.Tombstones)}
	if err := s.m.state.View(func(tx *fsm.Tx) error { return s.read(tx, answer) }); err != nil {
		return nil, coded(err)
	}
	for _, f := range summary.Finished {
		j := listed(f.Job, f.SourceBytes)
		j.State = compactionv1.JobState_JOB_STATE_DONE
		j.Finished, j.Outputs, j.OutputBytes = f.Time, uint32(f.Outputs), f.OutputBytes
		answer.Jobs = append(answer.Jobs, j)
	}
	if limit := int(req.Msg.GetLimit()); limit > 0 && limit < len(answer.Jobs) {
		answer.Jobs = answer.Jobs[:limit]
	}
	return connect.NewResponse(answer), nil
}

// read fills in what is in the state: the waiting and running jobs, and the levels.
func (s jobService) read(tx *fsm.Tx, answer *compactionv1.ListResponse) error {
	var running []*compactionv1.Job
	if err := s.m.machine.jobs.Jobs(tx, func(j *storagev1.Job) error {
		size, err := s.sourceBytes(tx, j)
		if err != nil {
			return err
		}
		if l := listed(j, size); l.State == compactionv1.JobState_JOB_STATE_RUNNING {
			running = append(running, l)
		} else {
			answer.Jobs = append(answer.Jobs, l)
		}
		return nil
	}); err != nil {
		return err
	}
	answer.Jobs = append(answer.Jobs, running...)
	for level, l := range s.m.machine.index.View().Levels() {
		oldest, err := s.m.machine.jobs.OldestWaiting(tx, uint32(level))
		if err != nil {
			return err
		}
		answer.Levels = append(answer.Levels, &compactionv1.LevelStats{
			Level: uint32(level), Entries: l.Entries, Bytes: l.Bytes, OldestWaiting: oldest,
		})
	}
	return nil
}

func (s jobService) sourceBytes(tx *fsm.Tx, j *storagev1.Job) (size uint64, err error) {
	for _, text := range j.GetJob().GetSources() {
		id, err := ulid.ParseStrict(text)
		if err != nil {
			return 0, err
		}
		m, err := s.m.machine.index.Get(tx, id)
		if err != nil {
			return 0, err
		}
		size += m.GetSize()
	}
	return size, nil
}

func listed(j *storagev1.Job, sourceBytes uint64) *compactionv1.Job {
	state := compactionv1.JobState_JOB_STATE_WAITING
	if j.GetState() == storagev1.JobState_JOB_STATE_RUNNING {
		state = compactionv1.JobState_JOB_STATE_RUNNING
	}
	return &compactionv1.Job{
		Id: j.GetJob().GetId(), State: state,
		Tenant: j.GetJob().GetTenant(), Shard: j.GetJob().GetShard(), Level: j.GetJob().GetLevel(),
		Sources: uint32(len(j.GetJob().GetSources())), SourceBytes: sourceBytes,
		Worker: j.GetWorker(), Token: j.GetToken(), Failures: j.GetFailures(), LastFailure: j.GetLastFailure(),
		Created: j.GetCreated(), Assigned: j.GetAssigned(),
	}
}
