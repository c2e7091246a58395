package metastore

import (
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/fsm"
)

func TestEntriesAreStreamedInPages(t *testing.T) {
	dir := t.TempDir()
	r := serving(t, dir, &deletions{})
	var want []string
	for range 5 {
		var batch []*storagev1.BlockMeta
		for range 300 {
			id := newID()
			want = append(want, id)
			batch = append(batch, segment(id, 1, dataset{"a", "web", 1, 2}))
		}
		r.mustAdd(batch...)
	}
	slices.Sort(want)
	var got []string
	pages := 0
	for after, done := (ulid.ULID{}), false; !done; pages++ {
		page := &metastorev1.EntriesResponse{}
		if err := r.state.View(func(tx *fsm.Tx) (err error) {
			done, err = bucketService{r.Metastore}.entries(tx, &after, page)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		for _, m := range page.GetEntries() {
			got = append(got, m.GetId())
		}
	}
	if !slices.Equal(got, want) || pages != 3 {
		t.Errorf("%d entries in %d pages, want %d in 3", len(got), pages, len(want))
	}
	walk := func() (ids []string, err error) {
		err = Offline{dir}.Walk(t.Context(), func(m *storagev1.BlockMeta) error { ids = append(ids, m.GetId()); return nil }, func(string) error { return nil })
		return ids, err
	}
	if _, err := walk(); err == nil {
		t.Error("the files of a metastore that runs were read")
	}
	r.stop()
	if got, err := walk(); err != nil || !slices.Equal(got, want) {
		t.Errorf("offline there are %d entries (%v)", len(got), err)
	}
}
