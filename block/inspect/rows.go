package inspect

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/block/column"
	"github.com/kilndb/kiln/block/samples"
	"github.com/kilndb/kiln/labels"
)

// groupRows checks the rows of a group: one service and kind after the other, then that nothing is left over.
func (v *verifier) groupRows(ctx context.Context, c *contents, table []byte) error {
	if c.names == nil || c.series == nil || !c.good[c.profiles] {
		return nil // damaged, which has been said
	}
	r, err := block.Open(v.o.src, Alone(v.o.meta, c.index))
	if err != nil {
		return err
	}
	complete, profiles := true, v.ranges(c)
	for i, d := range r.Datasets() {
		whole, oldest, newest := true, int64(math.MaxInt64), int64(math.MinInt64)
		used := map[uint32]bool{}
		for j, rows := range d.Rows {
			m := r.Meta().Datasets[i].Rows[j]
			w := &rowsCheck{
				v: v, c: c, dataset: d, rows: rows, trees: c.trees[int(m.GetTreesSection())], samples: c.samples[int(m.GetSamplesSection())],
				section: int(m.GetSamplesSection()), starts: m.GetColumnStarts(), rollups: c.rollupsOf(m),
			}
			ok, err := w.run(ctx)
			if err != nil {
				return err
			}
			if whole = whole && ok; ok {
				oldest, newest = min(oldest, w.profiles.Times[0]), max(newest, w.profiles.Times[w.profiles.Len()-1])
				for _, id := range w.profiles.Series {
					used[id] = true
				}
			}
		}
		complete = complete && whole
		if whole && (oldest != d.MinTime || newest != d.MaxTime) {
			v.fail("footer", "service %q from %d to %d, its profiles are from %d to %d", d.Service, d.MinTime, d.MaxTime, oldest, newest)
		}
		if whole {
			if err := checkFilter(r.Meta().Datasets[i].GetLabelFilter(), pairsOf(c.series, used), d.Sorted()); err != nil {
				v.fail("footer", "service %q: %v", d.Service, err)
			}
		}
	}
	if !complete {
		return nil
	}
	return v.nothingLeft(ctx, c, table, profiles)
}

// ranges checks that the rows of the PROFILES table have one owner each, and returns how many there are. In the table
// kinds are in the order of their names, in the footer in that of their numbers.
func (v *verifier) ranges(c *contents) (next uint64) {
	all := slices.Clone(v.o.groups[c.index])
	slices.SortFunc(all, func(a, b use) int { return cmp.Compare(v.o.rows(a).GetFirstProfile(), v.o.rows(b).GetFirstProfile()) })
	for _, u := range all {
		m := v.o.rows(u)
		if m.GetFirstProfile() != next {
			service := v.o.meta.Strings[v.o.meta.Datasets[u.dataset].GetService()]
			v.fail(c.places[c.profiles], "rows of service %q begin at %d, those before end at %d", service, m.GetFirstProfile(), next)
		}
		next = m.GetFirstProfile() + m.GetProfiles()
	}
	return next
}

// nothingLeft checks that the rows of the footer are all there are in the sections of a group.
func (v *verifier) nothingLeft(ctx context.Context, c *contents, table []byte, profiles uint64) error {
	if profiles > 0 {
		meta, err := v.o.tableMeta(ctx, table, c.index)
		if ok, err := v.check(c.places[c.profiles], err); err != nil {
			return err
		} else if ok && uint64(meta.NumRows) != profiles {
			v.fail(c.places[c.profiles], "%d rows, the footer knows of %d", meta.NumRows, profiles)
		}
	}
	for j, s := range c.samples {
		if s.rows != s.Rows() {
			v.fail(c.places[j], "%d rows, the profiles have %d", s.Rows(), s.rows)
			continue
		}
		for column, end := range s.ends {
			if n := s.Pages(); n > 0 {
				if _, to := s.Bounds(n-1, column); to != end {
					v.fail(c.places[j], "column %d has %d bytes, the profiles' runs end at %d", column, to, end)
				}
			}
		}
	}
	for j, t := range c.trees {
		if c.meta.GetSorted() && c.good[j] {
			if _, err := v.check(c.places[j], checkUsed(t)); err != nil {
				return err
			}
		}
	}
	return nil
}

// rowsCheck checks the rows of one kind of one service.
type rowsCheck struct {
	v        *verifier
	c        *contents
	dataset  *block.Dataset
	rows     *block.Rows
	section  int
	trees    *trees
	samples  *pages
	starts   []uint64
	rollups  []*sums
	profiles *block.Profiles
	writer   samples.Writer
}

// run returns false if there was a problem that leaves something unchecked.
func (w *rowsCheck) run(ctx context.Context) (ok bool, err error) {
	profiles := w.c.places[w.c.profiles]
	w.profiles, err = w.rows.Profiles(ctx)
	if ok, err := w.v.check(profiles, err); !ok {
		return false, err
	}
	for _, check := range []func() error{w.order, w.services, w.sums} {
		if _, err := w.v.check(profiles, check()); err != nil {
			return false, err
		}
	}
	if w.samples == nil || w.trees == nil {
		return false, nil
	}
	ok, err = w.v.check(w.c.places[w.section], w.values(ctx))
	if !ok || err != nil {
		return false, err
	}
	for _, s := range w.rollups {
		err := s.finish()
		if err == nil {
			err = w.share(s)
		}
		if _, err := w.v.check(w.c.places[s.place], err); err != nil {
			return false, err
		}
	}
	return true, nil
}

// share checks that a rollup takes at most a quarter of the bytes of its rows, which are their share of the section by
// inflated bytes.
func (w *rowsCheck) share(s *sums) error {
	raw, total := uint64(0), uint64(0)
	for c, end := range w.samples.ends {
		to := uint64(0)
		if n := w.samples.Pages(); n > 0 {
			_, to = w.samples.Bounds(n-1, c)
		}
		raw += end - w.starts[c]
		total += to
	}
	stored := float64(w.c.meta.Sections[w.section].GetLength()) * float64(raw) / float64(max(total, 1))
	if n := w.c.meta.Sections[s.place].GetLength(); float64(n)*rollupShare > stored {
		return w.errorf("sums of %d bytes for rows of %.0f", n, stored)
	}
	return nil
}

// order checks that profiles ascend by (time, series, id). Only segments may have several that are equal.
func (w *rowsCheck) order() error {
	p := w.profiles
	for i := 1; i < p.Len(); i++ {
		c := cmp.Or(cmp.Compare(p.Times[i-1], p.Times[i]), cmp.Compare(p.Series[i-1], p.Series[i]), bytes.Compare(p.IDs[i-1][:], p.IDs[i][:]))
		if c > 0 || c == 0 && w.dataset.Sorted() {
			return w.errorf("profile %d is not after the one before it", i)
		}
	}
	return nil
}

// services checks that the series of the profiles are the service's.
func (w *rowsCheck) services() error {
	for i, s := range w.profiles.Series {
		if got := w.c.series[s].Get(labels.ServiceName); got != w.dataset.Service {
			return w.errorf("profile %d is of service %q", i, got)
		}
	}
	return nil
}

// sums checks that the totals of the profiles add up to what the footer says.
func (w *rowsCheck) sums() error {
	for c, totals := range w.profiles.Totals {
		sum := int64(0)
		for i, t := range totals {
			if t < 0 || sum > math.MaxInt64-t {
				return w.errorf("profile %d has a total of %d after %d of sample type %d", i, t, sum, c)
			}
			sum += t
		}
		if sum != w.rows.Sums[c] {
			return w.errorf("totals of sample type %d add up to %d, the footer says %d", c, sum, w.rows.Sums[c])
		}
	}
	return nil
}

// values reads every row of samples: runs follow one another, and values add up to the profiles' totals. That stack
// nodes ascend and that there are such nodes is checked by the reader.
func (w *rowsCheck) values(ctx context.Context) error {
	if !slices.Equal(w.samples.ends, w.starts) {
		return w.errorf("runs begin at %d, those before end at %d", w.starts, w.samples.ends)
	}
	s, err := w.rows.Samples(ctx, w.profiles)
	if err != nil {
		return err
	}
	for i := range w.profiles.Len() {
		stacks, values, err := s.Profile(i)
		if err != nil {
			return err
		}
		if err := w.extras(s, i, stacks); err != nil {
			return err
		}
		last := uint32(0)
		for _, n := range stacks {
			w.trees.used[n] = true
			w.samples.ends[0] += length(uint64(n - last))
			last = n
		}
		for c, vs := range values {
			sum := int64(0)
			for _, v := range vs {
				if sum > math.MaxInt64-v {
					return w.errorf("values of profile %d are beyond int64", i)
				}
				sum += v
				w.samples.ends[1+c] += length(uint64(v))
			}
			if want := w.profiles.Totals[c][i]; sum != want {
				return w.errorf("values of profile %d add up to %d for sample type %d, its total is %d", i, sum, c, want)
			}
		}
		for _, s := range w.rollups {
			s.takeOut(w.profiles, i, stacks, values)
		}
		w.samples.rows += uint64(len(stacks))
	}
	return nil
}

// extras checks the extra columns of profile i: that their runs follow one another and are as they would be written
// again, and that rows differ.
func (w *rowsCheck) extras(s *block.Samples, i int, stacks []uint32) error {
	x, err := s.Extras(i)
	if err != nil {
		return err
	}
	if row := x.Unordered(stacks); row > 0 {
		return w.errorf("row %d of profile %d is not after the one before it by stack, span and trace", row, i)
	}
	if problem := x.Check(len(stacks)); problem != "" {
		return w.errorf("profile %d has %s", i, problem)
	}
	w.writer.Reset(1, column.Fastest, nil)
	lengths := w.writer.AppendExtras(x, w.profiles.Times[i])
	for e, n := range lengths {
		if at, ok := w.samples.Extra(samples.Extra(e)); ok {
			w.samples.ends[at] += uint64(n)
		}
	}
	return nil
}

// length is how many bytes a uvarint takes.
func length(v uint64) uint64 {
	var b [binary.MaxVarintLen64]byte
	return uint64(binary.PutUvarint(b[:], v))
}

func (w *rowsCheck) errorf(format string, args ...any) error {
	return fmt.Errorf("%w: service %q, %s: %s", block.ErrCorrupt, w.dataset.Service, w.rows.Kind.Name, fmt.Sprintf(format, args...))
}
