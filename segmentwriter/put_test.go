package segmentwriter_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/objstore/objstoretest"
	. "github.com/kilndb/kiln/segmentwriter/segmentwritertest"
)

// takes makes the next puts take times in this order, and those beyond the last.
func takes(w *Writer, times ...time.Duration) {
	var n atomic.Int64
	w.Bucket.Heal()
	w.Bucket.Do(objstoretest.BeforePut, func(ctx context.Context, _ string) error {
		timer := time.NewTimer(times[min(int(n.Add(1)), len(times))-1])
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// practised is a writer whose puts have taken 10 ms so far, 40 of them: two hedges are saved up.
func practised(t *testing.T) *Writer {
	w := Open(t, Config())
	takes(w, 10*time.Millisecond)
	pushAll(t, w, 40)
	return w
}

// pushAll makes that many pushes one after the other; each must succeed.
func pushAll(t *testing.T, w *Writer, n int) {
	t.Helper()
	for range n {
		if err := push(t, w, "acme", 1); err != nil {
			t.Fatal(err)
		}
	}
}

// metric returns the value of a counter, or the sum and count of a histogram.
func metric(t *testing.T, w *Writer, name string) (sum float64, count int) {
	t.Helper()
	families, err := w.Metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetHistogram().GetSampleSum(), int(m.GetHistogram().GetSampleCount())
		}
	}
	t.Fatalf("there is no %s", name)
	return 0, 0
}

func counter(t *testing.T, w *Writer, name string) int {
	t.Helper()
	value, _ := metric(t, w, name)
	return int(value)
}

func wantHedges(t *testing.T, w *Writer, hedges, wins int) {
	t.Helper()
	for name, want := range map[string]int{"kiln_segment_writer_hedged_puts_total": hedges, "kiln_segment_writer_hedge_wins_total": wins} {
		if got := counter(t, w, name); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
}

func TestALatePutIsMadeTwice(t *testing.T) {
	const hang = time.Hour
	fail := func(w *Writer, after time.Duration, fails int) { // the next puts take that long, and so many of them fail then
		var n atomic.Int64
		w.Bucket.Heal()
		w.Bucket.Do(objstoretest.BeforePut, func(context.Context, string) error {
			if time.Sleep(after); n.Add(1) <= int64(fails) {
				return errFault
			}
			return nil
		})
	}
	for name, c := range map[string]struct {
		puts         func(*Writer)
		took         time.Duration
		hedges, wins int
	}{
		"the second wins":                    {func(w *Writer) { takes(w, hang, 10*time.Millisecond) }, 210 * time.Millisecond, 1, 1},
		"the first wins":                     {func(w *Writer) { takes(w, 250*time.Millisecond, hang) }, 250 * time.Millisecond, 1, 0},
		"in time":                            {func(w *Writer) { takes(w, 199*time.Millisecond) }, 199 * time.Millisecond, 0, 0},
		"the first fails, the second counts": {func(w *Writer) { fail(w, 300*time.Millisecond, 1) }, 500 * time.Millisecond, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			Bubble(t, func(t *testing.T) {
				w := practised(t)
				c.puts(w)
				begun := time.Now()
				if err := push(t, w, "acme", 7); err != nil {
					t.Error(err)
				}
				if took := time.Since(begun); took != c.took {
					t.Errorf("took %s, want %s", took, c.took)
				}
				wantHedges(t, w, c.hedges, c.wins)
				if n := objects(t, w); n != 41 {
					t.Errorf("%d objects for 41 segments", n)
				}
				synctest.Wait()
				if held := w.Held(); held != 0 {
					t.Errorf("%d bytes are still held", held)
				}
			})
		})
	}
}

// TestALoserThatDoesNotListen reads its bytes long after its push was answered: they must still be those of its segment, and counted.
func TestALoserThatDoesNotListen(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		w := practised(t)
		var n atomic.Int64
		late := make(chan struct{})
		w.Bucket.Heal()
		w.Bucket.Do(objstoretest.BeforePut, func(context.Context, string) error {
			if n.Add(1) == 1 {
				<-late
			}
			return nil
		})
		pushAll(t, w, 5)
		if w.Held() == 0 {
			t.Error("the bytes of the loser are not counted")
		}
		close(late)
		synctest.Wait()
		if held := w.Held(); held != 0 {
			t.Errorf("%d bytes are still held", held)
		}
		if rows := w.Rows(t); len(rows) != 45 { // an object that was overwritten would not be what its entry says
			t.Errorf("%d rows, want 45", len(rows))
		}
	})
}

func TestHedgesAreAShareOfAllPuts(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		w := practised(t)
		for range 400 { // every put is late beside those that the pace is of
			takes(w, 300*time.Millisecond, 10*time.Millisecond)
			pushAll(t, w, 1)
			takes(w, 10*time.Millisecond)
			pushAll(t, w, 20)
		}
		puts, hedges := counter(t, w, "kiln_segment_writer_puts_total"), counter(t, w, "kiln_segment_writer_hedged_puts_total")
		if hedges < 300 || hedges > puts/20+1 {
			t.Errorf("%d hedges of %d puts, want about a twentieth", hedges, puts)
		}
		takes(w, 300*time.Millisecond) // all of them, from now on
		pushAll(t, w, 400)
		if more := counter(t, w, "kiln_segment_writer_hedged_puts_total") - hedges; more > 30 {
			t.Errorf("%d hedges while all puts are slow", more)
		}
	})
}

// TestAnOutageIsNotMultiplied counts what meets a bucket that is out: a put for each push, and a bounded number more.
func TestAnOutageIsNotMultiplied(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		w := practised(t)
		before := counter(t, w, "kiln_segment_writer_puts_total")
		w.Bucket.Heal()
		w.Bucket.Fail(objstoretest.BeforePut, errFault, objstoretest.Always)
		for range 100 {
			wantCode(t, push(t, w, "acme", 1), connect.CodeUnavailable)
		}
		if puts := counter(t, w, "kiln_segment_writer_puts_total") - before; puts > 120 {
			t.Errorf("%d puts for 100 segments", puts)
		}
		w.Bucket.Heal()
		pushAll(t, w, 20) // what succeeds is credit again
		w.Bucket.Fail(objstoretest.BeforePut, errFault, 4)
		pushAll(t, w, 1)
	})
}

func TestAPanicOfTheBucketFailsTheSegmentAlone(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		w := practised(t)
		w.Bucket.Heal()
		w.Bucket.Do(objstoretest.BeforePut, func(context.Context, string) error { panic("bucket") })
		if err := push(t, w, "acme", 1); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		w.Bucket.Heal()
		pushAll(t, w, 1)
	})
}
