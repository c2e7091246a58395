package querybackend

import (
	"context"
	"maps"
	"slices"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/query"
)

// timeSeries adds up the totals of profiles per group of series and bucket of time. It never reads samples.
type timeSeries struct {
	*object
	out    *query.Merger
	ask    *queryv1.AskTimeSeries
	groups map[string]*group
}

// group is one time series of the rows at hand.
type group struct {
	number int32
	labels labels.Labels
	times  []int64
	sums   []int64
	counts []uint64
}

func (t *timeSeries) rows(ctx context.Context, d *block.Dataset, r *block.Rows, columns []int) error {
	column := columns[0] // a profile type is one column
	p, err := t.pick(ctx, d, r)
	if err != nil || p.first >= p.last {
		return err
	}
	groupOf, err := t.grouping(ctx, d, r, column)
	if err != nil {
		return err
	}
	var once distinct
	rows := 0
	for i := p.first; i < p.last; i++ {
		if !p.has(i) {
			continue
		}
		rows++
		g := groupOf(p.Series[i])
		edge := query.Bucket(p.Times[i], t.ask.Origin, t.ask.Step)
		last := len(g.times) - 1
		if last < 0 || g.times[last] != edge { // rows ascend by time
			g.times, g.sums, g.counts = append(g.times, edge), append(g.sums, 0), append(g.counts, 0)
			last++
		}
		g.sums[last] += p.Totals[column][i] // fits: all of a dataset's do, or it would not have been written
		if once.first(p.Profiles, i, g.number) {
			g.counts[last]++
		}
	}
	t.cost.profiles.Add(uint64(rows))
	return t.flush()
}

// grouping returns the group of a series. Labels of series are looked at only if the groups are made by them.
func (t *timeSeries) grouping(ctx context.Context, d *block.Dataset, r *block.Rows, column int) (func(series uint32) *group, error) {
	if !slices.ContainsFunc(t.ask.GroupBy, func(name string) bool { return !derivedNames[name] }) {
		g := t.group(derived(d, r, column).Project(t.ask.GroupBy))
		return func(uint32) *group { return g }, nil
	}
	series, err := t.series(ctx, d)
	if err != nil {
		return nil, err
	}
	known := map[uint32]*group{}
	return func(s uint32) *group {
		g := known[s]
		if g == nil {
			g = t.group(query.SeriesLabels(series[s], r.Kind, column).Project(t.ask.GroupBy))
			known[s] = g
		}
		return g
	}, nil
}

func (t *timeSeries) group(ls labels.Labels) *group {
	key := ls.String()
	g := t.groups[key]
	if g == nil {
		g = &group{number: int32(len(t.groups)), labels: ls}
		t.groups[key] = g
	}
	return g
}

// flush makes a report of the groups.
func (t *timeSeries) flush() error {
	report := &queryv1.Report{}
	for _, g := range slices.SortedFunc(maps.Values(t.groups), func(a, b *group) int { return labels.Compare(a.labels, b.labels) }) {
		if len(g.times) > 0 {
			report.TimeSeries = append(report.TimeSeries, &queryv1.TimeSeries{
				Labels: query.LabelsToProto(g.labels), Times: g.times, Sums: g.sums, Profiles: g.counts,
			})
		}
	}
	clear(t.groups)
	if len(report.TimeSeries) == 0 {
		return nil
	}
	return t.out.Add(report)
}

func (t *timeSeries) finish() error { return nil }
