package pprof_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/profile/pprof"
)

// drawIDs draws n distinct ids as clients make them up: counted, counted in another order, with gaps, or any number.
func drawIDs(t *rapid.T, what string, n int) []uint64 {
	switch rapid.SampledFrom([]string{"dense", "mixed", "gaps", "wide"}).Draw(t, what+" ids") {
	case "dense":
		ids := make([]uint64, n)
		for i := range ids {
			ids[i] = uint64(i) + 1
		}
		return ids
	case "mixed":
		ids := make([]uint64, n)
		for i := range ids {
			ids[i] = uint64(i) + 1
		}
		return rapid.Permutation(ids).Draw(t, what+" order")
	case "gaps":
		return rapid.SliceOfNDistinct(rapid.Uint64Range(1, 9000), n, n, rapid.ID[uint64]).Draw(t, what)
	default:
		return rapid.SliceOfNDistinct(rapid.Uint64Range(1, 1<<64-1), n, n, rapid.ID[uint64]).Draw(t, what)
	}
}

// drawProfile draws a valid profile with every freedom that the wire gives: ids, packing, order of fields, fields
// from the future.
func drawProfile(t *rapid.T) []byte {
	names := append([]string{"", "span_id", "trace_id", "profile_id", "00f067aa0ba902b7", "4BF92F3577b34da6a3ce929d0e0e4736", "0000000000000000", "pod", "pod"}, rapid.SliceOfN(rapid.String(), 1, 12).Draw(t, "strings")...)
	str := func(what string) uint64 { return uint64(rapid.IntRange(0, len(names)-1).Draw(t, what)) }
	number := func(what string) uint64 { return uint64(rapid.Int64().Draw(t, what)) }
	packed := rapid.Bool()
	// Mostly counts, so that most samples can be stored and summed.
	value := rapid.Custom(func(t *rapid.T) uint64 {
		if rapid.IntRange(0, 49).Draw(t, "any") == 0 {
			return uint64(rapid.Int64().Draw(t, "value"))
		}
		return uint64(rapid.IntRange(0, 3).Draw(t, "value"))
	})
	rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0))
	future := func(m *message) *message {
		switch rapid.IntRange(0, 8).Draw(t, "future") {
		case 0:
			m.varint(100, number("future"))
		case 1:
			m.blob(2000, []byte("later"))
		case 2:
			m.raw(101, append(m.tag(101, 1), 1, 2, 3, 4, 5, 6, 7, 8))
		case 3:
			m.raw(102, append(m.tag(102, 5), 1, 2, 3, 4))
		}
		return m.shuffle(rnd)
	}

	m := new(message)
	types := rapid.IntRange(1, 4).Draw(t, "types")
	for range types {
		m.nest(1, future(new(message).varint(1, str("type")).varint(2, str("unit"))))
	}
	mappings := drawIDs(t, "mapping", rapid.IntRange(0, 3).Draw(t, "mappings"))
	for _, id := range mappings {
		m.nest(3, future(new(message).varint(1, id).varint(2, number("start")).varint(3, number("limit")).varint(4, number("offset")).
			varint(5, str("file")).varint(6, str("build id")).varint(7, 1).varint(9, uint64(rapid.IntRange(0, 1).Draw(t, "flag")))))
	}
	functions := drawIDs(t, "function", rapid.IntRange(0, 6).Draw(t, "functions"))
	for _, id := range functions {
		m.nest(5, future(new(message).varint(1, id).varint(2, str("name")).varint(3, str("system name")).varint(4, str("file")).varint(5, number("start line"))))
	}
	locations := drawIDs(t, "location", rapid.IntRange(0, 8).Draw(t, "locations"))
	for _, id := range locations {
		l := new(message).varint(1, id).varint(3, number("address")).varint(5, uint64(rapid.IntRange(0, 1).Draw(t, "folded")))
		if len(mappings) > 0 && rapid.Bool().Draw(t, "has mapping") {
			l.varint(2, rapid.SampledFrom(mappings).Draw(t, "mapping"))
		}
		for range rapid.IntRange(0, min(3, len(functions))).Draw(t, "lines") {
			l.nest(4, future(new(message).varint(1, rapid.SampledFrom(functions).Draw(t, "function")).varint(2, number("line")).varint(3, number("column"))))
		}
		m.nest(4, future(l))
	}
	for range rapid.IntRange(0, 10).Draw(t, "samples") {
		s := new(message)
		if len(locations) > 0 {
			s.list(1, packed.Draw(t, "packed"), rapid.SliceOfN(rapid.SampledFrom(locations), 0, 6).Draw(t, "stack")...)
		}
		s.list(2, packed.Draw(t, "packed"), rapid.SliceOfN(value, types, types).Draw(t, "values")...)
		for range rapid.IntRange(0, 3).Draw(t, "labels") {
			l := new(message).varint(1, str("key"))
			if rapid.Bool().Draw(t, "text") {
				l.varint(2, str("value"))
			} else {
				l.varint(3, number("num")).varint(4, str("num unit"))
			}
			s.nest(3, future(l))
		}
		m.nest(2, future(s))
	}
	for _, n := range names {
		m.blob(6, []byte(n))
	}
	// The oracle takes a second time of 0 for a second profile, so these are not zero.
	m.varint(9, number("time")|1).varint(10, number("duration")|1)
	m.nest(11, new(message).varint(1, str("period type")).varint(2, str("period unit"))).varint(12, number("period"))
	m.list(13, packed.Draw(t, "packed"), str("comment")).varint(7, str("drop")).varint(8, str("keep")).varint(14, str("default"))
	return future(m).encode()
}

func TestDecodeAnyValidProfile(t *testing.T) {
	d, p, again := pprof.NewDecoder(), new(profile.Profile), new(profile.Profile)
	rapid.Check(t, func(rt *rapid.T) {
		body := drawProfile(rt)
		if err := d.Decode(body, limits, p); err != nil {
			rt.Fatal(err)
		}
		sound(t, p)
		want := describeGoogle(oracle.Parse(body))
		sameText(rt, "decoded", describe(p), want)

		written := pprof.Append(nil, p)
		sameText(rt, "written, read by google/pprof", describeGoogle(oracle.Parse(written)), want)
		if err := d.Decode(written, limits, again); err != nil {
			rt.Fatal(err)
		}
		sameText(rt, "written, read by us", describe(again), want)
	})
}

// What a profile says is the same after its names got the numbers of a table that holds others already.
func TestTableKeepsWhatNamesMean(t *testing.T) {
	d, p := pprof.NewDecoder(), new(profile.Profile)
	table, remap := profile.NewTable(), profile.Remap{}
	rapid.Check(t, func(rt *rapid.T) {
		if rapid.IntRange(0, 9).Draw(rt, "reset") == 0 {
			table.Reset()
		}
		if err := d.Decode(drawProfile(rt), limits, p); err != nil {
			rt.Fatal(err)
		}
		table.Add(&p.Symbols, &remap)
		interned(rt, p, table, &remap)
	})
}

func interned(t interface{ Fatalf(string, ...any) }, p *profile.Profile, table *profile.Table, remap *profile.Remap) {
	if len(remap.Strings) != len(p.Strings) || len(remap.Mappings) != len(p.Mappings) || len(remap.Functions) != len(p.Functions) || len(remap.Locations) != len(p.Locations) {
		t.Fatalf("the remap has not an entry for every name")
	}
	for i := range p.Strings {
		if got, want := string(table.String(remap.Strings[i])), string(p.String(uint32(i))); got != want {
			t.Fatalf("string %d is %q in the table, want %q", i, got, want)
		}
	}
	for i := range p.Locations {
		if got, want := describeLocation(&table.Symbols, remap.Locations[i]), describeLocation(&p.Symbols, uint32(i)); got != want {
			t.Fatalf("location %d in the table:\n got %s\nwant %s", i, got, want)
		}
	}
	distinct := map[string]int{}
	for i := range table.Locations {
		s := fmt.Sprint(describeLocation(&table.Symbols, uint32(i)))
		if first, ok := distinct[s]; ok {
			t.Fatalf("locations %d and %d of the table are the same: %s", first, i, s)
		}
		distinct[s] = i
	}
}
