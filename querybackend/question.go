package querybackend

import (
	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/query"
)

// question is a Question that has been read.
type question struct {
	*queryv1.Question
	// own are the conditions on labels that every series has for itself, derived those on labels that follow from
	// its service and its profile type.
	own, derived labels.Selector
	// profileType is nil if the question is about series of any.
	profileType *profile.Type
	// requests are those that rows must be of, nil if any will do; ids those that profiles must have.
	requests *block.Requests
	ids      map[profile.ID]bool
}

// derivedNames are the labels that query.SeriesLabels adds, and the service: what is known of a column of rows
// without reading anything.
var derivedNames = map[string]bool{
	labels.Name: true, labels.ServiceName: true, labels.PrivateServiceName: true, labels.ProfileType: true,
	labels.Type: true, labels.Unit: true, labels.PeriodType: true, labels.PeriodUnit: true,
}

func parse(q *queryv1.Question) (*question, error) {
	if err := query.Validate(q); err != nil {
		return nil, invalid("%w", err)
	}
	sel, err := labels.ParseSelector(q.Selector)
	if err != nil {
		return nil, invalid("%w", err)
	}
	parsed := &question{Question: q}
	for _, m := range sel {
		if derivedNames[m.Name()] {
			parsed.derived = append(parsed.derived, m)
		} else {
			parsed.own = append(parsed.own, m)
		}
	}
	if q.ProfileType != "" {
		t, err := profile.ParseType(q.ProfileType)
		if err != nil {
			return nil, invalid("%w", err)
		}
		parsed.profileType = &t
	}
	if len(q.Spans)+len(q.Traces) > 0 {
		parsed.requests = &block.Requests{Spans: set[profile.SpanID](q.Spans), Traces: set[profile.TraceID](q.Traces)}
	}
	parsed.ids = set[profile.ID](q.Profiles)
	return parsed, nil
}

// set returns ids, which have been validated, as a set; nil if there are none.
func set[ID profile.SpanID | profile.TraceID | profile.ID](ids [][]byte) map[ID]bool {
	if len(ids) == 0 {
		return nil
	}
	all := make(map[ID]bool, len(ids))
	for _, id := range ids {
		all[ID(id)] = true
	}
	return all
}

// wholeProfiles tells whether all rows of all profiles count whose series and time do.
func (q *question) wholeProfiles() bool { return q.requests == nil && q.ids == nil }

// columns returns the sample types of rows that may have something to say.
func (q *question) columns(d *block.Dataset, r *block.Rows) []int {
	var columns []int
	for i := range r.Kind.SampleTypes {
		if q.profileType != nil && r.Kind.Type(i) != *q.profileType {
			continue
		}
		f, ok := profile.NewSeriesFilter(q.derived, r.Kind, i)
		if ok && f.Matches(labels.FromStrings(labels.ServiceName, d.Service)) {
			columns = append(columns, i)
		}
	}
	return columns
}

// derived returns the labels of column i of rows that all its series share.
func derived(d *block.Dataset, r *block.Rows, i int) labels.Labels {
	return query.SeriesLabels(labels.FromStrings(labels.ServiceName, d.Service), r.Kind, i)
}

// covers tells whether a time range lies within that of the question.
func (q *question) covers(minTime, maxTime int64) bool { return minTime >= q.Start && maxTime < q.End }

// meets tells whether a time range and that of the question have a time in common.
func (q *question) meets(minTime, maxTime int64) bool { return minTime < q.End && maxTime >= q.Start }
