package index

import (
	"bytes"
	"crypto/rand"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// Whoever asks for an entry gets the same message, be it that many ask at once for the first time.
func TestAnEntryIsDecodedOnce(t *testing.T) {
	m := meta(ulid.MustNew(1, rand.Reader), 1, 2, map[string][]string{"a": {"web"}})
	x := New()
	x.next = x.next.with(entryOf(t, m), m)
	x.Commit(1)
	var found [8]*storagev1.BlockMeta
	var all sync.WaitGroup
	for i := range found {
		all.Go(func() { found[i] = x.View().Find(Query{Tenants: []string{"a"}})[0] })
	}
	all.Wait()
	for _, got := range found {
		if got != found[0] || !proto.Equal(got, m) {
			t.Errorf("found %p %v, want %p %v", got, got, found[0], m)
		}
	}
}

// What is stored of an object are the bytes that came, whatever the build makes of them; of one that lost
// datasets to a floor, what is left of it.
func TestRegisterStoresWhatCame(t *testing.T) {
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "index.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	now := time.Now()
	if err := db.Update(func(tx *bbolt.Tx) error {
		x := New()
		for _, name := range x.Buckets() {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		service := "db"
		if err := x.Drop(tx, &storagev1.Drop{Tenant: "a", Service: &service, Before: 10}, nil); err != nil {
			return err
		}
		for _, services := range [][]string{{"web"}, {"db", "web"}} {
			m := meta(ulid.MustNew(ulid.Timestamp(now), rand.Reader), 1, 2, map[string][]string{"a": services})
			came, err := encode(m)
			if err != nil {
				return err
			}
			// A field of a later build, which is not where this build would write it.
			came = append([]byte{0xa2, 0x06, 1, 'x'}, came...)
			entry, err := x.Register(tx, now.UnixNano(), m, came)
			if err != nil {
				return err
			}
			want := came
			if len(services) > 1 {
				if want, err = encode(entry); err != nil {
					return err
				}
			}
			id := ulid.MustParse(m.GetId())
			if got := tx.Bucket(entriesBucket).Get(id[:]); len(entry.GetDatasets()) != 1 || !bytes.Equal(got, want) {
				t.Errorf("of services %q %x is stored, want %x", services, got, want)
			}
			if got, err := x.Get(tx, id); err != nil || len(got.GetDatasets()) != 1 {
				t.Errorf("the entry is %v, %v", got, err)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
