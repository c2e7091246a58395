package block

import (
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/rollup"
)

// rollupShare is what part of the bytes of its rows a rollup may take: a larger one would not be read much faster
// than they are.
const rollupShare = 4

// pendingRollup is an encoded rollup until the stored size of the rows is known.
type pendingRollup struct {
	rows    *storagev1.Rows
	kind    uint32
	raw     uint64 // inflated bytes of the rows
	rollup  *storagev1.Rollup
	section []byte
}

// rollup hands in sums of the rows, which are kept if that pays.
func (r *RowsWriter) rollup(bucket int64, perSeries bool, w *rollup.Writer) error {
	g := r.g
	b, err := w.Finish(nil)
	if err != nil {
		g.w.fail(err)
		return g.w.err
	}
	g.pending = append(g.pending, pendingRollup{
		rows: r.rows, kind: r.rows.Kind, raw: r.raw, section: b,
		rollup: &storagev1.Rollup{Bucket: bucket, PerSeries: perSeries},
	})
	return nil
}

// writeRollups writes the rollups that pay, now that the rows have been written.
func (g *GroupWriter) writeRollups() {
	for i := range g.pending {
		p := &g.pending[i]
		k := g.kindOf(p.kind)
		length := g.meta.Sections[k.section].Length
		if share := float64(length) * float64(p.raw) / float64(max(k.raw, 1)); float64(len(p.section))*rollupShare > share {
			continue
		}
		p.rollup.Section = g.section(storagev1.SectionType_SECTION_TYPE_ROLLUP, p.section)
		p.rows.Rollups = append(p.rows.Rollups, p.rollup)
	}
	clear(g.pending)
	g.pending = g.pending[:0]
}
