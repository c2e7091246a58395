package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// The FSM's own bucket: how far the log has been applied, and whose log it is.
var (
	metaBucket = []byte("meta")
	appliedKey = []byte("applied") // index u64, term u64, time u64
	clusterKey = []byte("cluster")
	versionKey = []byte("version") // u32; absent while it is 1
)

const positionLen = 24 // bytes under appliedKey

// errCorrupt is wrapped by what opening a damaged state file returns.
var errCorrupt = errors.New("state file corrupt")

// mmapSize is the address space that bbolt takes from the start: a writer that must grow it waits for all readers,
// and a snapshot is a long one. 16 GiB is above any state that we know of, and costs nothing but addresses.
const mmapSize = 16 << 30

// lockTimeout is how long to wait for another process to let go of a file.
const lockTimeout = time.Second

// open opens the file at f.path and loads the components, over an empty file if the one there is damaged.
func (f *FSM) open() error {
	err := f.openFile()
	if errors.Is(err, errCorrupt) {
		f.log.Warn("state file set aside, to be rebuilt from snapshot and log", "path", f.path, "err", err)
		if err := f.Discard(); err != nil {
			return err
		}
		return nil
	}
	return err
}

// Discard sets the state file aside and starts over with an empty one. Raft must not be running.
func (f *FSM) Discard() error {
	f.mu.Lock()
	if f.db != nil {
		if err := f.db.Close(); err != nil {
			f.mu.Unlock()
			return err
		}
		f.db = nil
	}
	f.mu.Unlock()
	if err := os.Rename(f.path, f.path+".corrupt"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set state file aside: %w", err)
	}
	return f.openFile()
}

// openFile opens the file at f.path as it is. It returns errCorrupt where the file can be opened but not trusted.
func (f *FSM) openFile() (err error) {
	db, err := openBolt(f.path)
	if err != nil {
		return err
	}
	position, err := f.load(db)
	if err != nil {
		return errors.Join(err, closeCorrupt(db))
	}
	f.mu.Lock()
	f.db = db
	f.mu.Unlock()
	f.publish(position)
	return nil
}

// LogOptions returns how the file of the Raft log is opened: it is rewritten all the time, so the list of its free
// pages is long and is not stored.
func LogOptions() *bbolt.Options {
	return &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true}
}

// openBolt opens the file of the state.
func openBolt(path string) (db *bbolt.DB, err error) {
	defer recoverCorrupt(&err)
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: lockTimeout,
		// The list of free pages is stored: without it bbolt searches the whole file for them, in a goroutine of its
		// own, and there a damaged page is the end of the process.
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: mmapSize,
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("open state file %s: another process uses it", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("open state file: %w", err)
	case err != nil:
		// bbolt names damage in several ways, some of them only as text. A file that is set aside for
		// another reason is rebuilt all the same.
		return nil, fmt.Errorf("%w: open %s: %w", errCorrupt, path, err)
	}
	return db, nil
}

// load creates what buckets are missing, reads every page and rebuilds the components.
func (f *FSM) load(db *bbolt.DB) (position Position, err error) {
	defer recoverCorrupt(&err)
	defer faultsPanic()()
	if err := checkSize(db); err != nil {
		return position, err
	}
	if err := f.createBuckets(db); err != nil {
		return position, err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		if err := walk(tx, func(_, _, _ []byte) error { return nil }); err != nil {
			return err
		}
		if position, err = getPosition(tx); err != nil {
			return err
		}
		for _, c := range f.components {
			if err := c.Load(tx, position.Index); err != nil {
				return fmt.Errorf("%w: %w", errCorrupt, err)
			}
		}
		return nil
	})
	return position, err
}

// createBuckets makes the buckets that are missing. It writes only then.
func (f *FSM) createBuckets(db *bbolt.DB) error {
	names := []string{string(metaBucket)}
	for _, c := range f.components {
		names = append(names, c.Buckets()...)
	}
	missing := false
	if err := db.View(func(tx *bbolt.Tx) error {
		for _, name := range names {
			missing = missing || tx.Bucket([]byte(name)) == nil
		}
		return nil
	}); err != nil || !missing {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error {
		for _, name := range names {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
}

// checkSize finds a file that was cut short: reading past its end through the memory map would be a fault.
func checkSize(db *bbolt.DB) error {
	info, err := os.Stat(db.Path())
	if err != nil {
		return err
	}
	return db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > info.Size() {
			return fmt.Errorf("%w: %d bytes of %d", errCorrupt, info.Size(), tx.Size())
		}
		return nil
	})
}

// walk calls fn for every pair of every bucket, all in order.
func walk(tx *bbolt.Tx, fn func(bucket, key, value []byte) error) error {
	return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			if v == nil {
				return fmt.Errorf("%w: bucket %s holds another", errCorrupt, name)
			}
			return fn(name, k, v)
		})
	})
}

// recoverCorrupt turns a panic of bbolt over a damaged page into errCorrupt. It must be deferred by the goroutine that
// reads; opening happens before anything is served, so no other reader can meet the page.
func recoverCorrupt(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: %v", errCorrupt, r)
	}
}

// closeCorrupt closes a damaged file, which may panic as reading it does.
func closeCorrupt(db *bbolt.DB) (err error) {
	defer recoverCorrupt(&err)
	return db.Close()
}

// faultsPanic makes a read of a mapped page that is not there a panic of this goroutine, and returns the way back.
func faultsPanic() (restore func()) {
	before := debug.SetPanicOnFault(true)
	return func() { debug.SetPanicOnFault(before) }
}

func getPosition(tx *bbolt.Tx) (Position, error) {
	b := tx.Bucket(metaBucket)
	if b == nil {
		return Position{}, fmt.Errorf("%w: no bucket %s", errCorrupt, metaBucket)
	}
	p := Position{Cluster: string(b.Get(clusterKey)), Version: 1}
	if v := b.Get(versionKey); len(v) == 4 {
		p.Version = binary.BigEndian.Uint32(v)
	} else if v != nil {
		return p, fmt.Errorf("%w: version has %d bytes", errCorrupt, len(v))
	}
	v := b.Get(appliedKey)
	if v == nil {
		return p, nil
	}
	if err := p.parse(v); err != nil {
		return p, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return p, nil
}

// parse is the mirror of putPosition.
func (p *Position) parse(v []byte) error {
	if len(v) != positionLen {
		return fmt.Errorf("position has %d bytes", len(v))
	}
	p.Index = binary.BigEndian.Uint64(v)
	p.Term = binary.BigEndian.Uint64(v[8:])
	p.Time = int64(binary.BigEndian.Uint64(v[16:]))
	return nil
}

func putPosition(tx *bbolt.Tx, p Position) error {
	v := make([]byte, 0, positionLen)
	v = binary.BigEndian.AppendUint64(v, p.Index)
	v = binary.BigEndian.AppendUint64(v, p.Term)
	v = binary.BigEndian.AppendUint64(v, uint64(p.Time))
	if p.Version > 1 {
		if err := tx.Bucket(metaBucket).Put(versionKey, binary.BigEndian.AppendUint32(nil, p.Version)); err != nil {
			return err
		}
	}
	return tx.Bucket(metaBucket).Put(appliedKey, v)
}

// syncDir makes a rename within dir durable.
func syncDir(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
