package objstore

import "context"

// Handle is one object of a bucket: its bytes by range, and its size. It is small and made on the spot.
type Handle struct {
	bucket Getter
	key    string
	size   int64
}

// Object returns a handle on the object under key, whose size the caller knows. Nothing is read and nothing checked:
// where the caller is wrong, ReadRange says so.
func Object(bucket Getter, key string, size int64) Handle {
	return Handle{bucket: bucket, key: key, size: size}
}

// ReadRange returns exactly the n bytes that start at off. It may be called concurrently. A short object is an error,
// never a short read.
func (h Handle) ReadRange(ctx context.Context, off, n int64) ([]byte, error) {
	if err := CheckRange(h.key, h.size, off, n); err != nil {
		return nil, err
	}
	return h.bucket.GetRange(ctx, h.key, off, n)
}

// Size returns the size that Object was told.
func (h Handle) Size() int64 { return h.size }

// Key returns the object's key.
func (h Handle) Key() string { return h.key }
