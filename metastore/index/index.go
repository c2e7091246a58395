package index

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"go.etcd.io/bbolt"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// Window is how far an id's time may be from the clock for an object that is registered for the first time, and how
// long ids are remembered at least.
const Window = 24 * time.Hour

// forgetBatch is how many ids one registration forgets at most. It is above what it adds, so the set shrinks back.
const forgetBatch = 64

// fillPercent is how full pages become before they are split: ids come in the order of time, so that hardly anything is
// added to a page that was split.
const fillPercent = 0.9

var (
	entriesBucket = []byte("entries") // id → BlockMeta
	seenBucket    = []byte("seen")    // id → 0, or 1 if it is banned
	floorsBucket  = []byte("floors")  // tenant, 0, 0 or 1 and service → time i64: what is older was dropped
)

// Index is the index: its buckets, and the view that is published of them. Methods that take a transaction are for the
// state machine, one at a time; View may be called by anybody.
type Index struct {
	view atomic.Pointer[View]
	next *View // of the transaction that is running; published once that is durable
}

// New returns an index that knows nothing until Load.
func New() *Index {
	x := &Index{}
	x.publish(&View{})
	return x
}

// View returns the newest published view.
func (x *Index) View() *View { return x.view.Load() }

// Register adds an object at the command's time now, without the datasets that are Below a floor, and returns the entry;
// nil for an id that was registered before, which is no error and changes nothing. encoded is m as bytes, which are stored
// as they are; they must not change while the transaction lasts. ErrInvalid, ErrWindow, ErrBanned and ErrDropped are
// refusals; any other error means that the state is damaged.
func (x *Index) Register(tx *bbolt.Tx, now int64, m *storagev1.BlockMeta, encoded []byte) (added *storagev1.BlockMeta, err error) {
	if err := Check(m); err != nil {
		return nil, err
	}
	id, err := ParseID(m.GetId())
	if err != nil {
		return nil, err
	}
	if known, banned := x.seen(tx, id); banned {
		return nil, fmt.Errorf("%w: %s", ErrBanned, m.GetId())
	} else if known {
		return nil, nil
	}
	// Milliseconds, because an id's time may be beyond the reach of nanoseconds.
	if age := time.Unix(0, now).UnixMilli() - int64(id.Time()); age > Window.Milliseconds() || age < -Window.Milliseconds() {
		return nil, fmt.Errorf("%w: the id %s was made %d ms before now", ErrWindow, m.GetId(), age)
	}
	if below := x.Below(m); len(below) == len(m.GetDatasets()) {
		return nil, fmt.Errorf("%w: all of %s", ErrDropped, m.GetId())
	} else if len(below) > 0 {
		m = without(m, below)
		if encoded, err = encode(m); err != nil {
			return nil, err
		}
	}
	if err := x.put(tx, id, m, encoded); err != nil {
		return nil, err
	}
	return m, x.forget(tx, now)
}

// Put adds a checked object whose id is new.
func (x *Index) Put(tx *bbolt.Tx, m *storagev1.BlockMeta) error {
	id, err := ParseID(m.GetId())
	if err != nil {
		return err
	}
	encoded, err := encode(m)
	if err != nil {
		return err
	}
	return x.put(tx, id, m, encoded)
}

func (x *Index) put(tx *bbolt.Tx, id ulid.ULID, m *storagev1.BlockMeta, encoded []byte) error {
	if err := x.store(tx, id, m, encoded); err != nil {
		return err
	}
	b := tx.Bucket(seenBucket)
	b.FillPercent = fillPercent
	return b.Put(id[:], []byte{0})
}

// store makes m, which is encoded, the entry of id.
func (x *Index) store(tx *bbolt.Tx, id ulid.ULID, m *storagev1.BlockMeta, encoded []byte) error {
	b := tx.Bucket(entriesBucket)
	b.FillPercent = fillPercent
	if err := b.Put(id[:], encoded); err != nil {
		return fmt.Errorf("put entry %s: %w", id, err)
	}
	x.next = x.next.with(newEntry(id, bytes.Clone(encoded)), m)
	return nil
}

// Get returns the entry of id, or nil. The message is the caller's.
func (x *Index) Get(tx *bbolt.Tx, id ulid.ULID) (*storagev1.BlockMeta, error) {
	value := tx.Bucket(entriesBucket).Get(id[:])
	if value == nil {
		return nil, nil
	}
	return parse(id[:], value, decode)
}

// Remove takes an entry off the index. Its id stays known.
func (x *Index) Remove(tx *bbolt.Tx, m *storagev1.BlockMeta) error {
	id, err := ParseID(m.GetId())
	if err != nil {
		return err
	}
	if err := tx.Bucket(entriesBucket).Delete(id[:]); err != nil {
		return fmt.Errorf("remove entry %s: %w", m.GetId(), err)
	}
	x.next = x.next.without(&entry{id: id}, m)
	return nil
}

// Known says whether id is in the index, or was registered or banned within the Window.
func (x *Index) Known(tx *bbolt.Tx, id ulid.ULID) bool {
	known, _ := x.seen(tx, id)
	return known
}

// seen returns what Known and Banned say.
func (x *Index) seen(tx *bbolt.Tx, id ulid.ULID) (known, banned bool) {
	mark := tx.Bucket(seenBucket).Get(id[:])
	return mark != nil || tx.Bucket(entriesBucket).Get(id[:]) != nil, bytes.Equal(mark, []byte{1})
}

// Ban makes sure that an id, which must be new, is never registered.
func (x *Index) Ban(tx *bbolt.Tx, id ulid.ULID) error {
	return tx.Bucket(seenBucket).Put(id[:], []byte{1})
}

// Remember makes an id one that was registered before, as one that has been replaced since.
func (x *Index) Remember(tx *bbolt.Tx, id ulid.ULID) error {
	if x.Known(tx, id) {
		return nil
	}
	return tx.Bucket(seenBucket).Put(id[:], []byte{0})
}

// Entries calls fn for every entry in the order of their ids. The message is fn's.
func (x *Index) Entries(tx *bbolt.Tx, fn func(*storagev1.BlockMeta) error) error {
	return x.EntriesAfter(tx, ulid.ULID{}, func(_ ulid.ULID, m *storagev1.BlockMeta) error { return fn(m) })
}

// EntriesAfter is Entries for those whose ids are greater than after.
func (x *Index) EntriesAfter(tx *bbolt.Tx, after ulid.ULID, fn func(ulid.ULID, *storagev1.BlockMeta) error) error {
	c := tx.Bucket(entriesBucket).Cursor()
	k, v := c.Seek(after[:])
	if bytes.Equal(k, after[:]) {
		k, v = c.Next()
	}
	for ; k != nil; k, v = c.Next() {
		m, err := parse(k, v, decode)
		if err != nil {
			return err
		}
		if err := fn(ulid.ULID(k), m); err != nil {
			return err
		}
	}
	return nil
}

// Banned says whether id was banned within the Window.
func (x *Index) Banned(tx *bbolt.Tx, id ulid.ULID) bool {
	_, banned := x.seen(tx, id)
	return banned
}

// forget drops the oldest ids that Register would refuse anyway.
func (x *Index) forget(tx *bbolt.Tx, now int64) error {
	horizon := ulid.ULID{}
	if err := horizon.SetTime(uint64(max(0, time.Unix(0, now).Add(-Window).UnixMilli()))); err != nil {
		return nil // a clock beyond the reach of ULIDs forgets nothing
	}
	c := tx.Bucket(seenBucket).Cursor()
	var old [][]byte
	for k, _ := c.First(); k != nil && len(old) < forgetBatch && bytes.Compare(k, horizon[:]) < 0; k, _ = c.Next() {
		old = append(old, bytes.Clone(k))
	}
	for _, k := range old {
		if err := tx.Bucket(seenBucket).Delete(k); err != nil {
			return fmt.Errorf("forget id: %w", err)
		}
	}
	return nil
}

// Buckets names the index's buckets.
func (x *Index) Buckets() []string {
	return []string{string(entriesBucket), string(seenBucket), string(floorsBucket)}
}

// Load rebuilds the view from the entries alone.
func (x *Index) Load(tx *bbolt.Tx, index uint64) error {
	var d Decoder
	var entries loading
	if err := tx.Bucket(entriesBucket).ForEach(func(k, v []byte) error {
		m, err := parse(k, v, d.Decode)
		if err != nil {
			return err
		}
		if err := Check(m); err != nil {
			return err
		}
		entries.add(newEntry(ulid.ULID(k), bytes.Clone(v)), m)
		return nil
	}); err != nil {
		return err
	}
	x.next = entries.view(index)
	if err := x.loadFloors(tx); err != nil {
		return err
	}
	x.publish(x.next)
	return nil
}

// Commit publishes what the transaction changed.
func (x *Index) Commit(index uint64) {
	next := *x.next
	next.index, next.edit = index, nil
	x.publish(&next)
}

// publish shows a view that nobody changes any more, and begins the next with an edit of its own.
func (x *Index) publish(v *View) {
	x.view.Store(v)
	x.next = v.begin()
}

// Rollback forgets what the transaction changed.
func (x *Index) Rollback() { x.next = x.View().begin() }

// parse returns the entry that is stored under a key.
func parse(key, value []byte, decode func([]byte) (*storagev1.BlockMeta, error)) (*storagev1.BlockMeta, error) {
	if len(key) != len(ulid.ULID{}) {
		return nil, fmt.Errorf("entry has a key of %d bytes", len(key))
	}
	m, err := decode(value)
	if err != nil {
		return nil, fmt.Errorf("entry %s: %w", ulid.ULID(key), err)
	}
	if m.GetId() != ulid.ULID(key).String() {
		return nil, fmt.Errorf("entry %s says that it is %s", ulid.ULID(key), m.GetId())
	}
	return m, nil
}
