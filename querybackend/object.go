package querybackend

import (
	"context"
	"fmt"
	"iter"
	"sort"

	"golang.org/x/sync/errgroup"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/query"
)

// object is one entry that is being read, dataset by dataset.
type object struct {
	*work
	// charged are the sections that count in the budget already: datasets share them.
	charged map[any]bool
	// verdicts say, per table of series, which of them the selector chooses.
	verdicts map[*labels.Labels][]verdict
}

type verdict uint8

const (
	unknown verdict = iota
	chosen
	refused
)

// maker makes reports of what rows hold. Rows come in the order of the object; finish comes last.
type maker interface {
	rows(ctx context.Context, d *block.Dataset, r *block.Rows, columns []int) error
	finish() error
}

// entry reads one object and adds what it says to the sum.
func (w *work) entry(ctx context.Context, e *storagev1.BlockMeta, out *query.Merger) error {
	src := source{objstore.Object(w.backend.bucket, block.Key(e), int64(e.GetSize())), &w.cost}
	reader, err := block.Open(src, e)
	if err != nil {
		return fmt.Errorf("%s: %w", src.Key(), err)
	}
	w.cost.entries.Add(1)
	o := &object{work: w, charged: map[any]bool{}, verdicts: map[*labels.Labels][]verdict{}}
	m := o.maker(out)
	for _, d := range reader.Datasets() {
		if d.Tenant != w.request.Tenant || !w.question.meets(d.MinTime, d.MaxTime) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := o.dataset(ctx, d, m); err != nil {
			return fmt.Errorf("%s: %w", src.Key(), err)
		}
	}
	return m.finish()
}

func (o *object) maker(out *query.Merger) maker {
	switch ask := o.question.Ask.(type) {
	case *queryv1.Question_Tree:
		return &weights{object: o, out: out, build: buildTree, sumsOnly: true}
	case *queryv1.Question_Stacks:
		return &weights{object: o, out: out, build: buildStacks}
	case *queryv1.Question_TimeSeries:
		return &timeSeries{object: o, out: out, ask: ask.TimeSeries, groups: map[string]*group{}}
	default:
		return newLabelSets(o, out)
	}
}

func (o *object) dataset(ctx context.Context, d *block.Dataset, m maker) error {
	read := false
	for _, r := range d.Rows {
		columns := o.question.columns(d, r)
		if q := o.question.requests; len(columns) == 0 || q != nil && !r.Has(q.Column()) {
			continue
		}
		if !read {
			read = true
			o.cost.datasets.Add(1)
		}
		if err := m.rows(ctx, d, r, columns); err != nil {
			return err
		}
	}
	return nil
}

// charge counts a section that has been decoded, or is about to be, once.
func (o *object) charge(section any, bytes int) error {
	if o.charged[section] {
		return nil
	}
	o.charged[section] = true
	o.cost.decoded.Add(uint64(bytes))
	return o.budget.take(int64(bytes))
}

// chooser decides which series of rows count, each once: those that the question is about and that were not deleted. A nil
// chooser is one that need not look: all do.
type chooser struct {
	own      labels.Selector
	deleted  *block.Exclusion // nil: none
	isGone   map[uint32]bool  // of series that were looked at
	series   []labels.Labels
	verdicts []verdict
}

// chooses tells whether rows have to be read series by series.
func (o *object) chooses(r *block.Rows) bool { return len(o.question.own) > 0 || r.Exclusion() != nil }

// chooser returns what decides for rows of a dataset.
func (o *object) chooser(ctx context.Context, d *block.Dataset, r *block.Rows) (*chooser, error) {
	if !o.chooses(r) {
		return nil, nil
	}
	series, err := o.series(ctx, d)
	if err != nil {
		return nil, err
	}
	c := &chooser{own: o.question.own, deleted: r.Exclusion(), isGone: map[uint32]bool{}, series: series}
	if len(series) > 0 {
		table := &series[0]
		if o.verdicts[table] == nil {
			o.verdicts[table] = make([]verdict, len(series))
		}
		c.verdicts = o.verdicts[table]
	}
	return c, nil
}

// chooses tells whether a series counts.
func (c *chooser) chooses(series uint32) bool {
	if c == nil {
		return true
	}
	if c.gone(series) {
		return false
	}
	if c.verdicts[series] == unknown {
		c.verdicts[series] = refused
		if c.own.MatchesLabels(c.series[series]) {
			c.verdicts[series] = chosen
		}
	}
	return c.verdicts[series] == chosen
}

// gone tells whether a series was deleted from the rows at hand. Those of another kind may still have it.
func (c *chooser) gone(series uint32) bool {
	if c.deleted == nil {
		return false
	}
	gone, known := c.isGone[series]
	if !known {
		gone = c.deleted.Excludes(c.series[series])
		c.isGone[series] = gone
	}
	return gone
}

// picked are the profiles of rows that count: those from first to last (exclusive) whose series is chosen, and whose id
// if there are ids.
type picked struct {
	*block.Profiles
	*chooser
	ids         map[profile.ID]bool
	first, last int
}

// pick reads the profiles of rows and says which count.
func (o *object) pick(ctx context.Context, d *block.Dataset, r *block.Rows) (*picked, error) {
	if err := o.charge(r, r.ProfileCount*(72+24*len(r.Sums))); err != nil { // the columns of block.Profiles
		return nil, err
	}
	profiles, err := r.Profiles(ctx)
	if err != nil {
		return nil, err
	}
	p := &picked{Profiles: profiles, ids: o.question.ids, last: profiles.Len()}
	if !o.question.covers(d.MinTime, d.MaxTime) {
		p.first = sort.Search(profiles.Len(), func(i int) bool { return profiles.Times[i] >= o.question.Start })
		p.last = sort.Search(profiles.Len(), func(i int) bool { return profiles.Times[i] >= o.question.End })
	}
	if p.first < p.last {
		p.chooser, err = o.chooser(ctx, d, r)
	}
	return p, err
}

// has tells whether profile i, between first and last, counts.
func (p *picked) has(i int) bool { return p.chooses(p.Series[i]) && (p.ids == nil || p.ids[p.IDs[i]]) }

// all goes through the profiles that count.
func (p *picked) all() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := p.first; i < p.last; i++ {
			if p.has(i) && !yield(i) {
				return
			}
		}
	}
}

// selection returns has as block.Samples wants it: nil if every profile counts.
func (p *picked) selection() func(i int) bool {
	if p.chooser == nil && p.ids == nil && p.first == 0 && p.last == p.Len() {
		return nil
	}
	return func(i int) bool { return i >= p.first && i < p.last && p.has(i) }
}

// series returns the label sets of a dataset's group.
func (o *object) series(ctx context.Context, d *block.Dataset) ([]labels.Labels, error) {
	all, err := d.Series(ctx)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	bytes := 0
	if !o.charged[&all[0]] {
		for _, ls := range all {
			bytes += 24 + 32*len(ls)
			for _, l := range ls {
				bytes += len(l.Name) + len(l.Value)
			}
		}
	}
	return all, o.charge(&all[0], bytes)
}

// stacks are the trees and names that samples of rows refer to.
type stacks struct {
	symbols *profile.Symbols
	tree    *profile.StackTree
	call    *profile.CallTree // nil in a segment
}

// stacks reads trees and names that rows refer to, side by side.
func (o *object) stacks(ctx context.Context, d *block.Dataset, r *block.Rows) (stacks, error) {
	s, _, err := o.stacksAndSamples(ctx, d, r, nil, 0)
	return s, err
}

// stacksAndSamples reads trees, names and samples of rows, side by side; no samples if there are no profiles.
func (o *object) stacksAndSamples(ctx context.Context, d *block.Dataset, r *block.Rows, p *block.Profiles, column int) (stacks, *block.Samples, error) {
	var s stacks
	var samples *block.Samples
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return o.guard(func() (err error) { s.symbols, err = d.Symbols(ctx); return err })
	})
	g.Go(func() error {
		return o.guard(func() (err error) { s.tree, s.call, err = r.Trees(ctx); return err })
	})
	if p != nil {
		g.Go(func() error {
			return o.guard(func() (err error) { samples, err = r.Samples(ctx, p, column); return err })
		})
	}
	if err := g.Wait(); err != nil {
		return stacks{}, nil, err
	}
	if err := o.charge(s.symbols, symbolBytes(s.symbols)); err != nil {
		return stacks{}, nil, err
	}
	treeBytes := 8 * len(s.tree.Parents)
	if s.call != nil {
		treeBytes += 8*len(s.call.Parents) + 4*len(s.call.OfStack)
	}
	return s, samples, o.charge(s.tree, treeBytes)
}

func symbolBytes(s *profile.Symbols) int {
	return len(s.Data) + 8*len(s.Strings) + 40*len(s.Mappings) + 24*len(s.Functions) + 24*len(s.Locations) + 24*len(s.Lines)
}
