// Package metered is a bucket that counts what another one does: operations by name and result, how long they take, and
// the bytes that go in and out. Outside of a retried bucket it counts what callers ask for, inside of one every try.
package metered

import (
	"context"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kilndb/kiln/objstore"
)

var _ objstore.Bucket = (*Bucket)(nil)

// Bucket is a metered object store. Use New.
type Bucket struct {
	below   objstore.Bucket
	metrics *metrics
}

// New returns a bucket that does what below does and registers its metrics with reg, once per registry.
func New(below objstore.Bucket, reg prometheus.Registerer) *Bucket {
	return &Bucket{below: below, metrics: newMetrics(reg)}
}

// Get implements objstore.Getter.
func (b *Bucket) Get(ctx context.Context, key string) (data []byte, err error) {
	defer b.metrics.observe("get", time.Now(), &err)
	data, err = b.below.Get(ctx, key)
	b.metrics.read.Add(float64(len(data)))
	return data, err
}

// GetRange implements objstore.Getter.
func (b *Bucket) GetRange(ctx context.Context, key string, off, n int64) (data []byte, err error) {
	defer b.metrics.observe("get_range", time.Now(), &err)
	data, err = b.below.GetRange(ctx, key, off, n)
	b.metrics.read.Add(float64(len(data)))
	return data, err
}

// Attributes implements objstore.Getter.
func (b *Bucket) Attributes(ctx context.Context, key string) (_ objstore.Attributes, err error) {
	defer b.metrics.observe("attributes", time.Now(), &err)
	return b.below.Attributes(ctx, key)
}

// Put implements objstore.Putter.
func (b *Bucket) Put(ctx context.Context, key string, data []byte) (err error) {
	defer b.metrics.observe("put", time.Now(), &err)
	return b.metrics.wrote(int64(len(data)), b.below.Put(ctx, key, data))
}

// PutFrom implements objstore.Putter. It counts as a put.
func (b *Bucket) PutFrom(ctx context.Context, key string, src io.ReaderAt, size int64) (err error) {
	defer b.metrics.observe("put", time.Now(), &err)
	return b.metrics.wrote(size, b.below.PutFrom(ctx, key, src, size))
}

// PutIfAbsent implements objstore.Putter.
func (b *Bucket) PutIfAbsent(ctx context.Context, key string, data []byte) (err error) {
	defer b.metrics.observe("put_if_absent", time.Now(), &err)
	return b.metrics.wrote(int64(len(data)), b.below.PutIfAbsent(ctx, key, data))
}

// List implements objstore.Lister. Its time includes that of fn.
func (b *Bucket) List(ctx context.Context, prefix string, fn func(objstore.Attributes) error) (err error) {
	defer b.metrics.observe("list", time.Now(), &err)
	return b.below.List(ctx, prefix, fn)
}

// Delete implements objstore.Deleter.
func (b *Bucket) Delete(ctx context.Context, key string) (err error) {
	defer b.metrics.observe("delete", time.Now(), &err)
	return b.below.Delete(ctx, key)
}

// Close closes the bucket below.
func (b *Bucket) Close() error { return b.below.Close() }
