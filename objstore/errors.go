package objstore

import (
	"errors"
	"fmt"
)

var (
	// ErrNotFound is returned when there is no object under the key. A bucket that is missing itself is another error.
	ErrNotFound = errors.New("object not found")

	// ErrExists is returned when PutIfAbsent finds an object under the key. That object is durable.
	ErrExists = errors.New("object exists already")

	// ErrRange is returned when a range does not lie within its object.
	ErrRange = errors.New("range outside of object")

	// ErrKey is returned when a key, or the folder of a prefix, is not one that CheckKey accepts.
	ErrKey = errors.New("invalid object key")
)

// CheckRange returns ErrRange unless the n bytes at off lie within an object of the given size.
func CheckRange(key string, size, off, n int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("%w: %d bytes at %d of %s, which has %d", ErrRange, n, off, key, size)
	}
	return nil
}

// MaxPutIfAbsent is the most bytes that PutIfAbsent stores: 15 MiB, as clients of S3 cut what has 16 MiB into parts,
// and of the stores that honour the condition of a put not all honour it for parts.
const MaxPutIfAbsent = 15 << 20

// CheckIfAbsent returns an error where data is more than MaxPutIfAbsent.
func CheckIfAbsent(key string, data []byte) error {
	if len(data) > MaxPutIfAbsent {
		return fmt.Errorf("put %s if absent: %d bytes are more than %d", key, len(data), MaxPutIfAbsent)
	}
	return nil
}
