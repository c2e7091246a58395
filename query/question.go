package query

import (
	"errors"
	"fmt"
	"math"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// ErrQuestion is returned when a question makes no sense. The message names the field and its value.
var ErrQuestion = errors.New("invalid question")

// Validate checks q. The errors are ErrQuestion, and labels.ErrSelector or profile.ErrType where it is one.
func Validate(q *queryv1.Question) error {
	if q.GetStart() >= q.GetEnd() {
		return fmt.Errorf("%w: end %d is not after start %d", ErrQuestion, q.GetEnd(), q.GetStart())
	}
	if _, err := labels.ParseSelector(q.GetSelector()); err != nil {
		return fmt.Errorf("%w: selector %q: %w", ErrQuestion, q.GetSelector(), err)
	}
	if needsType(q) || q.GetProfileType() != "" {
		if _, err := profile.ParseType(q.GetProfileType()); err != nil {
			return fmt.Errorf("%w: profile_type %q: %w", ErrQuestion, q.GetProfileType(), err)
		}
	}
	if err := validateIDs(q); err != nil {
		return err
	}
	switch ask := q.GetAsk().(type) {
	case nil:
		return fmt.Errorf("%w: ask is not set", ErrQuestion)
	case *queryv1.Question_TimeSeries:
		return validateStep(q.GetEnd(), ask.TimeSeries.GetStep())
	case *queryv1.Question_LabelValues:
		if ask.LabelValues.GetName() == "" {
			return fmt.Errorf(`%w: label_values.name is ""`, ErrQuestion)
		}
	}
	return nil
}

// validateIDs checks what chooses rows by their request, and profiles by their id.
func validateIDs(q *queryv1.Question) error {
	if len(q.GetSpans()) > 0 && len(q.GetTraces()) > 0 {
		return fmt.Errorf("%w: both spans and traces are given", ErrQuestion)
	}
	for _, of := range []struct {
		field string
		ids   [][]byte
		size  int
	}{{"spans", q.GetSpans(), len(profile.SpanID{})}, {"traces", q.GetTraces(), len(profile.TraceID{})}, {"profiles", q.GetProfiles(), len(profile.ID{})}} {
		for i, id := range of.ids {
			if len(id) != of.size {
				return fmt.Errorf("%w: %s[%d] has %d bytes, not %d", ErrQuestion, of.field, i, len(id), of.size)
			}
		}
		if len(of.ids) > 0 && !sumsStacks(q) {
			return fmt.Errorf("%w: %s are for tree and stacks alone", ErrQuestion, of.field)
		}
	}
	return nil
}

func sumsStacks(q *queryv1.Question) bool {
	switch q.GetAsk().(type) {
	case *queryv1.Question_Tree, *queryv1.Question_Stacks:
		return true
	default:
		return false
	}
}

func needsType(q *queryv1.Question) bool {
	switch q.GetAsk().(type) {
	case *queryv1.Question_Tree, *queryv1.Question_Stacks, *queryv1.Question_TimeSeries:
		return true
	default:
		return false
	}
}

func validateStep(end, step int64) error {
	if step <= 0 {
		return fmt.Errorf("%w: time_series.step %d is not positive", ErrQuestion, step)
	}
	// Bucket relies on it.
	if end > math.MaxInt64-step {
		return fmt.Errorf("%w: time_series.step %d leads past the end of time from end %d", ErrQuestion, step, end)
	}
	return nil
}

// Bucket returns the right edge of the bucket that a profile at time t belongs to: the smallest
// origin + k*step, k of any sign, that is not before t. step must be positive and t + step fit an int64,
// as Validate has checked for times before the end of a question.
func Bucket(t, origin, step int64) int64 {
	// Both remainders are below step in size, so that nothing here overflows, however far t is from origin.
	past := (t%step - origin%step) % step
	if past < 0 {
		past += step
	}
	if past == 0 {
		return t
	}
	return t + (step - past)
}
