package block

import (
	"fmt"

	"github.com/parquet-go/parquet-go/encoding/thrift"

	"github.com/kilndb/kiln/block/column"
)

// Types of the thrift compact protocol, in which Parquet writes its metadata.
const (
	thriftTrue   = 1
	thriftFalse  = 2
	thriftByte   = 3
	thriftInt16  = 4
	thriftInt32  = 5
	thriftInt64  = 6
	thriftDouble = 7
	thriftBinary = 8
	thriftList   = 9
	thriftSet    = 10
	thriftStruct = 12

	// thriftDepth is how deep Parquet's metadata may nest: a footer has 6 levels.
	thriftDepth = 16
)

// decodeThrift decodes the struct at the beginning of b and returns its length. It walks the struct before it lets
// parquet-go decode it, because that makes room for whatever length a list or string claims.
func decodeThrift(b []byte, v any) (n int, err error) {
	c := column.Cursor{Data: b}
	walkStruct(&c, 0)
	if c.Err != nil {
		return 0, c.Err
	}
	var compact thrift.CompactProtocol
	if err := thrift.NewDecoder(compact.NewReaderFromBytes(b[:c.Pos])).Decode(v); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return c.Pos, nil
}

func walkStruct(c *column.Cursor, depth int) {
	if depth > thriftDepth {
		c.Err = fmt.Errorf("%w: metadata nested more than %d deep", ErrCorrupt, thriftDepth)
	}
	for c.Err == nil {
		b := c.Byte()
		if b == 0 {
			return
		}
		if b>>4 == 0 {
			c.Uvarint() // the id of the field, in full
		}
		switch t := b & 0xf; t {
		case thriftTrue, thriftFalse: // the type is the value
		default:
			walkValue(c, t, depth)
		}
	}
}

func walkValue(c *column.Cursor, t byte, depth int) {
	switch t {
	case thriftTrue, thriftFalse, thriftByte:
		c.Byte()
	case thriftInt16, thriftInt32, thriftInt64:
		c.Uvarint()
	case thriftDouble:
		walkBytes(c, 8)
	case thriftBinary:
		walkBytes(c, c.Uvarint())
	case thriftList, thriftSet:
		walkList(c, depth)
	case thriftStruct:
		walkStruct(c, depth+1)
	default:
		c.Err = fmt.Errorf("%w: metadata of type %d at byte %d", ErrCorrupt, t, c.Pos)
	}
}

func walkBytes(c *column.Cursor, n uint64) {
	if c.Err == nil && n > uint64(len(c.Data)-c.Pos) {
		c.Err = fmt.Errorf("%w: metadata claims %d bytes, %d are left", ErrCorrupt, n, len(c.Data)-c.Pos)
	}
	if c.Err == nil {
		c.Pos += int(n)
	}
}

func walkList(c *column.Cursor, depth int) {
	if depth > thriftDepth {
		c.Err = fmt.Errorf("%w: metadata nested more than %d deep", ErrCorrupt, thriftDepth)
		return
	}
	b := c.Byte()
	n := uint64(b >> 4)
	if n == 15 {
		n = c.Uvarint()
	}
	// Every item takes at least a byte.
	if c.Err == nil && n > uint64(len(c.Data)-c.Pos) {
		c.Err = fmt.Errorf("%w: metadata claims %d items, %d bytes are left", ErrCorrupt, n, len(c.Data)-c.Pos)
	}
	for ; n > 0 && c.Err == nil; n-- {
		walkValue(c, b&0xf, depth+1)
	}
}
