package inspect

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// The total order, as docs/formats/block.md has it. It is written here a second time on purpose: a check that called
// the writer's own comparison would find nothing wrong with it.

// checkNames checks that every table of symbols is in the total order, without duplicates.
func checkNames(s *profile.Symbols) error {
	for i := 1; i < len(s.Strings); i++ {
		if bytes.Compare(s.String(uint32(i-1)), s.String(uint32(i))) >= 0 {
			return fmt.Errorf("%w: string %d, %q, is not after the one before it", block.ErrCorrupt, i, s.String(uint32(i)))
		}
	}
	// From here on strings can be compared by their numbers. Entry 0 of mappings and functions is "none".
	if err := ascending("mapping", s.Mappings[1:], compareMappings); err != nil {
		return err
	}
	if err := ascending("function", s.Functions[1:], compareFunctions); err != nil {
		return err
	}
	keys := make([][]uint64, len(s.Locations))
	for i := range keys {
		key, err := locationKey(s, uint32(i))
		if err != nil {
			return err
		}
		keys[i] = key
	}
	return ascending("location", keys, slices.Compare[[]uint64])
}

func ascending[T any](what string, all []T, compare func(a, b T) int) error {
	for i := 1; i < len(all); i++ {
		if compare(all[i-1], all[i]) >= 0 {
			return fmt.Errorf("%w: the %ss are not in order at %d of %d", block.ErrCorrupt, what, i, len(all))
		}
	}
	return nil
}

func compareMappings(a, b profile.Mapping) int {
	return cmp.Or(
		cmp.Compare(a.File, b.File), cmp.Compare(a.BuildID, b.BuildID), cmp.Compare(a.Start, b.Start),
		cmp.Compare(a.Limit, b.Limit), cmp.Compare(a.Offset, b.Offset),
		cmp.Compare(number(a.HasFunctions), number(b.HasFunctions)), cmp.Compare(number(a.HasFilenames), number(b.HasFilenames)),
		cmp.Compare(number(a.HasLineNumbers), number(b.HasLineNumbers)), cmp.Compare(number(a.HasInlineFrames), number(b.HasInlineFrames)),
	)
}

func compareFunctions(a, b profile.Function) int {
	return cmp.Or(
		cmp.Compare(a.Name, b.Name), cmp.Compare(a.File, b.File),
		cmp.Compare(a.SystemName, b.SystemName), cmp.Compare(a.StartLine, b.StartLine),
	)
}

func number(set bool) uint64 {
	if set {
		return 1
	}
	return 0
}

// locationKey returns numbers that are ordered as locations are: the names of the lines, root first, and a 0, which
// makes a list come before one that goes on; their files, the address, line numbers, columns, functions, mapping, folded.
func locationKey(s *profile.Symbols, i uint32) ([]uint64, error) {
	l, lines := &s.Locations[i], s.LinesOf(i)
	var key []uint64
	each := func(field func(profile.Line) uint64) {
		for j := len(lines) - 1; j >= 0; j-- {
			key = append(key, field(lines[j]))
		}
	}
	if len(lines) == 0 {
		name, ok := bareName(s, i)
		if !ok {
			return nil, fmt.Errorf("%w: location %d has no lines and its name is not among the strings", block.ErrCorrupt, i)
		}
		// One name like a location of one line; the missing line is before any other.
		key = append(key, 1+uint64(name), 0, 0)
		return append(key, l.Address, uint64(l.Mapping), number(l.Folded)), nil
	}
	each(func(l profile.Line) uint64 { return 1 + uint64(s.Functions[l.Function].Name) })
	key = append(key, 0, 1)
	each(func(l profile.Line) uint64 { return uint64(s.Functions[l.Function].File) })
	key = append(key, l.Address)
	each(func(l profile.Line) uint64 { return signed(l.Line) })
	each(func(l profile.Line) uint64 { return signed(l.Column) })
	each(func(l profile.Line) uint64 { return uint64(l.Function) })
	return append(key, uint64(l.Mapping), number(l.Folded)), nil
}

// signed maps numbers to others in the same order that are not negative.
func signed(v int64) uint64 { return uint64(v) ^ 1<<63 }

// bareName finds the name of a location without lines among strings that are in order.
func bareName(s *profile.Symbols, location uint32) (uint32, bool) {
	want := strconv.AppendUint([]byte("0x"), s.Locations[location].Address, 16)
	lo, hi := 0, len(s.Strings)
	for lo < hi {
		mid := (lo + hi) / 2
		if bytes.Compare(s.String(uint32(mid)), want) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return uint32(lo), lo < len(s.Strings) && bytes.Equal(s.String(uint32(lo)), want)
}

// checkSeries checks the label sets of a group: each has a service and no kind, and there are no two alike.
func checkSeries(all []labels.Labels, sorted bool) error {
	seen := map[string]bool{}
	for i, ls := range all {
		if !ls.Has(labels.ServiceName) || ls.Has(labels.Name) {
			return fmt.Errorf("%w: series %d, %s, has no %s or has a %s", block.ErrCorrupt, i, ls, labels.ServiceName, labels.Name)
		}
		if sorted && i > 0 && labels.Compare(all[i-1], ls) >= 0 {
			return fmt.Errorf("%w: series %d, %s, is not after the one before it", block.ErrCorrupt, i, ls)
		}
		key := ls.String()
		if seen[key] {
			return fmt.Errorf("%w: series %d, %s, is there twice", block.ErrCorrupt, i, ls)
		}
		seen[key] = true
	}
	return nil
}
