package compaction

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/oklog/ulid/v2"
	"go.etcd.io/bbolt"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// queue is what entries must share to be merged with each other.
type queue struct {
	tenant string // empty for level 0
	shard  uint32
	level  uint32
}

// queueOf returns the queue of an object.
func queueOf(m *storagev1.BlockMeta) queue {
	return queue{m.GetStrings()[m.GetTenant()], m.GetShard(), m.GetLevel()}
}

// waiter is an entry that no job has claimed yet.
type waiter struct {
	queue
	id         ulid.ULID
	registered int64 // Unix nanoseconds
	size       uint64
}

const waitingValueLen = 16 // bytes: registered, size

// prefix returns the start of the keys of the queue's waiters.
func (q queue) prefix() []byte {
	b := make([]byte, 0, 1+len(q.tenant)+1+4+len(ulid.ULID{})) // has room for an id
	b = append(append(b, byte(q.level)), q.tenant...)
	b = append(b, 0) // no tenant has a zero byte in its name
	return binary.BigEndian.AppendUint32(b, q.shard)
}

// Enqueue makes an object that has just been registered wait for a job.
func (s *State) Enqueue(tx *bbolt.Tx, now int64, m *storagev1.BlockMeta) error {
	id, err := ulid.ParseStrict(m.GetId())
	if err != nil {
		return fmt.Errorf("enqueue %q: %w", m.GetId(), err)
	}
	q := queueOf(m)
	value := binary.BigEndian.AppendUint64(appendTime(make([]byte, 0, waitingValueLen), now), m.GetSize())
	return tx.Bucket(waitingBucket).Put(append(q.prefix(), id[:]...), value)
}

// claim takes a waiter off its queue and says whether it was there.
func claim(tx *bbolt.Tx, q queue, id ulid.ULID) (bool, error) {
	key := append(q.prefix(), id[:]...)
	b := tx.Bucket(waitingBucket)
	if b.Get(key) == nil {
		return false, nil
	}
	return true, b.Delete(key)
}

// eachWaiter calls fn for the waiters of a level, queue by queue, in the order of their ids. Where fn returns false the
// rest of that queue is skipped.
func eachWaiter(tx *bbolt.Tx, level uint32, fn func(waiter) bool) error {
	c := tx.Bucket(waitingBucket).Cursor()
	k, v := c.Seek([]byte{byte(level)})
	for k != nil && k[0] == byte(level) {
		w, err := parseWaiter(k, v)
		if err != nil {
			return err
		}
		if fn(w) {
			k, v = c.Next()
		} else {
			k, v = c.Seek(append(w.prefix(), pastIDs...))
		}
	}
	return nil
}

// pastIDs follows every id: one byte longer than the last of them.
var pastIDs = bytes.Repeat([]byte{0xff}, len(ulid.ULID{})+1)

func parseWaiter(k, v []byte) (w waiter, err error) {
	end := bytes.IndexByte(k[1:], 0) + 1 // the end of the tenant's name; 0 if there is none
	if end == 0 || len(k) != end+1+4+len(w.id) || len(v) != waitingValueLen {
		return w, fmt.Errorf("waiting entry %x: %x is damaged", k, v)
	}
	w.level, w.tenant = uint32(k[0]), string(k[1:end])
	w.shard = binary.BigEndian.Uint32(k[end+1:])
	w.id = ulid.ULID(k[end+5:])
	w.registered, w.size = getTime(v), binary.BigEndian.Uint64(v[8:])
	return w, nil
}

// OldestWaiting returns when the oldest entry of a level that no job has claimed was registered, in Unix nanoseconds;
// 0 if there is none.
func (s *State) OldestWaiting(tx *bbolt.Tx, level uint32) (oldest int64, err error) {
	err = eachWaiter(tx, level, func(w waiter) bool {
		if oldest == 0 || w.registered < oldest {
			oldest = w.registered
		}
		return true
	})
	return oldest, err
}
