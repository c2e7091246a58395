package inflate_test

import (
	"bytes"
	"compress/gzip"
	"testing"
)

// FuzzGunzip: whatever the bytes, the standard library says the same.
func FuzzGunzip(f *testing.F) {
	for _, content := range contents(f) {
		if len(content) < 10_000 {
			f.Add(compressed(f, 6, content))
		}
	}
	var c checker
	f.Fuzz(func(t *testing.T, src []byte) { _ = c.check(t, src) })
}

// FuzzDeflate gives any deflate the trailer that fits, so that what is accepted is compared too.
func FuzzDeflate(f *testing.F) {
	for _, content := range contents(f) {
		for _, level := range []int{gzip.HuffmanOnly, 1, 6} {
			if src := compressed(f, level, content); len(src) < 5000 {
				f.Add(src[10 : len(src)-8])
			}
		}
	}
	var c checker
	f.Fuzz(func(t *testing.T, deflated []byte) { _ = c.check(t, member(deflated)) })
}

// FuzzRoundTrip: what the standard library compresses comes back.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("aaaaaaaaaaaaaaaaaaaaaaaaaaab"), uint8(6))
	var c checker
	f.Fuzz(func(t *testing.T, content []byte, level uint8) {
		if err := c.check(t, compressed(t, int(level%12)-2, content)); err != nil || !bytes.Equal(c.memory, content) {
			t.Fatalf("%v: %d bytes came of %d", err, len(c.memory), len(content))
		}
	})
}
