package objstoretest

import (
	"bytes"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/kilndb/kiln/objstore"
)

// zstdMagic is how a zstd frame begins.
var zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

// Holding returns the keys of the objects that have any of the texts in them, as they lie there or in any zstd frame.
func Holding(t testing.TB, bucket objstore.Bucket, texts ...string) (keys []string) {
	t.Helper()
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer decoder.Close()
	if err := bucket.List(t.Context(), "", func(a objstore.Attributes) error {
		object, err := bucket.Get(t.Context(), a.Key)
		if err == nil && holds(decoder, object, texts) {
			keys = append(keys, a.Key)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	return keys
}

func holds(decoder *zstd.Decoder, object []byte, texts []string) bool {
	pieces := [][]byte{object}
	for i := range object {
		if bytes.HasPrefix(object[i:], zstdMagic) {
			// What follows the frame is not one, but what is inside is out by then.
			inflated, _ := decoder.DecodeAll(object[i:], nil)
			pieces = append(pieces, inflated)
		}
	}
	return slices.ContainsFunc(pieces, func(p []byte) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return bytes.Contains(p, []byte(text)) })
	})
}
