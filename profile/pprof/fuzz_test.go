package pprof_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/pprof"
)

// FuzzDecode: nothing panics, refusals are of the two kinds, and what is accepted is sound, survives being written
// and read again, and goes the whole way into a head.
func FuzzDecode(f *testing.F) {
	f.Add(minimal().encode())
	f.Add(gzipped(f, minimal().encode()))
	f.Add(minimal().nest(4, new(message).varint(1, 1<<60).varint(2, 1)).nest(2, new(message).list(1, false, 1<<60, 1).list(2, false, 3)).encode())
	f.Add([]byte{0x1f, 0x8b, 8, 0})
	for _, name := range []string{"compress-block-0", "api-gateway-mutex-0"} {
		f.Add(corpus.Get(name).Gzipped)
	}
	var h head
	h.init()
	d, p, again := pprof.NewDecoder(), new(profile.Profile), new(profile.Profile)
	f.Fuzz(func(t *testing.T, body []byte) {
		if err := d.Decode(body, limits, p); err != nil {
			if !errors.Is(err, pprof.ErrMalformed) && !errors.Is(err, pprof.ErrTooLarge) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		sound(t, p)
		written := pprof.Append(nil, p)
		if err := d.Decode(written, unlimited, again); err != nil {
			t.Fatalf("read what was written: %v", err)
		}
		if !bytes.Equal(pprof.Append(nil, again), written) {
			t.Fatal("writing again gives other bytes")
		}
		if len(body) < 4096 {
			sameText(t, "written and read", describe(again), describe(p))
		}
		if _, err := p.Normalise(profile.Limits{MaxStackDepth: 16, MaxSymbolLength: 64}); err != nil {
			if !errors.Is(err, profile.ErrOverflow) {
				t.Fatal(err)
			}
			return
		}
		sound(t, p)
		h.table.Reset()
		h.table.Add(&p.Symbols, &h.remap)
	})
}
