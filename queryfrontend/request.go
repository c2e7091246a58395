package queryfrontend

import (
	"fmt"
	"math"
	"time"

	"connectrpc.com/connect"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/tenant"
)

const (
	nanosPerMilli = int64(time.Millisecond)
	// minStep is what timestamps in milliseconds can tell apart.
	minStep = 0.001
	// maxStep keeps sums of times and steps far from overflow; nobody draws points a year apart.
	maxStep = 366 * 24 * time.Hour
	// defaultDOTNodes: Graphviz draws a hundred boxes that a person can read.
	defaultDOTNodes = 100
)

// timeRange is Unix nanoseconds: start inclusive, end exclusive. The zero value means any time.
type timeRange struct {
	start, end int64
}

// parseRange reads the start and end of a request, Unix milliseconds, both whole milliseconds included.
func parseRange(start, end int64) (timeRange, error) {
	switch {
	case start == 0 && end == 0:
		return timeRange{}, invalid("start and end are missing: give a time range in Unix milliseconds")
	case end < start:
		return timeRange{}, invalid("end %d is before start %d", end, start)
	}
	r := timeRange{nanos(start), nanos(saturate(end, 1))}
	if r.start >= r.end {
		return timeRange{}, invalid("start %d and end %d are farther from 1970 than Unix nanoseconds reach", start, end)
	}
	return r, nil
}

// parseLimitedRange is parseRange for questions about profiles: their length has a limit.
func parseLimitedRange(start, end int64, limits tenant.Limits) (timeRange, error) {
	r, err := parseRange(start, end)
	if err != nil {
		return timeRange{}, err
	}
	limit := limits.MaxQueryLength
	if length := uint64(end) - uint64(start); limit > 0 && length > uint64(limit.Milliseconds()) {
		return timeRange{}, invalid("the time range from %d to %d is %d ms long; the limit on the length of a query is %s (%d ms)",
			start, end, length, limit, limit.Milliseconds())
	}
	return r, nil
}

// nanos turns milliseconds into nanoseconds. Times that do not fit are moved to the nearest that does: there are no
// profiles out there.
func nanos(millis int64) int64 {
	switch {
	case millis > math.MaxInt64/nanosPerMilli:
		return math.MaxInt64
	case millis < math.MinInt64/nanosPerMilli:
		return math.MinInt64
	}
	return millis * nanosPerMilli
}

// millis is the whole millisecond that holds a time.
func millis(nanos int64) int64 {
	m := nanos / nanosPerMilli
	if nanos%nanosPerMilli < 0 {
		m--
	}
	return m
}

// saturate returns a+b, or the nearest int64.
func saturate(a, b int64) int64 {
	sum := a + b
	switch {
	case b > 0 && sum < a:
		return math.MaxInt64
	case b < 0 && sum > a:
		return math.MinInt64
	}
	return sum
}

// buckets say how a time series is cut: points at start, start+step, ..., each covering the step that ends with its
// whole millisecond. The range of the question begins one step before the first point.
type buckets struct {
	timeRange
	// step and origin, a right edge that is itself covered, in nanoseconds.
	step, origin int64
}

func parseBuckets(start, end int64, seconds float64, limits tenant.Limits) (buckets, error) {
	r, err := parseLimitedRange(start, end, limits)
	if err != nil {
		return buckets{}, err
	}
	switch {
	case !(seconds >= minStep): // also not a number
		return buckets{}, invalid("step is %v seconds; the least is %v", seconds, minStep)
	case seconds > maxStep.Seconds():
		return buckets{}, invalid("step is %v seconds; the most is %v", seconds, maxStep.Seconds())
	}
	step := int64(math.Round(seconds*1000)) * nanosPerMilli
	firstEnd := nanos(saturate(start, 1))
	return buckets{
		timeRange: timeRange{saturate(firstEnd, -step), min(r.end, math.MaxInt64-step)}, // so that the last edge fits
		step:      step,
		origin:    saturate(firstEnd, -1),
	}, nil
}

// question is what a request asks: the message for backends, and the parts of it that the frontend itself uses.
type question struct {
	timeRange
	selector labels.Selector
	// profileType is nil if the question is about series of any.
	profileType *profile.Type
	// reduced: only datasets count of which series were deleted that their objects still hold.
	reduced bool
	message *queryv1.Question
}

// profileQuestion is a question about one profile type; what to make of it is still to be set.
func profileQuestion(r timeRange, typeID, selector string) (*question, error) {
	t, err := parseType(typeID)
	if err != nil {
		return nil, err
	}
	sel, err := parseSelector("label_selector", selector)
	if err != nil {
		return nil, err
	}
	m := &queryv1.Question{Start: r.start, End: r.end, Selector: sel.String(), ProfileType: t.String()}
	return &question{timeRange: r, selector: sel, profileType: &t, message: m}, nil
}

// labelsQuestion is a question about the labels of series, of whatever profile type. Its range has no limit: it reads
// no samples, and clients ask what there ever was.
func labelsQuestion(start, end int64, matchers []string) (*question, error) {
	r, err := parseRange(start, end)
	if err != nil {
		return nil, err
	}
	sel, err := parseSelector("matchers", matchers...)
	if err != nil {
		return nil, err
	}
	return &question{timeRange: r, selector: sel, message: &queryv1.Question{Start: r.start, End: r.end, Selector: sel.String()}}, nil
}

// parseType reads the profile type of a request.
func parseType(id string) (profile.Type, error) {
	t, err := profile.ParseType(id)
	if err != nil {
		return profile.Type{}, invalid("profile_typeID: %w", err)
	}
	return t, nil
}

// parseSelector reads the selectors of a request as one: all of them must hold.
func parseSelector(field string, selectors ...string) (labels.Selector, error) {
	var all labels.Selector
	for i, s := range selectors {
		one, err := labels.ParseSelector(s)
		if err != nil && len(selectors) > 1 {
			return nil, invalid("%s[%d]: %w", field, i, err)
		}
		if err != nil {
			return nil, invalid("%s: %w", field, err)
		}
		all = append(all, one...)
	}
	if len(selectors) > 1 { // backends parse the joined text: what is too long for them is refused here
		if _, err := labels.ParseSelector(all.String()); err != nil {
			return nil, invalid("%s, joined: %w", field, err)
		}
	}
	return all, nil
}

// parseMaxNodes reads how many nodes an answer may have; unset or 0 means byDefault.
func parseMaxNodes(asked *int64, byDefault int, limits tenant.Limits) (int, error) {
	switch {
	case asked == nil || *asked == 0:
		return min(byDefault, limits.MaxNodes), nil
	case *asked < 0:
		return 0, invalid("max_nodes is %d: it must not be negative", *asked)
	case *asked > int64(limits.MaxNodes):
		return 0, invalid("max_nodes is %d; the limit is %d", *asked, limits.MaxNodes)
	}
	return int(*asked), nil
}

// invalid returns the error of a request that cannot be answered as it stands.
func invalid(format string, args ...any) error {
	return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf(format, args...))
}

// unimplemented returns the error of a request for something that kiln does not have.
func unimplemented(format string, args ...any) error {
	return connect.NewError(connect.CodeUnimplemented, fmt.Errorf(format, args...))
}
