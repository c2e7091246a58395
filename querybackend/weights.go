package querybackend

import (
	"context"
	"fmt"
	"iter"
	"math"
	"slices"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/flamegraph"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/query"
)

// rowBytes is what a row of samples counts in the budget: a stack node and a value.
const rowBytes = 4 + 8

// weights adds up values per stack node. The datasets of a segment share one tree, so sums go on from one to the
// next until the tree changes; then a report is made of them.
type weights struct {
	*object
	out   *query.Merger
	build func(*weighed) (*queryv1.Report, error)
	// sumsOnly: the report says nothing of the profiles that were added, so rollups can answer.
	sumsOnly bool
	at       weighed
}

// weighed is what has been added up over one tree.
type weighed struct {
	stacks
	sums []int64
	// total is the sum of sums: while it fits an int64, each of them does.
	total int64
	// Of the profiles that were added.
	profiles uint64
	duration int64
	period   int64
	time     int64
}

func (w *weights) rows(ctx context.Context, d *block.Dataset, r *block.Rows, columns []int) error {
	column := columns[0] // a profile type is one column
	if w.sumsOnly && w.question.wholeProfiles() {
		if rollups := w.answering(d, r); len(rollups) > 0 {
			return w.coarse(ctx, d, r, column, rollups)
		}
	}
	p, err := w.pick(ctx, d, r)
	if err != nil {
		return err
	}
	counts, found := p.all(), []int(nil)
	if q := w.question.requests; q != nil {
		if found, err = r.FindRequests(ctx, p.Profiles, q, p.selection()); err != nil {
			return err
		}
		counts = slices.Values(found)
	}
	add := count(p, column, counts)
	if add.rows == 0 {
		return nil
	}
	if err := w.spend(add.rows, add.samples); err != nil {
		return err
	}
	s, samples, err := w.stacksAndSamples(ctx, d, r, p.Profiles, column)
	if err != nil {
		return err
	}
	if err := w.turn(s, add); err != nil {
		return err
	}
	if q := w.question.requests; q != nil {
		err = samples.SumRequests(column, q, found, w.at.sums)
	} else {
		err = samples.Sum(column, p.selection(), w.at.sums)
	}
	if err != nil {
		return err
	}
	w.at.profiles += add.profiles
	w.at.duration += add.duration
	w.at.period = max(w.at.period, add.period)
	w.at.time = min(w.at.time, add.time)
	return nil
}

// spend counts profiles and samples that are about to be decoded.
func (w *weights) spend(profiles, samples int) error {
	w.cost.profiles.Add(uint64(profiles))
	w.cost.samples.Add(uint64(samples))
	w.cost.decoded.Add(uint64(samples * rowBytes))
	return w.budget.take(int64(samples) * rowBytes)
}

// turn makes the sums at hand those of a tree, with room for what is to be added.
func (w *weights) turn(s stacks, add counted) error {
	if w.at.tree != s.tree || w.at.total > math.MaxInt64-add.total || w.at.duration > math.MaxInt64-add.duration {
		if err := w.finish(); err != nil {
			return err
		}
		w.at = weighed{stacks: s, sums: make([]int64, len(s.tree.Parents)), time: math.MaxInt64}
	}
	w.at.total += add.total
	return nil
}

// counted is what the table of profiles says of those that count. Of some only a part of the rows may count: their total
// is an upper bound then.
type counted struct {
	rows, samples int
	total         int64
	profiles      uint64
	duration      int64
	period, time  int64
}

func count(p *picked, column int, profiles iter.Seq[int]) counted {
	c := counted{time: math.MaxInt64}
	var once distinct
	for i := range profiles {
		c.rows++
		c.samples += int(p.Samples[i])
		c.total += p.Totals[column][i] // fits: all of a dataset's do, or it would not have been written
		c.period = max(c.period, p.Periods[i])
		c.time = min(c.time, p.Times[i])
		if once.first(p.Profiles, i, 0) {
			c.profiles++
			c.duration = addUpTo(c.duration, p.Durations[i])
		}
	}
	return c
}

// addUpTo adds b to a and stops at what an int64 holds: durations are what clients say.
func addUpTo(a, b int64) int64 {
	if b > 0 && a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + max(b, 0)
}

// finish makes a report of the sums at hand.
func (w *weights) finish() error {
	if w.at.tree == nil {
		return nil
	}
	report, err := w.build(&w.at)
	if err != nil {
		return err
	}
	w.at = weighed{}
	return w.out.Add(report)
}

func buildTree(w *weighed) (*queryv1.Report, error) {
	var tree *flamegraph.Tree
	var err error
	if w.call != nil {
		tree, err = flamegraph.Build(w.call, w.symbols, w.sums)
	} else {
		tree, err = flamegraph.BuildUnsorted(w.symbols, w.tree, w.sums)
	}
	if err != nil {
		return nil, fmt.Errorf("build tree: %w", err)
	}
	return &queryv1.Report{Tree: query.TreeToProto(tree)}, nil
}

func buildStacks(w *weighed) (*queryv1.Report, error) {
	s, err := query.StacksToProto(w.symbols, w.tree, w.sums)
	if err != nil {
		return nil, fmt.Errorf("build stacks: %w", err)
	}
	s.Profiles, s.Duration, s.Period, s.Time = w.profiles, w.duration, w.period, w.time
	return &queryv1.Report{Stacks: s}, nil
}

// distinct tells profiles apart. A profile that its sample labels split is several rows of one time and id, so
// whoever counts profiles counts the first of them, per group.
type distinct struct {
	time int64
	seen map[groupedID]bool
}

type groupedID struct {
	group int32
	id    profile.ID
}

// first tells whether row i is the first of its profile in a group. Rows must come in order.
func (d *distinct) first(p *block.Profiles, i int, group int32) bool {
	t := p.Times[i]
	if (i == 0 || p.Times[i-1] != t) && (i+1 == p.Len() || p.Times[i+1] != t) {
		return true // alone at its time, as most are
	}
	if d.seen == nil || d.time != t {
		d.time = t
		if d.seen == nil {
			d.seen = map[groupedID]bool{}
		}
		clear(d.seen)
	}
	key := groupedID{group, p.IDs[i]}
	if d.seen[key] {
		return false
	}
	d.seen[key] = true
	return true
}
