package compaction

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// bury makes a tombstone for an object that job replaced at now; no job for an output that was refused.
func (s *State) bury(tx *bbolt.Tx, now int64, m *storagev1.BlockMeta, job string) error {
	return s.buryKey(tx, now, m.GetId(), s.key(m), job)
}

func (s *State) buryKey(tx *bbolt.Tx, now int64, text, key, job string) error {
	id, err := ulid.ParseStrict(text)
	if err != nil {
		return fmt.Errorf("bury %q: %w", text, err)
	}
	v, err := proto.MarshalOptions{Deterministic: true}.Marshal(&storagev1.Tombstone{Id: text, Key: key, Replaced: now, Job: job})
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

// BuryOrphans makes tombstones for objects that nobody names, and their ids unusable. Objects that are in the index, be it
// since the command was proposed, or have a tombstone already are left alone. It returns how many were buried.
func (s *State) BuryOrphans(tx *bbolt.Tx, now int64, cmd *storagev1.BuryOrphans) (buried int, err error) {
	for _, o := range cmd.GetOrphans() {
		id, err := ulid.ParseStrict(o.GetId())
		if err != nil || id.String() != o.GetId() || !strings.HasSuffix(o.GetKey(), "/"+o.GetId()) {
			continue
		}
		live, err := s.entries.Get(tx, id)
		if err != nil {
			return buried, err
		}
		if live != nil || s.Buried(tx, id) {
			continue
		}
		if !s.entries.Known(tx, id) {
			if err := s.entries.Ban(tx, id); err != nil {
				return buried, err
			}
		}
		if err := s.buryKey(tx, now, o.GetId(), o.GetKey(), ""); err != nil {
			return buried, err
		}
		buried++
	}
	return buried, nil
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

// Buried says whether an object has a tombstone.
func (s *State) Buried(tx *bbolt.Tx, id ulid.ULID) bool {
	return tx.Bucket(replacedBucket).Get(id[:]) != nil
}
