package series

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/kilndb/kiln/block/column"
	"github.com/kilndb/kiln/labels"
)

// The columns of a SERIES section, in order.
const (
	colStringLengths = iota
	colStringBytes
	colPairs // labels per series
	colNames
	colValues
	columns
)

// Encoder writes SERIES sections. It is reused and not safe for concurrent use.
type Encoder struct {
	set     column.Builder
	strings map[string]uint32
	order   []string
	col     []byte
}

// Bytes is about the memory that the encoder holds on to.
func (e *Encoder) Bytes() int {
	const ofString = 64 // its header, and its place in the map
	return e.set.Bytes() + cap(e.col) + ofString*cap(e.order)
}

func (e *Encoder) id(s string) uint64 {
	id, ok := e.strings[s]
	if !ok {
		id = uint32(len(e.order))
		e.strings[s] = id
		e.order = append(e.order, s)
	}
	return uint64(id)
}

// Append appends the section that holds the sets to dst.
func (e *Encoder) Append(dst []byte, all []labels.Labels, level column.Level) ([]byte, error) {
	if e.strings == nil {
		e.strings = map[string]uint32{}
	}
	clear(e.strings)
	clear(e.order)
	e.order = e.order[:0]
	pairs := 0
	for _, ls := range all {
		pairs += len(ls)
		for _, l := range ls {
			e.id(l.Name)
			e.id(l.Value)
		}
	}
	for _, n := range []int{len(e.order), len(all), pairs} {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	e.set.Reset(level)
	e.column(func() {
		for _, s := range e.order {
			e.col = binary.AppendUvarint(e.col, uint64(len(s)))
		}
	})
	e.column(func() {
		for _, s := range e.order {
			e.col = append(e.col, s...)
		}
	})
	e.column(func() {
		for _, ls := range all {
			e.col = binary.AppendUvarint(e.col, uint64(len(ls)))
		}
	})
	e.column(func() {
		for _, ls := range all {
			for _, l := range ls {
				e.col = binary.AppendUvarint(e.col, e.id(l.Name))
			}
		}
	})
	e.column(func() {
		for _, ls := range all {
			for _, l := range ls {
				e.col = binary.AppendUvarint(e.col, e.id(l.Value))
			}
		}
	})
	return e.set.Append(dst)
}

func (e *Encoder) column(fill func()) {
	e.col = e.col[:0]
	fill()
	e.set.Add(e.col)
}

// Decode reads a SERIES section. The sets share no memory with it.
func Decode(section []byte) ([]labels.Labels, error) {
	c := column.Cursor{Data: section}
	strings, series, pairs := c.Below(math.MaxInt32), c.Below(math.MaxInt32), c.Below(math.MaxInt32)
	if c.Err != nil {
		return nil, c.Err
	}
	set, err := column.Parse(section[c.Pos:], columns)
	if err != nil {
		return nil, err
	}
	texts, err := decodeStrings(&set, strings)
	if err != nil {
		return nil, err
	}
	counts, err := decodeColumn(&set, colPairs, series, uint64(pairs)+1)
	if err != nil {
		return nil, err
	}
	names, err := decodeColumn(&set, colNames, pairs, uint64(strings))
	if err != nil {
		return nil, err
	}
	values, err := decodeColumn(&set, colValues, pairs, uint64(strings))
	if err != nil {
		return nil, err
	}
	all := make([]labels.Labels, series)
	flat := make([]labels.Label, pairs)
	for i := range flat {
		flat[i] = labels.Label{Name: texts[names[i]], Value: texts[values[i]]}
	}
	for i, n := range counts {
		if int(n) > len(flat) {
			return nil, fmt.Errorf("%w: series %d has %d labels, but %d are left", column.ErrCorrupt, i, n, len(flat))
		}
		all[i], flat = labels.Labels(flat[:n:n]), flat[n:]
		for j := 1; j < int(n); j++ {
			if all[i][j-1].Name >= all[i][j].Name {
				return nil, fmt.Errorf("%w: labels of series %d are not sorted", column.ErrCorrupt, i)
			}
		}
	}
	if len(flat) != 0 {
		return nil, fmt.Errorf("%w: %d labels without a series", column.ErrCorrupt, len(flat))
	}
	return all, nil
}

func decodeStrings(set *column.Set, n uint32) ([]string, error) {
	lengths, err := decodeColumn(set, colStringLengths, n, math.MaxUint32)
	if err != nil {
		return nil, err
	}
	data, err := set.Column(colStringBytes, nil)
	if err != nil {
		return nil, err
	}
	all, rest := make([]string, n), string(data)
	for i, l := range lengths {
		if int(l) > len(rest) {
			return nil, fmt.Errorf("%w: string %d of %d bytes, but %d are left", column.ErrCorrupt, i, l, len(rest))
		}
		all[i], rest = rest[:l], rest[l:]
	}
	if rest != "" {
		return nil, fmt.Errorf("%w: %d bytes of strings too many", column.ErrCorrupt, len(rest))
	}
	return all, nil
}

func decodeColumn(set *column.Set, i int, n uint32, limit uint64) ([]uint32, error) {
	if err := set.CheckCount(i, uint64(n)); err != nil {
		return nil, err
	}
	b, err := set.Column(i, nil)
	if err != nil {
		return nil, err
	}
	out := make([]uint32, n)
	return out, column.Uint32s(out, b, limit)
}
