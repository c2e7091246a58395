package compaction

import (
	"bytes"
	"fmt"

	"github.com/oklog/ulid/v2"
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// DeletionsKept is how many finished deletions are remembered. It is part of what commands mean.
const DeletionsKept = 1000

// deletingKey is where it says that an object holds data of a deletion.
func deletingKey(deletion string, object ulid.ULID) []byte {
	id := ulid.MustParseStrict(deletion) // checked
	return append(id[:], object[:]...)
}

// recordDeletion stores that the command was a deletion.
func (d *dropping) recordDeletion() error {
	if d.cmd.GetDeletion() == "" {
		return nil
	}
	if err := forgetDeletions(d.tx); err != nil {
		return err
	}
	drop := d.cmd.GetDrops()[0]
	deletion := &storagev1.Deletion{
		Id: d.cmd.GetDeletion(), Tenant: drop.GetTenant(), Service: drop.Service, Requested: d.now, Objects: uint64(d.result.Gone + d.result.Reduced),
	}
	if err := putDeletion(d.tx, deletion); err != nil {
		return err
	}
	return d.finishDeletions(d.tx, d.now, []*storagev1.Deletion{deletion})
}

// finishDeletions marks those deletions as finished whose objects are gone from the bucket: the objects that the index
// named, and those that had been replaced already and only waited for their deletion.
func (s *State) finishDeletions(tx *bbolt.Tx, now int64, open []*storagev1.Deletion) error {
	oldest, _ := tx.Bucket(tombstonesBucket).Cursor().First()
	for _, d := range open {
		if remaining(tx, d, 1) > 0 || oldest != nil && getTime(oldest) <= d.GetRequested() {
			continue
		}
		d.Finished = now
		if err := putDeletion(tx, d); err != nil {
			return err
		}
	}
	return nil
}

// remaining counts, up to limit, the objects in the bucket that hold data of a deletion.
func remaining(tx *bbolt.Tx, d *storagev1.Deletion, limit uint64) (n uint64) {
	id := ulid.MustParseStrict(d.GetId()) // stored
	c := tx.Bucket(deletingBucket).Cursor()
	for k, _ := c.Seek(id[:]); k != nil && bytes.HasPrefix(k, id[:]) && n < limit; k, _ = c.Next() {
		n++
	}
	return n
}

func putDeletion(tx *bbolt.Tx, d *storagev1.Deletion) error {
	id, err := ulid.ParseStrict(d.GetId())
	if err != nil {
		return fmt.Errorf("put deletion %q: %w", d.GetId(), err)
	}
	v, err := proto.MarshalOptions{Deterministic: true}.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode deletion %s: %w", d.GetId(), err)
	}
	return tx.Bucket(deletionsBucket).Put(id[:], v)
}

// Deletions calls fn for every deletion, oldest first, with the number of objects in the bucket that hold its data.
func (s *State) Deletions(tx *bbolt.Tx, fn func(d *storagev1.Deletion, remaining uint64) error) error {
	return tx.Bucket(deletionsBucket).ForEach(func(k, v []byte) error {
		d := &storagev1.Deletion{}
		if err := proto.Unmarshal(v, d); err != nil {
			return fmt.Errorf("decode deletion %x: %w", k, err)
		}
		return fn(d, remaining(tx, d, d.GetObjects()))
	})
}

// openDeletions returns those that are not finished.
func openDeletions(tx *bbolt.Tx) (open []*storagev1.Deletion, err error) {
	err = tx.Bucket(deletionsBucket).ForEach(func(k, v []byte) error {
		d := &storagev1.Deletion{}
		if err := proto.Unmarshal(v, d); err != nil {
			return fmt.Errorf("decode deletion %x: %w", k, err)
		}
		if d.GetFinished() == 0 {
			open = append(open, d)
		}
		return nil
	})
	return open, err
}

// forgetDeletions makes room for one more when too many are finished.
func forgetDeletions(tx *bbolt.Tx) error {
	var finished [][]byte
	if err := tx.Bucket(deletionsBucket).ForEach(func(k, v []byte) error {
		d := &storagev1.Deletion{}
		if err := proto.Unmarshal(v, d); err != nil {
			return fmt.Errorf("decode deletion %x: %w", k, err)
		}
		if d.GetFinished() != 0 {
			finished = append(finished, bytes.Clone(k))
		}
		return nil
	}); err != nil {
		return err
	}
	for len(finished) >= DeletionsKept {
		if err := tx.Bucket(deletionsBucket).Delete(finished[0]); err != nil {
			return err
		}
		finished = finished[1:]
	}
	return nil
}
