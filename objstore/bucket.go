package objstore

import (
	"context"
	"io"
	"time"
)

// Getter reads objects.
type Getter interface {
	// Get returns the whole object. It is meant for objects that are small beside the memory at hand; read the
	// others by range.
	Get(ctx context.Context, key string) ([]byte, error)

	// GetRange returns exactly the n bytes that start at off, or an error: ErrRange where they do not all exist.
	// No bytes (n == 0) are a valid range up to and including the object's end.
	GetRange(ctx context.Context, key string, off, n int64) ([]byte, error)

	// Attributes returns what the store knows of the object without reading it.
	Attributes(ctx context.Context, key string) (Attributes, error)
}

// Putter writes objects. What it promises about atomicity and durability is in the package comment.
type Putter interface {
	// Put stores data under key, in place of what was there.
	Put(ctx context.Context, key string, data []byte) error

	// PutFrom is Put for an object that should not be held in memory at once: the first size bytes of src. It fails,
	// and stores nothing, where src has fewer. src is a ReaderAt so that a retry can start over with the same bytes.
	PutFrom(ctx context.Context, key string, src io.ReaderAt, size int64) error

	// PutIfAbsent stores data under key unless there is an object already, which it leaves alone and reports with
	// ErrExists. Of many concurrent calls for one key exactly one succeeds. It is for small
	// objects, up to MaxPutIfAbsent.
	PutIfAbsent(ctx context.Context, key string, data []byte) error
}

// Lister finds objects by prefix.
type Lister interface {
	// List calls fn for every object whose key starts with prefix, in the byte order of the keys, and stops at fn's
	// first error, which it returns unchanged. The prefix need not end at a slash; the empty one means everything.
	// fn may use the bucket. Objects that are put or deleted meanwhile may or may not be listed.
	List(ctx context.Context, prefix string, fn func(Attributes) error) error
}

// Deleter removes objects.
type Deleter interface {
	// Delete removes the object, durably when it returns nil. That there was none is a success too, so that a
	// deletion can be repeated.
	Delete(ctx context.Context, key string) error
}

// Bucket is a whole object store. Close releases what opening it took, and may not run beside another method.
type Bucket interface {
	Getter
	Putter
	Lister
	Deleter
	io.Closer
}

// Attributes are what a store knows of an object.
type Attributes struct {
	Key     string
	Size    int64
	ModTime time.Time // by the store's clock, and only as fine as the store keeps it: S3 keeps seconds
}
