package block

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// resealed gives an object with damaged sections a footer with the right CRCs.
func resealed(t testing.TB, b []byte) []byte {
	t.Helper()
	n := int(binary.LittleEndian.Uint32(b[len(b)-tailSize:]))
	footer := b[len(b)-tailSize-n : len(b)-tailSize]
	meta := &storagev1.BlockMeta{}
	if err := proto.Unmarshal(footer, meta); err != nil {
		t.Fatal(err)
	}
	for _, g := range meta.Groups {
		for _, s := range g.Sections {
			s.Crc = crc32.Checksum(b[s.Offset:s.Offset+s.Length], castagnoli)
		}
	}
	return withFooter(t, b[:len(b)-tailSize-n], meta)
}

// withFooter ends sections with a footer.
func withFooter(t testing.TB, sections []byte, meta *storagev1.BlockMeta) []byte {
	t.Helper()
	footer, err := encodeFooter(nil, meta, uint64(len(sections)))
	if err != nil {
		t.Fatal(err)
	}
	return append(bytes.Clone(sections), footer...)
}
