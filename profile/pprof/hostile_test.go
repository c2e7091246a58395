package pprof_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/pprof"
)

func gzipped(t testing.TB, b []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestDecodeMinimal(t *testing.T) {
	p := new(profile.Profile)
	if err := pprof.NewDecoder().Decode(minimal().encode(), unlimited, p); err != nil {
		t.Fatal(err)
	}
	if p.Samples() != 2 || len(p.Locations) != 2 || p.Row(0)[0] != 10 || len(p.LabelsOf(1)) != 1 {
		t.Fatalf("decoded %+v", p)
	}
}

// Each case changes the minimal profile in one point; the error must name the point.
func TestDecodeRefusesMalformed(t *testing.T) {
	sample := func() *message { return new(message).list(2, true, 1) }
	zipped := gzipped(t, minimal().encode())
	minus := uint64(math.MaxUint64)
	minusFive := minus - 4
	noStrings := new(message)
	for _, f := range minimal().fields {
		if f.number != 6 {
			noStrings.raw(f.number, f.bytes)
		}
	}
	deep := []byte{}
	for range 5_000 {
		deep = new(message).blob(2, deep).encode()
	}
	cases := []struct {
		name string
		body []byte
		want string
	}{
		{"text", []byte("this is not a profile"), "malformed"},
		{"html", []byte("<html><body>502 Bad Gateway</body></html>"), "malformed"},
		{"empty", nil, "string_table"},
		{"gzip magic alone", []byte{0x1f, 0x8b}, "gunzip: unexpected EOF"},
		{"gzip header alone", zipped[:10], "gunzip: unexpected EOF"},
		{"gzip of nothing", gzipped(t, nil), "string_table"},
		{"truncated gzip", zipped[:len(zipped)-9], "gunzip: unexpected EOF"},
		{"gzip without its end", zipped[:len(zipped)-4], "gunzip: unexpected EOF"},
		{"gzip with a wrong checksum", append(bytes.Clone(zipped[:len(zipped)-5]), zipped[len(zipped)-5]^1, zipped[len(zipped)-4], zipped[len(zipped)-3], zipped[len(zipped)-2], zipped[len(zipped)-1]), "gunzip"},
		{"gzip with garbage behind", append(bytes.Clone(zipped), "garbage"...), "gunzip"},
		{"no string table", noStrings.encode(), "string_table: there is none"},
		{"string 0 not empty", new(message).blob(6, []byte("x")).encode(), "string 0 must be empty"},
		{"string not UTF-8", minimal().blob(6, []byte("\xff\xfe")).encode(), "string 6 is not UTF-8"},
		{"long string not UTF-8", minimal().blob(6, []byte("github.com/example/\xc3(project)")).encode(), "string 6 is not UTF-8"},
		{"no sample types", new(message).blob(6, nil).encode(), "sample_type: there is none"},
		{"type outside", minimal().nest(1, new(message).varint(1, 6)).encode(), "sample_type 1: type: string 6 is outside"},
		{"unit outside", minimal().nest(1, new(message).varint(2, 600)).encode(), "sample_type 1: unit: string 600 is outside"},
		{"period type outside", minimal().nest(11, new(message).varint(1, 6)).encode(), "period_type 0: type: string 6"},
		{"type negative", minimal().nest(1, new(message).varint(1, minus)).encode(), "sample_type 1: type: the string is negative"},
		{"mapping file outside", minimal().nest(3, new(message).varint(1, 2).varint(5, 99)).encode(), "mapping 1: filename: string 99"},
		{"mapping build id negative", minimal().nest(3, new(message).varint(1, 2).varint(6, minusFive)).encode(), "mapping 1: build_id: the string is negative"},
		{"function name outside", minimal().nest(5, new(message).varint(1, 2).varint(2, 6)).encode(), "function 1: name: string 6"},
		{"function system name 2^63", minimal().nest(5, new(message).varint(1, 2).varint(3, 1<<63)).encode(), "function 1: system_name: the string is negative"},
		{"function file 2^32", minimal().nest(5, new(message).varint(1, 2).varint(4, 1<<32)).encode(), "function 1: filename: the string is negative or far"},
		{"label key outside", minimal().nest(2, sample().nest(3, new(message).varint(1, 77))).encode(), "sample label 1: key: string 77"},
		{"label str negative", minimal().nest(2, sample().nest(3, new(message).varint(2, minus))).encode(), "sample label 1: str: the string is negative"},
		{"label unit outside", minimal().nest(2, sample().nest(3, new(message).varint(4, 6))).encode(), "sample label 1: num_unit: string 6"},
		{"location dangling", minimal().nest(2, sample().list(1, true, 3)).encode(), "sample 2: location_id: there is no location 3"},
		{"location zero", minimal().nest(2, sample().list(1, true, 0)).encode(), "sample 2: location_id: there is no location 0"},
		{"location zero unpacked", minimal().nest(2, sample().list(1, false, 0)).encode(), "sample 2: location_id: there is no location 0"},
		{"location negative", minimal().nest(2, sample().list(1, true, minus)).encode(), "sample 2: location_id: there is no location 18446744073709551615"},
		{"location 2^63 unpacked", minimal().nest(2, sample().list(1, false, 1<<63)).encode(), "sample 2: location_id: there is no location 9223372036854775808"},
		{"location 2^32", minimal().nest(2, sample().list(1, true, 1<<32)).encode(), "there is no location 4294967296"},
		{"location 2^32-1", minimal().nest(2, sample().list(1, true, math.MaxUint32)).encode(), "there is no location 4294967295"},
		{"mapping dangling", minimal().nest(4, new(message).varint(1, 3).varint(2, 2)).encode(), "location 2: mapping_id: there is no mapping 2"},
		{"mapping negative", minimal().nest(4, new(message).varint(1, 3).varint(2, minus)).encode(), "there is no mapping 18446744073709551615"},
		{"function dangling", minimal().nest(4, new(message).varint(1, 3).nest(4, new(message).varint(1, 2))).encode(), "function_id: there is no function 2"},
		{"function zero", minimal().nest(4, new(message).varint(1, 3).nest(4, new(message).varint(2, 2))).encode(), "function_id: there is no function 0"},
		{"function 2^63", minimal().nest(4, new(message).varint(1, 3).nest(4, new(message).varint(1, 1<<63))).encode(), "there is no function 9223372036854775808"},
		{"duplicate location", minimal().nest(4, new(message).varint(1, 2)).encode(), "location: entries 1 and 2 have the same id 2"},
		{"duplicate function", minimal().nest(5, new(message).varint(1, 1)).encode(), "function: entries 0 and 1 have the same id 1"},
		{"duplicate mapping", minimal().nest(3, new(message).varint(1, 1)).encode(), "mapping: entries 0 and 1 have the same id 1"},
		{"duplicate sparse function", minimal().nest(5, new(message).varint(1, 1<<50)).nest(5, new(message).varint(1, 1<<50)).encode(), "have the same id 1125899906842624"},
		{"location without id", minimal().nest(4, new(message)).encode(), "location at byte 123: entry 2 has no id"},
		{"function id 0", minimal().nest(5, new(message).varint(1, 0)).encode(), "entry 1 has no id"},
		{"too few values", minimal().nest(2, new(message).list(1, true, 1)).encode(), "sample 2: value: there are 0 for 1 sample types"},
		{"too many values", minimal().nest(2, new(message).list(2, false, 1, 2)).encode(), "sample 2: value: there are 2 for 1 sample types"},
		{"a million values", minimal().nest(2, new(message).blob(2, make([]byte, 1<<20))).encode(), "sample at byte 123: it has more than 32 values"},
		{"a million values in two parts", minimal().nest(2, new(message).blob(2, make([]byte, 300)).blob(2, make([]byte, 300))).encode(), "it has more than 32 values"},
		{"33 values one by one", minimal().nest(2, new(message).list(2, false, make([]uint64, 33)...)).encode(), "it has more than 32 values"},
		{"a million empty lines", minimal().nest(4, new(message).varint(1, 3).raw(0, bytes.Repeat([]byte{4<<3 | 2, 0}, 1<<20))).encode(), "nearly all of which are empty"},
		{"length past the end", append(minimal().encode(), 2<<3|2, 100, 1), "sample at byte 123: it ends in the middle"},
		{"length 2^31", append(minimal().encode(), new(message).raw(0, []byte{6<<3 | 2, 0x80, 0x80, 0x80, 0x80, 0x08}).encode()...), "string_table at byte 123: it ends"},
		{"length 2^63", append(minimal().encode(), 4<<3|2, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01), "location at byte 123: it ends"},
		{"length 2^64-1 of an unknown field", append(minimal().encode(), append([]byte{0xa2, 0x06}, bytes.Repeat([]byte{0xff}, 9)...)...), "it ends in the middle"},
		{"varint of eleven bytes", append(minimal().encode(), append([]byte{12 << 3}, bytes.Repeat([]byte{0x80}, 11)...)...), "it ends"},
		{"nested length past the end", minimal().blob(4, []byte{1 << 3, 3, 4<<3 | 2, 50}).encode(), "location at byte 123: it ends in the middle"},
		{"value cut off", minimal().nest(2, new(message).blob(2, []byte{0x80})).encode(), "value: it ends in the middle"},
		{"location cut off", minimal().nest(2, new(message).blob(1, []byte{0x80})).encode(), "location_id: it ends in the middle"},
		{"string as a number", minimal().varint(6, 1).encode(), "field 6 may not have the wire type 0"},
		{"sample as a number", minimal().varint(2, 1).encode(), "field 2 may not have the wire type 0"},
		{"address as fixed64", minimal().nest(4, new(message).varint(1, 3).raw(3, append([]byte{3<<3 | 1}, make([]byte, 8)...))).encode(), "field 3 may not have the wire type 1"},
		{"group", minimal().raw(20, []byte{0xa3, 0x01, 0xa4, 0x01}).encode(), "field 20 has the wire type 3"},
		{"end of a group", minimal().raw(20, []byte{0xa4, 0x01}).encode(), "field 20 has the wire type 4"},
		{"wire type 6", minimal().raw(20, []byte{0xa6, 0x01}).encode(), "field 20 has the wire type 6"},
		{"wire type 7", minimal().raw(20, []byte{0xa7, 0x01}).encode(), "field 20 has the wire type 7"},
		{"field number 0", minimal().raw(0, []byte{0x00, 0x01}).encode(), "field number 0"},
		{"field number 2^40", minimal().raw(0, []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0x01}).encode(), "is not valid"},
		{"deeply nested", minimal().blob(2, deep).encode(), "malformed"},
	}
	d, p := pprof.NewDecoder(), new(profile.Profile)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := d.Decode(c.body, limits, p)
			if !errors.Is(err, pprof.ErrMalformed) || errors.Is(err, pprof.ErrTooLarge) {
				t.Fatalf("error %v, want ErrMalformed", err)
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("error %q, want %q in it, on one line", err, c.want)
			}
			// Nothing of it sticks to the decoder.
			if err := d.Decode(minimal().encode(), limits, p); err != nil || p.Samples() != 2 {
				t.Fatalf("the next profile: %v", err)
			}
		})
	}
}

func TestDecodeLimits(t *testing.T) {
	bomb := gzipped(t, make([]byte, 32<<20))
	ratio := gzipped(t, make([]byte, 3<<20))
	many := minimal()
	for range 100 {
		many.nest(2, new(message).list(1, true, 1).list(2, true, 1))
	}
	labels := new(message).list(2, true, 1)
	for range 101 {
		labels.nest(3, new(message).varint(1, 5).varint(2, 3))
	}
	types := minimal()
	for range 32 {
		types.nest(1, new(message).varint(1, 1))
	}
	raw := minimal().encode()
	cases := []struct {
		name string
		body []byte
		lim  pprof.Limits
		want pprof.LimitError
	}{
		{"bomb", bomb, limits, pprof.LimitError{What: "bytes", Limit: 4 << 20}},
		{"bomb by its ratio", bomb, pprof.Limits{MaxBytes: 1 << 30, MaxRatio: 200}, pprof.LimitError{What: "bytes inflated per byte sent", Limit: 200}},
		{"ratio of a small one", ratio, limits, pprof.LimitError{What: "bytes inflated per byte sent", Limit: 200}},
		{"raw bytes", raw, pprof.Limits{MaxBytes: len(raw) - 1}, pprof.LimitError{What: "bytes", Limit: len(raw) - 1}},
		{"gzipped bytes", gzipped(t, raw), pprof.Limits{MaxBytes: len(raw) - 1}, pprof.LimitError{What: "bytes", Limit: len(raw) - 1}},
		{"samples", many.encode(), pprof.Limits{MaxSamples: 101}, pprof.LimitError{What: "samples", Limit: 101}},
		{"sample labels", minimal().nest(2, labels).encode(), limits, pprof.LimitError{What: "labels of a sample", Limit: 100}},
		{"sample types", types.encode(), limits, pprof.LimitError{What: "sample types", Limit: 32}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := new(profile.Profile)
			err := pprof.NewDecoder().Decode(c.body, c.lim, p)
			var le *pprof.LimitError
			if !errors.Is(err, pprof.ErrTooLarge) || errors.Is(err, pprof.ErrMalformed) || !errors.As(err, &le) || *le != c.want {
				t.Fatalf("error %v, want %v", err, &c.want)
			}
			if got, most := p.Bytes(), max(limits.MaxBytes, c.lim.MaxBytes)+(8<<20); c.lim.MaxBytes < 1<<30 && got > most {
				t.Errorf("the profile holds %d bytes, want at most %d", got, most)
			}
		})
	}
	// Exactly at the limit is allowed.
	for _, body := range [][]byte{raw, gzipped(t, raw)} {
		if err := pprof.NewDecoder().Decode(body, pprof.Limits{MaxBytes: len(raw), MaxSamples: 2, MaxSampleTypes: 1, MaxSampleLabels: 1}, new(profile.Profile)); err != nil {
			t.Error(err)
		}
	}
}

// A bomb is given up as soon as it passes the limit, wherever the limit comes from.
func TestDecodeBombCostsLittleMemory(t *testing.T) {
	bomb := gzipped(t, make([]byte, 64<<20))
	p := new(profile.Profile)
	if err := pprof.NewDecoder().Decode(bomb, limits, p); !errors.Is(err, pprof.ErrTooLarge) {
		t.Fatal(err)
	}
	if got := p.Bytes(); got > 9<<20 {
		t.Errorf("the profile holds %d bytes after a bomb with a limit of 4 MiB", got)
	}
}

func TestDecodeSeveralGzipMembers(t *testing.T) {
	f := corpus.Get("compress-cpu-0")
	raw := f.Raw()
	half := len(raw) / 2
	body := append(gzipped(t, raw[:half]), gzipped(t, raw[half:])...)
	d := pprof.NewDecoder()
	one, two := new(profile.Profile), new(profile.Profile)
	if err := d.Decode(f.Gzipped, limits, one); err != nil {
		t.Fatal(err)
	}
	if err := d.Decode(body, limits, two); err != nil {
		t.Fatal(err)
	}
	sameText(t, f.Name, describe(two), describe(one))
}

// Whatever a real profile is cut or flipped into, there is an answer and never a panic; and what is
// accepted is sound.
func TestDecodeSurvivesDamage(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	raw := corpus.Get("api-gateway-cpu-0").Raw()
	d, p := pprof.NewDecoder(), new(profile.Profile)
	accepted := 0
	for range 1000 {
		b := bytes.Clone(raw)
		for range 1 + rnd.IntN(3) {
			b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
		}
		if rnd.IntN(4) == 0 {
			b = b[:rnd.IntN(len(b))]
		}
		err := d.Decode(b, limits, p)
		if err == nil {
			accepted++
			sound(t, p)
			continue
		}
		if !errors.Is(err, pprof.ErrMalformed) && !errors.Is(err, pprof.ErrTooLarge) {
			t.Fatalf("error of another kind: %v", err)
		}
	}
	if accepted == 0 {
		t.Error("no damaged profile was accepted: flips inside of names must be")
	}
}
