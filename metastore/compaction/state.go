package compaction

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/oklog/ulid/v2"
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

const (
	// MaxFailures is how often a job may fail before it is bisected or parked. It is part of what commands mean:
	// every replica must have the same.
	MaxFailures = 3

	// FinishedKept is how many finished jobs are remembered.
	FinishedKept = 100

	// maxReason bounds the text of a failure that is kept with its job.
	maxReason = 2048
)

// The refusals. They are results of commands, not errors of the state machine.
var (
	// ErrUnknownJob is returned when there is no such job: it is done, or it was bisected.
	ErrUnknownJob = errors.New("no such job")

	// ErrToken is returned when a report's token is not that of the job's current assignment.
	ErrToken = errors.New("token is not the current one")

	// ErrSources is returned when a job's sources, or those that its outputs name, are not what they must be.
	ErrSources = errors.New("wrong sources")

	// ErrSourceGone is returned when a source of the job is not in the index any more.
	ErrSourceGone = errors.New("source is gone")

	// ErrOutputs is returned when outputs are not what the job asks for.
	ErrOutputs = errors.New("wrong outputs")

	// ErrDrop is returned when a command to drop data is not well-formed, or would drop what is newer than itself.
	ErrDrop = errors.New("data cannot be dropped")

	// ErrNotRunnable is returned when a job may not be assigned: its lease is not over, or it is parked.
	ErrNotRunnable = errors.New("job cannot be assigned")
)

var (
	waitingBucket    = []byte("waiting")
	jobsBucket       = []byte("jobs")
	tombstonesBucket = []byte("tombstones")
	replacedBucket   = []byte("replaced")
	rewritesBucket   = []byte("rewrites")
	dueBucket        = []byte("rewrites-due")
	deletionsBucket  = []byte("deletions")
	deletingBucket   = []byte("deleting")
)

// Entries is what compaction needs of the index.
type Entries interface {
	// Get returns the entry of id, or nil.
	Get(tx *bbolt.Tx, id ulid.ULID) (*storagev1.BlockMeta, error)
	// Put adds a checked object whose id is new.
	Put(tx *bbolt.Tx, m *storagev1.BlockMeta) error
	Remove(tx *bbolt.Tx, m *storagev1.BlockMeta) error
	// Known says whether an id was ever registered or banned.
	Known(tx *bbolt.Tx, id ulid.ULID) bool
	// Ban makes sure that a new id is never registered; Banned says whether that happened.
	Ban(tx *bbolt.Tx, id ulid.ULID) error
	Banned(tx *bbolt.Tx, id ulid.ULID) bool
	// Drop takes what d names off the index, and calls changed for every entry that had some of it, ordered by id: with
	// the entry as it was, and as it is now, nil if it is gone.
	Drop(tx *bbolt.Tx, d *storagev1.Drop, changed func(before, after *storagev1.BlockMeta) error) error
	// CheckDrop returns why a drop is refused, nil if it is not.
	CheckDrop(d *storagev1.Drop) error
	// Below returns the datasets of an object, as indexes, that are as old as dropped ones.
	Below(m *storagev1.BlockMeta) []int
}

// State is the state of compaction. Methods that take a writing transaction are for the state machine, one at a time;
// the others may be called by anybody.
type State struct {
	entries Entries
	check   func(*storagev1.BlockMeta) error
	key     func(*storagev1.BlockMeta) string

	published atomic.Pointer[Summary]
	next      Summary // of the transaction that is running
}

// Summary is what is known of the state without reading it. It never changes.
type Summary struct {
	Waiting, Running, Parked int // jobs
	Tombstones               int
	Rewrites                 int        // entries whose objects hold dropped data
	Finished                 []Finished // latest last, at most FinishedKept
}

// Finished is a job that is done.
type Finished struct {
	Job         *storagev1.Job
	SourceBytes uint64
	Time        int64 // Unix nanoseconds of the command
	Outputs     int
	OutputBytes uint64
}

// New returns the state over the entries of an index. check says whether an output is well-formed, key where an object
// lies in the bucket.
func New(entries Entries, check func(*storagev1.BlockMeta) error, key func(*storagev1.BlockMeta) string) *State {
	s := &State{entries: entries, check: check, key: key}
	s.published.Store(&Summary{})
	return s
}

// Summary returns the counts of the newest durable state.
func (s *State) Summary() Summary { return *s.published.Load() }

// Buckets names the buckets of compaction.
func (s *State) Buckets() []string {
	return []string{
		string(waitingBucket), string(jobsBucket), string(tombstonesBucket), string(replacedBucket),
		string(rewritesBucket), string(dueBucket), string(deletionsBucket), string(deletingBucket),
	}
}

// Load counts what is there. It forgets the finished jobs.
func (s *State) Load(tx *bbolt.Tx, _ uint64) error {
	s.next = Summary{}
	err := s.Jobs(tx, func(j *storagev1.Job) error {
		s.next.count(j, 1)
		return nil
	})
	if err != nil {
		return err
	}
	s.next.Tombstones = tx.Bucket(tombstonesBucket).Stats().KeyN
	s.next.Rewrites = tx.Bucket(rewritesBucket).Stats().KeyN
	s.Commit(0)
	return nil
}

// Commit publishes the counts.
func (s *State) Commit(uint64) {
	published := s.next
	s.published.Store(&published)
}

// Rollback returns to the published counts.
func (s *State) Rollback() { s.next = s.Summary() }

func (s *Summary) count(j *storagev1.Job, n int) {
	switch {
	case Parked(j):
		s.Parked += n
	case j.GetState() == storagev1.JobState_JOB_STATE_RUNNING:
		s.Running += n
	default:
		s.Waiting += n
	}
}

func (s *Summary) finish(f Finished) {
	drop := max(0, len(s.Finished)+1-FinishedKept)
	s.Finished = append(append(make([]Finished, 0, FinishedKept), s.Finished[drop:]...), f)
}

// Reset forgets all jobs and everything that waits. What is in the index must be enqueued again.
func (s *State) Reset(tx *bbolt.Tx) error {
	for _, name := range [][]byte{jobsBucket, waitingBucket} {
		if err := tx.DeleteBucket(name); err != nil {
			return fmt.Errorf("reset compaction: %w", err)
		}
		if _, err := tx.CreateBucket(name); err != nil {
			return fmt.Errorf("reset compaction: %w", err)
		}
	}
	s.next.Waiting, s.next.Running, s.next.Parked = 0, 0, 0
	return nil
}

// Parked says whether a job is never handed out again: its only source breaks every merge.
func Parked(j *storagev1.Job) bool {
	return j.GetState() == storagev1.JobState_JOB_STATE_WAITING && j.GetFailures() >= MaxFailures && len(j.GetJob().GetSources()) == 1
}

// Jobs calls fn for every job, oldest first.
func (s *State) Jobs(tx *bbolt.Tx, fn func(*storagev1.Job) error) error {
	return tx.Bucket(jobsBucket).ForEach(func(k, v []byte) error {
		j := &storagev1.Job{}
		if err := proto.Unmarshal(v, j); err != nil {
			return fmt.Errorf("decode job %x: %w", k, err)
		}
		return fn(j)
	})
}

// Job returns the job of id, or nil.
func (s *State) Job(tx *bbolt.Tx, id string) (*storagev1.Job, error) {
	key, err := ulid.ParseStrict(id)
	if err != nil {
		return nil, nil // no job has such an id
	}
	v := tx.Bucket(jobsBucket).Get(key[:])
	if v == nil {
		return nil, nil
	}
	j := &storagev1.Job{}
	if err := proto.Unmarshal(v, j); err != nil {
		return nil, fmt.Errorf("decode job %s: %w", id, err)
	}
	return j, nil
}

// putJob stores a job in place of before, which is nil for a new one.
func (s *State) putJob(tx *bbolt.Tx, before, j *storagev1.Job) error {
	key, err := ulid.ParseStrict(j.GetJob().GetId())
	if err != nil {
		return fmt.Errorf("put job %q: %w", j.GetJob().GetId(), err)
	}
	v, err := proto.MarshalOptions{Deterministic: true}.Marshal(j)
	if err != nil {
		return fmt.Errorf("encode job %s: %w", key, err)
	}
	if before != nil {
		s.next.count(before, -1)
	}
	s.next.count(j, 1)
	return tx.Bucket(jobsBucket).Put(key[:], v)
}

func (s *State) deleteJob(tx *bbolt.Tx, j *storagev1.Job) error {
	key, err := ulid.ParseStrict(j.GetJob().GetId())
	if err != nil {
		return fmt.Errorf("delete job %q: %w", j.GetJob().GetId(), err)
	}
	s.next.count(j, -1)
	return tx.Bucket(jobsBucket).Delete(key[:])
}

// appendTime appends t so that byte order is the order of time.
func appendTime(b []byte, t int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(t)^1<<63) }

func getTime(b []byte) int64 { return int64(binary.BigEndian.Uint64(b) ^ 1<<63) }
