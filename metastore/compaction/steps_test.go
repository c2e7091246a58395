package compaction

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"go.etcd.io/bbolt"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/index"
)

// book is a state with its index, over a file.
type book struct {
	t *testing.T
	*State
	index *index.Index
	db    *bbolt.DB
	made  int
	log   uint64
}

func newBook(t *testing.T) *book {
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "state.db"), 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	x := index.New()
	b := &book{t: t, State: New(x, index.Check, func(m *storagev1.BlockMeta) string { return "key/" + m.GetId() }), index: x, db: db}
	b.update(func(tx *bbolt.Tx) error {
		for _, name := range append(x.Buckets(), b.Buckets()...) {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
	return b
}

func (b *book) update(fn func(tx *bbolt.Tx) error) {
	b.t.Helper()
	if err := b.db.Update(fn); err != nil {
		b.t.Fatal(err)
	}
	b.log++
	b.index.Commit(b.log)
	b.Commit(b.log)
}

func (b *book) id() string {
	b.made++
	return ulid.ULID{4: byte(b.made >> 8), 5: byte(b.made), 15: 1}.String()
}

func (b *book) meta(level uint32, shard uint32, sources ...string) *storagev1.BlockMeta {
	m := &storagev1.BlockMeta{
		Id: b.id(), Level: level, Shard: shard, Sources: sources, Size: 100, Strings: []string{"", "a", "web"},
		Groups: []*storagev1.Group{{Tenant: 1}}, Datasets: []*storagev1.Dataset{{Tenant: 1, Service: 2}},
	}
	if level > 0 {
		m.Tenant = 1
	}
	return m
}

// at is a time of the tests, seconds after their begin.
func at(seconds int) time.Time { return time.Unix(int64(seconds), 0) }

// add registers n segments of a shard and returns their ids.
func (b *book) add(seconds, n int, shard uint32) (ids []string) {
	b.t.Helper()
	b.update(func(tx *bbolt.Tx) error {
		for range n {
			m := b.meta(0, shard)
			ids = append(ids, m.Id)
			if err := b.index.Put(tx, m); err != nil {
				return err
			}
			if err := b.Enqueue(tx, at(seconds).UnixNano(), m); err != nil {
				return err
			}
		}
		return nil
	})
	return ids
}

var levels = []Level{{Level: 0, MinSources: 4, MaxAge: 10 * time.Second, MaxSources: 5, MaxBytes: 1000}}

// plan returns what the planner says, as "shard: sources", and the seconds when it wants to be asked again.
func (b *book) plan(seconds, limit int, levels ...Level) (jobs []*storagev1.NewJob, said []string, next int) {
	b.t.Helper()
	p := Planner{Levels: levels, NewID: func(time.Time) ulid.ULID { return ulid.MustParse(b.id()) }}
	if err := b.db.View(func(tx *bbolt.Tx) error {
		found, due, err := p.Plan(tx, at(seconds), limit)
		jobs = found
		if !due.IsZero() {
			next = int(due.Unix())
		}
		return err
	}); err != nil {
		b.t.Fatal(err)
	}
	for _, j := range jobs {
		said = append(said, fmt.Sprintf("%d: %d", j.GetShard(), len(j.GetSources())))
	}
	return jobs, said, next
}

func TestPlans(t *testing.T) {
	for _, c := range []struct {
		name    string
		fill    func(b *book)
		seconds int
		limit   int
		want    []string
		next    int
	}{
		{"nothing", func(*book) {}, 0, 9, nil, 0},
		{"too few and too young", func(b *book) { b.add(0, 3, 1) }, 9, 9, nil, 10},
		{"old enough", func(b *book) { b.add(0, 3, 1) }, 10, 9, []string{"1: 3"}, 0},
		{"large enough", func(b *book) { b.add(0, 4, 1) }, 0, 9, []string{"1: 4"}, 0},
		{"shards do not mix", func(b *book) { b.add(0, 3, 1); b.add(1, 3, 2) }, 10, 9, []string{"1: 3"}, 11},
		{"no more than the most", func(b *book) { b.add(0, 12, 1) }, 0, 9, []string{"1: 5", "1: 5"}, 10},
		{"oldest first", func(b *book) { b.add(5, 4, 1); b.add(3, 4, 2); b.add(4, 4, 3) }, 6, 2, []string{"2: 4", "3: 4"}, 0},
		{"no queue holds up the others", func(b *book) { b.add(1, 100, 1); b.add(0, 4, 2) }, 0, 9, []string{"2: 4", "1: 5", "1: 5", "1: 5", "1: 5"}, 0},
		{"a clock that was set back", func(b *book) { b.add(3600, 2, 1) }, 0, 9, []string{"1: 2"}, 0},
		{"a clock that is a little behind", func(b *book) { b.add(5, 2, 1) }, 0, 9, nil, 15},
		{"no room", func(b *book) { b.add(0, 4, 1) }, 0, 0, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBook(t)
			c.fill(b)
			if _, got, next := b.plan(c.seconds, c.limit, levels...); !slices.Equal(got, c.want) || next != c.next {
				t.Errorf("planned %v and asks again at %d, want %v at %d", got, next, c.want, c.next)
			}
		})
	}
}

func TestSizeBoundsAJob(t *testing.T) {
	b := newBook(t)
	b.add(0, 5, 1)
	small := Level{Level: 0, MinSources: 1, MaxAge: time.Second, MaxSources: 5, MaxBytes: 250}
	if _, got, _ := b.plan(1, 9, small); !slices.Equal(got, []string{"1: 2", "1: 2", "1: 1"}) {
		t.Errorf("planned %v", got)
	}
	small.MaxBytes = 1 // a source that is too large alone is a job of its own
	if _, got, _ := b.plan(1, 9, small); !slices.Equal(got, []string{"1: 1", "1: 1", "1: 1", "1: 1"}) {
		t.Errorf("planned %v", got)
	}
}

func TestAnotherLevelIsARow(t *testing.T) {
	b := newBook(t)
	sources := b.add(0, 4, 1)
	b.update(func(tx *bbolt.Tx) error {
		for range 3 {
			m := b.meta(1, 1, sources...)
			if err := errors.Join(b.index.Put(tx, m), b.Enqueue(tx, at(0).UnixNano(), m)); err != nil {
				return err
			}
		}
		return nil
	})
	jobs, _, _ := b.plan(0, 9, levels[0], Level{Level: 1, MinSources: 3, MaxAge: time.Minute, MaxSources: 9, MaxBytes: 1 << 20})
	if len(jobs) != 2 || jobs[0].GetLevel() != 0 || jobs[0].GetTenant() != "" || jobs[1].GetLevel() != 1 || jobs[1].GetTenant() != "a" || len(jobs[1].GetSources()) != 3 {
		t.Errorf("planned %v", jobs)
	}
}

// run plans a job of what waits, hands it out and returns it with its token.
func (b *book) run(seconds int) (j *storagev1.NewJob, token uint64) {
	b.t.Helper()
	jobs, _, _ := b.plan(seconds, 1, levels...)
	token = b.log + 1
	b.update(func(tx *bbolt.Tx) error {
		result, err := b.Assign(tx, token, at(seconds).UnixNano(), &storagev1.AssignJobs{
			NewJobs:     jobs,
			Assignments: []*storagev1.Assignment{{Job: jobs[0].GetId(), Worker: "w", LeaseExpires: at(seconds + 15).UnixNano()}},
		})
		return errors.Join(err, result.NewJobs[0], result.Assignments[0])
	})
	return jobs[0], token
}

func TestASourceThatIsGoneRefusesTheWhole(t *testing.T) {
	b := newBook(t)
	ids := b.add(0, 4, 1)
	j, token := b.run(0)
	b.update(func(tx *bbolt.Tx) error { // what a retention will do
		m, err := b.index.Get(tx, ulid.MustParse(ids[2]))
		return errors.Join(err, b.index.Remove(tx, m))
	})
	output := b.meta(1, 1, ids...)
	b.update(func(tx *bbolt.Tx) error {
		refused, err := b.Complete(tx, at(1).UnixNano(), &storagev1.CompleteJob{Job: j.GetId(), Token: token, Outputs: []*storagev1.BlockMeta{output}})
		if !errors.Is(refused, ErrSourceGone) {
			t.Errorf("refused with %v", refused)
		}
		return err
	})
	b.update(func(tx *bbolt.Tx) error {
		if m, err := b.index.Get(tx, ulid.MustParse(output.Id)); m != nil || err != nil {
			t.Errorf("the output is in the index: %v, %v", m, err)
		}
		due, _, err := b.Tombstones(tx, at(1).UnixNano(), 9)
		if len(due) != 1 || due[0].GetId() != output.Id || due[0].GetKey() != "key/"+output.Id {
			t.Errorf("tombstones are %v, want that of the output", due)
		}
		return err
	})
	if got := len(b.index.View().Find(index.Query{Tenants: []string{"a"}})); got != 3 {
		t.Errorf("%d entries, want the three sources that are left", got)
	}
}

func TestALeaseThatEndsIsAFailure(t *testing.T) {
	b := newBook(t)
	b.add(0, 4, 1)
	j, token := b.run(0)
	assign := func(seconds int) (refused error) {
		b.update(func(tx *bbolt.Tx) error {
			result, err := b.Assign(tx, b.log+1, at(seconds).UnixNano(), &storagev1.AssignJobs{
				Assignments: []*storagev1.Assignment{{Job: j.GetId(), Worker: "v", LeaseExpires: at(seconds + 15).UnixNano()}},
			})
			refused = result.Assignments[0]
			return err
		})
		return refused
	}
	if err := assign(14); !errors.Is(err, ErrNotRunnable) {
		t.Errorf("assigned before the lease was over: %v", err)
	}
	for i, seconds := range []int{15, 30} {
		if err := assign(seconds); err != nil {
			t.Fatal(err)
		}
		b.update(func(tx *bbolt.Tx) error {
			got, err := b.Job(tx, j.GetId())
			if got.GetFailures() != uint32(i+1) || got.GetToken() == token || got.GetWorker() != "v" {
				t.Errorf("job %v", got)
			}
			return err
		})
	}
	if err := assign(45); !errors.Is(err, ErrNotRunnable) {
		t.Errorf("assigned after the third end of its lease: %v", err)
	}
	if s := b.Summary(); s.Waiting != 2 || s.Running != 0 {
		t.Errorf("summary is %+v, want the two halves", s)
	}
}

func TestFinishedJobsAreRememberedUpToABound(t *testing.T) {
	var s Summary
	for i := range FinishedKept + 10 {
		before := s.Finished
		s.finish(Finished{Time: int64(i)})
		if len(before) > 0 && before[len(before)-1].Time != int64(i-1) {
			t.Fatal("a published summary was changed")
		}
	}
	if len(s.Finished) != FinishedKept || s.Finished[0].Time != 10 || s.Finished[FinishedKept-1].Time != FinishedKept+9 {
		t.Errorf("%d jobs from %d", len(s.Finished), s.Finished[0].Time)
	}
}
