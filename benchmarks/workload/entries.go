package workload

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// EntryTenants is how many tenants the segments of Entry are of, each of which has entryServices services.
const (
	EntryTenants  = 10
	entryServices = 50
)

// Entry returns what the index is told of the n-th segment: two services of one tenant, one kind each, 15 seconds after the one before
// of the same tenant. Only its id is not the same each time.
func Entry(n int) *storagev1.BlockMeta {
	from := int64(n/EntryTenants) * int64(15*time.Second)
	first, second := n%entryServices, (n*7+1)%entryServices
	if first == second {
		second = (second + 1) % entryServices
	}
	m := &storagev1.BlockMeta{
		Id: ulid.MustNew(ulid.Now(), rand.Reader).String(), Shard: uint32(n % 4), MinTime: from, MaxTime: from + int64(30*time.Second),
		Size: 100_000, Writer: 10,
		Strings: []string{
			"", fmt.Sprintf("tenant-%d", n%EntryTenants), fmt.Sprintf("service-%02d", min(first, second)), fmt.Sprintf("service-%02d", max(first, second)),
			"process_cpu", "cpu", "nanoseconds", "samples", "count", "x", "node-1",
		},
		Kinds:  []*storagev1.Kind{{Name: 4, PeriodType: 5, PeriodUnit: 6, SampleTypes: []*storagev1.SampleType{{Type: 7, Unit: 8}, {Type: 5, Unit: 6}}}},
		Groups: []*storagev1.Group{{Tenant: 1}},
	}
	for i := range 5 {
		m.Groups[0].Sections = append(m.Groups[0].Sections, &storagev1.Section{
			Type: storagev1.SectionType(1 + i), Offset: uint64(20_000 * i), Length: 20_000, Crc: uint32(n),
		})
	}
	for i := range uint32(2) {
		m.Datasets = append(m.Datasets, &storagev1.Dataset{
			Tenant: 1, Service: 2 + i, MinTime: m.MinTime, MaxTime: m.MaxTime, LabelFilter: make([]byte, 24),
			Rows: []*storagev1.Rows{{
				FirstProfile: uint64(10 * i), Profiles: 10, Samples: 2000, Sums: []int64{3000, 30_000_000_000}, TreesSection: 1, SamplesSection: 4,
				ColumnStarts: []uint64{0, 0, 0},
			}},
		})
	}
	return m
}
