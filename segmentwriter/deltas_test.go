package segmentwriter_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/objstore/objstoretest"
	"github.com/kilndb/kiln/profile"
	. "github.com/kilndb/kiln/segmentwriter/segmentwritertest"
	"github.com/kilndb/kiln/tenant"
)

var cumulative = series.With("__name__", "memory").With("__delta__", "true")

// heap appends a cumulative profile of some moment. All that was ever allocated is value.
func heap(t testing.TB, w *Writer, at, value int64) func() error {
	t.Helper()
	p := Decode(Pprof(at*int64(time.Second), []string{"alloc_space:bytes", "inuse_space:bytes"}, Sample{Stack: "main", Values: []int64{value, 1}}))
	wait, err := w.Append(t.Context(), "acme", 1, cumulative, profile.ID{byte(at)}, p)
	if err != nil {
		return func() error { return err }
	}
	return func() error { return wait(context.Background()) }
}

// allocated returns what is stored of heaps: seconds and values.
func allocated(t testing.TB, w *Writer) string {
	t.Helper()
	all := map[int64]int64{}
	for _, r := range w.Rows(t) {
		all[r.Time/int64(time.Second)] = r.Names["main"][0]
		if r.Names["main"][1] != 1 {
			t.Errorf("row %+v: what is in use has changed", r)
		}
	}
	return fmt.Sprint(all)
}

func TestCumulativeProfilesAreStoredAsDifferences(t *testing.T) {
	w := Open(t, Config())
	for i, value := range []int64{100, 107, 107, 120, 5} {
		if err := heap(t, w, int64(i), value)(); err != nil {
			t.Fatal(err)
		}
	}
	if got := allocated(t, w); got != "map[0:0 1:7 2:0 3:13 4:5]" {
		t.Errorf("stored %s", got)
	}
}

func TestAProfileOfNothingNewIsDurableAtOnce(t *testing.T) {
	w := Open(t, Config())
	mutex := series.With("__name__", "mutex").With("__delta__", "true")
	for i := range int64(3) {
		p := Decode(Pprof(i, []string{"contentions:count"}, Sample{Stack: "main", Values: []int64{9}}))
		wait, err := w.Append(t.Context(), "acme", 1, mutex, profile.NewID(), p)
		if err != nil || wait(t.Context()) != nil {
			t.Fatal(err)
		}
	}
	if n := puts(w); n != 0 {
		t.Errorf("%d puts for profiles in which nothing happened", n)
	}
}

// Whatever fails, and however late it is known, the next attempt of the client counts what the failed one did not.
func TestADifferenceThatIsNotStoredIsNotForgotten(t *testing.T) {
	for name, fail := range map[string]func(*testing.T, *Writer) func() error{
		"index": func(t *testing.T, w *Writer) func() error {
			w.Index.Next(Call{Err: connect.NewError(connect.CodeInvalidArgument, errors.New("no"))})
			return heap(t, w, 1, 110)
		},
		"encoding": func(t *testing.T, w *Writer) func() error {
			spoilt := false
			w.SpoilPart(func(tenant.ID) error {
				if !spoilt {
					spoilt = true
					return errors.New("spoilt")
				}
				return nil
			})
			return heap(t, w, 1, 110)
		},
		"a newer one overtakes": func(t *testing.T, w *Writer) func() error {
			hold := w.Bucket.Hold(objstoretest.BeforePut)
			w.Index.Next(Call{Err: connect.NewError(connect.CodeInvalidArgument, errors.New("no"))})
			first := heap(t, w, 1, 110)
			<-hold.Reached()
			second := heap(t, w, 2, 125) // in the next segment
			hold.Release()
			err := first()
			if e := second(); e != nil {
				t.Error(e)
			}
			return func() error { return err }
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := Open(t, Config())
			if err := heap(t, w, 0, 100)(); err != nil {
				t.Fatal(err)
			}
			if err := fail(t, w)(); err == nil {
				t.Fatal("the push was to fail")
			}
			for _, wait := range []func() error{heap(t, w, 1, 110), heap(t, w, 2, 125), heap(t, w, 2, 125)} {
				if err := wait(); err != nil {
					t.Fatal(err)
				}
			}
			if got := allocated(t, w); got != "map[0:0 1:10 2:15]" {
				t.Errorf("stored %s", got)
			}
		})
	}
}

func TestARefusedPushMovesNothing(t *testing.T) {
	cfg := Config()
	cfg.Flights, cfg.MaxSegmentBytes = 1, 1
	w := Open(t, cfg)
	if err := heap(t, w, 0, 100)(); err != nil {
		t.Fatal(err)
	}
	hold := w.Bucket.Hold(objstoretest.BeforePut)
	first := heap(t, w, 1, 101)
	<-hold.Reached()
	second := heap(t, w, 2, 103)
	wantCode(t, heap(t, w, 3, 107)(), connect.CodeResourceExhausted)
	hold.Release()
	if err := errors.Join(first(), second(), heap(t, w, 3, 107)()); err != nil {
		t.Fatal(err)
	}
	if got := allocated(t, w); got != "map[0:0 1:1 2:2 3:4]" {
		t.Errorf("stored %s", got)
	}
}
