package flamegraph

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestTreeBytesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawModel(t, "model").tree()
		got, err := DecodeTreeBytes(TreeBytes(want, 0))
		if err != nil {
			t.Fatal(err)
		}
		requireEqual(t, "decoded", got, want)
	})
}

func TestTreeBytesTruncated(t *testing.T) {
	m := model{key("a"): 10, key("b"): 1, key("other"): 2}
	got, err := DecodeTreeBytes(TreeBytes(m.tree(), 1))
	if err != nil {
		t.Fatal(err)
	}
	requireEqual(t, "decoded", got, model{key("a"): 10, key("other"): 3}.tree())
}

func TestTreeBytesAsBytes(t *testing.T) {
	m := model{"": 1, key("a", "bc"): 300}
	want := "\x00\x01\x01" + "\x01a\x00\x01" + "\x02bc\xac\x02\x00"
	if got := string(TreeBytes(m.tree(), 0)); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestDecodeTreeBytesAddsUpSiblings(t *testing.T) {
	b := "\x00\x00\x04" + "\x01b\x01\x01" + "\x01x\x05\x00" + "\x01a\x02\x00" + "\x01b\x03\x01" + "\x01x\x05\x00" + "\x01a\x02\x00"
	got, err := DecodeTreeBytes([]byte(b))
	if err != nil {
		t.Fatal(err)
	}
	requireEqual(t, "decoded", got, model{key("a"): 4, key("b"): 4, key("b", "x"): 10}.tree())
}

func TestDecodeTreeBytesRefuses(t *testing.T) {
	huge := string(binary.AppendUvarint(nil, math.MaxUint64))
	most := string(binary.AppendUvarint(nil, math.MaxInt64))
	for name, test := range map[string]struct {
		b    string
		want error
	}{
		"a cut root":             {"\x00\x00", ErrMalformed},
		"a cut name":             {"\x00\x00\x01\x05abc", ErrMalformed},
		"a huge name":            {huge + "abc", ErrMalformed},
		"a name not in UTF-8":    {"\x00\x00\x01\x02a\xff\x01\x00", ErrMalformed},
		"a root with a name":     {"\x01a\x00\x00", ErrMalformed},
		"a child that is absent": {"\x00\x00\x02\x01a\x01\x00", ErrMalformed},
		"too many children":      {"\x00\x00" + huge, ErrMalformed},
		"a negative weight":      {"\x00" + huge + "\x00", ErrMalformed},
		"a varint of 11 bytes":   {"\x00" + strings.Repeat("\x80", 10) + "\x01\x00", ErrMalformed},
		"bytes after the end":    {"\x00\x00\x00\x00", ErrMalformed},
		"an overflow":            {"\x00\x01\x01\x01a" + most + "\x00", ErrOverflow},
	} {
		if _, err := DecodeTreeBytes([]byte(test.b)); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

func FuzzDecodeTreeBytes(f *testing.F) {
	f.Add([]byte{})
	f.Add(TreeBytes(model{"": 1, key("a", "b"): 2, key("a", "c"): 3, key("d"): 4}.tree(), 0))
	f.Add(TreeBytes(model{key("a", "b"): 2, key("a", "c"): 3, key("d"): 4}.tree(), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, err := DecodeTreeBytes(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrOverflow) {
				t.Fatalf("an error without a sentinel: %v", err)
			}
			return
		}
		if err := tree.Validate(); err != nil {
			t.Fatal(err)
		}
		again, err := DecodeTreeBytes(TreeBytes(tree, 0))
		if err != nil {
			t.Fatal(err)
		}
		if len(tree.Self) > 0 {
			requireEqual(t, "decoded again", again, tree)
		}
	})
}
