package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/kilndb/kiln/objstore"
)

const (
	fileMode fs.FileMode = 0o640
	dirMode  fs.FileMode = 0o750

	copyChunk = 1 << 20 // bytes: large beside a system call, small beside a block; the context is asked between two
)

// Put stores data under key.
func (b *Bucket) Put(ctx context.Context, key string, data []byte) error {
	return b.put(ctx, key, bytes.NewReader(data), int64(len(data)), b.replace)
}

// PutFrom stores the first size bytes of src under key.
func (b *Bucket) PutFrom(ctx context.Context, key string, src io.ReaderAt, size int64) error {
	return b.put(ctx, key, src, size, b.replace)
}

// PutIfAbsent stores data under key, or returns ErrExists.
func (b *Bucket) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	if err := objstore.CheckIfAbsent(key, data); err != nil {
		return err
	}
	return b.put(ctx, key, bytes.NewReader(data), int64(len(data)), b.create)
}

// put writes a temporary file, has it published under key, and returns when all of it is durable.
func (b *Bucket) put(ctx context.Context, key string, src io.ReaderAt, size int64, publish func(temp, key string) error) error {
	if err := check(ctx, key); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	temp, err := b.newTemp(path.Dir(key))
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	err = b.fill(ctx, temp, src, size)
	if err == nil {
		err = publish(temp.name, key)
	}
	if err != nil {
		err = errors.Join(err, b.remove(temp.name))
	}
	temp.file.Close() // what it could report, the sync has; until here it held the lock that keeps sweepers away
	if err == nil || errors.Is(err, objstore.ErrExists) {
		// Also where it exists already: the caller may rely on it, and its writer may not have come to this yet.
		if unsynced := b.folders.sync(path.Dir(key)); unsynced != nil {
			err = unsynced
		}
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

func (b *Bucket) fill(ctx context.Context, t temp, src io.ReaderAt, size int64) error {
	if size < 0 {
		return fmt.Errorf("negative size %d", size)
	}
	buf := b.chunks.Get()
	defer b.chunks.Put(buf, copyChunk)
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		chunk := buf[:min(size-off, copyChunk)]
		if n, err := src.ReadAt(chunk, off); n < len(chunk) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("source of %d bytes: read %d at %d: %w", size, n, off, err)
		}
		if _, err := t.file.Write(chunk); err != nil {
			return err
		}
		off += int64(len(chunk))
	}
	if err := b.syncs.file(t.file); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return ctx.Err()
}

// replace publishes a temporary file under key in place of what was there.
func (b *Bucket) replace(temp, key string) error {
	return b.root.Rename(temp, key)
}

// create publishes a temporary file under key unless something has that name.
func (b *Bucket) create(temp, key string) error {
	err := b.root.Link(temp, key)
	if !errors.Is(err, fs.ErrExist) {
		return errors.Join(err, b.remove(temp))
	}
	if info, err := b.root.Stat(key); err == nil && info.IsDir() {
		return fmt.Errorf("%w: there is a folder of that name", objstore.ErrKey)
	}
	return objstore.ErrExists
}

// remove removes a temporary file that may be gone already.
func (b *Bucket) remove(name string) error {
	if err := b.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// newTemp makes a temporary file in folder, which it makes where it is missing.
func (b *Bucket) newTemp(folder string) (temp, error) {
	if err := b.folders.ensure(folder); err != nil {
		return temp{}, err
	}
	t, err := createTemp(b.root, folder)
	if errors.Is(err, fs.ErrNotExist) { // somebody has removed the folder that we knew
		b.folders.forget()
		if err := b.folders.ensure(folder); err != nil {
			return temp{}, err
		}
		t, err = createTemp(b.root, folder)
	}
	return t, err
}
