package client

import (
	"slices"
	"testing"
	"time"
)

func TestRests(t *testing.T) {
	var r rests
	now := time.Unix(1_700_000_000, 0)
	all := []string{"a", "b", "c"}
	want := func(when string, order ...string) {
		t.Helper()
		if got := r.order(all, now); !slices.Equal(got, order) {
			t.Errorf("%s: %v, want %v", when, got, order)
		}
	}
	want("at first", "a", "b", "c")
	if !r.failed("a", now) || r.failed("a", now) {
		t.Error("one failure of two at a time is news")
	}
	want("while a rests", "b", "c", "a")
	r.failed("b", now)
	want("while both rest", "c", "a", "b")
	now = now.Add(firstRest)
	want("when the rests are over", "a", "c", "b")
	want("while one push finds out how a is, another asks b in its place", "b", "c", "a")
	want("while two do", "c", "a", "b")
	r.succeeded("a", now.Add(-firstRest-1))
	want("what was sent before it failed says nothing", "c", "a", "b")
	r.succeeded("a", now)
	want("a is back, b is not asked without need", "a", "c", "b")
	r.failed("a", now)
	want("both rest again", "c", "a", "b")

	before := time.Duration(0)
	for range 20 {
		length := r.of["a"].length
		if length > longestRest || before >= longestRest && length < longestRest/2 {
			t.Errorf("rest of %s after one of %s", length, before)
		}
		before = length
		now = now.Add(length)
		r.order(all, now)
		r.failed("a", now)
	}
	if before < longestRest/2 {
		t.Errorf("the last rest is %s", before)
	}
	now = now.Add(longestRest + forgetAfter + 1)
	r.failed("c", now)
	if len(r.of) != 1 {
		t.Errorf("%d writers are remembered, want the last alone", len(r.of))
	}
}
