package block

import (
	"testing"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/column"
	"github.com/kilndb/kiln/block/samples"
)

// rawSize is what a section inflates to. It counts the bytes of every column.
func rawSize(t testing.TB, g *group, s *storagev1.Section) int64 {
	t.Helper()
	b, err := g.fetch(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	switch s.Type {
	case storagev1.SectionType_SECTION_TYPE_SAMPLES:
		size := int64(0)
		for columns := 2; columns < 34; columns++ {
			if section, err := samples.Parse(b, columns); err == nil {
				for c := range columns {
					if n := section.Pages(); n > 0 {
						_, to := section.Bounds(n-1, c)
						size += int64(to)
					}
				}
				return size
			}
		}
		t.Fatal("samples of an unlikely number of columns")
	case storagev1.SectionType_SECTION_TYPE_PROFILES:
		return int64(len(b))
	}
	return setSize(t, s.Type, b)
}

// setSize adds up the raw lengths of a set of columns that follows a header of a few numbers.
func setSize(t testing.TB, kind storagev1.SectionType, b []byte) (size int64) {
	t.Helper()
	for columns := 2; columns < 20; columns++ {
		for skip := range min(len(b), 30) {
			if n, ok := setAt(b[skip:], columns); ok {
				return n
			}
		}
	}
	t.Fatalf("no columns in a section of type %s", kind)
	return 0
}

func setAt(b []byte, columns int) (size int64, ok bool) {
	set, err := column.Parse(b, columns)
	if err != nil {
		return 0, false
	}
	for i := range columns {
		size += int64(set.Raw(i))
	}
	return size, true
}
