package block

import (
	"hash/crc32"
	"testing"

	"pgregory.net/rapid"
)

func TestJoinCRC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 5000).Draw(t, "bytes")
		n := rapid.IntRange(0, len(b)).Draw(t, "cut")
		got := joinCRC(crc32.Checksum(b[:n], castagnoli), crc32.Checksum(b[n:], castagnoli), uint64(len(b)-n))
		if want := crc32.Checksum(b, castagnoli); got != want {
			t.Fatalf("%d and %d bytes join to %08x, want %08x", n, len(b)-n, got, want)
		}
	})
}
