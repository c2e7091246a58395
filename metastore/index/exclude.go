package index

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"go.etcd.io/bbolt"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
)

// MaxExcluded is how many selectors of deleted series one dataset may carry until its object has been rewritten: each
// takes its text in the entry, and its time of every query. It is part of what commands mean.
const MaxExcluded = 32

// ErrExcluded is returned when a dataset carries as many selectors of deleted series as it may.
var ErrExcluded = errors.New("too many deletions by selector at a time")

// CheckDrop returns why a drop is refused: ErrInvalid for a selector that is none, ErrExcluded where there is no room for
// it. It answers for the transaction that is running.
func (x *Index) CheckDrop(d *storagev1.Drop) error {
	if d.GetSelector() == "" {
		return nil
	}
	selector, err := block.ParseExcluded(d.GetSelector())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for _, s := range x.next.having(d, selector) {
		m := s.entry.meta()
		ds := m.GetDatasets()[s.dataset]
		if !excludes(m, ds, d.GetSelector()) && len(ds.GetExcluded()) >= MaxExcluded {
			return fmt.Errorf("%w: service %q has %d that are not finished, the limit (MaxExcluded): wait for them, or join several selectors into one",
				ErrExcluded, m.GetStrings()[ds.GetService()], MaxExcluded)
		}
	}
	return nil
}

// excludes says whether a dataset carries a selector.
func excludes(m *storagev1.BlockMeta, d *storagev1.Dataset, selector string) bool {
	return slices.ContainsFunc(d.GetExcluded(), func(ref uint32) bool { return m.GetStrings()[ref] == selector })
}

// exclude hides the series that a checked drop selects: every dataset that may have one carries the selector from then on.
// It calls changed as Drop does, for the entries that did not carry it before.
func (x *Index) exclude(tx *bbolt.Tx, d *storagev1.Drop, changed func(before, after *storagev1.BlockMeta) error) error {
	selector, err := block.ParseExcluded(d.GetSelector())
	if err != nil {
		return fmt.Errorf("exclude series: %w", err)
	}
	hits := slices.DeleteFunc(x.next.having(d, selector), func(s span) bool {
		return excludes(s.entry.meta(), s.entry.meta().GetDatasets()[s.dataset], d.GetSelector())
	})
	return eachEntry(hits, func(e *entry, datasets []int) error {
		after := excluding(e.meta(), datasets, d.GetSelector())
		if err := x.replace(tx, e, after); err != nil {
			return err
		}
		return changed(e.meta(), after)
	})
}

// having returns the datasets of a drop's tenant, and service, that may have a series that its selector means, as Find
// decides it.
func (v *View) having(d *storagev1.Drop, selector labels.Selector) (hits []span) {
	t, ok := v.tenants.get(tenantNode{name: d.GetTenant()})
	if !ok {
		return nil
	}
	may := mayMatch(selector)
	on := selector.On(labels.ServiceName)
	t.services.overlap(math.MinInt64, math.MaxInt64, func(s serviceNode) {
		if d.Service != nil && s.name != d.GetService() || !on.Matches(func(string) string { return s.name }) {
			return
		}
		s.spans.overlap(math.MinInt64, math.MaxInt64, func(s span) {
			if may(s) {
				hits = append(hits, s)
			}
		})
	})
	return hits
}

// excluding returns an entry of which some datasets carry one selector more.
func excluding(m *storagev1.BlockMeta, datasets []int, selector string) *storagev1.BlockMeta {
	all := slices.Clone(m.GetDatasets())
	after := withDatasets(m, all)
	ref := slices.Index(m.GetStrings(), selector)
	if ref < 0 {
		ref = len(m.GetStrings())
		after.Strings = append(slices.Clone(m.GetStrings()), selector)
	}
	for _, i := range datasets {
		d := all[i]
		all[i] = &storagev1.Dataset{
			Tenant: d.GetTenant(), Service: d.GetService(), Group: d.GetGroup(), MinTime: d.GetMinTime(), MaxTime: d.GetMaxTime(),
			Rows: d.GetRows(), LabelFilter: d.GetLabelFilter(), Excluded: append(slices.Clone(d.GetExcluded()), uint32(ref)),
		}
	}
	return after
}

// eachEntry calls fn for every entry that has datasets among hits, in the order of the ids, with these datasets.
func eachEntry(hits []span, fn func(e *entry, datasets []int) error) error {
	slices.SortFunc(hits, span.compareEntry)
	for len(hits) > 0 {
		e := hits[0].entry
		var datasets []int
		for len(hits) > 0 && hits[0].entry == e {
			datasets = append(datasets, hits[0].dataset)
			hits = hits[1:]
		}
		if err := fn(e, datasets); err != nil {
			return err
		}
	}
	return nil
}
