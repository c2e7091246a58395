package fsck

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/block/inspect/inspecttest"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
)

// fixed is an index that does not change.
type fixed struct {
	entries    []*storagev1.BlockMeta
	tombstones []string
}

func (f fixed) Walk(_ context.Context, entry func(*storagev1.BlockMeta) error, tombstone func(string) error) error {
	for _, m := range f.entries {
		if err := entry(proto.CloneOf(m)); err != nil {
			return err
		}
	}
	for _, key := range f.tombstones {
		if err := tombstone(key); err != nil {
			return err
		}
	}
	return nil
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	f := corpus.Get("regexp-mutex-1")
	var pushes []inspecttest.Push
	for i, service := range []string{"api", "web"} {
		pushes = append(pushes, inspecttest.Push{
			Tenant: "a", Service: service, Kind: "mutex", Time: 1 + int64(i), ID: profile.ID{byte(i)},
			Labels: labels.FromStrings("service_name", service), Body: f.Gzipped,
		})
	}
	good := []byte(inspecttest.Segment(t, pushes...))
	meta, err := block.ReadMeta(t.Context(), inspecttest.Object(good))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		stored  []byte // nil: missing
		entry   func(m *storagev1.BlockMeta)
		deep    bool
		problem string // "" if there is none
	}{
		"as it should be":             {stored: good},
		"as it should be, read whole": {stored: good, deep: true},
		"missing":                     {problem: "missing"},
		"cut short":                   {stored: good[:len(good)-1], problem: "bytes, the index says"},
		"a damaged footer":            {stored: flipped(good, len(good)-20), problem: "CRC"},
		"a damaged section":           {stored: flipped(good, 10)},
		"a damaged section, read":     {stored: flipped(good, 10), deep: true, problem: "CRC"},
		"another entry":               {stored: good, entry: func(m *storagev1.BlockMeta) { m.MaxTime++ }, problem: "footer is not"},
		"an entry with more":          {stored: good, entry: func(m *storagev1.BlockMeta) { m.Datasets[0].MaxTime++ }, problem: "footer is not"},
		"an entry that hides series": {stored: good, entry: func(m *storagev1.BlockMeta) {
			m.Datasets[1].Excluded = []uint32{uint32(len(m.Strings))}
			m.Strings = append(m.Strings, `{pod="a"}`)
		}},
		"an entry with other strings": {stored: good, entry: func(m *storagev1.BlockMeta) { m.Strings[1] += "x" }, problem: "footer is not"},
		"an entry with less":          {stored: good, entry: func(m *storagev1.BlockMeta) { m.Datasets = m.Datasets[1:] }},
	} {
		t.Run(name, func(t *testing.T) {
			bucket, m := memory.New(), proto.CloneOf(meta)
			if c.stored != nil {
				if err := bucket.Put(t.Context(), block.Key(m), c.stored); err != nil {
					t.Fatal(err)
				}
			}
			if c.entry != nil {
				c.entry(m)
			}
			report, err := Check(t.Context(), fixed{entries: []*storagev1.BlockMeta{m}}, bucket, Options{Deep: c.deep, Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case c.problem == "" && len(report.Problems) > 0, c.problem != "" && len(report.Problems) == 0:
				t.Errorf("problems are %v, want %q", report.Problems, c.problem)
			case c.problem != "" && !strings.Contains(report.Problems[0].Text, c.problem):
				t.Errorf("the problem is %q, want %q", report.Problems[0].Text, c.problem)
			}
			if report.Entries != 1 || len(report.Orphans) != 0 {
				t.Errorf("report %+v", report)
			}
		})
	}
}

func TestOrphansAreWhatNobodyNames(t *testing.T) {
	bucket := memory.New()
	for _, key := range []string{"segments/1/orphan", "segments/1/replaced", "blocks/a/2000-01-01/1/orphan", "snapshots/metastore/x"} {
		if err := bucket.Put(t.Context(), key, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	index := fixed{tombstones: []string{"segments/1/replaced", "segments/1/deleted"}}
	report, err := Check(t.Context(), index, bucket, Options{OrphanAge: time.Hour, Now: time.Now()})
	if err != nil || report.Young != 2 || len(report.Orphans) != 0 {
		t.Errorf("young objects: %+v (%v)", report, err)
	}
	report, err = Check(t.Context(), index, bucket, Options{OrphanAge: time.Hour, Now: time.Now().Add(2 * time.Hour)})
	if err != nil || report.Young != 0 || len(report.Orphans) != 2 || report.Orphans[0].Key != "blocks/a/2000-01-01/1/orphan" || report.Tombstones != 2 || len(report.Problems) != 0 {
		t.Errorf("old objects: %+v (%v)", report, err)
	}
}

// flipped returns b with one bit flipped.
func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}
