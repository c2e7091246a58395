package queryfrontend

import (
	"context"
	"maps"
	"math"
	"slices"
	"strings"

	"connectrpc.com/connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/query"
)

// The questions of this file are answered by the index alone and read no object. They are as exact as its entries:
// a dataset counts with all its profile types if its time range meets the question's. The exception are datasets of which
// series were deleted while the object still holds them: of these it is asked what is left.

// ProfileTypes returns the profile types that there are in a time range, or ever if start and end are 0.
func (f *Frontend) ProfileTypes(ctx context.Context, req *connect.Request[querierv1.ProfileTypesRequest]) (*connect.Response[querierv1.ProfileTypesResponse], error) {
	return serve(ctx, f, "ProfileTypes", req, f.profileTypes)
}

func (f *Frontend) profileTypes(ctx context.Context, c *call, req *querierv1.ProfileTypesRequest) (*querierv1.ProfileTypesResponse, error) {
	var r timeRange
	if req.Start != 0 || req.End != 0 {
		var err error
		if r, err = parseRange(req.Start, req.End); err != nil {
			return nil, err
		}
	}
	types := map[string]profile.Type{}
	err := f.eachType(ctx, c, r, func(_ string, t profile.Type) { types[t.String()] = t })
	if err != nil {
		return nil, err
	}
	res := &querierv1.ProfileTypesResponse{}
	for _, id := range slices.Sorted(maps.Keys(types)) {
		t := types[id]
		res.ProfileTypes = append(res.ProfileTypes, &typesv1.ProfileType{
			ID: id, Name: t.Name, SampleType: t.SampleType, SampleUnit: t.SampleUnit, PeriodType: t.PeriodType, PeriodUnit: t.PeriodUnit,
		})
	}
	return res, nil
}

// GetProfileStats returns whether there is any data at all, and the times of the oldest and the newest profile.
func (f *Frontend) GetProfileStats(ctx context.Context, req *connect.Request[typesv1.GetProfileStatsRequest]) (*connect.Response[typesv1.GetProfileStatsResponse], error) {
	return serve(ctx, f, "GetProfileStats", req, f.profileStats)
}

func (f *Frontend) profileStats(ctx context.Context, c *call, _ *typesv1.GetProfileStatsRequest) (*typesv1.GetProfileStatsResponse, error) {
	datasets, err := f.datasets(ctx, c, timeRange{})
	if err != nil || len(datasets) == 0 {
		return &typesv1.GetProfileStatsResponse{}, err
	}
	oldest, newest := datasets[0].minTime, datasets[0].maxTime
	for _, d := range datasets {
		oldest, newest = min(oldest, d.minTime), max(newest, d.maxTime)
	}
	return &typesv1.GetProfileStatsResponse{DataIngested: true, OldestProfileTime: millis(oldest), NewestProfileTime: millis(newest)}, nil
}

// indexKnows tells whether label sets projected on names can be answered by the index: which service has which
// profile types.
func indexKnows(names []string) bool {
	for _, n := range names {
		if n != labels.ServiceName && n != labels.ProfileType {
			return false
		}
	}
	return len(names) > 0
}

// indexedSeries returns the distinct pairs of service and profile type, projected on names.
func (f *Frontend) indexedSeries(ctx context.Context, c *call, r timeRange, names []string) ([]*typesv1.Labels, error) {
	sets := map[string]labels.Labels{}
	err := f.eachType(ctx, c, r, func(service string, t profile.Type) {
		set := labels.FromStrings(labels.ServiceName, service, labels.ProfileType, t.String()).Project(names)
		sets[set.String()] = set
	})
	if err != nil {
		return nil, err
	}
	sorted := slices.SortedFunc(maps.Values(sets), labels.Compare)
	wire := make([]*typesv1.Labels, len(sorted))
	for i, set := range sorted {
		wire[i] = &typesv1.Labels{}
		for _, l := range set {
			wire[i].Labels = append(wire[i].Labels, &typesv1.LabelPair{Name: l.Name, Value: l.Value})
		}
	}
	return wire, nil
}

// eachType calls fn once for every service and each of its profile types.
func (f *Frontend) eachType(ctx context.Context, c *call, r timeRange, fn func(service string, t profile.Type)) error {
	datasets, err := f.datasets(ctx, c, r)
	if err != nil {
		return err
	}
	seen := map[string]bool{} // thousands of entries tell the same
	for _, d := range datasets {
		for _, k := range d.kinds {
			key := strings.Join([]string{d.service, k.Key()}, "\x00")
			if seen[key] {
				continue
			}
			seen[key] = true
			for i := range k.SampleTypes {
				fn(d.service, k.Type(i))
			}
		}
	}
	return nil
}

// datasets returns what there is in a time range. Of reduced datasets it returns the kinds that are left of their service;
// their times may still be those of deleted profiles.
func (f *Frontend) datasets(ctx context.Context, c *call, r timeRange) ([]dataset, error) {
	q := &question{timeRange: r, reduced: true, message: &queryv1.Question{Start: r.start, End: r.end}}
	if r == (timeRange{}) {
		q.message.Start, q.message.End = math.MinInt64, math.MaxInt64
	}
	q.message.Ask = &queryv1.Question_Series{Series: &queryv1.AskSeries{LabelNames: []string{labels.ServiceName, labels.ProfileType}}}
	report, entries, err := f.askOf(ctx, c, q)
	if err != nil {
		return nil, err
	}
	all, err := datasetsOf(entries, c.tenant, r)
	if err != nil {
		return nil, err
	}
	left := map[string]bool{}
	for _, set := range report.GetSeries() {
		ls, err := query.LabelsFromProto(set.GetLabels())
		if err != nil {
			return nil, err
		}
		left[ls.String()] = true
	}
	return leftOf(all, left), nil
}

// leftOf returns datasets with those of the reduced ones' kinds alone of which a profile type is left.
func leftOf(all []dataset, left map[string]bool) []dataset {
	for i := range all {
		d := &all[i]
		if !d.reduced {
			continue
		}
		d.kinds = slices.DeleteFunc(d.kinds, func(k profile.Kind) bool {
			set := labels.FromStrings(labels.ServiceName, d.service, labels.ProfileType, k.Type(0).String())
			return !left[set.String()] // one type is left with the others: they share rows
		})
	}
	return slices.DeleteFunc(all, func(d dataset) bool { return d.reduced && len(d.kinds) == 0 })
}
