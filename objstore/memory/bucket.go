// Package memory is a bucket in a map, for tests and for a process that need not outlive itself. It keeps the contract
// of package objstore in all but one word: "durable" means until the process ends.
package memory

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kilndb/kiln/objstore"
)

var _ objstore.Bucket = (*Bucket)(nil)

// Bucket is an object store in memory. Use New.
type Bucket struct {
	mu      sync.RWMutex
	objects map[string]object // guarded by mu
}

// object is never changed once it is in the map, only replaced.
type object struct {
	data    []byte
	modTime time.Time
}

// New returns an empty bucket.
func New() *Bucket {
	return &Bucket{objects: map[string]object{}}
}

// Get returns a copy of the whole object.
func (b *Bucket) Get(ctx context.Context, key string) ([]byte, error) {
	o, err := b.find(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	return bytes.Clone(o.data), nil
}

// GetRange returns a copy of exactly the n bytes at off.
func (b *Bucket) GetRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	o, err := b.find(ctx, "get range of", key)
	if err != nil {
		return nil, err
	}
	if err := objstore.CheckRange(key, int64(len(o.data)), off, n); err != nil {
		return nil, err
	}
	return bytes.Clone(o.data[off : off+n]), nil
}

// Attributes returns the object's size and when it was put.
func (b *Bucket) Attributes(ctx context.Context, key string) (objstore.Attributes, error) {
	o, err := b.find(ctx, "attributes of", key)
	if err != nil {
		return objstore.Attributes{}, err
	}
	return o.attributes(key), nil
}

// Put stores a copy of data.
func (b *Bucket) Put(ctx context.Context, key string, data []byte) error {
	if err := check(ctx, "put", key); err != nil {
		return err
	}
	o := newObject(bytes.Clone(data))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.objects[key] = o
	return nil
}

// PutFrom stores the first size bytes of src.
func (b *Bucket) PutFrom(ctx context.Context, key string, src io.ReaderAt, size int64) error {
	if err := check(ctx, "put", key); err != nil {
		return err
	}
	data, err := io.ReadAll(io.NewSectionReader(src, 0, size))
	if err == nil && int64(len(data)) != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("put %s: read %d of %d source bytes: %w", key, len(data), size, err)
	}
	o := newObject(data)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.objects[key] = o
	return nil
}

// PutIfAbsent stores a copy of data, or returns ErrExists.
func (b *Bucket) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	if err := check(ctx, "put", key); err != nil {
		return err
	}
	if err := objstore.CheckIfAbsent(key, data); err != nil {
		return err
	}
	o := newObject(bytes.Clone(data))
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.objects[key]; ok {
		return fmt.Errorf("put %s: %w", key, objstore.ErrExists)
	}
	b.objects[key] = o
	return nil
}

// List calls fn for the objects that were there when it began.
func (b *Bucket) List(ctx context.Context, prefix string, fn func(objstore.Attributes) error) error {
	if err := objstore.CheckPrefix(prefix); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	for _, attributes := range b.snapshot(prefix) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list %q: %w", prefix, err)
		}
		if err := fn(attributes); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Delete removes the object, if there is one.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if err := check(ctx, "delete", key); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.objects, key)
	return nil
}

// Close does nothing: the objects stay as long as somebody holds the bucket.
func (b *Bucket) Close() error { return nil }

func (b *Bucket) find(ctx context.Context, doing, key string) (object, error) {
	if err := check(ctx, doing, key); err != nil {
		return object{}, err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	o, ok := b.objects[key]
	if !ok {
		return object{}, fmt.Errorf("%s %s: %w", doing, key, objstore.ErrNotFound)
	}
	return o, nil
}

func (b *Bucket) snapshot(prefix string) []objstore.Attributes {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var all []objstore.Attributes
	for key, o := range b.objects {
		if strings.HasPrefix(key, prefix) {
			all = append(all, o.attributes(key))
		}
	}
	slices.SortFunc(all, func(x, y objstore.Attributes) int { return strings.Compare(x.Key, y.Key) })
	return all
}

func newObject(data []byte) object { return object{data: data, modTime: time.Now()} }

func (o object) attributes(key string) objstore.Attributes {
	return objstore.Attributes{Key: key, Size: int64(len(o.data)), ModTime: o.modTime}
}

func check(ctx context.Context, doing, key string) error {
	if err := objstore.CheckKey(key); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", doing, key, err)
	}
	return nil
}
