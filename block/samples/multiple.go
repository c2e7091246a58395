package samples

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"github.com/kilndb/kiln/block/column"
)

// A column of a page whose values are those of an earlier one times a constant is not stored: CPU nanoseconds are
// samples times the period. It is a matter of how a page is stored; its inflated bytes are what they would be.

// smallestMultiple is the shortest column that is looked at: a shorter one takes hardly more than saying so.
const smallestMultiple = 16

// multiple tells whether every value of a column is that of base times one factor.
func multiple(base, values []byte) (factor uint64, ok bool) {
	for len(base) > 0 && len(values) > 0 {
		b, n := binary.Uvarint(base)
		v, m := binary.Uvarint(values)
		if n <= 0 || m <= 0 {
			return 0, false // runs are copied unread: this one's reader will complain
		}
		base, values = base[n:], values[m:]
		if factor == 0 && b != 0 {
			if factor = v / b; factor == 0 {
				return 0, false // nothing of something: no later factor can be that of this one
			}
		}
		if high, low := bits.Mul64(b, factor); high != 0 || low != v {
			return 0, false
		}
	}
	return factor, factor != 0 && len(base) == len(values)
}

// multiply appends the values of base times factor to dst, which must become raw bytes.
func multiply(dst, base []byte, factor uint64, raw int) ([]byte, error) {
	if cap(dst) < raw {
		dst = make([]byte, 0, raw)
	}
	dst = dst[:0]
	for len(base) > 0 {
		b, n := binary.Uvarint(base)
		if n <= 0 {
			return nil, fmt.Errorf("%w: a column whose multiple is wanted is malformed", column.ErrCorrupt)
		}
		base = base[n:]
		high, v := bits.Mul64(b, factor)
		if high != 0 || v > math.MaxInt64 || len(dst) >= raw {
			return nil, fmt.Errorf("%w: %d times %d in a column of %d bytes", column.ErrCorrupt, b, factor, raw)
		}
		dst = binary.AppendUvarint(dst, v)
	}
	if len(dst) != raw {
		return nil, fmt.Errorf("%w: a multiple of %d bytes, not %d", column.ErrCorrupt, len(dst), raw)
	}
	return dst, nil
}
