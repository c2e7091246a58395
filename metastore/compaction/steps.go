package compaction

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
	"go.etcd.io/bbolt"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// Assigned is the result of AssignJobs: for each new job and each assignment of the command nil, or why it was refused.
type Assigned struct {
	Token       uint64 // of all assignments: the log index of the command
	NewJobs     []error
	Assignments []error
}

// Assign creates jobs and hands out jobs. Each of them is accepted or refused alone.
func (s *State) Assign(tx *bbolt.Tx, index uint64, now int64, cmd *storagev1.AssignJobs) (result Assigned, err error) {
	result.Token = index
	for _, n := range cmd.GetNewJobs() {
		refused, err := s.create(tx, now, n)
		if err != nil {
			return result, err
		}
		result.NewJobs = append(result.NewJobs, refused)
	}
	for _, a := range cmd.GetAssignments() {
		refused, err := s.assign(tx, index, now, a)
		if err != nil {
			return result, err
		}
		result.Assignments = append(result.Assignments, refused)
	}
	return result, nil
}

// create adds a job whose sources all wait in its queue, and claims them.
func (s *State) create(tx *bbolt.Tx, now int64, n *storagev1.NewJob) (refused, err error) {
	id, err := ulid.ParseStrict(n.GetId())
	if err != nil || tx.Bucket(jobsBucket).Get(id[:]) != nil {
		return fmt.Errorf("%w: %q is no new id", ErrNotRunnable, n.GetId()), nil
	}
	q := queue{n.GetTenant(), n.GetShard(), n.GetLevel()}
	ids := make([]ulid.ULID, len(n.GetSources()))
	for i, source := range n.GetSources() {
		if ids[i], err = ulid.ParseStrict(source); err != nil || tx.Bucket(waitingBucket).Get(append(q.prefix(), ids[i][:]...)) == nil {
			return fmt.Errorf("%w: %q does not wait for a job of %+v", ErrSources, source, q), nil
		}
	}
	if len(ids) == 0 || len(distinct(n.GetSources())) != len(ids) {
		return fmt.Errorf("%w: none, or one twice", ErrSources), nil
	}
	if n.GetRewrite() && (len(ids) != 1 || tx.Bucket(rewritesBucket).Get(ids[0][:]) == nil) {
		return fmt.Errorf("%w: %v needs no rewriting", ErrSources, n.GetSources()), nil
	}
	for _, source := range ids {
		if _, err := claim(tx, q, source); err != nil {
			return nil, err
		}
	}
	return nil, s.putJob(tx, nil, &storagev1.Job{Job: n, State: storagev1.JobState_JOB_STATE_WAITING, Created: now})
}

// assign hands a job to a worker. A lease that has ended counts as a failure.
func (s *State) assign(tx *bbolt.Tx, index uint64, now int64, a *storagev1.Assignment) (refused, err error) {
	j, err := s.Job(tx, a.GetJob())
	switch {
	case err != nil:
		return nil, err
	case j == nil:
		return ErrUnknownJob, nil
	case Parked(j):
		return fmt.Errorf("%w: it is parked", ErrNotRunnable), nil
	case j.GetState() == storagev1.JobState_JOB_STATE_RUNNING && now < j.GetLeaseExpires():
		return fmt.Errorf("%w: the lease of %s is not over", ErrNotRunnable, j.GetWorker()), nil
	}
	if j.GetState() == storagev1.JobState_JOB_STATE_RUNNING {
		again, err := s.fail(tx, j, "lease of worker "+j.GetWorker()+" ended")
		if err != nil {
			return nil, err
		}
		if !again {
			return fmt.Errorf("%w: its lease ended too often", ErrNotRunnable), nil
		}
		if j, err = s.Job(tx, a.GetJob()); err != nil {
			return nil, err
		}
	}
	next := &storagev1.Job{
		Job: j.GetJob(), State: storagev1.JobState_JOB_STATE_RUNNING,
		Token: index, Worker: a.GetWorker(), LeaseExpires: a.GetLeaseExpires(),
		Failures: j.GetFailures(), LastFailure: j.GetLastFailure(), Created: j.GetCreated(), Assigned: now,
	}
	return nil, s.putJob(tx, j, next)
}

// OutputLevel returns the level of a job's outputs.
func OutputLevel(j *storagev1.NewJob) uint32 {
	if j.GetRewrite() {
		return max(1, j.GetLevel())
	}
	return j.GetLevel() + 1
}

// Fail gives a job back to the queue.
func (s *State) Fail(tx *bbolt.Tx, cmd *storagev1.FailJob) (refused, err error) {
	j, refused, err := s.current(tx, cmd.GetJob(), cmd.GetToken())
	if j == nil {
		return refused, err
	}
	_, err = s.fail(tx, j, cmd.GetReason())
	return nil, err
}

// current returns the job if token is that of its current assignment.
func (s *State) current(tx *bbolt.Tx, id string, token uint64) (j *storagev1.Job, refused, err error) {
	j, err = s.Job(tx, id)
	switch {
	case err != nil:
		return nil, nil, err
	case j == nil:
		return nil, fmt.Errorf("%w: %q", ErrUnknownJob, id), nil
	case j.GetState() != storagev1.JobState_JOB_STATE_RUNNING || j.GetToken() != token:
		return nil, fmt.Errorf("%w: %d for job %s, which has %d", ErrToken, token, id, j.GetToken()), nil
	}
	return j, nil, nil
}

// fail counts a failure of a running job and says whether it may be tried again as it is.
func (s *State) fail(tx *bbolt.Tx, j *storagev1.Job, reason string) (again bool, err error) {
	reason = strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
	next := &storagev1.Job{
		Job: j.GetJob(), State: storagev1.JobState_JOB_STATE_WAITING,
		Failures: j.GetFailures() + 1, LastFailure: reason, Created: j.GetCreated(),
	}
	if next.GetFailures() < MaxFailures || len(j.GetJob().GetSources()) == 1 {
		return !Parked(next), s.putJob(tx, j, next)
	}
	if err := s.deleteJob(tx, j); err != nil {
		return false, err
	}
	middle := len(j.GetJob().GetSources()) / 2
	for i, sources := range [][]string{j.GetJob().GetSources()[:middle], j.GetJob().GetSources()[middle:]} {
		id, err := halfID(j.GetJob().GetId(), i)
		if err != nil {
			return false, err
		}
		half := &storagev1.Job{
			Job: &storagev1.NewJob{
				Id: id, Tenant: j.GetJob().GetTenant(), Shard: j.GetJob().GetShard(), Level: j.GetJob().GetLevel(), Sources: sources,
			},
			State: storagev1.JobState_JOB_STATE_WAITING, LastFailure: reason, Created: j.GetCreated(),
		}
		if err := s.putJob(tx, nil, half); err != nil {
			return false, err
		}
	}
	return false, nil
}

// halfID returns the id of one half of a job: the same on every replica, and as old as the whole.
func halfID(parent string, half int) (string, error) {
	id, err := ulid.ParseStrict(parent)
	if err != nil {
		return "", fmt.Errorf("bisect job %q: %w", parent, err)
	}
	sum := sha256.Sum256([]byte{id[6], id[7], id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15], byte(half)})
	copy(id[6:], sum[:]) // the first six bytes are the time
	return id.String(), nil
}

// distinct returns the strings sorted, each once.
func distinct(ss []string) []string { return slices.Compact(slices.Sorted(slices.Values(ss))) }
