package block

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// wide makes a segment of profiles of several thousand stacks each, so that pages fill.
func wide(t testing.TB, seed uint64, profiles int, from int64) []byte {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 5))
	var h head
	for i := range profiles {
		var values [][2]int64
		var stacks [][]string
		for f := range 6000 {
			if rng.IntN(4) > 0 {
				values = append(values, [2]int64{1 + rng.Int64N(1000), 1 + rng.Int64N(1e6)})
				stacks = append(stacks, []string{"main", fmt.Sprint("f", f%700), fmt.Sprint("g", f)})
			}
		}
		h.push("acme", makeProfile("wide", values, stacks...), from+int64(i), profile.ID{byte(seed), byte(i)}, labels.FromStrings("pod", fmt.Sprint(i%3)))
	}
	return h.segment(t, fmt.Sprint(seed))
}

// copied counts the value pages of the first rows of r that are in some object as the very same bytes.
func copied(t testing.TB, r *Reader, objects ...[]byte) (n, pages int) {
	t.Helper()
	rows := r.Datasets()[0].Rows[0]
	section, err := rows.dataset.group.loadSamples(t.Context(), rows.meta.GetSamplesSection(), 1+len(rows.Kind.SampleTypes))
	if err != nil {
		t.Fatal(err)
	}
	for p := range section.Pages() {
		for _, o := range objects {
			if bytes.Contains(o, section.Stored(p, 1)) {
				n++
				break
			}
		}
	}
	return n, section.Pages()
}

// Pages of blocks that follow each other in time are copied as they are; the object says the same as its sources.
func TestMergeCopiesWholePages(t *testing.T) {
	a := merge(t, "acme", 1, wide(t, 1, 17, 1000))
	b := merge(t, "acme", 1, wide(t, 2, 15, 2000))
	overlapping := merge(t, "acme", 1, wide(t, 3, 9, 1010))
	other := merge(t, "acme", 1, day(t, 4, 3, 500, 100)) // another service: all numbers of series and names move
	for _, c := range []struct {
		name    string
		level   uint32
		sources [][]byte
		least   int
	}{
		{"one after the other", 2, [][]byte{b, a, other}, 2},
		{"interleaving", 2, [][]byte{a, overlapping}, 0},
		{"a duplicate", 2, [][]byte{a, a, b}, 1},
		{"at a higher level", 3, [][]byte{a, b}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			var readers []*Reader
			for _, s := range c.sources {
				readers = append(readers, open(t, s))
			}
			out := merge(t, "acme", c.level, c.sources...)
			want := content(t, readers, "acme")
			if c.name == "a duplicate" {
				want = content(t, readers[1:], "acme")
			}
			r := open(t, out)
			sameContent(t, c.name, content(t, []*Reader{r}, "acme"), want)
			for _, d := range r.Datasets() {
				if d.Service == "wide" {
					checkRollups(t, c.name, d, d.Rows[0])
				}
			}
			if r.Datasets()[len(r.Datasets())-1].Service != "wide" {
				t.Fatal("no wide service")
			}
			wideOnly := &Reader{datasets: r.Datasets()[len(r.Datasets())-1:]}
			n, pages := copied(t, wideOnly, c.sources...)
			if n < c.least {
				t.Errorf("%d of %d pages were copied, want %d", n, pages, c.least)
			}
		})
	}
}
