package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/kilndb/kiln/internal/spare"
	"github.com/kilndb/kiln/objstore"
)

var _ objstore.Bucket = (*Bucket)(nil)

// Bucket is an object store in a directory. Use Open.
type Bucket struct {
	root    *os.Root
	folders *folders
	syncs   syncs
	chunks  spare.Pool[[]byte] // of copyChunk bytes
}

// syncs are the two calls that make bytes durable, apart so that tests can count them and make them fail.
type syncs struct {
	file, folder func(*os.File) error
}

// Open opens the bucket in dir, which it makes where it is missing, and removes what crashed writers left there.
func Open(ctx context.Context, dir string) (*Bucket, error) {
	return open(ctx, dir, syncs{file: (*os.File).Sync, folder: (*os.File).Sync})
}

func open(ctx context.Context, dir string, s syncs) (*Bucket, error) {
	if err := makeDurable(dir, s); err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	b := &Bucket{root: root, syncs: s, folders: newFolders(root, s.folder)}
	b.chunks.New, b.chunks.Keep = func() []byte { return make([]byte, copyChunk) }, copyChunk
	if err := b.sweep(ctx, "."); err != nil {
		return nil, errors.Join(fmt.Errorf("open bucket: remove leftovers: %w", err), b.Close())
	}
	return b, nil
}

// Get reads the whole file.
func (b *Bucket) Get(ctx context.Context, key string) ([]byte, error) {
	f, size, err := b.openObject(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	defer f.Close()
	return readAt(f, key, 0, size)
}

// GetRange reads exactly the n bytes at off.
func (b *Bucket) GetRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	f, size, err := b.openObject(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("get range of %s: %w", key, err)
	}
	defer f.Close()
	if err := objstore.CheckRange(key, size, off, n); err != nil {
		return nil, err
	}
	return readAt(f, key, off, n)
}

// Attributes returns the file's size and modification time.
func (b *Bucket) Attributes(ctx context.Context, key string) (objstore.Attributes, error) {
	if err := check(ctx, key); err != nil {
		return objstore.Attributes{}, fmt.Errorf("attributes of %s: %w", key, err)
	}
	info, err := b.root.Stat(key)
	if err == nil && !info.Mode().IsRegular() {
		err = objstore.ErrNotFound
	}
	if err != nil {
		return objstore.Attributes{}, fmt.Errorf("attributes of %s: %w", key, notFound(err))
	}
	return attributes(key, info), nil
}

// Delete removes the file and syncs its folder. A missing file is synced away too: the caller may be repeating a
// deletion that was cut short between the two.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if err := b.delete(ctx, key); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

func (b *Bucket) delete(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	info, err := b.root.Lstat(key)
	if err == nil && info.IsDir() {
		return nil // a folder is no object, and Remove would take it if it were empty
	}
	if err == nil {
		err = b.root.Remove(key)
	}
	if err != nil && !missing(err) {
		return err
	}
	if err := b.folders.sync(path.Dir(key)); err != nil && !missing(err) {
		return err
	}
	return nil
}

// Close closes the directory.
func (b *Bucket) Close() error { return b.root.Close() }

func (b *Bucket) openObject(ctx context.Context, key string) (*os.File, int64, error) {
	if err := check(ctx, key); err != nil {
		return nil, 0, err
	}
	f, err := b.root.Open(key)
	if err != nil {
		return nil, 0, notFound(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = objstore.ErrNotFound
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

func readAt(f *os.File, key string, off, n int64) ([]byte, error) {
	data := make([]byte, n)
	if n == 0 {
		return data, nil
	}
	if _, err := f.ReadAt(data, off); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %d bytes at %d of %s: %w", n, off, key, err)
	} else if err != nil {
		return nil, fmt.Errorf("read %d bytes at %d of %s: %w", n, off, key, io.ErrUnexpectedEOF)
	}
	return data, nil
}

// makeDurable makes dir and the directories above it, and syncs the entry of each that it made and of dir itself,
// which may be new and still unsynced from a process that died.
func makeDurable(dir string, s syncs) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	parent := filepath.Dir(dir)
	if _, err := os.Stat(parent); errors.Is(err, fs.ErrNotExist) {
		if err := makeDurable(parent, s); err != nil {
			return err
		}
	}
	made := true
	if err := os.Mkdir(dir, dirMode); errors.Is(err, fs.ErrExist) {
		made = false
	} else if err != nil {
		return err
	}
	f, err := os.Open(parent)
	if errors.Is(err, fs.ErrPermission) && !made {
		return nil // somebody else made it for us, in a directory that is not ours to look at
	}
	if err != nil {
		return err
	}
	return errors.Join(s.folder(f), f.Close())
}

func attributes(key string, info fs.FileInfo) objstore.Attributes {
	return objstore.Attributes{Key: key, Size: info.Size(), ModTime: info.ModTime()}
}

func check(ctx context.Context, key string) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	return ctx.Err()
}

func notFound(err error) error {
	if missing(err) {
		return objstore.ErrNotFound
	}
	return err
}

// missing reports whether err says that a file, or a folder on the way to it, is not there.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
