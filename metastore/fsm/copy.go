package fsm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// WriteSnapshot writes a snapshot of the state as it is now, whole or with an error, and returns its position. Entries
// may be applied meanwhile. It is what Raft's own snapshots hold.
func (f *FSM) WriteSnapshot(w io.Writer) (position Position, err error) {
	if err := f.halt.Load(); err != nil {
		return position, *err
	}
	f.mu.RLock()
	if f.db == nil {
		f.mu.RUnlock()
		return position, ErrClosed
	}
	tx, err := f.db.Begin(false) // and no lock: a restore waits for the transaction, not everybody for the restore
	f.mu.RUnlock()
	if err != nil {
		return position, fmt.Errorf("begin snapshot: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // a read transaction has nothing to lose
	if position, err = getPosition(tx); err != nil {
		return position, err
	}
	if err := writeSnapshot(w, tx); err != nil {
		return position, fmt.Errorf("write snapshot: %w", err)
	}
	return position, nil
}

// CheckSnapshot reads a snapshot to its end and returns its position, or ErrSnapshot if it is not what was written.
func CheckSnapshot(r io.Reader) (position Position, err error) {
	z, err := decompressed(r)
	if err != nil {
		return position, err
	}
	defer z.Close()
	d := decoder{r: bufio.NewReaderSize(z, 64<<10), crc: crc32.New(castagnoli)}
	meta := false
	position.Version = 1 // it is absent then
	for {
		kind, fields, err := d.next()
		switch {
		case err != nil:
			return Position{}, err
		case kind == recordEnd:
			return position, nil
		case kind == recordBucket:
			meta = string(fields[0]) == string(metaBucket)
		case meta && string(fields[0]) == string(clusterKey):
			position.Cluster = string(fields[1])
		case meta && string(fields[0]) == string(versionKey):
			if len(fields[1]) != 4 {
				return Position{}, fmt.Errorf("%w: version has %d bytes", ErrSnapshot, len(fields[1]))
			}
			position.Version = binary.BigEndian.Uint32(fields[1])
		case meta && string(fields[0]) == string(appliedKey):
			if err := position.parse(fields[1]); err != nil {
				return Position{}, fmt.Errorf("%w: %w", ErrSnapshot, err)
			}
		}
	}
}

// decompressed reads the header of a snapshot and returns what follows it.
func decompressed(r io.Reader) (*zstd.Decoder, error) {
	var header [len(snapshotMagic) + 1]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, damaged(err)
	}
	if string(header[:len(snapshotMagic)]) != snapshotMagic {
		return nil, fmt.Errorf("%w: begins with %q", ErrSnapshot, header)
	}
	if v := header[len(snapshotMagic)]; v != snapshotVersion {
		return nil, fmt.Errorf("snapshot has version %d, this build knows %d", v, snapshotVersion)
	}
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxRecord))
}

// Amend changes the state outside of the log, in one transaction, and moves it to position: how a state is put
// together that no log leads to. Raft must not be running. When it fails nothing has changed.
func (f *FSM) Amend(position Position, change func(tx *Tx) error) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.db == nil {
		return ErrClosed
	}
	position.Version = max(position.Version, f.Position().Version) // what the state holds remains in it
	err := f.db.Update(func(tx *bbolt.Tx) error {
		if err := change(tx); err != nil {
			return err
		}
		if err := tx.Bucket(metaBucket).Put(clusterKey, []byte(position.Cluster)); err != nil {
			return err
		}
		return putPosition(tx, position)
	})
	for _, c := range f.components {
		if err != nil {
			c.Rollback()
		} else {
			c.Commit(position.Index)
		}
	}
	if err != nil {
		return fmt.Errorf("amend state: %w", err)
	}
	f.publish(position)
	return nil
}

// ViewFile calls fn with a view of the state file at path, which nobody may have open. The file is not changed.
func ViewFile(path string, fn func(tx *Tx) error) (err error) {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	defer recoverCorrupt(&err)
	defer faultsPanic()()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, ReadOnly: true, FreelistType: bbolt.FreelistMapType})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("open state file %s: another process uses it", path)
	case err != nil:
		return fmt.Errorf("open state file %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := checkSize(db); err != nil {
		return err
	}
	return db.View(fn)
}
