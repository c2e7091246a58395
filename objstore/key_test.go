package objstore

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckKey(t *testing.T) {
	for _, key := range []string{
		"a", "a/b", "segments/7/01JD2W0V8Z6M3Q4R5S6T7U8V9W", "blocks/.hidden/2026-11-20/0/x_y-z.k", "..a", "a..", "...",
		strings.Repeat("x", 255), strings.Repeat("x/", 511) + "xx",
	} {
		if err := CheckKey(key); err != nil {
			t.Errorf("CheckKey(%q) = %v", key, err)
		}
		for i := range len(key) {
			if err := CheckPrefix(key[:i]); err != nil {
				t.Errorf("CheckPrefix(%q), the start of a key, = %v", key[:i], err)
			}
		}
	}
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a/..", "a\x00b", "a b", `a\b`, "a~b", "ä", "a\n",
		strings.Repeat("x", 256), strings.Repeat("x/", 512) + "xx",
	} {
		if err := CheckKey(key); !errors.Is(err, ErrKey) {
			t.Errorf("CheckKey(%q) = %v, want ErrKey", key, err)
		}
	}
}

func TestCheckPrefix(t *testing.T) {
	for _, prefix := range []string{"", "a/", "a/b/", "a/.", "a/..", "..", "."} {
		if err := CheckPrefix(prefix); err != nil {
			t.Errorf("CheckPrefix(%q) = %v", prefix, err)
		}
	}
	for _, prefix := range []string{"/", "/a", "//", "a//", "../", "../a", "a/../b", "a\x00", "a/\x00", "a\x00/b"} {
		if err := CheckPrefix(prefix); !errors.Is(err, ErrKey) {
			t.Errorf("CheckPrefix(%q) = %v, want ErrKey", prefix, err)
		}
	}
}

func TestCheckRange(t *testing.T) {
	const maxInt64 = 1<<63 - 1
	for _, c := range []struct {
		off, n int64
		ok     bool
	}{
		{0, 0, true}, {0, 10, true}, {10, 0, true}, {9, 1, true},
		{0, 11, false}, {10, 1, false}, {11, 0, false}, {-1, 1, false}, {0, -1, false}, {5, maxInt64, false}, {maxInt64, maxInt64, false},
	} {
		if err := CheckRange("k", 10, c.off, c.n); errors.Is(err, ErrRange) == c.ok || (err == nil) != c.ok {
			t.Errorf("CheckRange(off %d, n %d) of 10 bytes = %v, want ok %v", c.off, c.n, err, c.ok)
		}
	}
}
