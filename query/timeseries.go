package query

import (
	"fmt"
	"math"
	"slices"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/labels"
)

// timeSeriesAnswer are series by their labels.
type timeSeriesAnswer map[string]*labelledSeries

type labelledSeries struct {
	labels labels.Labels
	series *queryv1.TimeSeries
}

func (a timeSeriesAnswer) add(r *queryv1.Report) error {
	if err := only(r, "time_series"); err != nil {
		return err
	}
	for _, s := range r.GetTimeSeries() {
		ls, err := LabelsFromProto(s.GetLabels())
		if err != nil {
			return err
		}
		if err := validateTimeSeries(s); err != nil {
			return fmt.Errorf("series %s: %w", ls, err)
		}
		key := labelsKey(ls)
		known, ok := a[key]
		if !ok {
			a[key] = &labelledSeries{ls, s}
			continue
		}
		if known.series, err = mergeTimeSeries(known.series, s); err != nil {
			return fmt.Errorf("series %s: %w", ls, err)
		}
	}
	return nil
}

func validateTimeSeries(s *queryv1.TimeSeries) error {
	if len(s.GetSums()) != len(s.GetTimes()) || len(s.GetProfiles()) != len(s.GetTimes()) {
		return fmt.Errorf("%w: %d sums and %d profile counts for %d times", ErrReport, len(s.GetSums()), len(s.GetProfiles()), len(s.GetTimes()))
	}
	for i := 1; i < len(s.GetTimes()); i++ {
		if s.GetTimes()[i-1] >= s.GetTimes()[i] {
			return fmt.Errorf("%w: time %d after %d", ErrReport, s.GetTimes()[i], s.GetTimes()[i-1])
		}
	}
	return nil
}

// mergeTimeSeries returns the sum of two series of the same labels.
func mergeTimeSeries(a, b *queryv1.TimeSeries) (*queryv1.TimeSeries, error) {
	n := len(a.Times) + len(b.Times)
	out := &queryv1.TimeSeries{Labels: a.Labels, Times: make([]int64, 0, n), Sums: make([]int64, 0, n), Profiles: make([]uint64, 0, n)}
	for i, j := 0, 0; i < len(a.Times) || j < len(b.Times); {
		switch {
		case j == len(b.Times) || i < len(a.Times) && a.Times[i] < b.Times[j]:
			appendPoint(out, a, i)
			i++
		case i == len(a.Times) || b.Times[j] < a.Times[i]:
			appendPoint(out, b, j)
			j++
		default:
			sum, err := plus(a.Sums[i], b.Sums[j])
			if err != nil {
				return nil, fmt.Errorf("at %d: %w", a.Times[i], err)
			}
			if a.Profiles[i] > math.MaxUint64-b.Profiles[j] {
				return nil, fmt.Errorf("%w: %d profiles at %d", ErrReport, b.Profiles[j], b.Times[j])
			}
			appendPoint(out, a, i)
			out.Sums[len(out.Sums)-1] = sum
			out.Profiles[len(out.Profiles)-1] += b.Profiles[j]
			i, j = i+1, j+1
		}
	}
	return out, nil
}

func appendPoint(out, from *queryv1.TimeSeries, i int) {
	out.Times = append(out.Times, from.Times[i])
	out.Sums = append(out.Sums, from.Sums[i])
	out.Profiles = append(out.Profiles, from.Profiles[i])
}

// report has the series in the order of their labels.
func (a timeSeriesAnswer) report() *queryv1.Report {
	all := make([]*labelledSeries, 0, len(a))
	for _, s := range a {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *labelledSeries) int { return labels.Compare(a.labels, b.labels) })
	r := &queryv1.Report{TimeSeries: make([]*queryv1.TimeSeries, len(all))}
	for i, s := range all {
		r.TimeSeries[i] = s.series
	}
	return r
}
