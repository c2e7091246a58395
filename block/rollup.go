package block

import (
	"context"
	"fmt"
	"math"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/rollup"
)

// Span is a range of time in Unix nanoseconds: From is in it, Until is not.
type Span struct{ From, Until int64 }

// Rollup describes sums that are kept beside the rows they come from.
type Rollup struct {
	// Bucket is the length of a bucket in nanoseconds; 0: one bucket is all the rows.
	Bucket int64
	// PerSeries: each series has sums of its own. Otherwise there is one for all.
	PerSeries bool
	// Bytes is what the section takes in the object.
	Bytes int64
}

// Rollups returns the rollups of the rows, the coarsest first. It reads nothing.
func (r *Rows) Rollups() []Rollup {
	var all []Rollup
	for _, m := range r.meta.GetRollups() {
		s := r.dataset.group.meta.Sections[m.GetSection()]
		all = append(all, Rollup{Bucket: m.GetBucket(), PerSeries: m.GetPerSeries(), Bytes: int64(s.GetLength())})
	}
	return all
}

// SumRollups adds to the sums of stack nodes what rollups say of one sample type and all profiles with a time in the
// span, or of those whose series is selected if selected is not nil. It answers whole buckets, the coarsest first, and
// returns the parts of the span that no rollup answers, ascending: there the caller sums rows. What it adds is what
// the rows would add, to the last bit. Sums must have an entry for every node of the stack tree.
func (r *Rows) SumRollups(ctx context.Context, column int, span Span, selected func(series uint32) bool, sums []int64) (rest []Span, err error) {
	if column < 0 || column >= len(r.Kind.SampleTypes) {
		return nil, fmt.Errorf("object %s: sample type %d of %d", r.dataset.group.r.meta.GetId(), column, len(r.Kind.SampleTypes))
	}
	if span.From < span.Until {
		rest = append(rest, span)
	}
	for _, m := range r.meta.GetRollups() {
		if selected != nil && !m.GetPerSeries() {
			continue
		}
		var left []Span
		for _, s := range rest {
			c := r.cover(m.GetBucket(), s)
			if c.first < c.end {
				if err := r.sumRollup(ctx, m, column, c, selected, sums); err != nil {
					return nil, err
				}
			}
			left = append(left, c.rest...)
		}
		rest = left
	}
	return rest, nil
}

// cover are the buckets that a span has all profiles of, and what else is in it.
type cover struct {
	first, end int64
	rest       []Span
}

// cover says which whole buckets of a length lie in a span. A bucket is whole if the part of it that is not in the
// span is before the first or after the last profile.
func (r *Rows) cover(bucket int64, s Span) cover {
	oldest, newest := r.dataset.MinTime, r.dataset.MaxTime
	fromStart, toEnd := s.From <= oldest, s.Until > newest
	if bucket == 0 {
		if fromStart && toEnd {
			return cover{first: 0, end: 1}
		}
		return cover{rest: []Span{s}}
	}
	first, end := floor(oldest, bucket), floor(newest, bucket)+1
	if !fromStart {
		if first = floor(s.From, bucket); first*bucket != s.From {
			first++
		}
	}
	if !toEnd {
		end = floor(s.Until, bucket)
	}
	if first >= end {
		return cover{rest: []Span{s}}
	}
	c := cover{first: first, end: end}
	if at := first * bucket; !fromStart && s.From < at {
		c.rest = append(c.rest, Span{s.From, at})
	}
	if at := end * bucket; !toEnd && at < s.Until {
		c.rest = append(c.rest, Span{at, s.Until})
	}
	return c
}

// floor divides and rounds down.
func floor(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// sumRollup adds the runs of some buckets to the sums.
func (r *Rows) sumRollup(ctx context.Context, m *storagev1.Rollup, column int, c cover, selected func(series uint32) bool, sums []int64) error {
	section, s, err := r.openRollup(ctx, m)
	if err != nil {
		return err
	}
	if selected != nil {
		if err := r.checkSeries(ctx, section); err != nil {
			return err
		}
	}
	return s.Sum(column, func(i int) bool {
		return section.Buckets[i] >= c.first && section.Buckets[i] < c.end && (selected == nil || selected(section.Series[i]))
	}, sums)
}

// checkSeries checks that the runs of a rollup are of series that there are, before anybody looks these up.
func (r *Rows) checkSeries(ctx context.Context, section *rollup.Section) error {
	all, err := r.dataset.group.loadSeries(ctx)
	if err != nil {
		return err
	}
	if n := len(section.Series); n > 0 && int64(section.Series[n-1]) >= int64(len(all)) { // they ascend
		return r.wrap(storagev1.SectionType_SECTION_TYPE_ROLLUP, fmt.Errorf("%w: sums of series %d of %d", ErrCorrupt, section.Series[n-1], len(all)))
	}
	return nil
}

// openRollup reads a rollup. Its runs are the profiles of what it returns as Samples.
func (r *Rows) openRollup(ctx context.Context, m *storagev1.Rollup) (*rollup.Section, *Samples, error) {
	g := r.dataset.group
	t, err := g.loadTrees(ctx, r.meta.GetTreesSection())
	if err != nil {
		return nil, nil, err
	}
	section, err := g.loadRollup(ctx, m.GetSection(), len(r.Kind.SampleTypes))
	if err != nil {
		return nil, nil, err
	}
	return section, r.rollupSamples(section, len(t.stack.Parents)), nil
}

// rollupSamples gives the runs of a rollup of a stack tree with that many nodes as samples of profiles.
func (r *Rows) rollupSamples(section *rollup.Section, nodes int) *Samples {
	types := len(r.Kind.SampleTypes)
	columns := make([]int, types)
	for i := range columns {
		columns[i] = i
	}
	return &Samples{
		rows: r, kind: storagev1.SectionType_SECTION_TYPE_ROLLUP,
		profiles: &Profiles{Samples: section.Rows, offsets: section.Offsets},
		section:  section.Samples.Directory, source: wholeSection{section.Samples},
		nodes: nodes, columns: columns, page: newPage(section.Samples.Columns()), values: make([][]int64, types),
	}
}

// loadRollup reads the rollup that is section i of the group.
func (g *group) loadRollup(ctx context.Context, i uint32, types int) (*rollup.Section, error) {
	return g.rollups[i].get(ctx, func() (*rollup.Section, error) {
		return load(ctx, g, g.meta.Sections[i], func(b []byte) (*rollup.Section, error) { return rollup.Parse(b, types) })
	})
}

// rollups checks what a footer says of the rollups of rows.
func (c *checker) rollups(i int, r *storagev1.Rows, g *storagev1.Group) {
	for _, m := range r.GetRollups() {
		if m.GetBucket() < 0 || m.GetBucket() > math.MaxInt64/4 {
			c.fail("dataset %d has a rollup with buckets of %d", i, m.GetBucket())
		}
		c.section(i, m.GetSection(), g, storagev1.SectionType_SECTION_TYPE_ROLLUP)
	}
	if len(r.GetRollups()) > 0 && !g.GetSorted() {
		c.fail("dataset %d has rollups in a group that is not sorted", i)
	}
}
