package block

import (
	"fmt"
	"slices"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// An entry may say of a dataset that series of it were deleted, by selectors that mean them, while the object still
// holds them. Whoever reads rows leaves these series out: queries until the object has been rewritten, and the merge that
// rewrites it. A footer never says so.

// ofOneSampleType are labels in which the sample types of a profile differ, so that a deletion cannot go by them: they
// share rows.
var ofOneSampleType = []string{labels.ProfileType, labels.Type, labels.Unit}

// ParseExcluded reads a selector of series to be deleted. It means what it means in a query, but must not match series
// whatever their labels, nor some sample types of a profile alone. The errors wrap labels.ErrSelector.
func ParseExcluded(text string) (labels.Selector, error) {
	s, err := labels.ParseSelector(text)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(s, func(m labels.Matcher) bool { return !m.Matches("") }) {
		return nil, fmt.Errorf("%w %q: no matcher asks for a value that is not empty", labels.ErrSelector, text)
	}
	for _, m := range s {
		if slices.Contains(ofOneSampleType, m.Name()) {
			return nil, fmt.Errorf("%w %q: %s is of one sample type, and a profile is deleted with all it has", labels.ErrSelector, text, m.Name())
		}
	}
	return s, nil
}

// Exclusion says which series of some Rows were deleted. It may be used concurrently.
type Exclusion struct{ filters []profile.SeriesFilter }

// newExclusion returns what selectors exclude of a kind; nil if that is nothing.
func newExclusion(selectors []labels.Selector, k profile.Kind) *Exclusion {
	var e Exclusion
	for _, s := range selectors {
		if f, ok := profile.NewSeriesFilter(s, k, 0); ok { // any sample type would do
			e.filters = append(e.filters, f)
		}
	}
	if e.filters == nil {
		return nil
	}
	return &e
}

// Excludes tells whether the series with these labels was deleted.
func (e *Exclusion) Excludes(series labels.Labels) bool {
	return slices.ContainsFunc(e.filters, func(f profile.SeriesFilter) bool { return f.Matches(series) })
}

// Exclusion returns what was deleted of the rows and must be left out; nil if nothing was. Profiles and samples, sums and
// rollups are those of all rows.
func (r *Rows) Exclusion() *Exclusion { return r.exclusion }

// excluded parses what an entry says was deleted of its datasets, each selector once. known are those that have been
// parsed, by their references.
func (r *Reader) excluded(d *storagev1.Dataset, known map[uint32]labels.Selector) (all []labels.Selector, err error) {
	for _, ref := range d.GetExcluded() {
		s, ok := known[ref]
		if !ok {
			if s, err = ParseExcluded(r.meta.Strings[ref]); err != nil {
				return nil, fmt.Errorf("%w: what was deleted of service %q: %w", ErrCorrupt, r.meta.Strings[d.GetService()], err)
			}
			known[ref] = s
		}
		all = append(all, s)
	}
	return all, nil
}
