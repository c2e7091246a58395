package metastore

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/compaction"
)

// TestEveryInterleavingOfTwoWorkers lets two workers do one job, the second after the lease of the first has ended, in
// every order of their steps.
func TestEveryInterleavingOfTwoWorkers(t *testing.T) {
	const steps = 6 // take, read, upload, upload, report, report again
	db := openScratch(t, t.TempDir())
	orders := 0
	for order := range 1 << (2 * steps) {
		turns := [2]int{}
		for i := range 2 * steps {
			turns[order>>i&1]++
		}
		if turns[0] != steps {
			continue
		}
		orders++
		if err := interleave(db, order, 2*steps); err != nil {
			t.Fatalf("order %012b: %v", order, err)
		}
	}
	if orders != 924 {
		t.Errorf("%d orders, want 924", orders)
	}
}

func interleave(db *bbolt.DB, order, turns int) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	tx, err := db.Begin(true)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	s, err := newSimulation(tx, 1)
	if err != nil {
		return err
	}
	for i := range 3 {
		id := s.id().String()
		s.bucket[id] = map[string][]leaf{"a/web": {{id, "a/web", "x"}}, "b/web": {{id, "b/web", "x"}}}
		s.expected[leaf{id, "a/web", "x"}], s.expected[leaf{id, "b/web", "x"}] = true, true
		m := segment(id, 1, dataset{"a", "web", int64(i), 10}, dataset{"b", "web", 1, 10})
		s.apply(&storagev1.Command{Body: &storagev1.Command_AddSegments{AddSegments: &storagev1.AddSegments{Segments: []*storagev1.BlockMeta{m}}}})
	}
	for i := range turns {
		w := s.workers[order>>i&1]
		if w.job == nil {
			s.now = s.now.Add(20 * time.Second) // longer than a lease, so that a job that runs may be taken
			cmd := s.decide(w)
			if len(cmd.GetAssignments()) == 0 {
				continue // the other is done
			}
			s.assigned(w, cmd, s.apply(&storagev1.Command{Body: &storagev1.Command_AssignJobs{AssignJobs: cmd}}).(compaction.Assigned))
			continue
		}
		s.work(w)
		if err := s.check(); err != nil {
			return fmt.Errorf("turn %d: %w %v", i, err, s.history)
		}
	}
	return s.onlyOneWon()
}

// onlyOneWon checks that the outputs of at most one worker are in the index, and that all others that were reported are
// tombstones.
func (s *simulation) onlyOneWon() error {
	live := map[string]bool{}
	for _, m := range s.entries() {
		live[m.GetId()] = true
	}
	buried := map[string]bool{}
	tombstones, _, err := s.m.jobs.Tombstones(s.tx, s.now.UnixNano(), 100)
	if err != nil {
		return err
	}
	for _, t := range tombstones {
		buried[t.GetId()] = true
	}
	winners := map[string]bool{}
	for _, w := range s.workers {
		for _, m := range w.outputs {
			if live[m.GetId()] {
				winners[w.name] = true
			}
			if w.step >= 4 && live[m.GetId()] == buried[m.GetId()] {
				return fmt.Errorf("output %s of %s is live: %v, a tombstone: %v", m.GetId(), w.name, live[m.GetId()], buried[m.GetId()])
			}
		}
	}
	if len(winners) != 1 {
		return fmt.Errorf("winners are %v", slices.Collect(maps.Keys(winners)))
	}
	return nil
}
