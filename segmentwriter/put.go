package segmentwriter

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"
)

// put stores the object. The same bytes go to the same key, so a put whose answer was lost may be repeated, and one whose
// answer is late may be made twice.
func (w *Writer) put(ctx context.Context, key string, e *encoder) error {
	for attempt := 1; ; attempt++ {
		err := w.attempt(ctx, func(ctx context.Context) error { return w.putHedged(ctx, key, e) })
		if err == nil {
			w.retries.earn(1)
			return nil
		}
		e.suspect = true
		// Without credit the bucket is out, not unlucky: more puts would only meet it when it comes back.
		if attempt == w.cfg.PutAttempts || !w.retries.take() || !w.pause(ctx, attempt) {
			return fmt.Errorf("put %s, attempt %d: %w", key, attempt, err)
		}
		w.log.Warn("put failed, trying again", "key", key, "attempt", attempt, "error", err)
	}
}

// putHedged puts the object, and once more beside that if it takes longer than puts do and there is credit for it. The first
// success counts and ends the other.
func (w *Writer) putHedged(ctx context.Context, key string, e *encoder) (err error) {
	begun := time.Now()
	defer func() {
		if err == nil {
			w.pace.add(time.Since(begun))
			w.metrics.putSeconds.Observe(time.Since(begun).Seconds())
		}
	}()
	after := w.pace.slow(w.cfg.HedgeAfter)
	w.hedges.earn(w.cfg.HedgeShare)
	if after == 0 {
		w.metrics.puts.Inc()
		return w.bucket.Put(ctx, key, e.object.Bytes())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first := w.startPut(ctx, key, e)
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case err := <-first:
		return err
	case <-timer.C:
	}
	if !w.hedges.take() {
		return <-first
	}
	w.metrics.hedges.Inc()
	e.suspect, e.hedged = true, true
	second := w.startPut(ctx, key, e)
	select {
	case err = <-first:
		if err != nil {
			err = w.wonBy(<-second)
		}
	case err = <-second:
		if err != nil {
			return <-first
		}
		err = w.wonBy(nil)
	}
	return err
}

// wonBy counts a hedge that made the difference, unless it failed as well.
func (w *Writer) wonBy(err error) error {
	if err == nil {
		w.metrics.hedgeWins.Inc()
	}
	return err
}

// startPut starts a put of e.object, which e.puts waits for, and returns where its result will be. A panic is its result, as that of a
// flight is (see store).
func (w *Writer) startPut(ctx context.Context, key string, e *encoder) <-chan error {
	w.metrics.puts.Inc()
	result := make(chan error, 1)
	e.puts.Go(func() {
		defer func() {
			if r := recover(); r != nil {
				result <- fmt.Errorf("panic: %v\n%s", r, debug.Stack())
			}
		}()
		result <- w.bucket.Put(ctx, key, e.object.Bytes())
	})
	return result
}

// release counts the bytes of an object no longer: once a put that lost has ended, if there is one, for until then it holds them.
func (w *Writer) release(e *encoder, size int64) {
	if !e.hedged {
		w.bytes.Add(-size)
		return
	}
	w.flights.Go(func() {
		e.puts.Wait()
		w.bytes.Add(-size)
	})
}
