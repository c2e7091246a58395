package query_test

import (
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/query"
)

const cpu = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"

func TestValidate(t *testing.T) {
	ask := func(change func(*queryv1.Question)) *queryv1.Question {
		q := &queryv1.Question{Start: 1, End: 2, Selector: `{a="b"}`, ProfileType: cpu, Ask: &queryv1.Question_Tree{}}
		change(q)
		return q
	}
	steps := func(step int64) *queryv1.Question_TimeSeries {
		return &queryv1.Question_TimeSeries{TimeSeries: &queryv1.AskTimeSeries{Step: step}}
	}
	for name, test := range map[string]struct {
		q    *queryv1.Question
		want error
		says []string
	}{
		"tree":                {ask(func(*queryv1.Question) {}), nil, nil},
		"time series":         {ask(func(q *queryv1.Question) { q.Ask = steps(15) }), nil, nil},
		"names without type":  {ask(func(q *queryv1.Question) { q.Ask, q.ProfileType = &queryv1.Question_LabelNames{}, "" }), nil, nil},
		"series before 1970":  {ask(func(q *queryv1.Question) { q.Ask, q.Start = &queryv1.Question_Series{}, -5 }), nil, nil},
		"no question":         {nil, query.ErrQuestion, []string{"start", "end"}},
		"end is start":        {ask(func(q *queryv1.Question) { q.Start = 2 }), query.ErrQuestion, []string{"end 2", "start 2"}},
		"no ask":              {ask(func(q *queryv1.Question) { q.Ask = nil }), query.ErrQuestion, []string{"ask"}},
		"selector":            {ask(func(q *queryv1.Question) { q.Selector = `{a=}` }), labels.ErrSelector, []string{"selector", `{a=}`}},
		"no type":             {ask(func(q *queryv1.Question) { q.ProfileType = "" }), profile.ErrType, []string{"profile_type", `""`}},
		"stacks without type": {ask(func(q *queryv1.Question) { q.ProfileType, q.Ask = "", &queryv1.Question_Stacks{} }), profile.ErrType, []string{"profile_type"}},
		"a wrong type":        {ask(func(q *queryv1.Question) { q.Ask, q.ProfileType = &queryv1.Question_Series{}, "cpu" }), profile.ErrType, []string{"profile_type", `"cpu"`}},
		"step 0":              {ask(func(q *queryv1.Question) { q.Ask = steps(0) }), query.ErrQuestion, []string{"step 0"}},
		"no step":             {ask(func(q *queryv1.Question) { q.Ask = &queryv1.Question_TimeSeries{} }), query.ErrQuestion, []string{"step 0"}},
		"step too far":        {ask(func(q *queryv1.Question) { q.End, q.Ask = math.MaxInt64-9, steps(10) }), query.ErrQuestion, []string{"step 10"}},
		"values of nothing":   {ask(func(q *queryv1.Question) { q.Ask = &queryv1.Question_LabelValues{} }), query.ErrQuestion, []string{"label_values.name"}},
		"spans":               {ask(func(q *queryv1.Question) { q.Spans, q.Profiles = [][]byte{make([]byte, 8)}, [][]byte{make([]byte, 16)} }), nil, nil},
		"traces of stacks":    {ask(func(q *queryv1.Question) { q.Traces, q.Ask = [][]byte{make([]byte, 16)}, &queryv1.Question_Stacks{} }), nil, nil},
		"spans and traces":    {ask(func(q *queryv1.Question) { q.Spans, q.Traces = [][]byte{make([]byte, 8)}, [][]byte{make([]byte, 16)} }), query.ErrQuestion, []string{"both spans and traces"}},
		"a long span":         {ask(func(q *queryv1.Question) { q.Spans = [][]byte{make([]byte, 8), make([]byte, 9)} }), query.ErrQuestion, []string{"spans[1] has 9 bytes"}},
		"a short trace":       {ask(func(q *queryv1.Question) { q.Traces = [][]byte{nil} }), query.ErrQuestion, []string{"traces[0] has 0 bytes"}},
		"a short profile id":  {ask(func(q *queryv1.Question) { q.Profiles = [][]byte{make([]byte, 8)} }), query.ErrQuestion, []string{"profiles[0] has 8 bytes"}},
		"spans over time":     {ask(func(q *queryv1.Question) { q.Spans, q.Ask = [][]byte{make([]byte, 8)}, steps(15) }), query.ErrQuestion, []string{"spans are for tree and stacks"}},
	} {
		err := query.Validate(test.q)
		if !errors.Is(err, test.want) || test.want != nil && !errors.Is(err, query.ErrQuestion) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
			continue
		}
		for _, s := range test.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %q does not say %q", name, err, s)
			}
		}
	}
}

func TestBucket(t *testing.T) {
	for _, test := range []struct{ t, origin, step, want int64 }{
		{0, 0, 10, 0}, {1, 0, 10, 10}, {10, 0, 10, 10}, {11, 0, 10, 20},
		{-1, 0, 10, 0}, {-10, 0, 10, -10}, {-11, 0, 10, -10},
		{0, 3, 10, 3}, {4, 3, 10, 13}, {-7, 3, 10, -7}, {-8, 3, 10, -7}, {5, -1003, 10, 7},
		{math.MinInt64, math.MaxInt64, 1, math.MinInt64},
	} {
		if got := query.Bucket(test.t, test.origin, test.step); got != test.want {
			t.Errorf("Bucket(%d, %d, %d) = %d, want %d", test.t, test.origin, test.step, got, test.want)
		}
	}
}

func TestBucketIsTheNextEdge(t *testing.T) {
	times := rapid.OneOf(rapid.Int64Range(-50, 50), rapid.Int64())
	rapid.Check(t, func(t *rapid.T) {
		step := rapid.OneOf(rapid.Int64Range(1, 20), rapid.Int64Range(1, math.MaxInt64)).Draw(t, "step")
		at := min(times.Draw(t, "t"), math.MaxInt64-step)
		origin := times.Draw(t, "origin")
		got := query.Bucket(at, origin, step)
		if got < at || uint64(got)-uint64(at) >= uint64(step) {
			t.Fatalf("%d is not within a step after %d", got, at)
		}
		away := new(big.Int).Sub(big.NewInt(got), big.NewInt(origin))
		if away.Mod(away, big.NewInt(step)).Sign() != 0 {
			t.Fatalf("%d is not an edge", got)
		}
	})
}
