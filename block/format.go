package block

import (
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/column"
)

var (
	// ErrCorrupt is returned when stored bytes are not what was written. It names the object and the section.
	ErrCorrupt = column.ErrCorrupt
	// ErrVersion is returned when an object is of a version that this program does not know.
	ErrVersion = errors.New("unknown object version")
	// ErrProfile is returned when a profile cannot be part of an object: a negative value, sums beyond
	// int64, stacks or profiles out of order. The object goes on without it.
	ErrProfile = errors.New("profile refused")
	// ErrMisuse is returned when a Writer was called in an order that makes no object.
	ErrMisuse = errors.New("block writer misused")
)

const (
	magic   = "KILN"
	version = 1
	// headSize is magic and version; tailSize is footer length, CRC, version and magic.
	headSize = len(magic) + 1
	tailSize = 4 + 4 + 1 + len(magic)
	// maxFooter bounds the memory that ReadMeta takes: a segment of 10,000 services has a footer of 1 MiB.
	maxFooter = 64 << 20
	// firstRead is enough for the footer of an object of a few hundred datasets in one read.
	firstRead = 64 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Key returns the name of the object in the bucket: segments/{shard}/{id} for a segment and
// blocks/{tenant}/{yyyy-mm-dd}/{shard}/{id} for a block, the date being that of its oldest profile in UTC.
func Key(m *storagev1.BlockMeta) string {
	if m.GetLevel() == 0 {
		return fmt.Sprintf("segments/%d/%s", m.GetShard(), m.GetId())
	}
	tenant := ""
	if t := m.GetTenant(); int(t) < len(m.GetStrings()) {
		tenant = m.GetStrings()[t]
	}
	date := time.Unix(0, m.GetMinTime()).UTC().Format(time.DateOnly)
	return fmt.Sprintf("blocks/%s/%s/%d/%s", tenant, date, m.GetShard(), m.GetId())
}

// compression is chosen by level: segments, and blocks of minutes, will soon be merged again. A block of level 2 is 0.7 %
// larger for it, and a tenth faster to make.
func compression(level uint32) column.Level {
	if level <= 2 {
		return column.Fastest
	}
	return column.Default
}

// rowCompression is compression for rows, at every level: compressing harder saves 2 % of them, and would forbid to
// copy pages from one level to the next.
const rowCompression = column.Fastest
