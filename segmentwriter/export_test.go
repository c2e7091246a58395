package segmentwriter

import (
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/tenant"
)

// SpoilPart has spoil called before a part of a segment is written; its error, or panic, is that of the part.
func (w *Writer) SpoilPart(spoil func(tenant.ID) error) {
	write := w.writePart
	w.writePart = func(p *part, to *block.Writer) error {
		if err := write(p, to); err != nil { // the damage shows when the part is written already
			return err
		}
		return spoil(p.tenant)
	}
}

// Held returns the bytes that are gathered and in flight.
func (w *Writer) Held() int64 { return w.bytes.Load() }

// NewID returns the id of a segment.
var NewID = newID
