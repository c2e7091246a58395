package samples

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"github.com/kilndb/kiln/block/column"
)

// Sum adds the values of a run of n rows, each times a factor, to the sums of their stack nodes. The runs must end with the last row
// and every node must have a sum.
func Sum(stacks, values []byte, n uint32, factor int64, sums []int64) error {
	node := uint64(0)
	si, vi := 0, 0
	for range n {
		if si >= len(stacks) || vi >= len(values) {
			return errShort(n)
		}
		// Most numbers have one byte; those of heaps have two to five.
		d := uint64(stacks[si])
		si++
		if d >= 0x80 {
			var size int
			if d, size = binary.Uvarint(stacks[si-1:]); size <= 0 {
				return errShort(n)
			}
			si += size - 1
		}
		v := uint64(values[vi])
		vi++
		if v >= 0x80 {
			v &= 0x7f
			shift := uint(7)
			for {
				if vi >= len(values) || shift > 56 {
					return errShort(n)
				}
				b := values[vi]
				vi++
				v |= uint64(b&0x7f) << shift
				if b < 0x80 {
					break
				}
				shift += 7
			}
		}
		node += d
		if node >= uint64(len(sums)) {
			return fmt.Errorf("%w: a row names stack node %d of %d", column.ErrCorrupt, node, len(sums))
		}
		sums[node] += int64(v) * factor
	}
	if si != len(stacks) || vi != len(values) {
		return fmt.Errorf("%w: a run is longer than its %d rows", column.ErrCorrupt, n)
	}
	return nil
}

// Add adds the values of a run, each times a factor, to the sums of stack nodes, which are numbers of sums.
func Add(nodes []uint32, run []byte, factor int64, sums []int64) error {
	pos := 0
	for _, node := range nodes {
		if pos >= len(run) {
			return errShort(uint32(len(nodes)))
		}
		v := uint64(run[pos])
		pos++
		if v >= 0x80 {
			v &= 0x7f
			for shift := uint(7); ; shift += 7 {
				if pos >= len(run) || shift > 56 {
					return errShort(uint32(len(nodes)))
				}
				b := run[pos]
				pos++
				v |= uint64(b&0x7f) << shift
				if b < 0x80 {
					break
				}
			}
		}
		sums[node] += int64(v) * factor
	}
	if pos != len(run) {
		return fmt.Errorf("%w: a run is longer than its %d rows", column.ErrCorrupt, len(nodes))
	}
	return nil
}

func errShort(n uint32) error {
	return fmt.Errorf("%w: a run is shorter than its %d rows, or malformed", column.ErrCorrupt, n)
}

// Stacks fills dst with the stack nodes of a run, which ascend and are below nodes.
func Stacks(dst []uint32, run []byte, nodes int) error { return stacks(dst, run, nodes, false) }

// RepeatedStacks is Stacks for rows that have a span or a trace as well: a node may be there once for each.
func RepeatedStacks(dst []uint32, run []byte, nodes int) error { return stacks(dst, run, nodes, true) }

func stacks(dst []uint32, run []byte, nodes int, repeated bool) error {
	if err := column.Uint32s(dst, run, math.MaxUint32); err != nil {
		return err
	}
	last := uint64(0)
	for i, d := range dst {
		if d == 0 && i > 0 && !repeated {
			return fmt.Errorf("%w: stack node %d occurs twice in one profile", column.ErrCorrupt, last)
		}
		last += uint64(d)
		if last >= uint64(nodes) {
			return fmt.Errorf("%w: a row names stack node %d of %d", column.ErrCorrupt, last, nodes)
		}
		dst[i] = uint32(last)
	}
	return nil
}

// Values fills dst with the values of a run.
func Values(dst []int64, run []byte) error {
	if len(dst) > len(run) {
		return errShort(uint32(len(dst)))
	}
	pos := 0
	for i := range dst {
		v, n := binary.Uvarint(run[pos:])
		if n <= 0 || v > math.MaxInt64 {
			return errShort(uint32(len(dst)))
		}
		pos += n
		dst[i] = int64(v)
	}
	if pos != len(run) {
		return fmt.Errorf("%w: a run is longer than its %d rows", column.ErrCorrupt, len(dst))
	}
	return nil
}

// CheckRun tells whether a run holds n numbers, by counting their last bytes.
func CheckRun(run []byte, n int) error {
	ends := 0
	b := run
	for ; len(b) >= 8; b = b[8:] {
		ends += bits.OnesCount64(^binary.LittleEndian.Uint64(b) & 0x8080808080808080)
	}
	for _, c := range b {
		ends += int(^c >> 7)
	}
	if ends != n || n > 0 && run[len(run)-1] >= 0x80 {
		return fmt.Errorf("%w: a run of %d numbers where %d are wanted", column.ErrCorrupt, ends, n)
	}
	return nil
}
