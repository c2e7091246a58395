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

// labelSets gathers the labels of series that have a row in the time range: their names, the values of one name,
// or the sets.
type labelSets struct {
	*object
	out *query.Merger
	// value is the name whose values are asked for.
	value string
	// project are the names that sets are projected on; all if there are none.
	project []string
	// add takes the labels of one series into names or sets.
	add   func(labels.Labels)
	names map[string]bool
	sets  map[string]labels.Labels
}

func newLabelSets(o *object, out *query.Merger) *labelSets {
	l := &labelSets{object: o, out: out, names: map[string]bool{}, sets: map[string]labels.Labels{}}
	switch ask := o.question.Ask.(type) {
	case *queryv1.Question_LabelValues:
		l.value = ask.LabelValues.GetName()
		l.add = l.addValue
	case *queryv1.Question_Series:
		l.project = ask.Series.GetLabelNames()
		l.add = l.addSet
	default:
		l.add = l.addNames
	}
	return l
}

func (l *labelSets) rows(ctx context.Context, d *block.Dataset, r *block.Rows, columns []int) error {
	if l.derivedOnly() && !l.chooses(r) && l.question.covers(d.MinTime, d.MaxTime) && r.ProfileCount > 0 {
		for _, c := range columns {
			l.add(derived(d, r, c))
		}
		return nil // every series of the rows says the same
	}
	p, err := l.pick(ctx, d, r)
	if err != nil || p.first >= p.last {
		return err
	}
	series, err := l.series(ctx, d)
	if err != nil {
		return err
	}
	seen := map[uint32]bool{}
	rows := 0
	for i := p.first; i < p.last; i++ {
		if !p.has(i) {
			continue
		}
		rows++
		if s := p.Series[i]; !seen[s] {
			seen[s] = true
			for _, c := range columns {
				l.add(query.SeriesLabels(series[s], r.Kind, c))
			}
		}
	}
	l.cost.profiles.Add(uint64(rows))
	return nil
}

// derivedOnly tells whether the answer depends on nothing but service and profile type.
func (l *labelSets) derivedOnly() bool {
	switch l.question.Ask.(type) {
	case *queryv1.Question_LabelValues:
		return derivedNames[l.value]
	case *queryv1.Question_Series:
		return len(l.project) > 0 && !slices.ContainsFunc(l.project, func(n string) bool { return !derivedNames[n] })
	}
	return false
}

func (l *labelSets) addNames(ls labels.Labels) {
	for _, label := range ls {
		l.names[label.Name] = true
	}
}

func (l *labelSets) addValue(ls labels.Labels) {
	if v := ls.Get(l.value); v != "" {
		l.names[v] = true
	}
}

func (l *labelSets) addSet(ls labels.Labels) {
	if len(l.project) > 0 {
		ls = ls.Project(l.project)
	}
	l.sets[ls.String()] = ls
}

func (l *labelSets) finish() error {
	if len(l.names) == 0 && len(l.sets) == 0 {
		return nil
	}
	report := &queryv1.Report{Names: slices.Sorted(maps.Keys(l.names))}
	for _, set := range slices.SortedFunc(maps.Values(l.sets), labels.Compare) {
		report.Series = append(report.Series, &queryv1.LabelSet{Labels: query.LabelsToProto(set)})
	}
	return l.out.Add(report)
}
