package metastore

import (
	"errors"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/metastore/compaction"
	"github.com/kilndb/kiln/metastore/fsm"
	"github.com/kilndb/kiln/metastore/index"
)

// machine is what commands mean: the index and compaction, put together. Its methods are handlers of the state machine.
type machine struct {
	index   *index.Index
	jobs    *compaction.State
	commits commits
}

func newMachine() *machine {
	x := index.New()
	return &machine{index: x, jobs: compaction.New(x, index.Check, block.Key), commits: make(commits, 1)}
}

func (m *machine) components() []fsm.Component { return []fsm.Component{m.index, m.jobs, m.commits} }

func (m *machine) commands() fsm.Commands {
	c := fsm.Commands{}
	fsm.Handle(c, m.addSegments)
	fsm.Handle(c, m.assignJobs)
	fsm.Handle(c, m.completeJob)
	fsm.Handle(c, m.failJob)
	fsm.Handle(c, m.deleteTombstones)
	fsm.Handle(c, m.buryOrphans)
	return c
}

// added is the result of AddSegments: for each segment nil, or why it was refused.
type added struct{ refused []error }

// reported is the result of CompleteJob and FailJob: nil, or why it was refused.
type reported struct{ refused error }

func (m *machine) addSegments(tx *fsm.Tx, e fsm.Entry, body *storagev1.Command_AddSegments) (any, error) {
	var result added
	for _, segment := range body.AddSegments.GetSegments() {
		isNew, err := m.index.Register(tx, e.Time, segment)
		if err != nil && !refusal(err) {
			return nil, err
		}
		if isNew {
			if err := m.jobs.Enqueue(tx, e.Time, segment); err != nil {
				return nil, err
			}
		}
		result.refused = append(result.refused, err)
	}
	return result, nil
}

// refusal says whether the index refused an entry, as opposed to having failed.
func refusal(err error) bool {
	return errors.Is(err, index.ErrInvalid) || errors.Is(err, index.ErrWindow) || errors.Is(err, index.ErrBanned)
}

func (m *machine) assignJobs(tx *fsm.Tx, e fsm.Entry, body *storagev1.Command_AssignJobs) (any, error) {
	return m.jobs.Assign(tx, e.Index, e.Time, body.AssignJobs)
}

func (m *machine) completeJob(tx *fsm.Tx, e fsm.Entry, body *storagev1.Command_CompleteJob) (any, error) {
	refused, err := m.jobs.Complete(tx, e.Time, body.CompleteJob)
	return reported{refused}, err
}

func (m *machine) failJob(tx *fsm.Tx, _ fsm.Entry, body *storagev1.Command_FailJob) (any, error) {
	refused, err := m.jobs.Fail(tx, body.FailJob)
	return reported{refused}, err
}

func (m *machine) deleteTombstones(tx *fsm.Tx, _ fsm.Entry, body *storagev1.Command_DeleteTombstones) (any, error) {
	return nil, m.jobs.DeleteTombstones(tx, body.DeleteTombstones)
}

// buriedOrphans is the result of BuryOrphans: how many were.
type buriedOrphans int

func (m *machine) buryOrphans(tx *fsm.Tx, e fsm.Entry, body *storagev1.Command_BuryOrphans) (any, error) {
	n, err := m.jobs.BuryOrphans(tx, e.Time, body.BuryOrphans)
	return buriedOrphans(n), err
}

// commits is a component without state: it holds a value when something was committed since it was last received.
type commits chan struct{}

func (c commits) Buckets() []string              { return nil }
func (c commits) Load(_ *fsm.Tx, _ uint64) error { c.Commit(0); return nil }
func (c commits) Rollback()                      {}
func (c commits) Commit(uint64) {
	select {
	case c <- struct{}{}:
	default:
	}
}
