package compaction

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// Dropped is the result of DropData: how many entries are gone, and how many have less than before; or why the command
// was refused.
type Dropped struct {
	Gone, Reduced int
	Refused       error
}

// dropping is one DropData that is going on.
type dropping struct {
	*State
	tx  *bbolt.Tx
	now int64
	cmd *storagev1.DropData

	owners  map[string]string          // source → job
	taken   map[string]map[string]bool // job → those of its sources that changed; true: gone
	result  Dropped
	objects uint64 // that hold data of a deletion
}

// Drop takes data off the index. An object of which nothing is left becomes a tombstone, one that still holds other
// data is marked to be rewritten. A job that had such a source begins anew without what was dropped: what its worker
// reports of the attempt before is refused, or it would bring the data back.
func (s *State) Drop(tx *bbolt.Tx, now int64, cmd *storagev1.DropData) (Dropped, error) {
	if refused := s.checkDrop(tx, now, cmd); refused != nil {
		return Dropped{Refused: refused}, nil
	}
	d := &dropping{State: s, tx: tx, now: now, cmd: cmd, owners: map[string]string{}, taken: map[string]map[string]bool{}}
	if err := s.Jobs(tx, func(j *storagev1.Job) error {
		for _, source := range j.GetJob().GetSources() {
			d.owners[source] = j.GetJob().GetId()
		}
		return nil
	}); err != nil {
		return Dropped{}, err
	}
	for _, drop := range cmd.GetDrops() {
		if err := s.entries.Drop(tx, drop, d.changed); err != nil {
			return Dropped{}, err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(d.taken)) {
		if err := d.restart(id, d.taken[id]); err != nil {
			return Dropped{}, err
		}
	}
	return d.result, d.recordDeletion()
}

// checkDrop returns why a command is refused. Nothing may be dropped that is newer than the command: retention by a clock
// that is ahead of the log's would take what nobody has read yet. A selector is for deletions alone, of what is stored.
func (s *State) checkDrop(tx *bbolt.Tx, now int64, cmd *storagev1.DropData) error {
	for _, d := range cmd.GetDrops() {
		if d.GetSelector() != "" && (!d.GetStored() || d.GetBefore() != 0 || cmd.GetDeletion() == "") {
			return fmt.Errorf("%w: the selector %q is not of a deletion of what is stored", ErrDrop, d.GetSelector())
		}
		if d.GetTenant() == "" || strings.IndexByte(d.GetTenant(), 0) >= 0 || d.GetBefore() > now {
			return fmt.Errorf("%w: of tenant %q before %d, at %d", ErrDrop, d.GetTenant(), d.GetBefore(), now)
		}
	}
	if cmd.GetDeletion() == "" {
		return nil
	}
	id, err := ulid.ParseStrict(cmd.GetDeletion())
	if err != nil || len(cmd.GetDrops()) != 1 || tx.Bucket(deletionsBucket).Get(id[:]) != nil {
		return fmt.Errorf("%w: deletion %q of %d names is not new and of one", ErrDrop, cmd.GetDeletion(), len(cmd.GetDrops()))
	}
	return s.entries.CheckDrop(cmd.GetDrops()[0])
}

// changed is called for every entry that lost datasets, or all of them, or hides more series than before.
func (d *dropping) changed(before, after *storagev1.BlockMeta) error {
	id, err := ulid.ParseStrict(before.GetId())
	if err != nil {
		return fmt.Errorf("drop data of %q: %w", before.GetId(), err)
	}
	if job, claimed := d.owners[before.GetId()]; claimed {
		if d.taken[job] == nil {
			d.taken[job] = map[string]bool{}
		}
		d.taken[job][before.GetId()] = after == nil
	}
	if d.cmd.GetDeletion() != "" {
		if err := d.holds(id); err != nil {
			return err
		}
	}
	if after != nil {
		d.result.Reduced++
		return d.mark(id, before, after)
	}
	d.result.Gone++
	if _, err := claim(d.tx, queueOf(before), id); err != nil {
		return err
	}
	if err := d.Rewritten(d.tx, before); err != nil {
		return err
	}
	return d.bury(d.tx, d.now, before, "")
}

// restart gives a job back whose sources changed, without those that are gone. Its failures are forgotten: what broke
// the merge may have been dropped.
func (d *dropping) restart(id string, changed map[string]bool) error {
	j, err := d.Job(d.tx, id)
	if err != nil {
		return err
	}
	work := proto.CloneOf(j.GetJob())
	work.Sources = slices.DeleteFunc(work.GetSources(), func(source string) bool { return changed[source] })
	if len(work.GetSources()) == 0 {
		return d.deleteJob(d.tx, j)
	}
	return d.putJob(d.tx, j, &storagev1.Job{
		Job: work, State: storagev1.JobState_JOB_STATE_WAITING, LastFailure: j.GetLastFailure(), Created: j.GetCreated(),
	})
}

const rewriteValueLen = 16 // bytes: due, rows of samples that were dropped

// mark notes that an entry's object holds data that the entry does not name any more, or hides. It is due to be rewritten after
// the command's delay, or at once when more was dropped than is left.
func (d *dropping) mark(id ulid.ULID, before, after *storagev1.BlockMeta) error {
	due, dropped := d.now+max(0, d.cmd.GetRewriteAfter()), rows(before)-rows(after)
	if v := d.tx.Bucket(rewritesBucket).Get(id[:]); v != nil {
		old, was, err := parseRewrite(v)
		if err != nil {
			return err
		}
		due, dropped = min(due, old), dropped+was
		if err := d.tx.Bucket(dueBucket).Delete(append(appendTime(nil, old), id[:]...)); err != nil {
			return err
		}
		d.next.Rewrites--
	}
	if dropped > rows(after) {
		due = min(due, d.now)
	}
	if err := d.tx.Bucket(rewritesBucket).Put(id[:], binary.BigEndian.AppendUint64(appendTime(nil, due), dropped)); err != nil {
		return err
	}
	d.next.Rewrites++
	return d.tx.Bucket(dueBucket).Put(append(appendTime(nil, due), id[:]...), []byte{})
}

// MarkRefused notes that an object that was registered holds datasets that its entry does not name.
func (s *State) MarkRefused(tx *bbolt.Tx, now int64, registered, entry *storagev1.BlockMeta) error {
	id, err := ulid.ParseStrict(entry.GetId())
	if err != nil {
		return fmt.Errorf("mark %q: %w", entry.GetId(), err)
	}
	return (&dropping{State: s, tx: tx, now: now, cmd: &storagev1.DropData{}}).mark(id, registered, entry)
}

// rows returns how many rows of samples an entry's datasets have.
func rows(m *storagev1.BlockMeta) (n uint64) {
	for _, d := range m.GetDatasets() {
		for _, r := range d.GetRows() {
			n += r.GetSamples()
		}
	}
	return n
}

func parseRewrite(v []byte) (due int64, dropped uint64, err error) {
	if len(v) != rewriteValueLen {
		return 0, 0, fmt.Errorf("mark for rewriting %x is damaged", v)
	}
	return getTime(v), binary.BigEndian.Uint64(v[8:]), nil
}

// Reduced says whether an entry's object holds data that the entry does not name any more, or hides.
func (s *State) Reduced(tx *bbolt.Tx, id ulid.ULID) bool {
	return tx.Bucket(rewritesBucket).Get(id[:]) != nil
}

// Rewritten forgets the mark of an entry that is gone.
func (s *State) Rewritten(tx *bbolt.Tx, m *storagev1.BlockMeta) error {
	id, err := ulid.ParseStrict(m.GetId())
	if err != nil {
		return fmt.Errorf("forget the mark of %q: %w", m.GetId(), err)
	}
	v := tx.Bucket(rewritesBucket).Get(id[:])
	if v == nil {
		return nil
	}
	due, _, err := parseRewrite(v)
	if err != nil {
		return err
	}
	s.next.Rewrites--
	if err := tx.Bucket(rewritesBucket).Delete(id[:]); err != nil {
		return err
	}
	return tx.Bucket(dueBucket).Delete(append(appendTime(nil, due), id[:]...))
}

// maxRewritesSeen bounds how many marks one plan looks at: those of entries that a job has claimed stay until it ends.
const maxRewritesSeen = 4096

// Rewrites returns at most limit jobs that rewrite objects which hold dropped data and are due at now, but for entries
// that are in planned or in a job already, and when the next will be due; zero if none.
func (p *Planner) Rewrites(tx *bbolt.Tx, s *State, now time.Time, limit int, planned []*storagev1.NewJob) (jobs []*storagev1.NewJob, next time.Time, err error) {
	claimed := map[string]bool{}
	for _, j := range planned {
		for _, source := range j.GetSources() {
			claimed[source] = true
		}
	}
	seen := 0
	c := tx.Bucket(dueBucket).Cursor()
	for k, _ := c.First(); k != nil && len(jobs) < limit && seen < maxRewritesSeen; k, _ = c.Next() {
		seen++
		if len(k) != 8+len(ulid.ULID{}) {
			return nil, next, fmt.Errorf("mark for rewriting has a key of %d bytes", len(k))
		}
		if due := getTime(k); due > now.UnixNano() {
			return jobs, time.Unix(0, due), nil
		}
		id := ulid.ULID(k[8:])
		m, err := s.entries.Get(tx, id)
		if err != nil {
			return nil, next, err
		}
		if m == nil || claimed[m.GetId()] || tx.Bucket(waitingBucket).Get(append(queueOf(m).prefix(), id[:]...)) == nil {
			continue
		}
		q := queueOf(m)
		jobs = append(jobs, &storagev1.NewJob{
			Id: p.NewID(now).String(), Tenant: q.tenant, Shard: q.shard, Level: q.level, Sources: []string{m.GetId()}, Rewrite: true,
		})
	}
	return jobs, next, nil
}
