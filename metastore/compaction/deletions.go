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
	if err := d.hurry(drop); err != nil {
		return err
	}
	deletion := &storagev1.Deletion{
		Id: d.cmd.GetDeletion(), Tenant: drop.GetTenant(), Service: drop.Service, Selector: drop.GetSelector(),
		Requested: d.now, Objects: d.objects,
	}
	if err := putDeletion(d.tx, deletion); err != nil {
		return err
	}
	return d.finishDeletions(d.tx, d.now, []*storagev1.Deletion{deletion})
}

// hurry makes objects of which data of the deletion was dropped before, by retention, due to be rewritten now, and lets the
// deletion wait for them. Their entries still have the names of all that was in the object.
func (d *dropping) hurry(drop *storagev1.Drop) error {
	var marked []ulid.ULID
	if err := d.tx.Bucket(rewritesBucket).ForEach(func(k, _ []byte) error {
		marked = append(marked, ulid.ULID(k))
		return nil
	}); err != nil {
		return err
	}
	for _, id := range marked {
		m, err := d.entries.Get(d.tx, id)
		if err != nil {
			return err
		}
		if m == nil {
			return fmt.Errorf("entry %s is marked for rewriting and is not there", id)
		}
		if !named(m, drop) {
			continue
		}
		if err := d.holds(id); err != nil {
			return err
		}
		if err := d.mark(id, m, m); err != nil {
			return err
		}
	}
	return nil
}

// named says whether an object may hold data that drop names, dropped or not.
func named(m *storagev1.BlockMeta, drop *storagev1.Drop) bool {
	return slices.ContainsFunc(m.GetGroups(), func(g *storagev1.Group) bool { return m.GetStrings()[g.GetTenant()] == drop.GetTenant() }) &&
		(drop.Service == nil || slices.Contains(m.GetStrings(), drop.GetService()))
}

// holds notes that an object holds data of the deletion.
func (d *dropping) holds(id ulid.ULID) error {
	key := deletingKey(d.cmd.GetDeletion(), id)
	if d.tx.Bucket(deletingBucket).Get(key) == nil {
		d.objects++
	}
	return d.tx.Bucket(deletingBucket).Put(key, []byte{})
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
