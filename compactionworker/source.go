package compactionworker

import (
	"context"
	"sync"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/objstore"
)

const (
	// smallSource is the largest source that is read with one request. A merge reads nearly all of it anyway, and a request costs more
	// than the bytes that are left out: a job of twenty segments makes twenty of them and not two hundred.
	smallSource = 1 << 20
	// smallShare is the part of a merge's budget that such sources may take together: a smallShare-th of it.
	smallShare = 8
)

// source returns what reads a source, and how many bytes of it that holds until the merge ends: all, if room is enough for that and it
// is small, else none.
func (w *Worker) source(meta *storagev1.BlockMeta, room int64) (src block.Source, held int64) {
	h := objstore.Object(w.bucket, block.Key(meta), int64(meta.GetSize()))
	if size := h.Size(); size > 0 && size <= min(smallSource, room) {
		return &wholeSource{Handle: h}, size
	}
	return h, 0
}

// wholeSource is an object that is read as a whole when any of it is asked for, and kept.
type wholeSource struct {
	objstore.Handle

	mu   sync.Mutex // guards what follows; held while the object is read
	data []byte     // nil before that
}

// ReadRange returns a part of the object.
func (s *wholeSource) ReadRange(ctx context.Context, off, n int64) ([]byte, error) {
	size := s.Size()
	if err := objstore.CheckRange(s.Key(), size, off, n); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data == nil {
		data, err := s.Handle.ReadRange(ctx, 0, size)
		if err != nil {
			return nil, err
		}
		s.data = data
	}
	return s.data[off : off+n : off+n], nil
}
