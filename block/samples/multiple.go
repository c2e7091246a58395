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

// appendMultiple appends the values of base, which are well-formed, times factor to dst.
func appendMultiple(dst, base []byte, factor uint64) []byte {
	for len(base) > 0 {
		b, n := binary.Uvarint(base)
		if n <= 0 {
			return dst
		}
		base = base[n:]
		dst = binary.AppendUvarint(dst, b*factor)
	}
	return dst
}

// multipleOf tells how many bytes values take if each is that of base times f.times, whatever that is if f has none yet;
// 0 if they are not, or if all are zero and nothing can be said.
func multipleOf(f factor, values, base []int64) (factor, int) {
	raw := 0
	for i, v := range values {
		b := uint64(base[i])
		if f.times == 0 && b != 0 {
			if f.times = uint64(v) / b; f.times == 0 {
				return f, 0
			}
		}
		if high, low := bits.Mul64(b, f.times); high != 0 || low != uint64(v) {
			return f, 0
		}
		raw += uvarintLength(uint64(v))
	}
	if f.times == 0 {
		return f, 0
	}
	return f, raw
}

// uvarintLength returns how many bytes v takes.
func uvarintLength(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// Multiplier says how long multiples of runs would be. It is reused.
type Multiplier struct {
	factor uint64
	// lengths of the numbers below 128 times factor, 0 beyond int64; most numbers are such.
	lengths [128]uint8
}

// Length returns how many bytes a run of n numbers, each times a factor, would take.
func (m *Multiplier) Length(run []byte, n int, factor uint64) (length int, err error) {
	if m.factor != factor {
		m.factor = factor
		for i := range m.lengths {
			m.lengths[i] = 0
			if high, low := bits.Mul64(uint64(i), factor); high == 0 && low <= math.MaxInt64 {
				m.lengths[i] = uint8(uvarintLength(low))
			}
		}
	}
	for i := 0; i < len(run); n-- {
		if b := run[i]; b < 0x80 && m.lengths[b] > 0 {
			length += int(m.lengths[b])
			i++
			continue
		}
		v, size := binary.Uvarint(run[i:])
		high, low := bits.Mul64(v, factor)
		if size <= 0 || high != 0 || low > math.MaxInt64 {
			return 0, fmt.Errorf("%w: a run of a column whose multiple by %d is wanted", column.ErrCorrupt, factor)
		}
		i += size
		length += uvarintLength(low)
	}
	if n != 0 {
		return 0, fmt.Errorf("%w: a run is %d numbers too short", column.ErrCorrupt, n)
	}
	return length, nil
}
