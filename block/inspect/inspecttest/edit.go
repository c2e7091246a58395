package inspecttest

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"slices"
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
	change(meta)
	return seal(t, o[:len(o)-tailSize-int(binary.LittleEndian.Uint32(o[len(o)-tailSize:]))], meta)
}

// seal ends sections with a footer.
func seal(t testing.TB, body []byte, meta *storagev1.BlockMeta) Object {
	t.Helper()
	meta.Size = 1 // any number but 0 takes as many bytes
	meta.Size = uint64(len(body) + proto.Size(meta) + tailSize)
	footer, err := proto.Marshal(meta)
	if err != nil {
		t.Fatal(err)
	}
	out := append(bytes.Clone(body), footer...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(footer)))
	out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(footer, castagnoli))
	return append(out, "\x01KILN"...)
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

// Replace is Edit with other bytes for one section, whatever their length.
func Replace(t testing.TB, o Object, group, section int, b []byte) Object {
	t.Helper()
	meta := Open(t, o).Meta()
	var all []*storagev1.Section
	for _, g := range meta.Groups {
		all = append(all, g.Sections...)
	}
	slices.SortFunc(all, func(a, b *storagev1.Section) int { return cmp.Compare(a.Offset, b.Offset) })
	changed := meta.Groups[group].Sections[section]
	body := bytes.Clone(o[:all[0].Offset])
	offsets := map[uint64]uint64{} // new by old
	for _, s := range all {
		offsets[s.Offset] = uint64(len(body))
		if s == changed {
			body = append(body, b...)
		} else {
			body = append(body, o[s.Offset:s.Offset+s.Length]...)
		}
	}
	meta.Groups[group].Sections[section].Length = uint64(len(b))
	for _, s := range all {
		s.Offset = offsets[s.Offset]
		s.Crc = crc32.Checksum(body[s.Offset:s.Offset+s.Length], castagnoli)
	}
	return seal(t, body, meta)
}
