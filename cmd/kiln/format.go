package main

import (
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// scale is a unit people read and how many of the raw unit it holds.
type scale struct {
	size   float64
	suffix string
}

// scales lists the readable units of a raw unit, largest first.
var scales = map[string][]scale{
	"nanoseconds": {{3600e9, "h"}, {60e9, "min"}, {1e9, "s"}, {1e6, "ms"}, {1e3, "µs"}, {1, "ns"}},
	"bytes":       {{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}, {1, "B"}},
	"count":       {{1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}},
}

// quantity prints a value in the largest unit in which it is at least one.
func quantity(v float64, unit string) string {
	list, ok := scales[unit]
	if !ok {
		list = scales["count"]
	}
	for _, s := range list {
		if v >= s.size || -v >= s.size {
			return trimZeros(fmt.Sprintf("%.2f", v/s.size)) + s.suffix
		}
	}
	return trimZeros(fmt.Sprintf("%.2f", v)) + list[len(list)-1].suffix
}

func trimZeros(s string) string {
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// percent prints part of whole.
func percent(part, whole int64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(part)/float64(whole))
}

// width is the number of columns of the terminal, or 120 where there is none.
func width() int {
	if w, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil && w > 40 {
		return w
	}
	return 120
}

// clip shortens the name of a function to n columns. What is between brackets, the type parameters, goes first;
// then the front, for the end is the telling part. Control characters, which a terminal would obey, become dots.
func clip(name string, n int) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return '·'
		}
		return r
	}, name)
	if n < 1 || utf8.RuneCountInString(name) <= n {
		return name
	}
	if first, last := strings.Index(name, "["), strings.LastIndex(name, "]"); first >= 0 && last > first {
		name = name[:first] + "[…]" + name[last+1:]
	}
	r := []rune(name)
	if len(r) <= n {
		return name
	}
	return "…" + string(r[len(r)-n+1:])
}

// sparkline draws values as one line of bars, at most n wide: neighbours are added up where there are more.
func sparkline(values []float64, n int) string {
	if len(values) > n {
		merged := make([]float64, n)
		for i, v := range values {
			merged[i*n/len(values)] += v
		}
		values = merged
	}
	most := 0.0
	for _, v := range values {
		most = max(most, v)
	}
	bars := []rune(" ▁▂▃▄▅▆▇█")
	var b strings.Builder
	for _, v := range values {
		i := 0
		if most > 0 && v > 0 {
			i = 1 + int(v/most*float64(len(bars)-2)+0.5)
		}
		b.WriteRune(bars[i])
	}
	return b.String()
}
