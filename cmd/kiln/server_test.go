package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestAProcessEndsWhateverHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := errors.New("failure")
		if err := within(t.Context(), stopWithin, func(context.Context) error { return failure }); err != failure {
			t.Errorf("before it was told to stop: %v", err)
		}
		stopping, cancel := context.WithCancel(t.Context())
		cancel()
		if err := within(stopping, stopWithin, func(context.Context) error { time.Sleep(stopWithin - 1); return nil }); err != nil {
			t.Errorf("in time: %v", err)
		}
		forever := make(chan struct{})
		defer close(forever)
		begun := time.Now()
		err := within(stopping, stopWithin, func(context.Context) error { <-forever; return nil })
		if err == nil || time.Since(begun) >= 30*time.Second {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
	})
}
