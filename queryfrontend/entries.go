package queryfrontend

import (
	"fmt"
	"slices"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/tenant"
)

// dataset is what the index knows of one service's rows in one object.
type dataset struct {
	service          string
	kinds            []profile.Kind
	minTime, maxTime int64 // both inclusive
	// reduced: series of it were deleted that are still in the object.
	reduced bool
}

// within tells whether the dataset may have rows in r.
func (d *dataset) within(r timeRange) bool {
	return r == timeRange{} || d.minTime < r.end && d.maxTime >= r.start
}

// datasetOf reads dataset i of an entry; false if it is another tenant's.
func datasetOf(e *storagev1.BlockMeta, i int, t tenant.ID) (dataset, bool, error) {
	m := e.Datasets[i]
	owner, ok := stringOf(e, m.Tenant)
	service, ok2 := stringOf(e, m.Service)
	if !ok || !ok2 {
		return dataset{}, false, fmt.Errorf("entry %s: dataset %d names a string beyond %d", e.Id, i, len(e.Strings))
	}
	if owner != string(t) {
		return dataset{}, false, nil
	}
	d := dataset{service: service, minTime: m.MinTime, maxTime: m.MaxTime, reduced: len(m.Excluded) > 0}
	for _, rows := range m.Rows {
		k, err := kindOf(e, rows.Kind)
		if err != nil {
			return dataset{}, false, err
		}
		d.kinds = append(d.kinds, k)
	}
	return d, true, nil
}

func kindOf(e *storagev1.BlockMeta, i uint32) (profile.Kind, error) {
	if int(i) >= len(e.Kinds) {
		return profile.Kind{}, fmt.Errorf("entry %s: kind %d of %d", e.Id, i, len(e.Kinds))
	}
	all := true
	name := func(ref uint32) string {
		s, ok := stringOf(e, ref)
		all = all && ok
		return s
	}
	m := e.Kinds[i]
	k := profile.Kind{Name: name(m.Name), PeriodType: name(m.PeriodType), PeriodUnit: name(m.PeriodUnit)}
	for _, st := range m.SampleTypes {
		k.SampleTypes = append(k.SampleTypes, profile.SampleType{Type: name(st.Type), Unit: name(st.Unit)})
	}
	if !all {
		return profile.Kind{}, fmt.Errorf("entry %s: kind %d names a string beyond %d", e.Id, i, len(e.Strings))
	}
	return k, nil
}

func stringOf(e *storagev1.BlockMeta, ref uint32) (string, bool) {
	if int(ref) >= len(e.Strings) {
		return "", false
	}
	return e.Strings[ref], true
}

// datasetsOf returns what the entries know of a tenant's rows in a time range.
func datasetsOf(entries []*storagev1.BlockMeta, t tenant.ID, r timeRange) ([]dataset, error) {
	var all []dataset
	for _, e := range entries {
		for i := range e.Datasets {
			d, ok, err := datasetOf(e, i, t)
			if err != nil {
				return nil, err
			}
			if ok && d.within(r) {
				all = append(all, d)
			}
		}
	}
	return all, nil
}

// narrow returns the entries with only those datasets that may hold something of the question: of the tenant, in the
// time range, of a service that the selector lets pass, with the profile type if there is one and with spans or traces if it
// asks for some; or only the reduced ones of these. The entries themselves are the index's and stay as they are.
func narrow(entries []*storagev1.BlockMeta, t tenant.ID, q *question) ([]*storagev1.BlockMeta, error) {
	services := q.selector.On(labels.ServiceName)
	var narrowed []*storagev1.BlockMeta
	for _, e := range entries {
		var kept []*storagev1.Dataset
		for i := range e.Datasets {
			d, ok, err := datasetOf(e, i, t)
			if err != nil {
				return nil, err
			}
			if ok && (d.reduced || !q.reduced) && d.within(q.timeRange) && services.Matches(func(string) string { return d.service }) && d.has(q.profileType) && mayHave(e.Datasets[i], q.message) {
				kept = append(kept, e.Datasets[i])
			}
		}
		if len(kept) > 0 {
			narrowed = append(narrowed, withDatasets(e, kept))
		}
	}
	return narrowed, nil
}

// has tells whether a kind of the dataset has the profile type; any will do for none.
func (d *dataset) has(t *profile.Type) bool {
	return t == nil || slices.ContainsFunc(d.kinds, func(k profile.Kind) bool { _, ok := k.Index(*t); return ok })
}

// withDatasets returns e with other datasets.
func withDatasets(e *storagev1.BlockMeta, datasets []*storagev1.Dataset) *storagev1.BlockMeta {
	return &storagev1.BlockMeta{
		Id: e.Id, Tenant: e.Tenant, Shard: e.Shard, Level: e.Level, MinTime: e.MinTime, MaxTime: e.MaxTime,
		Sources: e.Sources, Writer: e.Writer, Size: e.Size, Kinds: e.Kinds, Groups: e.Groups, Datasets: datasets, Strings: e.Strings,
	}
}
