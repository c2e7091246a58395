package querybackendtest

import (
	"bytes"
	"testing"

	"github.com/oklog/ulid/v2"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/objstore"
)

// Compact replaces all objects by one block of them per tenant, a level above the highest, and returns the entries of
// these.
func (s *Store) Compact(t testing.TB) []*storagev1.BlockMeta {
	t.Helper()
	var readers []*block.Reader
	var sources []string
	level := uint32(0)
	for _, e := range s.Entries() {
		r, err := block.Open(objstore.Object(s.Bucket, block.Key(e), int64(e.Size)), e)
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, r)
		sources = append(sources, e.Id)
		level = max(level, e.Level+1)
	}
	s.replace(nil)
	for _, tenant := range block.Tenants(readers...) {
		var out bytes.Buffer
		w := block.NewWriter(&out, block.Header{ID: ulid.Make().String(), Tenant: tenant, Level: level, Sources: sources, Writer: "test"})
		if err := block.Merge(t.Context(), tenant, readers, w); err != nil {
			t.Fatal(err)
		}
		meta, err := w.Finish()
		if err != nil {
			t.Fatal(err)
		}
		s.put(t, meta, out.Bytes())
	}
	return s.Entries()
}
