package fsm

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	"github.com/klauspost/compress/zstd"
	"go.etcd.io/bbolt"

	"github.com/kilndb/kiln/internal/failpoint"
)

const (
	snapshotMagic   = "KSNP"
	snapshotVersion = 1

	recordBucket = 'B'
	recordPair   = 'P'
	recordEnd    = 'E'

	// A key or value is at most this long. It bounds what a damaged length makes us allocate, and is what bbolt takes.
	maxRecord = 1 << 30

	// Pairs per transaction while restoring: large enough that commits do not matter, small enough to keep in memory.
	restoreBatch = 16 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// snapshot is a consistent view of the state, held by a read transaction.
type snapshot struct {
	tx     *bbolt.Tx
	points *failpoint.Set
}

// Snapshot returns a view of the state as it is now. Entries may be applied while it is written out.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.halt.Load(); err != nil {
		return nil, *err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.db == nil {
		return nil, ErrClosed
	}
	tx, err := f.db.Begin(false)
	if err != nil {
		return nil, fmt.Errorf("begin snapshot: %w", err)
	}
	return &snapshot{tx, f.points}, nil
}

// Persist writes the snapshot to sink.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if err := errors.Join(s.points.Hit("persist/begin"), writeSnapshot(sink, s.tx), s.points.Hit("persist/written")); err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

// Release ends the view.
func (s *snapshot) Release() { _ = s.tx.Rollback() } // a read transaction has nothing to lose

func writeSnapshot(w io.Writer, tx *bbolt.Tx) error {
	if _, err := w.Write(append([]byte(snapshotMagic), snapshotVersion)); err != nil {
		return err
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	e := &encoder{w: bufio.NewWriterSize(z, 64<<10), crc: crc32.New(castagnoli)}
	var bucket []byte
	err = tx.ForEach(func(name []byte, b *bbolt.Bucket) error { // also buckets without pairs
		bucket = name
		e.record(recordBucket, bucket)
		return b.ForEach(func(k, v []byte) error {
			e.record(recordPair, k, v)
			return e.err
		})
	})
	if err := errors.Join(err, e.end()); err != nil {
		return errors.Join(err, z.Close())
	}
	return z.Close()
}

// encoder writes records and remembers the first error.
type encoder struct {
	w     *bufio.Writer
	crc   hash.Hash32
	pairs uint64
	buf   []byte
	err   error
}

func (e *encoder) record(kind byte, fields ...[]byte) {
	e.buf = append(e.buf[:0], kind)
	for _, field := range fields {
		e.buf = binary.AppendUvarint(e.buf, uint64(len(field)))
		e.buf = append(e.buf, field...)
	}
	if kind == recordPair {
		e.pairs++
	}
	e.crc.Write(e.buf)
	e.write(e.buf)
}

func (e *encoder) end() error {
	e.buf = append(e.buf[:0], recordEnd)
	e.buf = binary.BigEndian.AppendUint64(e.buf, e.pairs)
	e.buf = binary.BigEndian.AppendUint32(e.buf, e.crc.Sum32())
	e.write(e.buf)
	return errors.Join(e.err, e.w.Flush())
}

func (e *encoder) write(b []byte) {
	if e.err == nil {
		_, e.err = e.w.Write(b)
	}
}

// decoder reads records. Everything it returns was written as it is read only if end is reached without an error.
type decoder struct {
	r     *bufio.Reader
	crc   hash.Hash32
	pairs uint64
}

// next returns the kind of the next record and its fields, which are the caller's.
func (d *decoder) next() (kind byte, fields [2][]byte, err error) {
	if kind, err = d.r.ReadByte(); err != nil {
		return 0, fields, damaged(err)
	}
	n := 0
	switch kind {
	case recordBucket:
		n = 1
	case recordPair:
		n = 2
		d.pairs++
	case recordEnd:
		return kind, fields, d.end()
	default:
		return 0, fields, fmt.Errorf("%w: record of kind %q", ErrSnapshot, kind)
	}
	d.crc.Write([]byte{kind})
	for i := range n {
		if fields[i], err = d.field(); err != nil {
			return 0, fields, err
		}
	}
	return kind, fields, nil
}

func (d *decoder) field() ([]byte, error) {
	n, err := binary.ReadUvarint(d.r)
	if err != nil {
		return nil, damaged(err)
	}
	if n > maxRecord {
		return nil, fmt.Errorf("%w: field of %d bytes", ErrSnapshot, n)
	}
	var field bytes.Buffer // grows with what is there, not with what a damaged length says
	if _, err := io.CopyN(&field, d.r, int64(n)); err != nil {
		return nil, damaged(err)
	}
	d.crc.Write(binary.AppendUvarint(nil, n))
	d.crc.Write(field.Bytes())
	return field.Bytes(), nil
}

// end checks the trailer and that nothing follows it.
func (d *decoder) end() error {
	var trailer [12]byte
	if _, err := io.ReadFull(d.r, trailer[:]); err != nil {
		return damaged(err)
	}
	pairs, sum := binary.BigEndian.Uint64(trailer[:]), binary.BigEndian.Uint32(trailer[8:])
	if pairs != d.pairs || sum != d.crc.Sum32() {
		return fmt.Errorf("%w: %d pairs with checksum %08x, want %d with %08x", ErrSnapshot, d.pairs, d.crc.Sum32(), pairs, sum)
	}
	if _, err := d.r.ReadByte(); err != io.EOF {
		return fmt.Errorf("%w: bytes after its end (%v)", ErrSnapshot, err)
	}
	return nil
}

func damaged(err error) error { return fmt.Errorf("%w: %w", ErrSnapshot, err) }

// Restore replaces the whole state by the snapshot in r. When it fails nothing has changed.
func (f *FSM) Restore(r io.ReadCloser) error {
	next := f.path + ".restore"
	if err := os.RemoveAll(next); err != nil {
		return err
	}
	if err := errors.Join(f.points.Hit("restore/begin"), restoreFile(next, r), f.points.Hit("restore/written")); err != nil {
		return errors.Join(fmt.Errorf("restore snapshot: %w", err), os.Remove(next))
	}
	f.mu.Lock()
	var err error
	if f.db != nil {
		err = f.db.Close()
		f.db = nil
	}
	f.mu.Unlock()
	if err == nil {
		err = f.replace(next)
	}
	if err != nil { // the file that is there, be it the old one, is what there is
		return errors.Join(fmt.Errorf("restore snapshot: %w", err), f.openFile())
	}
	return f.openFile()
}

// replace puts the file next in the place of the state file.
func (f *FSM) replace(next string) error {
	if err := f.points.Hit("restore/before-rename"); err != nil {
		return err
	}
	if err := os.Rename(next, f.path); err != nil {
		return err
	}
	return errors.Join(f.points.Hit("restore/after-rename"), syncDir(filepath.Dir(f.path)))
}

// restoreFile writes the snapshot in r to a new state file, durably.
func restoreFile(path string, r io.Reader) (err error) {
	z, err := decompressed(r)
	if err != nil {
		return err
	}
	defer z.Close()
	db, err := openBolt(path)
	if err != nil {
		return err
	}
	db.NoSync = true // one Sync at the end makes all of it durable
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := restorePairs(db, &decoder{r: bufio.NewReaderSize(z, 64<<10), crc: crc32.New(castagnoli)}); err != nil {
		return err
	}
	return db.Sync()
}

func restorePairs(db *bbolt.DB, d *decoder) error {
	var bucket []byte
	for done := false; !done; {
		if err := db.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucket) // nil before the first bucket's record
			for range restoreBatch {
				kind, fields, err := d.next()
				switch {
				case err != nil:
					return err
				case kind == recordEnd:
					done = true
					return nil
				case kind == recordBucket:
					bucket = fields[0]
					if b, err = tx.CreateBucket(bucket); err != nil {
						return damaged(err)
					}
				case b == nil:
					return fmt.Errorf("%w: pair without a bucket", ErrSnapshot)
				default:
					b.FillPercent = 0.9 // keys come in order
					if err := b.Put(fields[0], fields[1]); err != nil {
						return damaged(err)
					}
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}
