package fsm

import (
	"crypto/sha256"
	"encoding/binary"

	"go.etcd.io/bbolt"
)

// Hash returns a hash of the whole state, the position in the log included. It reads everything. Replicas at the same
// position have the same hash.
func (f *FSM) Hash() (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	err = f.View(func(tx *bbolt.Tx) error {
		return walk(tx, func(bucket, key, value []byte) error {
			var b []byte
			for _, field := range [][]byte{bucket, key, value} {
				b = binary.AppendUvarint(b, uint64(len(field)))
				b = append(b, field...)
			}
			h.Write(b)
			return nil
		})
	})
	return [sha256.Size]byte(h.Sum(nil)), err
}
