package metastore

import (
	"context"
	"errors"
	"math"
	"path/filepath"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/proto"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/fsm"
)

// One message has at most this much, as far as whole entries allow. Those of BucketService each have a transaction of
// their own, and no more than pageEntries: a slow reader holds none open.
const (
	pageEntries = 512
	pageBytes   = 1 << 20
)

// Bucket returns the handler of BucketService.
func (m *Metastore) Bucket() metastorev1connect.BucketServiceHandler { return bucketService{m} }

// bucketService serves BucketService.
type bucketService struct{ m *Metastore }

// Entries streams the index, page by page.
func (s bucketService) Entries(ctx context.Context, _ *connect.Request[metastorev1.EntriesRequest], out *connect.ServerStream[metastorev1.EntriesResponse]) error {
	if _, err := s.m.node.ReadIndex(ctx); err != nil {
		return coded(err)
	}
	// Entries before tombstones: an object that is replaced meanwhile is in one of them at least.
	for after, done := (ulid.ULID{}), false; !done; {
		page := &metastorev1.EntriesResponse{}
		err := s.m.state.View(func(tx *fsm.Tx) (err error) {
			done, err = s.entries(tx, &after, page)
			return err
		})
		if err != nil {
			return coded(err)
		}
		if err := out.Send(page); err != nil {
			return err
		}
	}
	page := &metastorev1.EntriesResponse{}
	err := s.m.state.View(func(tx *fsm.Tx) error {
		return s.m.machine.tombstones(tx, func(t *storagev1.Tombstone) error {
			page.Tombstones = append(page.Tombstones, &metastorev1.BuriedObject{Id: t.GetId(), Key: t.GetKey()})
			return nil
		})
	})
	if err != nil {
		return coded(err)
	}
	for rest := page.GetTombstones(); len(rest) > 0; {
		n := min(len(rest), pageEntries)
		if err := out.Send(&metastorev1.EntriesResponse{Tombstones: rest[:n]}); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// entries fills a page with what comes after an id, and says whether that was all.
func (s bucketService) entries(tx *fsm.Tx, after *ulid.ULID, page *metastorev1.EntriesResponse) (done bool, err error) {
	size := 0
	err = s.m.machine.index.EntriesAfter(tx, *after, func(id ulid.ULID, m *storagev1.BlockMeta) error {
		if len(page.GetEntries()) == pageEntries || size > pageBytes {
			return errPageFull
		}
		page.Entries = append(page.Entries, m)
		size += proto.Size(m)
		*after = id
		return nil
	})
	if errors.Is(err, errPageFull) {
		return false, nil
	}
	return true, err
}

// errPageFull ends the reading of a page.
var errPageFull = errors.New("page is full")

// tombstones calls fn for every tombstone, oldest first.
func (m *machine) tombstones(tx *fsm.Tx, fn func(*storagev1.Tombstone) error) error {
	all, _, err := m.jobs.Tombstones(tx, math.MaxInt64, math.MaxInt)
	if err != nil {
		return err
	}
	for _, t := range all {
		if err := fn(t); err != nil {
			return err
		}
	}
	return nil
}

// Offline is the index in the data directory of a process that does not run. What only the Raft log has is not in it.
type Offline struct{ DataDir string }

// Walk calls entry for every entry and tombstone for the key of every object that is to be deleted.
func (o Offline) Walk(ctx context.Context, entry func(*storagev1.BlockMeta) error, tombstone func(key string) error) error {
	m := newMachine()
	return fsm.ViewFile(filepath.Join(Config{DataDir: o.DataDir}.dir(), "state.db"), func(tx *fsm.Tx) error {
		if err := m.index.Entries(tx, func(e *storagev1.BlockMeta) error { return errors.Join(ctx.Err(), entry(e)) }); err != nil {
			return err
		}
		return m.tombstones(tx, func(t *storagev1.Tombstone) error { return tombstone(t.GetKey()) })
	})
}
