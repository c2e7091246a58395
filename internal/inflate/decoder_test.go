package inflate_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/kilndb/kiln/internal/inflate"
)

func compressed(t testing.TB, level int, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// contents are texts of every nature that the tables and copies tell apart.
func contents(t testing.TB) map[string][]byte {
	source, err := os.ReadFile("decoder_test.go")
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 100_000)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	var skewed []byte // symbols of very different frequency get codes of up to 15 bits
	for len(skewed) < 300_000 {
		skewed = append(skewed, byte(255*rnd.Float64()*rnd.Float64()*rnd.Float64()*rnd.Float64()*rnd.Float64()))
	}
	all := map[string][]byte{
		"nothing": {}, "a byte": {'x'}, "source": source, "much source": bytes.Repeat(source, 40),
		"zeros": make([]byte, limit), "noise": noise, "skewed": skewed,
		"far copies": append(append(append([]byte{}, noise[:32_768]...), noise[:500]...), noise[:32_000]...),
	}
	for period := 1; period <= 20; period++ {
		all[fmt.Sprint("period ", period)] = append(bytes.Repeat(noise[:period], 1+3000/period), "the end"...)
	}
	return all
}

func TestGunzipTakesWhatCompressorsWrite(t *testing.T) {
	var c checker
	for name, content := range contents(t) {
		for level := gzip.HuffmanOnly; level <= gzip.BestCompression; level++ {
			if err := c.check(t, compressed(t, level, content)); err != nil {
				t.Errorf("%s, level %d: %v", name, level, err)
			}
			if !bytes.Equal(c.memory, content) {
				t.Errorf("%s, level %d: %d bytes came of %d", name, level, len(c.memory), len(content))
			}
		}
	}
}

// deep is a complete code whose lengths are 1, 2, 3 and so on, the last one twice: the longest codes that there are.
func deep(symbols ...int) map[int]int {
	of := map[int]int{}
	for i, s := range symbols {
		of[s] = min(i+1, len(symbols)-1)
	}
	return of
}

// Each case is a stream by hand, with what must become of it. The standard library is asked as well.
func TestGunzipAcceptsWhatTheStandardLibraryAccepts(t *testing.T) {
	const good, corrupt, unusual = "good", "corrupt", "unusual"
	one := map[int]int{0: 1}
	two := map[int]int{0: 1, 1: 1}
	cases := []struct {
		name string
		s    *stream
		want string
	}{
		{"fixed", header(1).fixed('a').fixed(200).fixed(256), good},
		{"fixed, nothing", header(1).fixed(256), good},
		{"fixed, copy", header(1).fixed('a').fixed(257+28).code(0, 5).fixed(256), good},
		{"fixed, length 284 with all extra bits", header(1).fixed('a').fixed(284).bits(31, 5).code(0, 5).fixed(256), good},
		{"fixed, copy of nothing", header(1).fixed(257).code(0, 5).fixed(256), corrupt},
		{"fixed, distance too far", header(1).fixed('a').fixed('b').fixed(257).code(2, 5).fixed(256), corrupt},
		{"fixed, distance 24577", header(1).fixed('a').fixed(257).code(29, 5).bits(0, 13).fixed(256), corrupt},
		{"fixed, distance 30", header(1).fixed('a').fixed(257).code(30, 5).fixed(256), corrupt},
		{"fixed, distance 31", header(1).fixed('a').fixed(257).code(31, 5).fixed(256), corrupt},
		{"fixed, literal 286", header(1).fixed(286).fixed(256), corrupt},
		{"fixed, literal 287", header(1).fixed(287).fixed(256), corrupt},
		{"fixed, no end", header(1).fixed('a').fixed('b').fixed('c'), unusual},
		{"type 3", header(3).bits(0, 30), corrupt},
		{"nothing at all", new(stream), unusual},
		{"two blocks", new(stream).bits(0, 1).bits(1, 2).fixed('a').fixed(256).bits(1, 1).bits(1, 2).fixed('b').fixed(257).code(1, 5).fixed(256), good},
		{"a block after the last", header(1).fixed('a').fixed(256).bits(1, 1).bits(1, 2).fixed('b').fixed(256).bits(0, 16), unusual},
		{"stored", header(0).bits(0, 5).bits(3, 16).bits(^3, 16).bits('a', 8).bits('b', 8).bits('c', 8), good},
		{"stored, nothing", header(0).bits(0, 5).bits(0, 16).bits(^0, 16), good},
		{"stored, bits before it", header(0).bits(31, 5).bits(1, 16).bits(^1, 16).bits('a', 8), good},
		{"stored, wrong inverse", header(0).bits(0, 5).bits(3, 16).bits(3, 16).bits('a', 8).bits('b', 8).bits('c', 8), corrupt},
		{"stored, too short", header(0).bits(0, 5).bits(300, 16).bits(^300, 16).bits('a', 8), unusual},
		{"stored after fixed", new(stream).bits(0, 1).bits(1, 2).fixed('a').fixed(256).bits(1, 1).bits(0, 2).bits(0, 3).bits(2, 16).bits(^2, 16).bits('x', 8).bits('y', 8), good},
		{"dynamic", dynamic(lengths(257, map[int]int{'a': 1, 256: 1}), lengths(1, nil)).code(0, 1).code(0, 1).code(1, 1), good},
		{"dynamic, one code alone", dynamic(lengths(257, map[int]int{256: 1}), lengths(1, nil)).code(0, 1), good},
		{"dynamic, the bits that are no code", dynamic(lengths(257, map[int]int{256: 1}), lengths(1, nil)).code(1, 1).bits(0, 30), corrupt},
		{"dynamic, one code of two bits", dynamic(lengths(257, map[int]int{256: 2}), lengths(1, nil)).code(0, 2), corrupt},
		{"dynamic, no literals", dynamic(lengths(257, nil), lengths(1, nil)).bits(0, 30), corrupt},
		{"dynamic, incomplete", dynamic(lengths(257, map[int]int{'a': 1, 'b': 3, 256: 3}), lengths(1, nil)).code(7, 3), corrupt},
		{"dynamic, oversubscribed", dynamic(lengths(257, map[int]int{'a': 1, 'b': 1, 256: 1}), lengths(1, nil)).code(0, 1), corrupt},
		{"dynamic, oversubscribed deep", dynamic(lengths(257, map[int]int{'a': 1, 'b': 2, 'c': 3, 'd': 3, 256: 15}), lengths(1, nil)).code(0, 1), corrupt},
		{"dynamic, 15 bits", dynamic(lengths(257, deep('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 256)), lengths(1, nil)).
			code(1<<14-2, 14).code(1<<15-2, 15).code(0, 1).code(1<<13-2, 13).code(1<<12-2, 12).code(1<<11-2, 11).code(1<<15-1, 15), good},
		{"dynamic, one distance alone", dynamic(lengths(258, map[int]int{'a': 1, 256: 2, 257: 2}), lengths(1, one)).code(0, 1).code(3, 2).code(0, 1).code(2, 2), good},
		{"dynamic, the distance that is no code", dynamic(lengths(258, map[int]int{'a': 1, 256: 2, 257: 2}), lengths(1, one)).code(0, 1).code(3, 2).code(1, 1).code(2, 2).bits(0, 30), corrupt},
		{"dynamic, a copy without distances", dynamic(lengths(258, map[int]int{'a': 1, 256: 2, 257: 2}), lengths(1, nil)).code(0, 1).code(3, 2).code(0, 1).code(2, 2).bits(0, 30), corrupt},
		{"dynamic, two distances", dynamic(lengths(258, map[int]int{'a': 1, 256: 2, 257: 2}), lengths(2, two)).code(0, 1).code(0, 1).code(3, 2).code(1, 1).code(2, 2), good},
		{"dynamic, distances of 15 bits", dynamic(lengths(258, map[int]int{'a': 1, 256: 2, 257: 2}), lengths(16, deep(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0))).
			code(0, 1).code(0, 1).code(3, 2).code(1<<15-1, 15).code(3, 2).code(1<<15-2, 15).code(3, 2).code(1<<14-2, 14).code(2, 2), good},
		{"dynamic, oversubscribed distances", dynamic(lengths(257, map[int]int{'a': 1, 256: 1}), lengths(3, map[int]int{0: 1, 1: 1, 2: 1})).code(1, 1), corrupt},
		{"dynamic, incomplete distances", dynamic(lengths(257, map[int]int{'a': 1, 256: 1}), lengths(3, map[int]int{0: 2, 1: 2, 2: 2})).code(1, 1), corrupt},
		{"dynamic, 286 literals, 30 distances", dynamic(lengths(286, map[int]int{'a': 1, 256: 1}), lengths(30, nil)).code(1, 1), good},
		{"dynamic, 287 literals", dynamic(lengths(287, map[int]int{'a': 1, 256: 1}), lengths(1, nil)).code(1, 1), corrupt},
		{"dynamic, 31 distances", dynamic(lengths(257, map[int]int{'a': 1, 256: 1}), lengths(31, nil)).code(1, 1), corrupt},
		{"dynamic, no code of code lengths", header(2).bits(0, 5).bits(0, 5).bits(0, 4).bits(0, 12).bits(0, 64), corrupt},
		{"dynamic, repetition of no length", header(2).bits(0, 5).bits(0, 5).bits(0, 4).bits(1, 3).bits(1, 3).bits(0, 6).code(0, 1).bits(0, 64), corrupt},
		{"dynamic, repetition too long", header(2).bits(0, 5).bits(0, 5).bits(0, 4).bits(0, 3).bits(1, 3).bits(1, 3).bits(0, 3).
			code(1, 1).bits(127, 7).code(1, 1).bits(127, 7).bits(0, 64), corrupt},
		{"dynamic, cut off", header(2).bits(0, 5), unusual},
	}
	var c checker
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			err := c.check(t, member(tc.s.bytes))
			got := good
			switch {
			case errors.Is(err, inflate.ErrCorrupt):
				got = corrupt
			case err != nil:
				got = unusual
			}
			if got != tc.want {
				t.Errorf("%s (%v), want %s", got, err, tc.want)
			}
		})
	}
}

func TestGunzipLeavesTheUnusualToOthers(t *testing.T) {
	good := compressed(t, 6, []byte("some text, some text, some text"))
	changed := func(i int, v byte) []byte {
		b := bytes.Clone(good)
		b[i] = v
		return b
	}
	cases := map[string][]byte{
		"nothing": {}, "magic": good[:2], "header": good[:10], "no trailer": good[:len(good)-8], "cut": good[:len(good)-1],
		"two members": append(bytes.Clone(good), good...), "garbage behind": append(bytes.Clone(good), "garbage"...),
		"no magic": changed(0, 0), "method": changed(2, 7), "name": changed(3, 8), "header checksum": changed(3, 2), "reserved flag": changed(3, 128),
		"size too small": changed(len(good)-4, 5), "far too large": changed(len(good)-1, 0x3f), "beyond the ratio": changed(len(good)-2, 0x0f),
	}
	var c checker
	for name, src := range cases {
		if err := c.check(t, src); !errors.Is(err, inflate.ErrUnusual) {
			t.Errorf("%s: %v, want ErrUnusual", name, err)
		}
	}
	for name, src := range map[string][]byte{
		"checksum": changed(len(good)-5, good[len(good)-5]^1), "size too large": changed(len(good)-4, 100),
	} {
		if err := c.check(t, src); !errors.Is(err, inflate.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}

func TestGunzipKeepsTheLimit(t *testing.T) {
	text := []byte(strings.Repeat("0123456789", 1000))
	src := compressed(t, 6, text)
	d := new(inflate.Decoder)
	if out, err := d.Gunzip(nil, src, len(text)); err != nil || !bytes.Equal(out, text) {
		t.Errorf("at the limit: %v", err)
	}
	if out, err := d.Gunzip(nil, src, len(text)-1); !errors.Is(err, inflate.ErrUnusual) || cap(out) != 0 {
		t.Errorf("above the limit: %v, and %d bytes of memory", err, cap(out))
	}
}

func TestGunzipReusesMemory(t *testing.T) {
	src := compressed(t, 6, bytes.Repeat([]byte("0123456789"), 1000))
	d := new(inflate.Decoder)
	var out []byte
	if n := testing.AllocsPerRun(10, func() {
		var err error
		if out, err = d.Gunzip(out, src, limit); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// Bits that flip change the answer, never more than that.
func TestGunzipSurvivesDamage(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	source := contents(t)["source"]
	var c checker
	verdicts := map[string]int{}
	for _, level := range []int{gzip.HuffmanOnly, 0, 1, 6} {
		good := compressed(t, level, source)
		for i := range 6000 {
			src := bytes.Clone(good)
			for range 1 + rnd.IntN(3) {
				src[rnd.IntN(len(src))] ^= 1 << rnd.IntN(8)
			}
			if i%4 == 0 {
				src = src[:rnd.IntN(len(src))]
			}
			if i%2 == 0 && len(src) > 18 { // and with a trailer that fits what became of it
				src = member(src[10 : len(src)-8])
			}
			switch err := c.check(t, src); {
			case err == nil:
				verdicts["good"]++
			case errors.Is(err, inflate.ErrCorrupt):
				verdicts["corrupt"]++
			default:
				verdicts["unusual"]++
			}
		}
	}
	for _, v := range []string{"good", "corrupt", "unusual"} {
		if verdicts[v] < 100 {
			t.Errorf("of 24,000 damaged inputs: %v", verdicts)
		}
	}
}

func TestGunzipGivesAllRoomBack(t *testing.T) {
	large, small := compressed(t, 1, make([]byte, 50_000)), compressed(t, 1, make([]byte, 500))
	var d inflate.Decoder
	out, err := d.Gunzip(nil, large, limit)
	if err != nil {
		t.Fatal(err)
	}
	if out, err = d.Gunzip(out, small, limit); err != nil {
		t.Fatal(err)
	}
	if _, err = d.Gunzip(out, large, limit); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(10, func() {
		for _, src := range [][]byte{small, large} {
			if out, err = d.Gunzip(out, src, limit); err != nil {
				t.Fatal(err)
			}
		}
	}); n > 0 {
		t.Errorf("%g allocations although there was room", n)
	}
}
