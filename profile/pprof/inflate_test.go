package pprof_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"testing"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/pprof"
)

// named returns b as gzip with a file name in its header, which only the general decoder takes.
func named(t testing.TB, b []byte, level int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Name = "profile.pb"
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Whatever a client's compressor does, the same bytes come out: those that came in.
func TestDecodeInflatesEveryLevel(t *testing.T) {
	d, p := pprof.NewDecoder(), new(profile.Profile)
	for _, f := range corpus.All() {
		raw := f.Raw()
		for level := gzip.HuffmanOnly; level <= gzip.BestCompression; level++ {
			unusual := named(t, raw, level)
			// Without the flag and the name it is plain.
			plain := append(bytes.Clone(unusual[:10]), unusual[10+len("profile.pb")+1:]...)
			plain[3] = 0
			for what, body := range map[string][]byte{"plain": plain, "with a name": unusual} {
				if err := d.Decode(body, limits, p); err != nil {
					t.Fatalf("%s, level %d, %s: %v", f.Name, level, what, err)
				}
				if !bytes.Equal(p.Data, raw) {
					t.Fatalf("%s, level %d, %s: other bytes came out", f.Name, level, what)
				}
			}
		}
	}
}

// The limits hold for both decoders, and whatever the trailer says.
func TestLimitsHoldHoweverGzipIsWritten(t *testing.T) {
	zeros := make([]byte, 8<<20)
	plain := gzipped(t, zeros)
	lying := bytes.Clone(plain)
	copy(lying[len(lying)-4:], []byte{1, 0, 0, 0})
	bodies := map[string][]byte{
		"plain": plain, "with a name": named(t, zeros, gzip.BestSpeed), "a trailer that lies": lying,
		"a small member behind": append(bytes.Clone(plain), gzipped(t, []byte("x"))...),
		"a small member before": append(gzipped(t, []byte("x")), plain...),
	}
	for what, body := range bodies {
		for _, c := range []struct {
			lim  pprof.Limits
			want string
		}{
			{pprof.Limits{MaxBytes: 2 << 20}, "bytes"},
			{pprof.Limits{MaxBytes: 64 << 20, MaxRatio: 100}, "bytes inflated per byte sent"},
		} {
			p := new(profile.Profile)
			err := pprof.NewDecoder().Decode(body, c.lim, p)
			var le *pprof.LimitError
			if !errors.As(err, &le) || le.What != c.want {
				t.Errorf("%s: %v, want the limit of %s", what, err, c.want)
			}
			if p.Bytes() > 5<<20 {
				t.Errorf("%s: the profile holds %d bytes", what, p.Bytes())
			}
		}
	}
}

// A pool can tell what a profile with many ids left behind in a decoder.
func TestDecoderSaysWhatItKeeps(t *testing.T) {
	m := minimal()
	for i := range uint64(30_000) {
		m.nest(4, new(message).varint(1, 1<<40+i*i))
	}
	d, p := pprof.NewDecoder(), new(profile.Profile)
	if err := d.Decode(m.encode(), unlimited, p); err != nil {
		t.Fatal(err)
	}
	large := d.Bytes()
	if large < 30_000*4 {
		t.Errorf("a decoder that has seen 30,000 locations says that it holds %d bytes", large)
	}
	if err := d.Decode(minimal().encode(), unlimited, p); err != nil {
		t.Fatal(err)
	}
	if got := d.Bytes(); got > large {
		t.Errorf("%d bytes after a small profile, %d before", got, large)
	}
}
