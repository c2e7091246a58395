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
	fsm.HandleBytes[*storagev1.Command_AddSegments](c, m.addSegments)
	fsm.Handle(c, m.assignJobs)
	fsm.Handle(c, m.completeJob)
	fsm.Handle(c, m.failJob)
	fsm.Handle(c, m.deleteTombstones)
	fsm.Handle(c, m.buryOrphans)
	fsm.Handle(c, m.dropData)
	return c
}

// added is the result of AddSegments: for each segment nil, or why it was refused; and which of its datasets are not in
// the index, because data as old as theirs was dropped.
type added struct {
	refused []error
	dropped [][]int
}

// reported is the result of CompleteJob and FailJob: nil, or why it was refused.
type reported struct{ refused error }

// addSegments takes the bytes of an AddSegments, because those of a segment are stored as they are.
func (m *machine) addSegments(tx *fsm.Tx, e fsm.Entry, body []byte) (any, error) {
	var result added
	var d index.Decoder
	for encoded, err := range index.Segments(body) {
		if err != nil {
			return nil, err
		}
		segment, err := d.Decode(encoded) // for the time of this turn
		if err != nil {
			return nil, err
		}
		refused, err := m.addSegment(tx, e.Time, segment, encoded)
		if err != nil {
			return nil, err
		}
		var dropped []int
		if refused == nil {
			dropped = m.index.Below(segment) // also of a segment that is registered again, whose first answer got lost
		}
		result.refused, result.dropped = append(result.refused, refused), append(result.dropped, dropped)
	}
	return result, nil
}

// addSegment registers one segment and makes it wait for compaction.
func (m *machine) addSegment(tx *fsm.Tx, now int64, segment *storagev1.BlockMeta, encoded []byte) (refused, err error) {
	entry, err := m.index.Register(tx, now, segment, encoded)
	switch {
	case errors.Is(err, index.ErrDropped):
		return err, m.jobs.Reject(tx, now, segment)
	case refusal(err):
		return err, nil
	case err != nil || entry == nil:
		return nil, err
	}
	if len(entry.GetDatasets()) < len(segment.GetDatasets()) {
		if err := m.jobs.MarkRefused(tx, now, segment, entry); err != nil {
			return nil, err
		}
	}
	return nil, m.jobs.Enqueue(tx, now, entry)
}

// refusal says whether the index refused an entry, as opposed to having failed.
func refusal(err error) bool {
	return errors.Is(err, index.ErrInvalid) || errors.Is(err, index.ErrWindow) || errors.Is(err, index.ErrBanned) ||
		errors.Is(err, index.ErrDropped)
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

func (m *machine) deleteTombstones(tx *fsm.Tx, e fsm.Entry, body *storagev1.Command_DeleteTombstones) (any, error) {
	return nil, m.jobs.DeleteTombstones(tx, e.Time, body.DeleteTombstones)
}

func (m *machine) dropData(tx *fsm.Tx, e fsm.Entry, body *storagev1.Command_DropData) (any, error) {
	return m.jobs.Drop(tx, e.Time, body.DropData)
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
