package segmentwriter_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/objstoretest"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/segmentwriter"
	. "github.com/kilndb/kiln/segmentwriter/segmentwritertest"
	"github.com/kilndb/kiln/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var series = labels.FromStrings("__name__", "process_cpu", "service_name", "checkout")

// small returns a profile whose only value is value.
func small(value int64) *profile.Profile {
	return Decode(Pprof(1000, []string{"cpu:nanoseconds"}, Sample{Stack: "main;work", Values: []int64{value}}))
}

// start appends a small profile, which must be taken, and returns its wait.
func start(t testing.TB, w *Writer, id tenant.ID, value int64) func() error {
	t.Helper()
	wait, err := w.Append(t.Context(), id, 1, series, profile.NewID(), small(value))
	if err != nil {
		t.Fatal(err)
	}
	return func() error { return wait(context.Background()) }
}

func push(t testing.TB, w *Writer, id tenant.ID, value int64) error {
	t.Helper()
	return start(t, w, id, value)()
}

// gather has what append appends share a segment: they come while another is in flight. It returns when that has landed.
func gather(t testing.TB, w *Writer, append func()) {
	t.Helper()
	hold := w.Bucket.Hold(objstoretest.BeforePut)
	first := start(t, w, "first", 1)
	<-hold.Reached()
	append()
	hold.Release()
	if err := first(); err != nil {
		t.Fatal(err)
	}
}

// stored returns the values of all small profiles of a tenant, sorted.
func stored(t testing.TB, w *Writer, id tenant.ID) []int64 {
	t.Helper()
	var all []int64
	for _, r := range w.Rows(t) {
		if r.Tenant == string(id) {
			all = append(all, r.Names["main;work"][0])
		}
	}
	slices.Sort(all)
	return all
}

func wantStored(t testing.TB, w *Writer, id tenant.ID, want ...int64) {
	t.Helper()
	if got := stored(t, w, id); !slices.Equal(got, want) {
		t.Errorf("tenant %s has %d stored, want %d", id, got, want)
	}
}

func wantCode(t testing.TB, err error, want connect.Code) {
	t.Helper()
	if err == nil || connect.CodeOf(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// wantRefused wants an error to prove that nothing was taken.
func wantRefused(t testing.TB, err error, reason string) {
	t.Helper()
	if e := new(connect.Error); !errors.As(err, &e) || e.Meta().Get(segmentwriter.Refused) != reason {
		t.Errorf("error %v, want it to say that nothing was taken: %s", err, reason)
	}
}

func TestAPushIsStoredBeforeItIsAnswered(t *testing.T) {
	w := Open(t, Config())
	if err := push(t, w, "acme", 7); err != nil {
		t.Fatal(err)
	}
	wantStored(t, w, "acme", 7)
	entry := w.Index.Entries()[0]
	if entry.GetShard() != 1 || entry.GetLevel() != 0 || entry.GetMinTime() != 1000 || entry.GetMaxTime() != 1000 {
		t.Errorf("entry %v", entry)
	}
	footer, err := block.ReadMeta(t.Context(), objstore.Object(w.Bucket, block.Key(entry), int64(entry.GetSize())))
	if err != nil || !proto.Equal(footer, entry) {
		t.Errorf("footer %v, %v; entry %v", footer, err, entry)
	}
}

func TestPushesDuringAFlightShareTheNext(t *testing.T) {
	w := Open(t, Config())
	hold := w.Bucket.Hold(objstoretest.BeforePut)
	waits := []func() error{start(t, w, "acme", 1)}
	<-hold.Reached()
	for i := range int64(9) {
		waits = append(waits, start(t, w, "acme", i+2))
	}
	hold.Release()
	for _, wait := range waits {
		if err := wait(); err != nil {
			t.Error(err)
		}
	}
	if n := puts(w); n != 2 {
		t.Errorf("%d puts for ten pushes, want 2", n)
	}
	wantStored(t, w, "acme", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
}

func TestShardsFlyBesideEachOther(t *testing.T) {
	w := Open(t, Config())
	hold := make(chan struct{})
	w.Index.Next(Call{Commit: true, Hold: hold})
	waits := make([]func(context.Context) error, 2)
	for shard := range waits {
		var err error
		if waits[shard], err = w.Append(t.Context(), "acme", uint32(shard), series, profile.NewID(), small(int64(shard+1))); err != nil {
			t.Fatal(err)
		}
	}
	// One of the two is held; the other must not wait for it.
	answers := make(chan error, 2)
	for _, wait := range waits {
		go func() { answers <- wait(context.Background()) }()
	}
	if err := <-answers; err != nil {
		t.Error(err)
	}
	close(hold)
	if err := <-answers; err != nil {
		t.Error(err)
	}
	wantStored(t, w, "acme", 1, 2)
}

func TestASegmentLingersWhereTheBudgetIsSpent(t *testing.T) {
	cfg := Config()
	cfg.Linger, cfg.PutsPerSecond = 20*time.Millisecond, 1
	w := Open(t, cfg)
	for range 2 { // what is saved up
		if err := push(t, w, "acme", 1); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	first, second := start(t, w, "acme", 2), start(t, w, "globex", 3)
	if err := errors.Join(first(), second()); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begun); d < cfg.Linger {
		t.Errorf("answered after %s, want at least %s", d, cfg.Linger)
	}
	if n := puts(w); n != 3 {
		t.Errorf("%d puts, want 3", n)
	}
	wantStored(t, w, "acme", 1, 1, 2)
	wantStored(t, w, "globex", 3)
}

func TestALargeSegmentDoesNotLinger(t *testing.T) {
	cfg := Config()
	cfg.Linger, cfg.MaxSegmentBytes = time.Hour, 1
	w := Open(t, cfg)
	if err := push(t, w, "acme", 1); err != nil {
		t.Fatal(err)
	}
	wantStored(t, w, "acme", 1)
}

func TestAProfileWithoutSamplesIsAnsweredAtOnce(t *testing.T) {
	w := Open(t, Config())
	wait, err := w.Append(t.Context(), "acme", 1, series, profile.NewID(), small(0))
	if err != nil || wait(t.Context()) != nil {
		t.Errorf("%v", err)
	}
	if n := puts(w); n != 0 {
		t.Errorf("%d puts", n)
	}
}

func TestASpoiltPartFailsAlone(t *testing.T) {
	for name, spoil := range map[string]func() error{
		"error": func() error { return errors.New("spoilt") },
		"panic": func() error { panic("spoilt") },
	} {
		t.Run(name, func(t *testing.T) {
			w := Open(t, Config())
			w.SpoilPart(func(id tenant.ID) error {
				if id == "bad" || id == "worse" {
					return spoil()
				}
				return nil
			})
			var good, bad, worse, zeta func() error
			gather(t, w, func() {
				good, bad, worse, zeta = start(t, w, "acme", 1), start(t, w, "bad", 2), start(t, w, "worse", 3), start(t, w, "zeta", 4)
			})
			if err := errors.Join(good(), zeta()); err != nil {
				t.Errorf("the good ones: %v", err)
			}
			wantCode(t, bad(), connect.CodeInternal)
			wantCode(t, worse(), connect.CodeInternal)
			wantStored(t, w, "acme", 1)
			wantStored(t, w, "zeta", 4)
			wantStored(t, w, "bad")
			wantStored(t, w, "worse")
			if held := w.Held(); held != 0 {
				t.Errorf("%d bytes are still held", held)
			}
		})
	}
}

func TestWhereEveryPartIsSpoiltNothingIsPut(t *testing.T) {
	w := Open(t, Config())
	w.SpoilPart(func(tenant.ID) error { return errors.New("spoilt") })
	wantCode(t, push(t, w, "bad", 1), connect.CodeInternal)
	if n := puts(w); n != 0 {
		t.Errorf("%d puts", n)
	}
}

func TestAPanicWhileAppendingFailsTheTenantsPartAlone(t *testing.T) {
	w := Open(t, Config())
	var good, victim, after func() error
	gather(t, w, func() {
		good, victim = start(t, w, "acme", 1), start(t, w, "bad", 2)
		broken := small(3)
		broken.Order[0] = 99 // no such sample
		_, err := w.Append(t.Context(), "bad", 1, series, profile.NewID(), broken)
		wantCode(t, err, connect.CodeInternal)
		after = start(t, w, "bad", 4)
	})
	if err := errors.Join(good(), after()); err != nil {
		t.Error(err)
	}
	wantCode(t, victim(), connect.CodeInternal)
	wantStored(t, w, "acme", 1)
	wantStored(t, w, "bad", 4)
}

func TestValuesThatOverflow(t *testing.T) {
	w := Open(t, Config())
	var first func() error
	gather(t, w, func() {
		first = start(t, w, "acme", math.MaxInt64)
		_, err := w.Append(t.Context(), "acme", 1, series, profile.NewID(), small(1))
		wantCode(t, err, connect.CodeResourceExhausted) // later there is room for it
		alone := Decode(Pprof(1000, []string{"cpu:nanoseconds"}, Sample{Stack: "a", Values: []int64{math.MaxInt64}}, Sample{Stack: "b", Values: []int64{1}}))
		_, err = w.Append(t.Context(), "globex", 1, series, profile.NewID(), alone)
		wantCode(t, err, connect.CodeInvalidArgument)
	})
	if err := first(); err != nil {
		t.Fatal(err)
	}
	if err := push(t, w, "acme", 1); err != nil {
		t.Error(err)
	}
	wantStored(t, w, "acme", 1, math.MaxInt64)
}

var errFault = errors.New("injected fault")

func fault(code connect.Code) error { return connect.NewError(code, errFault) }

func TestFaultsOfBucketAndIndex(t *testing.T) {
	const before, after, always = objstoretest.BeforePut, objstoretest.AfterPut, objstoretest.Always
	failPuts := func(step objstoretest.Step, times int) func(*Writer) {
		return func(w *Writer) { w.Bucket.Fail(step, errFault, times) }
	}
	never := make(chan struct{})
	answer := func(times int, call Call) func(*Writer) {
		return func(w *Writer) { w.Index.Next(slices.Repeat([]Call{call}, times)...) }
	}
	const forever = 10_000 // more often than there is time for
	for name, c := range map[string]struct {
		fault    func(*Writer)
		want     connect.Code // 0: acknowledged
		objects  int
		entries  int
		proposed int // -1: often
	}{
		"put fails, then works":             {fault: failPuts(before, 2), objects: 1, entries: 1, proposed: 1},
		"put fails though it stored":        {fault: failPuts(after, 1), objects: 1, entries: 1, proposed: 1},
		"put fails always":                  {fault: failPuts(before, always), want: connect.CodeUnavailable},
		"put fails always though it stored": {fault: failPuts(after, always), want: connect.CodeUnavailable, objects: 1},
		"put hangs":                         {fault: func(w *Writer) { w.Bucket.Hold(before) }, want: connect.CodeUnavailable},

		"leader changes before the commit": {fault: answer(1, Call{Err: fault(connect.CodeAborted)}), objects: 1, entries: 1, proposed: 2},
		"leader changes after the commit":  {fault: answer(1, Call{Commit: true, Err: fault(connect.CodeAborted)}), objects: 1, entries: 1, proposed: 2},
		"no quorum for a while":            {fault: answer(3, Call{Err: fault(connect.CodeUnavailable)}), objects: 1, entries: 1, proposed: 4},
		"no leader yet":                    {fault: answer(1, Call{Err: fault(connect.CodeFailedPrecondition)}), objects: 1, entries: 1, proposed: 2},
		"an attempt takes too long":        {fault: answer(1, Call{Hold: never}), objects: 1, entries: 1, proposed: 2},
		"no quorum":                        {fault: answer(forever, Call{Err: fault(connect.CodeUnavailable)}), want: connect.CodeUnavailable, objects: 1, proposed: -1},
		"no quorum, though it commits":     {fault: answer(forever, Call{Commit: true, Err: fault(connect.CodeAborted)}), want: connect.CodeUnavailable, objects: 1, entries: 1, proposed: -1},
		"index hangs":                      {fault: answer(forever, Call{Hold: never}), want: connect.CodeUnavailable, objects: 1, proposed: -1},
		"index refuses":                    {fault: answer(1, Call{Err: fault(connect.CodeInvalidArgument)}), want: connect.CodeInternal, objects: 1, proposed: 1},
		"all of it was deleted":            {fault: answer(1, Call{Err: fault(connect.CodeOutOfRange)}), want: connect.CodeInvalidArgument, objects: 1, proposed: 1},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config()
			cfg.AttemptTimeout, cfg.FlushTimeout = 30*time.Millisecond, 300*time.Millisecond
			w := Open(t, cfg)
			c.fault(w)
			err := push(t, w, "acme", 7)
			if c.want == 0 && err != nil {
				t.Errorf("not acknowledged: %v", err)
			}
			if c.want != 0 {
				wantCode(t, err, c.want)
				if strings.Contains(err.Error(), errFault.Error()) {
					t.Errorf("the client is told of the inside: %v", err)
				}
			}
			if n := objects(t, w); n != c.objects {
				t.Errorf("%d objects, want %d", n, c.objects)
			}
			if n := len(w.Index.Entries()); n != c.entries {
				t.Errorf("%d entries, want %d", n, c.entries)
			}
			if n := w.Index.Calls(); c.proposed >= 0 && n != c.proposed || c.proposed < 0 && n < 2 {
				t.Errorf("%d proposals, want %d", n, c.proposed)
			}
			if held := w.Held(); held != 0 {
				t.Errorf("%d bytes are still held", held)
			}
		})
	}
}

func TestOnlyTheTenantWhoseDataWasDeletedIsRefused(t *testing.T) {
	w := Open(t, Config())
	answer := Call{Commit: true, Dropped: []*metastorev1.DroppedDataset{{Tenant: "gone", Service: "web"}}}
	w.Index.Next(answer, answer) // in one segment or in two
	results := map[string]chan error{"gone": make(chan error, 1), "acme": make(chan error, 1)}
	f := corpus.All()[0]
	for name, result := range results {
		wait, err := w.Append(t.Context(), tenant.ID(name), 1, labels.FromStrings("__name__", f.Kind(), "service_name", "web"), profile.NewID(), Decode(f.Gzipped))
		if err != nil {
			t.Fatal(err)
		}
		go func() { result <- wait(context.Background()) }()
	}
	if err := <-results["acme"]; err != nil {
		t.Errorf("another tenant: %v", err)
	}
	wantCode(t, <-results["gone"], connect.CodeInvalidArgument)
}

func TestAWriterRecoversWithItsBucket(t *testing.T) {
	cfg := Config()
	cfg.AttemptTimeout, cfg.FlushTimeout = 30*time.Millisecond, 60*time.Millisecond
	w := Open(t, cfg)
	w.Bucket.Fail(objstoretest.BeforePut, errFault, objstoretest.Always)
	wantCode(t, push(t, w, "acme", 1), connect.CodeUnavailable)
	w.Bucket.Heal()
	if err := push(t, w, "acme", 2); err != nil {
		t.Error(err)
	}
	wantStored(t, w, "acme", 2)
}

// puts returns how many puts began.
func puts(w *Writer) int { return w.Bucket.Passed(objstoretest.BeforePut) }

func objects(t *testing.T, w *Writer) int {
	n := 0
	if err := w.Bucket.List(t.Context(), "segments/", func(objstore.Attributes) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMemoryIsBounded(t *testing.T) {
	cfg := Config()
	cfg.MaxSegmentBytes, cfg.MaxBytes = 1<<20, 4<<20
	w := Open(t, cfg)
	hold := w.Bucket.Hold(objstoretest.BeforePut)
	var waits []func(context.Context) error
	files := corpus.All()
	var refused error
	for i := 0; refused == nil; i++ {
		if i > 10_000 {
			t.Fatalf("nothing was refused, %d bytes are held", w.Held())
		}
		f := files[i%len(files)]
		s := labels.FromStrings("__name__", f.Kind(), "service_name", fmt.Sprint(f.Service(), i))
		wait, err := w.Append(t.Context(), tenant.ID(fmt.Sprint("tenant-", i%3)), uint32(i%3), s, profile.NewID(), Decode(f.Gzipped))
		if refused = err; err == nil {
			waits = append(waits, wait)
		}
	}
	wantCode(t, refused, connect.CodeResourceExhausted)
	wantRefused(t, refused, "memory")
	if held := w.Held(); held > cfg.MaxBytes+2<<20 {
		t.Errorf("%d bytes are held, the limit is %d", held, cfg.MaxBytes)
	}
	hold.Release()
	for _, wait := range waits {
		if err := wait(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if held := w.Held(); held != 0 {
		t.Errorf("%d bytes are still held when everything is answered", held)
	}
	if err := push(t, w, "acme", 1); err != nil {
		t.Errorf("the next push: %v", err)
	}
}

func TestAShardWhoseFlightsAllHangRefuses(t *testing.T) {
	cfg := Config()
	cfg.MaxSegmentBytes, cfg.Flights = 1, 2
	w := Open(t, cfg)
	hold := w.Bucket.Hold(objstoretest.BeforePut)
	var waits []func() error
	for i := range int64(3) { // two in flight, one gathered
		waits = append(waits, start(t, w, "acme", i+1))
	}
	_, err := w.Append(t.Context(), "acme", 1, series, profile.NewID(), small(9))
	wantCode(t, err, connect.CodeResourceExhausted)
	wantRefused(t, err, "flights")
	hold.Release()
	for _, wait := range waits {
		if err := wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	w := Open(t, Config())
	hold := w.Bucket.Hold(objstoretest.BeforePut)
	wait, err := w.Append(t.Context(), "acme", 1, series, profile.NewID(), small(1))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantCode(t, wait(ctx), connect.CodeCanceled)
	late, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	wantCode(t, wait(late), connect.CodeDeadlineExceeded)
	_, err = w.Append(ctx, "acme", 1, series, profile.NewID(), small(1))
	wantCode(t, err, connect.CodeCanceled)
	hold.Release()
	if err := wait(t.Context()); err != nil {
		t.Error(err)
	}
	if err := wait(ctx); err != nil {
		t.Errorf("an answer that is there is given to whoever asks: %v", err)
	}
	wantStored(t, w, "acme", 1)
}

func TestStoppingAnswersEverythingAndTakesNothingNew(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		cfg := Config()
		cfg.Linger = time.Hour
		w := Open(t, cfg)
		hold := w.Bucket.Hold(objstoretest.BeforePut)
		gathered := start(t, w, "acme", 1)
		stopped := make(chan struct{})
		go func() { w.Stop(); close(stopped) }()
		<-hold.Reached()                       // stopping cuts what lingers
		synctest.Wait()                        // and then closes: what came between was taken, as while it drains
		for _, shard := range []uint32{1, 2} { // one that exists and one that does not
			_, err := w.Append(t.Context(), "acme", shard, series, profile.NewID(), small(2))
			wantCode(t, err, connect.CodeUnavailable)
			wantRefused(t, err, "stopping")
		}
		select {
		case <-stopped:
			t.Error("stopped before what is in flight has landed")
		default:
		}
		hold.Release()
		if err := gathered(); err != nil {
			t.Error(err)
		}
		<-stopped
		wantStored(t, w, "acme", 1)
	})
}

// TestDrainingEndsLingering has pushes that come while the doors close flushed at once, and all answered in time.
func TestDrainingEndsLingering(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		cfg := Config()
		cfg.Linger, cfg.PutsPerSecond = time.Minute, 0.001
		w := Open(t, cfg)
		pushAll(t, w, 1) // the budget is spent
		begun := time.Now()
		gathered := start(t, w, "acme", 2)
		w.Drain()
		if err := gathered(); err != nil {
			t.Error(err)
		}
		if err := push(t, w, "acme", 3); err != nil {
			t.Errorf("a push while the doors close: %v", err)
		}
		if took := time.Since(begun); took > 0 {
			t.Errorf("lingered for %s", took)
		}
		w.Bucket.Hold(objstoretest.BeforePut)
		late := start(t, w, "acme", 4)
		w.Drain() // again, which gains no time
		w.Stop()
		wantCode(t, late(), connect.CodeUnavailable)
		if took := time.Since(begun); took > cfg.StopTimeout {
			t.Errorf("stopped after %s", took)
		}
		wantStored(t, w, "acme", 1, 2, 3)
	})
}

func TestStoppingIsBounded(t *testing.T) {
	cfg := Config()
	cfg.AttemptTimeout, cfg.FlushTimeout, cfg.StopTimeout = 50*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
	w := Open(t, cfg)
	w.Bucket.Hold(objstoretest.BeforePut)
	first, second := start(t, w, "acme", 1), start(t, w, "acme", 2)
	w.Stop()
	wantCode(t, first(), connect.CodeUnavailable)
	wantCode(t, second(), connect.CodeUnavailable)
}

// TestNoTwoWritersMakeTheSameKey looks at what remains of ids when the time is left out: writers make them in the same moment.
func TestNoTwoWritersMakeTheSameKey(t *testing.T) {
	const ids = 500_000
	seen := make(map[[10]byte]bool, ids)
	for range ids {
		id, err := segmentwriter.NewID()
		if err != nil {
			t.Fatal(err)
		}
		seen[[10]byte(id.Entropy())] = true
	}
	if len(seen) != ids {
		t.Errorf("%d of %d ids are the same", ids-len(seen), ids)
	}
}

func TestMetricsSayWhatIsWritten(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		cfg := Config()
		cfg.MaxSegmentBytes, cfg.EnoughBytes, cfg.Flights = 1, 1, 1
		w := Open(t, cfg)
		takes(w, 100*time.Millisecond)
		first, second := start(t, w, "acme", 1), start(t, w, "acme", 2) // in flight, and gathered meanwhile
		_, err := w.Append(t.Context(), "acme", 1, series, profile.NewID(), small(3))
		wantRefused(t, err, "flights")
		if err := errors.Join(first(), second()); err != nil {
			t.Fatal(err)
		}
		bytes := 0
		for _, m := range w.Index.Entries() {
			bytes += int(m.GetSize())
		}
		for name, want := range map[string]struct {
			sum   float64
			count int
		}{
			"kiln_segment_writer_segments_total":        {sum: 2},
			"kiln_segment_writer_puts_total":            {sum: 2},
			"kiln_segment_writer_failed_profiles_total": {sum: 1},
			"kiln_segment_writer_segment_bytes":         {sum: float64(bytes), count: 2},
			"kiln_segment_writer_segment_profiles":      {sum: 2, count: 2},
			"kiln_segment_writer_gather_seconds":        {sum: 0.1, count: 2},
			"kiln_segment_writer_put_seconds":           {sum: 0.2, count: 2},
			"kiln_segment_writer_flush_seconds":         {sum: 0.2, count: 2},
		} {
			if sum, count := metric(t, w, name); math.Abs(sum-want.sum) > 1e-9 || count != want.count {
				t.Errorf("%s is %g in %d, want %g in %d", name, sum, count, want.sum, want.count)
			}
		}
	})
}

func TestShardsAreBounded(t *testing.T) {
	w := Open(t, Config())
	_, err := w.Append(t.Context(), "acme", 1<<16, series, profile.NewID(), small(1))
	wantCode(t, err, connect.CodeInvalidArgument)
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	if err := segmentwriter.DefaultConfig().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	if err := (segmentwriter.Config{Linger: -1}).Validate(); err == nil {
		t.Error("an empty configuration is valid")
	}
}

// TestAcknowledgedOnceWhateverFails pushes from many sides at a bucket and an index that fail at random.
func TestAcknowledgedOnceWhateverFails(t *testing.T) {
	cfg := Config()
	cfg.PutAttempts = 2
	w := Open(t, cfg)
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		call := Call{Commit: true}
		if r.IntN(3) == 0 {
			call = Call{Commit: r.IntN(2) == 0, Err: fault(connect.CodeAborted)}
		}
		w.Index.Next(call)
	}

	const pushers, pushes = 8, 40
	var mu sync.Mutex
	acknowledged := map[int64]bool{}
	var wg sync.WaitGroup
	for pusher := range pushers {
		wg.Go(func() {
			for i := range pushes {
				value := int64(pusher*pushes + i + 1)
				if step := rand.IntN(6); pusher == 0 && step < 2 { // one of them, lest faults pile up
					w.Bucket.Fail([]objstoretest.Step{objstoretest.BeforePut, objstoretest.AfterPut}[step], errFault, 2)
				}
				wait, err := w.Append(t.Context(), tenant.ID(fmt.Sprint("tenant-", i%3)), uint32(i%2), series, profile.NewID(), small(value))
				if err == nil {
					err = wait(t.Context())
				}
				mu.Lock()
				acknowledged[value] = err == nil
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	w.Stop()
	count := map[int64]int{}
	for _, r := range w.Rows(t) {
		count[r.Names["main;work"][0]]++
	}
	acks := 0
	for value, ok := range acknowledged {
		if ok {
			acks++
		}
		if n := count[value]; n > 1 || ok && n != 1 {
			t.Errorf("profile %d: acknowledged %t, stored %d times", value, ok, n)
		}
	}
	if acks == 0 || acks == len(acknowledged) {
		t.Errorf("%d of %d pushes were acknowledged: this shows nothing", acks, len(acknowledged))
	}
	for value := range maps.Keys(count) {
		if _, ok := acknowledged[value]; !ok {
			t.Errorf("profile %d was never pushed", value)
		}
	}
	if held := w.Held(); held != 0 {
		t.Errorf("%d bytes are still held", held)
	}
}
