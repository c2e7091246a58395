package distributor

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A queue that nobody leaves refuses in time, and lets in again when there is room.
func TestAQueueKeepsItselfShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(2)
		ctx := t.Context()
		if err := errors.Join(q.enter(ctx, true), q.enter(ctx, true)); err != nil || q.full() {
			t.Fatalf("%v, full %t", err, q.full())
		}
		begun := time.Now()
		err := q.enter(ctx, true)
		if reasonOf(err) != reasonOverload || retryAfter(err) != retryOverload {
			t.Errorf("the third: %v", err)
		}
		if waited := time.Since(begun); waited != maxWait {
			t.Errorf("refused after %s, want %s", waited, maxWait)
		}
		if !q.full() {
			t.Error("more are let wait for nothing")
		}
		behind, cancel := context.WithCancel(ctx)
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if err := q.enter(behind, false); err != nil {
				t.Errorf("the second profile of a request: %v", err)
			}
		})
		time.Sleep(10 * maxWait)
		q.leave()
		waiting.Wait()
		q.leave()
		if err := q.enter(ctx, true); err != nil || q.full() {
			t.Errorf("when there is room: %v, full %t", err, q.full())
		}
		cancel()
		if err := q.enter(behind, false); !errors.Is(err, context.Canceled) {
			t.Errorf("the sender left: %v", err)
		}
	})
}
