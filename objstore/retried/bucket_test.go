package retried_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/objstore/objstoretest"
	"github.com/kilndb/kiln/objstore/retried"
)

var errFlaky = errors.New("come back later")

func TestBucket(t *testing.T) {
	objstoretest.Run(t, func(*testing.T) objstore.Bucket { return retried.New(memory.New(), retried.Config{Attempts: 4}) })
}

// operation is a call of every kind that is retried, with the step at which it is made to fail.
type operation struct {
	name string
	step objstoretest.Step
	do   func(ctx context.Context, b objstore.Bucket) error
}

func operations() []operation {
	return []operation{
		{"get", objstoretest.BeforeGet, func(ctx context.Context, b objstore.Bucket) error {
			got, err := b.Get(ctx, "k")
			return check(got, "0123456789", err)
		}},
		{"range", objstoretest.BeforeGet, func(ctx context.Context, b objstore.Bucket) error {
			got, err := b.GetRange(ctx, "k", 2, 3)
			return check(got, "234", err)
		}},
		{"attributes", objstoretest.BeforeGet, func(ctx context.Context, b objstore.Bucket) error {
			got, err := b.Attributes(ctx, "k")
			return check([]byte(got.Key), "k", err)
		}},
		{"put", objstoretest.AfterPut, func(ctx context.Context, b objstore.Bucket) error { return b.Put(ctx, "new", []byte("x")) }},
		{"put from", objstoretest.AfterPut, func(ctx context.Context, b objstore.Bucket) error {
			return b.PutFrom(ctx, "new", strings.NewReader("x"), 1)
		}},
		{"delete", objstoretest.AfterDelete, func(ctx context.Context, b objstore.Bucket) error { return b.Delete(ctx, "k") }},
		{"list", objstoretest.BeforeList, func(ctx context.Context, b objstore.Bucket) error {
			return b.List(ctx, "", func(objstore.Attributes) error { return nil })
		}},
	}
}

func check(got []byte, want string, err error) error {
	if err == nil && string(got) != want {
		return fmt.Errorf("got %q, want %q", got, want)
	}
	return err
}

func newBuckets(t *testing.T) (*objstoretest.Faulty, *retried.Bucket) {
	t.Helper()
	faulty := objstoretest.NewFaulty(memory.New())
	if err := faulty.Put(t.Context(), "k", []byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	return faulty, retried.New(faulty, retried.DefaultConfig())
}

func TestRecovers(t *testing.T) {
	for _, op := range operations() {
		synctest.Test(t, func(t *testing.T) {
			faulty, b := newBuckets(t)
			faulty.Fail(op.step, errFlaky, 3)
			start := time.Now()
			if err := op.do(t.Context(), b); err != nil {
				t.Errorf("%s that fails three times: %v", op.name, err)
			}
			// Pauses of up to 100, 200 and 400 ms, at least half of each.
			if took := time.Since(start); took < 350*time.Millisecond || took > 700*time.Millisecond {
				t.Errorf("%s took %v of pauses", op.name, took)
			}
		})
	}
}

func TestGivesUp(t *testing.T) {
	for _, op := range operations() {
		synctest.Test(t, func(t *testing.T) {
			faulty, b := newBuckets(t)
			before := faulty.Passed(op.step)
			faulty.Fail(op.step, errFlaky, objstoretest.Always)
			if err := op.do(t.Context(), b); !errors.Is(err, errFlaky) || !strings.HasPrefix(err.Error(), "after 4 attempts: ") {
				t.Errorf("%s that always fails: %v", op.name, err)
			}
			if tries := faulty.Passed(op.step) - before; tries != 4 {
				t.Errorf("%s was tried %d times", op.name, tries)
			}
		})
	}
}

func TestFinalErrors(t *testing.T) {
	for _, final := range []error{
		objstore.ErrNotFound, objstore.ErrExists, objstore.ErrKey, objstore.ErrRange, errors.ErrUnsupported, context.Canceled,
	} {
		for _, op := range operations() {
			faulty, b := newBuckets(t)
			before := faulty.Passed(op.step)
			faulty.Fail(op.step, final, 1)
			if err := op.do(t.Context(), b); !errors.Is(err, final) {
				t.Errorf("%s: %v, want %v", op.name, err, final)
			}
			if tries := faulty.Passed(op.step) - before; tries != 1 {
				t.Errorf("%s was tried %d times after %v", op.name, tries, final)
			}
		}
	}
}

func TestPutIfAbsentIsTriedOnce(t *testing.T) {
	faulty, b := newBuckets(t)
	faulty.Fail(objstoretest.AfterPut, errFlaky, 1)
	if err := b.PutIfAbsent(t.Context(), "new", nil); !errors.Is(err, errFlaky) {
		t.Errorf("put if absent whose answer was lost: %v, want that and not ErrExists", err)
	}
}

func TestContextThatEndedIsFinal(t *testing.T) {
	for _, op := range operations() {
		faulty, b := newBuckets(t)
		before := faulty.Passed(op.step)
		faulty.Fail(op.step, errFlaky, objstoretest.Always)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := op.do(ctx, b); err == nil {
			t.Errorf("%s with an ended context succeeded", op.name)
		}
		if tries := faulty.Passed(op.step) - before; tries > 1 {
			t.Errorf("%s was tried %d times after its context ended", op.name, tries)
		}
	}
}

// A deadline below, of a connection say, is not the caller's.
func TestDeadlineBelowIsRetried(t *testing.T) {
	for _, op := range operations() {
		synctest.Test(t, func(t *testing.T) {
			faulty, b := newBuckets(t)
			faulty.Fail(op.step, fmt.Errorf("dial: %w", context.DeadlineExceeded), 1)
			if err := op.do(t.Context(), b); err != nil {
				t.Errorf("%s that times out below once: %v", op.name, err)
			}
		})
	}
}

func TestContextEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty, b := newBuckets(t)
		faulty.Fail(objstoretest.BeforeGet, errFlaky, objstoretest.Always)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := b.Get(ctx, "k")
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errFlaky) {
			t.Errorf("get: %v, want the deadline and what failed before", err)
		}
		if took := time.Since(start); took != 10*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

// brokenList is a bucket whose listings break off after two objects, some times.
type brokenList struct {
	objstore.Bucket
	times int
}

func (b *brokenList) List(ctx context.Context, prefix string, fn func(objstore.Attributes) error) error {
	if b.times == 0 {
		return b.Bucket.List(ctx, prefix, fn)
	}
	b.times--
	seen := 0
	return b.Bucket.List(ctx, prefix, func(a objstore.Attributes) error {
		if seen++; seen > 2 {
			return errFlaky
		}
		return fn(a)
	})
}

func TestBrokenListGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := memory.New()
		want := []string{"a", "b", "c", "d", "e"}
		for _, key := range want {
			if err := below.Put(t.Context(), key, nil); err != nil {
				t.Fatal(err)
			}
		}
		b := retried.New(&brokenList{below, 2}, retried.DefaultConfig())
		var got []string
		err := b.List(t.Context(), "", func(a objstore.Attributes) error {
			got = append(got, a.Key)
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("listed %q, %v; want each key once", got, err)
		}
	})
}

func TestErrorOfTheListFunctionIsNotRetried(t *testing.T) {
	_, b := newBuckets(t)
	calls := 0
	err := b.List(t.Context(), "", func(objstore.Attributes) error {
		calls++
		return errFlaky
	})
	if err != errFlaky || calls != 1 {
		t.Errorf("list: %v after %d calls, want the function's error, unchanged, after one", err, calls)
	}
}

func TestValidate(t *testing.T) {
	if err := retried.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for _, c := range []retried.Config{{Attempts: 0}, {Attempts: 1, MinPause: -1}, {Attempts: 1, MinPause: 2, MaxPause: 1}} {
		if c.Validate() == nil {
			t.Errorf("%+v is valid", c)
		}
	}
}
