package inspecttest

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
)

// tailSize is length and CRC of the footer, version and magic.
const tailSize = 13

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Edit changes the footer of an object and seals it again, as somebody would who knows the format.
func Edit(t testing.TB, o Object, change func(m *storagev1.BlockMeta)) Object {
	t.Helper()
	meta, err := block.ReadMeta(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	tail := o[len(o)-tailSize:]
	body := o[:len(o)-tailSize-int(binary.LittleEndian.Uint32(tail))]
	change(meta)
	meta.Size = 1 // any number but 0 takes as many bytes
	meta.Size = uint64(len(body) + proto.Size(meta) + tailSize)
	footer, err := proto.Marshal(meta)
	if err != nil {
		t.Fatal(err)
	}
	out := append(bytes.Clone(body), footer...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(footer)))
	out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(footer, castagnoli))
	return append(out, tail[8:]...)
}

// Reseal is Edit for an object whose sections were changed: each gets the CRC that its bytes have.
func Reseal(t testing.TB, o Object) Object {
	t.Helper()
	return Edit(t, o, func(m *storagev1.BlockMeta) {
		for _, g := range m.Groups {
			for _, s := range g.Sections {
				s.Crc = crc32.Checksum(o[s.Offset:s.Offset+s.Length], castagnoli)
			}
		}
	})
}
