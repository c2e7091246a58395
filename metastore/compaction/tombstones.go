package compaction

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// bury makes a tombstone for an object that job replaced at now; no job for an output that was refused.
func (s *State) bury(tx *bbolt.Tx, now int64, m *storagev1.BlockMeta, job string) error {
	id, err := ulid.ParseStrict(m.GetId())
	if err != nil {
		return fmt.Errorf("bury %q: %w", m.GetId(), err)
	}
	v, err := proto.MarshalOptions{Deterministic: true}.Marshal(&storagev1.Tombstone{Id: m.GetId(), Key: s.key(m), Replaced: now, Job: job})
	if err != nil {
		return fmt.Errorf("encode tombstone %s: %w", id, err)
	}
	when := appendTime(nil, now)
	if err := tx.Bucket(replacedBucket).Put(id[:], when); err != nil {
		return err
	}
	s.next.Tombstones++
	return tx.Bucket(tombstonesBucket).Put(append(slices.Clone(when), id[:]...), v)
}

// DeleteTombstones forgets objects that are deleted from the bucket. What is forgotten already is no error.
func (s *State) DeleteTombstones(tx *bbolt.Tx, now int64, cmd *storagev1.DeleteTombstones) error {
	open, err := openDeletions(tx)
	if err != nil {
		return err
	}
	for _, text := range cmd.GetIds() {
		id, err := ulid.ParseStrict(text)
		if err != nil {
			continue // no tombstone has such an id
		}
		when := bytes.Clone(tx.Bucket(replacedBucket).Get(id[:]))
		if when == nil {
			continue
		}
		if err := tx.Bucket(replacedBucket).Delete(id[:]); err != nil {
			return err
		}
		if err := tx.Bucket(tombstonesBucket).Delete(append(when, id[:]...)); err != nil {
			return err
		}
		s.next.Tombstones--
		for _, d := range open {
			if err := tx.Bucket(deletingBucket).Delete(deletingKey(d.GetId(), id)); err != nil {
				return err
			}
		}
	}
	return s.finishDeletions(tx, now, open)
}

// Tombstones returns at most limit tombstones of objects that were replaced at before or earlier, oldest first, and when
// the first of the others was replaced; 0 if there is none.
func (s *State) Tombstones(tx *bbolt.Tx, before int64, limit int) (due []*storagev1.Tombstone, next int64, err error) {
	c := tx.Bucket(tombstonesBucket).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if len(k) < 8 {
			return nil, 0, fmt.Errorf("tombstone has a key of %d bytes", len(k))
		}
		if replaced := getTime(k); replaced > before || len(due) == limit {
			return due, replaced, nil
		}
		t := &storagev1.Tombstone{}
		if err := proto.Unmarshal(v, t); err != nil {
			return nil, 0, fmt.Errorf("decode tombstone %x: %w", k, err)
		}
		due = append(due, t)
	}
	return due, 0, nil
}
