package compaction

import (
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"
	"go.etcd.io/bbolt"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// Complete replaces a job's sources by its outputs, or refuses the whole. Completing a job a second time with the same
// outputs is no refusal: a worker that does not know what became of its report may repeat it.
//
// Refused outputs become tombstones unless the index knows them.
func (s *State) Complete(tx *bbolt.Tx, now int64, cmd *storagev1.CompleteJob) (refused, err error) {
	for _, m := range cmd.GetOutputs() {
		if err := s.check(m); err != nil {
			return fmt.Errorf("%w: %w", ErrOutputs, err), nil
		}
	}
	if done, err := s.completed(tx, cmd); done || err != nil {
		return nil, err
	}
	j, refused, err := s.current(tx, cmd.GetJob(), cmd.GetToken())
	if err != nil {
		return nil, err
	}
	var sources []*storagev1.BlockMeta
	if refused == nil {
		if sources, refused, err = s.sources(tx, j); err != nil {
			return nil, err
		}
	}
	if refused == nil {
		refused = s.checkOutputs(tx, j, sources, cmd.GetOutputs())
	}
	if refused != nil {
		return refused, s.orphan(tx, now, cmd)
	}
	return nil, s.swap(tx, now, j, sources, cmd.GetOutputs())
}

// completed says whether these outputs have replaced their sources already.
func (s *State) completed(tx *bbolt.Tx, cmd *storagev1.CompleteJob) (bool, error) {
	j, err := s.Job(tx, cmd.GetJob())
	if err != nil || j != nil || len(cmd.GetOutputs()) == 0 {
		return false, err
	}
	for _, m := range cmd.GetOutputs() {
		id := ulid.MustParseStrict(m.GetId()) // checked
		if !s.entries.Known(tx, id) || s.entries.Banned(tx, id) {
			return false, nil
		}
	}
	return true, nil
}

// known says whether an output's id was used before, be it that its object only awaits its deletion.
func (s *State) known(tx *bbolt.Tx, m *storagev1.BlockMeta) bool {
	id := ulid.MustParseStrict(m.GetId()) // checked
	return s.entries.Known(tx, id) || tx.Bucket(replacedBucket).Get(id[:]) != nil
}

// sources returns the entries of a job's sources.
func (s *State) sources(tx *bbolt.Tx, j *storagev1.Job) (sources []*storagev1.BlockMeta, refused, err error) {
	for _, text := range j.GetJob().GetSources() {
		id, err := ulid.ParseStrict(text)
		if err != nil {
			return nil, nil, fmt.Errorf("job %s has the source %q: %w", j.GetJob().GetId(), text, err)
		}
		m, err := s.entries.Get(tx, id)
		if err != nil {
			return nil, nil, err
		}
		if m == nil {
			return nil, fmt.Errorf("%w: %s of job %s", ErrSourceGone, text, j.GetJob().GetId()), nil
		}
		sources = append(sources, m)
	}
	return sources, nil, nil
}

// checkOutputs trusts no worker: the outputs must be new objects, of the job's output level, in the job's shard, made from exactly
// its sources, and have every dataset that those have. Of datasets that hide deleted series nothing may be left.
func (s *State) checkOutputs(tx *bbolt.Tx, j *storagev1.Job, sources, outputs []*storagev1.BlockMeta) error {
	var ids, from []string
	for _, m := range outputs {
		switch {
		case s.known(tx, m):
			return fmt.Errorf("%w: id %s is not new", ErrOutputs, m.GetId())
		case m.GetLevel() != OutputLevel(j.GetJob()):
			return fmt.Errorf("%w: %s has level %d, want %d", ErrOutputs, m.GetId(), m.GetLevel(), OutputLevel(j.GetJob()))
		case m.GetShard() != j.GetJob().GetShard():
			return fmt.Errorf("%w: %s has shard %d, want %d", ErrOutputs, m.GetId(), m.GetShard(), j.GetJob().GetShard())
		case len(s.entries.Below(m)) > 0:
			return fmt.Errorf("%w: %s has data that was deleted", ErrOutputs, m.GetId())
		}
		ids = append(ids, m.GetId())
		from = append(from, m.GetSources()...)
	}
	if len(distinct(ids)) != len(ids) {
		return fmt.Errorf("%w: one id twice", ErrOutputs)
	}
	whole, wholeSources := datasets(sources, isWhole)
	every, everySource := datasets(sources, nil)
	if got := distinct(from); !within(wholeSources, got) || !within(got, everySource) {
		return fmt.Errorf("%w: outputs are made from %v, job %s has %v", ErrSources, got, j.GetJob().GetId(), everySource)
	}
	if got, _ := datasets(outputs, nil); !within(whole, got) || !within(got, every) {
		return fmt.Errorf("%w: their datasets are %q, those of the sources %q", ErrOutputs, got, every)
	}
	return nil
}

// isWhole says whether a dataset hides no series.
func isWhole(d *storagev1.Dataset) bool { return len(d.GetExcluded()) == 0 }

// datasets returns the distinct datasets of objects, as tenant and service, and the ids of the objects that have one: of all
// datasets, or of those that some is true of.
func datasets(metas []*storagev1.BlockMeta, some func(*storagev1.Dataset) bool) (names, ids []string) {
	for _, m := range metas {
		for _, d := range m.GetDatasets() {
			if some == nil || some(d) {
				names = append(names, m.GetStrings()[d.GetTenant()]+"/"+m.GetStrings()[d.GetService()]) // no tenant has a slash
				ids = append(ids, m.GetId())
			}
		}
	}
	return distinct(names), distinct(ids)
}

// within says whether all of some are among all.
func within(some, all []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// swap puts outputs in the place of sources and ends the job.
func (s *State) swap(tx *bbolt.Tx, now int64, j *storagev1.Job, sources, outputs []*storagev1.BlockMeta) error {
	done := Finished{Job: j, Time: now, Outputs: len(outputs)}
	for _, m := range sources {
		if err := s.entries.Remove(tx, m); err != nil {
			return err
		}
		if err := s.Rewritten(tx, m); err != nil {
			return err
		}
		if err := s.bury(tx, now, m, j.GetJob().GetId()); err != nil {
			return err
		}
		done.SourceBytes += m.GetSize()
	}
	for _, m := range outputs {
		if err := s.entries.Put(tx, m); err != nil {
			return err
		}
		if err := s.Enqueue(tx, now, m); err != nil {
			return err
		}
		done.OutputBytes += m.GetSize()
	}
	s.next.finish(done)
	return s.deleteJob(tx, j)
}

// orphan makes refused outputs tombstones, and their ids unusable. What the index knows is left alone: a mistaken or
// hostile report must not delete an object that is in use, or was and is being read.
func (s *State) orphan(tx *bbolt.Tx, now int64, cmd *storagev1.CompleteJob) error {
	for _, m := range cmd.GetOutputs() {
		if s.known(tx, m) {
			continue
		}
		if err := s.Reject(tx, now, m); err != nil {
			return err
		}
	}
	return nil
}

// Reject makes a tombstone for an object that the index does not know and never will.
func (s *State) Reject(tx *bbolt.Tx, now int64, m *storagev1.BlockMeta) error {
	if err := s.entries.Ban(tx, ulid.MustParseStrict(m.GetId())); err != nil {
		return err
	}
	return s.bury(tx, now, m, "")
}
