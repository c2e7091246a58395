package column

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// columnOf draws columns from the incompressible to the constant.
func columnOf(t *rapid.T) []byte {
	if rapid.Bool().Draw(t, "constant") {
		return bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, rapid.IntRange(0, 300_000).Draw(t, "length"))
	}
	return rapid.SliceOfN(rapid.Byte(), 0, 2000).Draw(t, "bytes")
}

func TestSetRoundTrip(t *testing.T) {
	var b Builder
	rapid.Check(t, func(t *rapid.T) {
		level := Level(rapid.IntRange(0, 1).Draw(t, "level"))
		columns := make([][]byte, rapid.IntRange(0, 6).Draw(t, "columns"))
		b.Reset(level)
		for i := range columns {
			columns[i] = columnOf(t)
			b.Add(columns[i])
		}
		stored, err := b.Append([]byte("before"))
		if err != nil {
			t.Fatal(err)
		}
		stored = stored[len("before"):]
		set, err := Parse(stored, len(columns))
		if err != nil {
			t.Fatal(err)
		}
		var scratch []byte
		for i := range columns {
			got, err := set.Column(i, scratch)
			if err != nil || !bytes.Equal(got, columns[i]) || set.Raw(i) != len(columns[i]) {
				t.Fatalf("column %d: %d bytes, want %d, error %v", i, len(got), len(columns[i]), err)
			}
		}
		for n := range stored {
			if _, err := Parse(stored[:n], len(columns)); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("first %d of %d bytes: error %v", n, len(stored), err)
			}
		}
		if _, err := Parse(append(slices.Clone(stored), 0), len(columns)); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("a byte too many: error %v", err)
		}
	})
}

func TestNumbersRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		small := rapid.SliceOf(rapid.Uint32Range(0, 1<<32-2)).Draw(t, "small")
		large := rapid.SliceOf(rapid.Int64()).Draw(t, "large")
		var a, b []byte
		for _, v := range small {
			a = binary.AppendUvarint(a, uint64(v))
		}
		for _, v := range large {
			b = binary.AppendUvarint(b, Zigzag(v))
		}
		gotSmall, gotLarge := make([]uint32, len(small)), make([]uint64, len(large))
		if err := errors.Join(Uint32s(gotSmall, a, 1<<32-1), Uint64s(gotLarge, b)); err != nil {
			t.Fatal(err)
		}
		for i, v := range gotLarge {
			if Unzigzag(v) != large[i] {
				t.Fatalf("number %d is %d, want %d", i, Unzigzag(v), large[i])
			}
		}
		if !slices.Equal(gotSmall, small) {
			t.Fatalf("%v, want %v", gotSmall, small)
		}
		for what, err := range map[string]error{
			"one too many": Uint32s(make([]uint32, len(small)+1), a, 1<<32-1),
			"left over":    Uint64s(gotLarge, append(b, 0)),
			"limit":        Uint32s(make([]uint32, 1), []byte{7}, 7),
			"malformed":    Uint32s(make([]uint32, 1), bytes.Repeat([]byte{0xff}, 11), 1<<32-1),
		} {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s: error %v", what, err)
			}
		}
	})
}

// A frame never inflates to more than its directory says, and what no frame could hold is refused unseen.
func TestInflateIsBounded(t *testing.T) {
	bomb := Compress(nil, make([]byte, 1<<20), Default)
	if len(bomb) > 1000 {
		t.Fatalf("a MiB of zeros takes %d bytes", len(bomb))
	}
	for _, raw := range []int{1 << 10, 1<<20 - 1, 1<<20 + 1, 1 << 29, MaxRaw + 1} {
		if _, err := Inflate(nil, bomb, raw); !errors.Is(err, ErrCorrupt) {
			t.Errorf("as %d bytes: error %v", raw, err)
		}
	}
	// A large constant column would be such a bomb, so it is kept as it is.
	zeros := make([]byte, freeRaw+1)
	if n := len(Compress(nil, zeros, Fastest)); n != len(zeros) {
		t.Errorf("%d zeros stored as %d bytes, which no reader would accept", len(zeros), n)
	}
}

func TestCursor(t *testing.T) {
	c := Cursor{Data: []byte{5, 0x80, 1, 9}}
	if b, v, r := c.Byte(), c.Uvarint(), c.Below(10); b != 5 || v != 128 || r != 9 || c.End() != nil {
		t.Errorf("%d %d %d, error %v", b, v, r, c.Err)
	}
	for what, use := range map[string]func(c *Cursor){
		"end":       func(c *Cursor) { c.Byte(); c.Byte() },
		"no number": func(c *Cursor) { c.Byte(); c.Uvarint() },
		"limit":     func(c *Cursor) { c.Below(7) },
		"left over": func(c *Cursor) { _ = c.End() },
	} {
		c := Cursor{Data: []byte{7}}
		use(&c)
		if !errors.Is(c.Err, ErrCorrupt) || c.Byte() != 0 || c.Uvarint() != 0 || c.Below(9) != 0 {
			t.Errorf("%s: error %v", what, c.Err)
		}
	}
}
