package queryfrontend

import (
	"fmt"
	"slices"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/profile"
)

// maxIDs is how many ids a request may name of each sort: a trace has hundreds of spans at times.
const maxIDs = 10_000

// ids choose samples by the request that they were taken in, and profiles by their id. None of a sort: all do.
type ids struct {
	spans, traces, profiles [][]byte
}

// parseIDs reads the selectors of a request.
func parseIDs(profileIDs, traceIDs, spans []string) (all ids, err error) {
	if len(traceIDs) > 0 && len(spans) > 0 {
		return ids{}, invalid("trace_id_selector and span_selector cannot be combined")
	}
	if all.spans, err = parseEach("span_selector", spans, func(s string) ([]byte, error) {
		id, ok := profile.ParseSpanID(s)
		if !ok {
			return nil, fmt.Errorf("%.40q is not the id of a span: want 16 hexadecimal digits, not all zero", s)
		}
		return id[:], nil
	}); err != nil {
		return ids{}, err
	}
	if all.traces, err = parseEach("trace_id_selector", traceIDs, func(s string) ([]byte, error) {
		id, ok := profile.ParseTraceID(s)
		if !ok {
			return nil, fmt.Errorf("%.40q is not the id of a trace: want 32 hexadecimal digits, not all zero", s)
		}
		return id[:], nil
	}); err != nil {
		return ids{}, err
	}
	all.profiles, err = parseEach("profile_id_selector", profileIDs, func(s string) ([]byte, error) {
		id, err := profile.ParseID(s)
		if err != nil {
			return nil, fmt.Errorf("%.40q is not the id of a profile: want a UUID", s)
		}
		return id[:], nil
	})
	return all, err
}

func parseEach(field string, texts []string, parse func(string) ([]byte, error)) ([][]byte, error) {
	if len(texts) > maxIDs {
		return nil, invalid("%s has %d ids; the limit is %d", field, len(texts), maxIDs)
	}
	var all [][]byte
	for i, text := range texts {
		id, err := parse(text)
		if err != nil {
			return nil, invalid("%s[%d]: %w", field, i, err)
		}
		all = append(all, id)
	}
	return all, nil
}

// narrow makes a question one about these ids alone.
func (i ids) narrow(q *queryv1.Question) {
	q.Spans, q.Traces, q.Profiles = i.spans, i.traces, i.profiles
}

// mayHave tells whether a dataset may have samples of the spans or traces that a question is about.
func mayHave(d *storagev1.Dataset, q *queryv1.Question) bool {
	has := func(c storagev1.RowColumn) bool {
		return slices.ContainsFunc(d.GetRows(), func(r *storagev1.Rows) bool { return slices.Contains(r.GetColumns(), c) })
	}
	return (len(q.GetSpans()) == 0 || has(storagev1.RowColumn_ROW_COLUMN_SPAN)) &&
		(len(q.GetTraces()) == 0 || has(storagev1.RowColumn_ROW_COLUMN_TRACE))
}
