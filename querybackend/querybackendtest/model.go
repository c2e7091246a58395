package querybackendtest

import (
	"slices"

	gprofile "github.com/google/pprof/profile"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/query"
)

// Model answers questions by brute force over what was pushed. It knows nothing of objects.
type Model []ModelRow

// ModelRow is one profile of one series: the samples that share their labels.
type ModelRow struct {
	Tenant string
	Kind   profile.Kind
	// Labels are those that were pushed, and those of the samples.
	Labels  labels.Labels
	ID      profile.ID
	Time    int64
	Profile *gprofile.Profile
}

// NewModel returns the rows of what was pushed.
func NewModel(pushed ...Pushed) Model {
	var m Model
	for _, p := range pushed {
		parsed := oracle.Parse(p.Body)
		kind := profile.Kind{Name: p.Kind}
		if parsed.PeriodType != nil {
			kind.PeriodType, kind.PeriodUnit = parsed.PeriodType.Type, parsed.PeriodType.Unit
		}
		for _, st := range parsed.SampleType {
			kind.SampleTypes = append(kind.SampleTypes, profile.SampleType{Type: st.Type, Unit: st.Unit})
		}
		rows := map[string]int{}
		for _, s := range parsed.Sample {
			if !stored(s) {
				continue
			}
			ls := p.Labels
			for name, values := range s.Label {
				if name == "span_id" || name == "trace_id" {
					continue
				}
				ls = ls.With(name, values[len(values)-1])
			}
			i, ok := rows[ls.String()]
			if !ok {
				i = len(m)
				rows[ls.String()] = i
				m = append(m, ModelRow{p.Tenant, kind, ls, p.ID, p.Time.UnixNano(), &gprofile.Profile{SampleType: parsed.SampleType}})
			}
			m[i].Profile.Sample = append(m[i].Profile.Sample, s)
		}
	}
	return m
}

// stored tells whether a sample is kept: none of its values is negative and not all are zero.
func stored(s *gprofile.Sample) bool {
	return !slices.ContainsFunc(s.Value, func(v int64) bool { return v < 0 }) && slices.ContainsFunc(s.Value, func(v int64) bool { return v != 0 })
}

// Without returns the rows of all others than the series of a tenant that a selector means, which tells no sample types
// apart.
func (m Model) Without(tenant, selector string) Model {
	return slices.DeleteFunc(slices.Clone(m), func(r ModelRow) bool {
		return len(Model{r}.Pick(tenant, r.Time, r.Time+1, selector, "")) > 0
	})
}

// Picked is a row and the sample type by which it was picked.
type Picked struct {
	ModelRow
	Column int
	// Labels are those that clients see.
	Labels labels.Labels
}

// Pick returns the rows of a tenant from start to end (Unix nanoseconds, end exclusive) that a selector means, of one
// profile type or, if that is empty, once for each.
func (m Model) Pick(tenant string, start, end int64, selector, profileType string) []Picked {
	sel, err := labels.ParseSelector(selector)
	if err != nil {
		panic(err)
	}
	var picked []Picked
	for _, r := range m {
		if r.Tenant != tenant || r.Time < start || r.Time >= end {
			continue
		}
		for i := range r.Kind.SampleTypes {
			ls := query.SeriesLabels(r.Labels, r.Kind, i)
			if (profileType == "" || profileType == r.Kind.Type(i).String()) && sel.MatchesLabels(ls) {
				picked = append(picked, Picked{r, i, ls})
			}
		}
	}
	return picked
}

// Requested returns the rows with those samples alone whose label, span_id or trace_id, is one of the values, and without
// the rows that have none.
func Requested(picked []Picked, label string, values ...string) []Picked {
	var some []Picked
	for _, p := range picked {
		whole := p.Profile
		p.Profile = &gprofile.Profile{SampleType: whole.SampleType}
		for _, s := range whole.Sample {
			if slices.ContainsFunc(s.Label[label], func(v string) bool { return slices.Contains(values, v) }) {
				p.Profile.Sample = append(p.Profile.Sample, s)
			}
		}
		if len(p.Profile.Sample) > 0 {
			some = append(some, p)
		}
	}
	return some
}

// Value is the sum of the values of a row.
func (p Picked) Value() int64 {
	var sum int64
	for _, s := range p.Profile.Sample {
		sum += s.Value[p.Column]
	}
	return sum
}

// Sum is the oracle's answer over picked rows.
func Sum(picked []Picked) oracle.Answer {
	var answer oracle.Answer
	first := true
	for _, p := range picked {
		one := oracle.Sum(p.Kind.SampleTypes[p.Column].Type, p.Profile)
		if first {
			answer, first = one, false
			continue
		}
		answer.Total += one.Total
		for name, w := range one.Functions {
			have := answer.Functions[name]
			answer.Functions[name] = oracle.Weight{Self: have.Self + w.Self, Total: have.Total + w.Total}
		}
		for stack, v := range one.Stacks {
			answer.Stacks[stack] += v
		}
		for signature, v := range one.Locations {
			answer.Locations[signature] += v
		}
	}
	return answer
}
