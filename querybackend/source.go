package querybackend

import (
	"context"
	"errors"
	"fmt"

	"github.com/kilndb/kiln/objstore"
)

// errFetch marks errors of the bucket, as against errors in what it gave.
var errFetch = errors.New("read object")

// source is one object of the bucket, with a count of the bytes that were read.
type source struct {
	objstore.Handle
	cost *cost
}

// ReadRange returns exactly the n bytes that start at off.
func (s source) ReadRange(ctx context.Context, off, n int64) ([]byte, error) {
	b, err := s.Handle.ReadRange(ctx, off, n)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", errFetch, s.Key(), err)
	}
	s.cost.fetched.Add(uint64(n))
	return b, nil
}
