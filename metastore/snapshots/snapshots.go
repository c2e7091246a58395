package snapshots

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/kilndb/kiln/metastore/fsm"
	"github.com/kilndb/kiln/objstore"
)

// Prefix is where the snapshots are.
const Prefix = "snapshots/metastore/"

// chunk is how much of a snapshot is read at a time: few requests, little memory.
const chunk = 8 << 20

// Snapshot is one snapshot in the bucket.
type Snapshot struct {
	objstore.Attributes
	// Taken is the time of the last command in it, and Index its log index, as its name says.
	Taken time.Time
	Index uint64
}

// Bucket is what the snapshots need of the bucket.
type Bucket interface {
	objstore.Getter
	objstore.Lister
	objstore.Deleter
	PutFrom(ctx context.Context, key string, src io.ReaderAt, size int64) error
}

// Put stores the size bytes of a snapshot of the state at that position.
func Put(ctx context.Context, b Bucket, position fsm.Position, src io.ReaderAt, size int64) (key string, err error) {
	key, err = keyOf(position)
	if err != nil {
		return "", err
	}
	if err := b.PutFrom(ctx, key, src, size); err != nil {
		return "", fmt.Errorf("put snapshot %s: %w", key, err)
	}
	return key, nil
}

func keyOf(p fsm.Position) (string, error) {
	var id ulid.ULID
	if err := id.SetTime(uint64(max(0, time.Unix(0, p.Time).UnixMilli()))); err != nil {
		return "", fmt.Errorf("name a snapshot of %v: %w", time.Unix(0, p.Time), err)
	}
	binary.BigEndian.PutUint64(id[6:14], p.Index)
	if _, err := rand.Read(id[14:]); err != nil {
		return "", err
	}
	return Prefix + id.String(), nil
}

// List returns the snapshots, newest state first. Other objects under the prefix are left out.
func List(ctx context.Context, b objstore.Lister) ([]Snapshot, error) {
	var all []Snapshot
	err := b.List(ctx, Prefix, func(a objstore.Attributes) error {
		id, err := ulid.ParseStrict(strings.TrimPrefix(a.Key, Prefix))
		if err == nil && Prefix+id.String() == a.Key {
			all = append(all, Snapshot{a, time.UnixMilli(int64(id.Time())), binary.BigEndian.Uint64(id[6:14])})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	slices.Reverse(all)
	return all, nil
}

// Prune deletes all but the newest keep.
func Prune(ctx context.Context, b Bucket, keep int) error {
	all, err := List(ctx, b)
	if err != nil {
		return err
	}
	for _, s := range all[min(keep, len(all)):] {
		if delErr := b.Delete(ctx, s.Key); delErr != nil {
			err = errors.Join(err, fmt.Errorf("delete old snapshot: %w", delErr))
		}
	}
	return err
}

// Open reads a snapshot from its beginning. ctx bounds all of the reading.
func Open(ctx context.Context, b objstore.Getter, s Snapshot) io.ReadCloser {
	return io.NopCloser(&reader{ctx: ctx, bucket: b, of: s})
}

// reader reads an object chunk by chunk.
type reader struct {
	ctx    context.Context // of the one read that this is
	bucket objstore.Getter
	of     Snapshot
	off    int64
	have   []byte
}

// Read returns the next bytes.
func (r *reader) Read(p []byte) (int, error) {
	if len(r.have) == 0 {
		n := min(chunk, r.of.Size-r.off)
		if n == 0 {
			return 0, io.EOF
		}
		var err error
		if r.have, err = r.bucket.GetRange(r.ctx, r.of.Key, r.off, n); err != nil {
			return 0, err
		}
		r.off += n
	}
	n := copy(p, r.have)
	r.have = r.have[n:]
	return n, nil
}
