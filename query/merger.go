package query

import (
	"errors"
	"fmt"
	"math"
	"sync"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/flamegraph"
)

var (
	// ErrReport is returned when a report breaks the promises of its type, or answers another question.
	ErrReport = errors.New("invalid report")
	// ErrOverflow is returned when a sum does not fit an int64.
	ErrOverflow = flamegraph.ErrOverflow
)

// Merger puts reports of one question together.
type Merger struct {
	mu     sync.Mutex
	answer answer // guarded by mu
}

// answer is what has been put together so far, for one kind of question.
type answer interface {
	// add may leave half a report behind when it fails.
	add(*queryv1.Report) error
	report() *queryv1.Report
}

// NewMerger returns a merger for reports of q. It returns ErrQuestion if q asks nothing.
func NewMerger(q *queryv1.Question) (*Merger, error) {
	switch q.GetAsk().(type) {
	case *queryv1.Question_Tree:
		return &Merger{answer: &treeAnswer{}}, nil
	case *queryv1.Question_Stacks:
		return &Merger{answer: newStacksAnswer()}, nil
	case *queryv1.Question_TimeSeries:
		return &Merger{answer: timeSeriesAnswer{}}, nil
	case *queryv1.Question_LabelNames, *queryv1.Question_LabelValues:
		return &Merger{answer: namesAnswer{}}, nil
	case *queryv1.Question_Series:
		return &Merger{answer: seriesAnswer{}}, nil
	default:
		return nil, fmt.Errorf("%w: ask is not set", ErrQuestion)
	}
}

// Add adds a report; nil is one of nothing. It checks everything, so that reports may come from anywhere:
// the errors are ErrReport and ErrOverflow. After an error there is no answer any more. Add may be called
// concurrently.
func (m *Merger) Add(r *queryv1.Report) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.answer.add(r)
}

// Report returns the answer so far. It shares memory with the reports that were added.
func (m *Merger) Report() *queryv1.Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.answer.report()
}

// only checks that r has nothing but what the question asked for.
func only(r *queryv1.Report, field string) error {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"tree", r.GetTree() != nil},
		{"stacks", r.GetStacks() != nil},
		{"time_series", len(r.GetTimeSeries()) > 0},
		{"names", len(r.GetNames()) > 0},
		{"series", len(r.GetSeries()) > 0},
	} {
		if f.set && f.name != field {
			return fmt.Errorf("%w: it has %s, the question asks for %s", ErrReport, f.name, field)
		}
	}
	return nil
}

// plus adds without overflow.
func plus(a, b int64) (int64, error) {
	if b > 0 && a > math.MaxInt64-b || b < 0 && a < math.MinInt64-b {
		return 0, fmt.Errorf("%w: %d + %d", ErrOverflow, a, b)
	}
	return a + b, nil
}
