package query

import (
	"maps"
	"slices"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/labels"
)

// namesAnswer is a set of label names or of label values.
type namesAnswer map[string]struct{}

func (a namesAnswer) add(r *queryv1.Report) error {
	if err := only(r, "names"); err != nil {
		return err
	}
	for _, name := range r.GetNames() {
		a[name] = struct{}{}
	}
	return nil
}

func (a namesAnswer) report() *queryv1.Report {
	return &queryv1.Report{Names: slices.Sorted(maps.Keys(a))}
}

// seriesAnswer is a set of label sets.
type seriesAnswer map[string]labels.Labels

func (a seriesAnswer) add(r *queryv1.Report) error {
	if err := only(r, "series"); err != nil {
		return err
	}
	for _, s := range r.GetSeries() {
		ls, err := LabelsFromProto(s.GetLabels())
		if err != nil {
			return err
		}
		a[labelsKey(ls)] = ls
	}
	return nil
}

func (a seriesAnswer) report() *queryv1.Report {
	sets := slices.SortedFunc(maps.Values(a), labels.Compare)
	r := &queryv1.Report{Series: make([]*queryv1.LabelSet, len(sets))}
	for i, ls := range sets {
		r.Series[i] = &queryv1.LabelSet{Labels: LabelsToProto(ls)}
	}
	return r
}
