package distributor

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
)

// Who would wait for too long at the pace of those before is refused at once, and nobody else is.
func TestTheQueueRefusesAtOnceWhoWouldWaitInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const service = 6 * time.Millisecond
		most := int(maxWait / service) // that can be served in time
		q := newQueue(2)               // of which a tenant may have one
		ctx := t.Context()
		var mu sync.Mutex
		var waits, refusals []time.Duration
		send := func() {
			begun := time.Now()
			err := q.enter(ctx, "acme", true)
			waited := time.Since(begun)
			if err == nil {
				time.Sleep(service)
				q.leave("acme")
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				waits = append(waits, waited)
			} else if refusals = append(refusals, waited); reasonOf(err) != reasonOverload {
				t.Error(err)
			}
		}
		var all sync.WaitGroup
		push := func() {
			for range 100 { // twice what can be served meanwhile
				all.Go(send)
				time.Sleep(service / 2)
			}
		}
		push()
		mu.Lock()
		waits, refusals = nil, nil // at first nobody knows how long it takes
		mu.Unlock()
		push()
		all.Wait()
		if n := len(waits); n < 50 || n > 50+most+1 {
			t.Errorf("%d of 100 were served", n)
		}
		if longest := slices.Max(refusals); longest > 0 {
			t.Errorf("one was refused after %s", longest)
		}
		if longest := slices.Max(waits); longest > maxWait {
			t.Errorf("one waited for %s", longest)
		}
	})
}

// A queue that nobody leaves refuses in time, lets others in meanwhile, and lets in again when there is room.
func TestAQueueKeepsItselfShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(3)
		ctx := t.Context()
		if err := errors.Join(q.enter(ctx, "acme", true), q.enter(ctx, "acme", true)); err != nil || q.full("acme") {
			t.Fatalf("%v, full %t", err, q.full("acme"))
		}
		begun := time.Now()
		err := q.enter(ctx, "acme", true)
		if reasonOf(err) != reasonOverload || retryAfter(err) != retryOverload {
			t.Errorf("the third: %v", err)
		}
		if waited := time.Since(begun); waited != maxWait {
			t.Errorf("refused after %s, want %s", waited, maxWait)
		}
		if !q.full("acme") || q.full("globex") {
			t.Error("more are let wait for nothing, or another tenant is refused")
		}
		if err := q.enter(ctx, "globex", true); err != nil || time.Since(begun) != maxWait {
			t.Errorf("another tenant: %v after %s", err, time.Since(begun)-maxWait)
		}
		if err := q.enter(ctx, "initech", true); reasonOf(err) != reasonOverload || len(q.lanes) != 2 {
			t.Errorf("a third tenant, when all is taken: %v; %d lanes", err, len(q.lanes))
		}
		q.leave("globex")
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if err := q.enter(ctx, "acme", false); err != nil {
				t.Errorf("the second profile of a request: %v", err)
			}
		})
		time.Sleep(10 * maxWait)
		q.leave("acme")
		waiting.Wait()
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if err := q.enter(gone, "acme", false); !errors.Is(err, context.Canceled) {
			t.Errorf("the sender left: %v", err)
		}
		q.leave("acme")
		if err := q.enter(ctx, "acme", true); err != nil || q.full("acme") {
			t.Errorf("when there is room: %v, full %t", err, q.full("acme"))
		}
		q.leave("acme")
		q.leave("acme")
		if len(q.lanes) != 0 || len(q.slots) != 0 {
			t.Errorf("%d lanes and %d places are left", len(q.lanes), len(q.slots))
		}
	})
}

// What is read for long, such as recordings, keeps nobody else out: whoever waits does so behind requests of its own tenant.
func TestTenantsTakeTurnsAtReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := New(DefaultConfig(), nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		var inside, total atomic.Int64
		release := make(chan struct{})
		var flood sync.WaitGroup
		for range 100 {
			flood.Go(func() {
				done, err := d.reader(t.Context(), "mallory")
				if err != nil {
					t.Error(err)
					return
				}
				inside.Add(1)
				<-release
				done()
				total.Add(1)
			})
		}
		synctest.Wait()
		if n := inside.Load(); n != int64(runtime.GOMAXPROCS(0)) {
			t.Errorf("%d requests of one tenant are read at once, want one for each of %d cores", n, runtime.GOMAXPROCS(0))
		}
		for range 3 {
			done, err := d.reader(t.Context(), "victim")
			if err != nil {
				t.Fatal(err)
			}
			done()
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := d.reader(gone, "mallory"); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("the sender left: %v", err)
		}
		close(release)
		flood.Wait()
		if total.Load() != 100 || len(d.readers.lanes) != 0 {
			t.Errorf("%d of 100 were read; %d lanes are left", total.Load(), len(d.readers.lanes))
		}
	})
}
