package querybackendtest

import (
	"bytes"
	"testing"

	"github.com/oklog/ulid/v2"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/objstore"
)

// Compact replaces all segments by one block of them per tenant, and returns the entries of these.
func (s *Store) Compact(t testing.TB) []*storagev1.BlockMeta {
	t.Helper()
	var readers []*block.Reader
	var sources []string
	for _, e := range s.Entries() {
		r, err := block.Open(objstore.Object(s.Bucket, block.Key(e), int64(e.Size)), e)
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, r)
		sources = append(sources, e.Id)
	}
	s.replace(nil)
	for _, tenant := range block.Tenants(readers...) {
		var out bytes.Buffer
		w := block.NewWriter(&out, block.Header{ID: ulid.Make().String(), Tenant: tenant, Level: 1, Sources: sources, Writer: "test"})
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
