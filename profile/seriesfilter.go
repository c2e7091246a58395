package profile

import "github.com/kilndb/kiln/labels"

// Label returns the value of a label that follows from the kind and its i-th sample type alone; false for all others.
func (k Kind) Label(name string, i int) (value string, ok bool) {
	switch name {
	case labels.Name:
		return k.Name, true
	case labels.ProfileType:
		return k.Type(i).String(), true
	case labels.Type:
		return k.SampleTypes[i].Type, true
	case labels.Unit:
		return k.SampleTypes[i].Unit, true
	case labels.PeriodType:
		return k.PeriodType, true
	case labels.PeriodUnit:
		return k.PeriodUnit, true
	default:
		return "", false
	}
}

// SeriesFilter tells which series a selector means, given the labels that are stored.
type SeriesFilter struct {
	selector labels.Selector
}

// NewSeriesFilter returns the filter for one sample type of a kind. It matches as the selector would match the labels that
// clients see, but what follows from the kind is decided here, once: ok is false if no series can match.
func NewSeriesFilter(s labels.Selector, k Kind, i int) (f SeriesFilter, ok bool) {
	for _, m := range s {
		value, decided := k.Label(m.Name(), i)
		switch {
		case !decided:
			f.selector = append(f.selector, m)
		case !m.Matches(value):
			return SeriesFilter{}, false
		}
	}
	return f, true
}

// Matches tells whether the selector means the series with these stored labels.
func (f SeriesFilter) Matches(base labels.Labels) bool {
	for _, m := range f.selector {
		name := m.Name()
		if name == labels.PrivateServiceName {
			name = labels.ServiceName
		}
		if !m.Matches(base.Get(name)) {
			return false
		}
	}
	return true
}
