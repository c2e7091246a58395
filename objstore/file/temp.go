package file

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/kilndb/kiln/objstore"
)

// tempPrefix begins the name of every temporary file, and of no object: objstore.CheckKey has no tilde.
const tempPrefix = "~"

// temp is a file that is being written. While it is open it is locked.
type temp struct {
	name string
	file *os.File
}

// createTemp makes a temporary file in folder and locks it.
func createTemp(root *os.Root, folder string) (temp, error) {
	for {
		name := path.Join(folder, tempPrefix+rand.Text())
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
		if err != nil {
			return temp{}, err
		}
		locked, err := tryLock(f)
		if err != nil {
			return temp{name, f}, nil // no locks on this file system: nobody else gets one either, so nobody sweeps
		}
		if locked && linked(root, name, f) {
			return temp{name, f}, nil
		}
		f.Close() // a sweeper was faster than our lock
	}
}

// linked reports whether f is still the file of that name.
func linked(root *os.Root, name string, f *os.File) bool {
	byName, err := root.Lstat(name)
	if err != nil {
		return false
	}
	byFile, err := f.Stat()
	return err == nil && os.SameFile(byName, byFile)
}

// sweep removes the temporary files in folder and below that nobody is writing.
func (b *Bucket) sweep(ctx context.Context, folder string) error {
	entries, err := b.readDir(ctx, folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := path.Join(folder, entry.Name())
		switch {
		case entry.IsDir() && objstore.CheckKey(name) == nil: // and not lost+found, which only root may read
			err = b.sweep(ctx, name)
		case !entry.IsDir() && strings.HasPrefix(entry.Name(), tempPrefix):
			err = b.removeAbandoned(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeAbandoned removes the temporary file unless its writer lives. The lock is held until the name is gone: a
// writer that made the file but has not locked it yet notices either the one or the other.
func (b *Bucket) removeAbandoned(name string) error {
	f, err := b.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil // its writer has finished, or is another user, whose business it is
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if locked, err := tryLock(f); err != nil || !locked {
		return nil // written at this moment, or we cannot tell
	}
	return b.remove(name)
}
