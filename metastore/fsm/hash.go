package fsm

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"
)

// ErrPassed is returned when the state at an index is asked for that is not the state any more.
var ErrPassed = errors.New("index was passed already")

// Hash returns a hash of the whole state, the position in the log included. It reads everything. Replicas at the same
// position have the same hash.
func (f *FSM) Hash() (sum [sha256.Size]byte, err error) {
	_, sum, err = f.hashNow()
	return sum, err
}

// hashNow returns the hash of a view, and the index that the view is of.
func (f *FSM) hashNow() (index uint64, sum [sha256.Size]byte, err error) {
	err = f.View(func(tx *bbolt.Tx) error {
		position, err := getPosition(tx)
		if err != nil {
			return err
		}
		index = position.Index
		sum, err = hashTx(tx)
		return err
	})
	return index, sum, err
}

func hashTx(tx *bbolt.Tx) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	err = walk(tx, func(bucket, key, value []byte) error {
		var b []byte
		for _, field := range [][]byte{bucket, key, value} {
			b = binary.AppendUvarint(b, uint64(len(field)))
			b = append(b, field...)
		}
		h.Write(b)
		return nil
	})
	return [sha256.Size]byte(h.Sum(nil)), err
}

// wantedHashes are the hashes that somebody waits for.
type wantedHashes struct {
	mu sync.Mutex
	at map[uint64][]chan [sha256.Size]byte // have room
}

// HashAt returns the hash of the state right after the entry of that index, also when that entry is yet to come: replicas
// that are asked for the same index are compared while they work. An index of 0 is the newest. It returns ErrPassed when
// later entries have been applied.
func (f *FSM) HashAt(ctx context.Context, index uint64) (at uint64, sum [sha256.Size]byte, err error) {
	answer := make(chan [sha256.Size]byte, 1)
	if index != 0 {
		f.wanted.add(index, answer)
		defer f.wanted.remove(index, answer)
	}
	if index <= f.Position().Index {
		if at, sum, err = f.hashNow(); err == nil && index != 0 && at != index {
			select {
			case sum = <-answer: // it was applied since
				return index, sum, nil
			default:
			}
			err = fmt.Errorf("%w: %d, the replica is at %d", ErrPassed, index, at)
		}
		return at, sum, err
	}
	select {
	case sum = <-answer:
		return index, sum, nil
	case <-f.halted:
		return 0, sum, *f.halt.Load()
	case <-f.closing:
		return 0, sum, ErrClosed
	case <-ctx.Done():
		return 0, sum, ctx.Err()
	}
}

func (w *wantedHashes) add(index uint64, answer chan [sha256.Size]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at == nil {
		w.at = map[uint64][]chan [sha256.Size]byte{}
	}
	w.at[index] = append(w.at[index], answer)
}

func (w *wantedHashes) remove(index uint64, answer chan [sha256.Size]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := w.at[index][:0]
	for _, c := range w.at[index] {
		if c != answer {
			kept = append(kept, c)
		}
	}
	if len(kept) == 0 {
		delete(w.at, index)
	} else {
		w.at[index] = kept
	}
}

// answer sends the hash of a transaction's state to those who want that of an index up to last, where position is that of
// the latest entry: some indexes are Raft's own business and never come. The transaction may still fail: it is tried again
// then, with the same entries, and makes the same state.
func (w *wantedHashes) answer(tx *bbolt.Tx, position Position, last uint64) error {
	var waiting []chan [sha256.Size]byte
	w.mu.Lock()
	for index, answers := range w.at {
		if index <= last {
			waiting = append(waiting, answers...)
		}
	}
	w.mu.Unlock()
	if len(waiting) == 0 {
		return nil
	}
	if err := putPosition(tx, position); err != nil {
		return err
	}
	sum, err := hashTx(tx)
	if err != nil {
		return err
	}
	for _, c := range waiting {
		select {
		case c <- sum:
		default:
		}
	}
	return nil
}
