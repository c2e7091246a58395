package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync"
)

// maxFolders bounds what is remembered of folders: about a megabyte. Forgetting costs a sync per folder, no more.
const maxFolders = 10_000

// folders makes folders durable: it knows those whose entries in the folders above have been synced by this process,
// and lets concurrent syncs of one folder be one.
type folders struct {
	root  *os.Root
	fsync func(*os.File) error

	mu    sync.Mutex
	known map[string]*folder // guarded by mu; by path below root, "." is root itself
}

type folder struct {
	rounds  rounds
	durable bool // guarded by folders.mu
}

func newFolders(root *os.Root, fsync func(*os.File) error) *folders {
	return &folders{root: root, fsync: fsync, known: map[string]*folder{}}
}

// ensure returns when the folder and all above it exist and will after a power cut. That a folder exists does not
// mean that it would: whoever made it may not have come to its sync, so the first to meet it syncs it again.
func (f *folders) ensure(name string) error {
	if name == "." || f.isDurable(name) {
		return nil
	}
	parent := path.Dir(name)
	if err := f.ensure(parent); err != nil {
		return err
	}
	if err := f.root.Mkdir(name, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := f.sync(parent); err != nil {
		return err
	}
	f.setDurable(name)
	return nil
}

// sync returns when all that was done in the folder before the call is durable.
func (f *folders) sync(name string) error {
	return f.folder(name).rounds.join(func() error {
		file, err := f.root.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(f.fsync(file), file.Close()); err != nil {
			return fmt.Errorf("sync folder %s: %w", name, err)
		}
		return nil
	})
}

// forget drops what is known, so that ensure looks again.
func (f *folders) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.known)
}

func (f *folders) isDurable(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.known[name]
	return known != nil && known.durable
}

func (f *folders) setDurable(name string) {
	known := f.folder(name)
	f.mu.Lock()
	defer f.mu.Unlock()
	known.durable = true
}

func (f *folders) folder(name string) *folder {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.known[name]
	if known == nil {
		if len(f.known) >= maxFolders {
			clear(f.known)
		}
		known = new(folder)
		f.known[name] = known
	}
	return known
}

// rounds lets callers share work that counts for all who asked before it began.
type rounds struct {
	mu   sync.Mutex
	last *round // guarded by mu; the youngest round: it waits, works or is done
	next *round // guarded by mu; the last round while it waits for the one before it, else nil
}

type round struct {
	done chan struct{}
	err  error // set before done is closed
}

// join calls work, or waits for a call by somebody else, such that the call begins after join did. It returns what
// that call returned.
func (r *rounds) join(work func() error) error {
	r.mu.Lock()
	if mine := r.next; mine != nil {
		r.mu.Unlock()
		<-mine.done
		return mine.err
	}
	before, mine := r.last, &round{done: make(chan struct{})}
	r.last, r.next = mine, mine
	r.mu.Unlock()

	defer close(mine.done)
	if before != nil {
		<-before.done
	}
	r.mu.Lock()
	r.next = nil // whoever comes from now on may have done what this call does not see
	r.mu.Unlock()
	mine.err = work()
	return mine.err
}
