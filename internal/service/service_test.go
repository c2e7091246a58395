package service_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/kilndb/kiln/internal/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// diary notes what happens, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

// worker is a service that notes its stop, which takes a while in which others could stop too, and then returns err.
func (d *diary) worker(name string, err error) service.Service {
	return service.Func(func(ctx context.Context) error {
		<-ctx.Done()
		d.note(name + " stops")
		for range 10 {
			runtime.Gosched()
		}
		d.note(name + " stopped")
		return err
	})
}

func (d *diary) want(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(d.lines, want) {
		t.Errorf("it happened: %q, want %q", d.lines, want)
	}
}

var oneAtATimeInReverse = []string{"c stops", "c stopped", "b stops", "b stopped", "a stops", "a stopped"}

func TestStopsInReverseOneAtATime(t *testing.T) {
	var d diary
	var g service.Group
	for _, name := range []string{"a", "b", "c"} {
		g.Add(name, d.worker(name, nil))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Run(ctx); err != nil {
		t.Errorf("run: %v", err)
	}
	d.want(t, oneAtATimeInReverse...)
}

func TestAllRunUntilTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		var g service.Group
		var started sync.WaitGroup
		started.Add(3)
		for _, name := range []string{"a", "b", "c"} {
			g.Add(name, service.Func(func(ctx context.Context) error {
				started.Done()
				return d.worker(name, nil).Run(ctx)
			}))
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		started.Wait()
		synctest.Wait()
		d.want(t)
		select {
		case err := <-done:
			t.Fatalf("run returned %v before its context ended", err)
		default:
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		d.want(t, oneAtATimeInReverse...)
	})
}

func TestFirstToFailStopsAll(t *testing.T) {
	var d diary
	var g service.Group
	broken := errors.New("broken")
	g.Add("a", d.worker("a", nil))
	g.Add("fails", service.Func(func(context.Context) error { return broken }))
	g.Add("b", d.worker("b", nil))
	err := g.Run(t.Context())
	if !errors.Is(err, broken) || err.Error() != "fails: broken" {
		t.Errorf("run: %v, want the error of the one that failed, with its name", err)
	}
	d.want(t, "b stops", "b stopped", "a stops", "a stopped")
}

func TestEarlyReturnStopsAll(t *testing.T) {
	var d diary
	var g service.Group
	g.Add("a", d.worker("a", nil))
	g.Add("hasty", service.Func(func(context.Context) error { return nil }))
	err := g.Run(t.Context())
	if !errors.Is(err, service.ErrReturnedEarly) || !strings.HasPrefix(err.Error(), "hasty: ") {
		t.Errorf("run: %v, want ErrReturnedEarly of hasty", err)
	}
	d.want(t, "a stops", "a stopped")
}

func TestErrorsAreJoined(t *testing.T) {
	var d diary
	var g service.Group
	stopA, stopC, first := errors.New("stop a"), errors.New("stop c"), errors.New("first")
	g.Add("a", d.worker("a", stopA))
	g.Add("b", service.Func(func(context.Context) error { return first }))
	g.Add("c", d.worker("c", stopC))
	g.Add("d", d.worker("d", nil))
	err := g.Run(t.Context())
	for _, want := range []error{stopA, stopC, first} {
		if !errors.Is(err, want) {
			t.Errorf("run: %v, lacks %v", err, want)
		}
	}
	if got := err.Error(); got != "c: stop c\nb: first\na: stop a" {
		t.Errorf("run: %q, want each with its name and nothing of d", got)
	}
	d.want(t, "d stops", "d stopped", "c stops", "c stopped", "a stops", "a stopped")
}

// One that is lost while those after it are still stopping has failed, even if it says nil.
func TestFailureWhileOthersStop(t *testing.T) {
	for name, c := range map[string]struct{ result, want error }{
		"fails":   {errors.ErrUnsupported, errors.ErrUnsupported},
		"returns": {nil, service.ErrReturnedEarly},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var g service.Group
				release := make(chan struct{})
				g.Add("a", service.Func(func(context.Context) error {
					<-release
					return c.result
				}))
				g.Add("b", service.Func(func(ctx context.Context) error {
					<-ctx.Done()
					close(release)
					synctest.Wait() // until a has returned
					return nil
				}))
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if err := g.Run(ctx); !errors.Is(err, c.want) || !strings.HasPrefix(err.Error(), "a: ") {
					t.Errorf("run: %v, want a: %v", err, c.want)
				}
			})
		})
	}
}

type key struct{}

func TestContextIsDetachedButHasItsValues(t *testing.T) {
	var g service.Group
	var value any
	var errWhileOthersStop error
	stopping := make(chan struct{})
	g.Add("a", service.Func(func(ctx context.Context) error {
		value = ctx.Value(key{})
		<-stopping
		errWhileOthersStop = ctx.Err()
		stopping <- struct{}{}
		<-ctx.Done()
		return nil
	}))
	g.Add("b", service.Func(func(ctx context.Context) error {
		<-ctx.Done()
		stopping <- struct{}{}
		<-stopping
		return nil
	}))
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	cancel()
	if err := g.Run(ctx); err != nil {
		t.Errorf("run: %v", err)
	}
	if value != "value" {
		t.Errorf("the member saw value %v", value)
	}
	if errWhileOthersStop != nil {
		t.Errorf("while b stopped, the context of a had ended: %v", errWhileOthersStop)
	}
}

func TestPanicIsAnError(t *testing.T) {
	var d diary
	var g service.Group
	g.Add("a", d.worker("a", nil))
	g.Add("wild", service.Func(func(context.Context) error { panic("no such thing") }))
	err := g.Run(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), "wild: panic: no such thing\n") || !strings.Contains(err.Error(), "service_test.go") {
		t.Errorf("run: %v, want the panic of wild and where it was", err)
	}
	d.want(t, "a stops", "a stopped")
}

func TestExitedGoroutineIsAnError(t *testing.T) {
	var g service.Group
	g.Add("gone", service.Func(func(context.Context) error {
		runtime.Goexit()
		return nil
	}))
	if err := g.Run(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "gone: ") {
		t.Errorf("run: %v, want an error of gone", err)
	}
}

func TestEmptyGroupWaits(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- new(service.Group).Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestGroupsNest(t *testing.T) {
	var d diary
	var inner, outer service.Group
	inner.Add("b", d.worker("b", errors.New("broken")))
	inner.Add("c", d.worker("c", nil))
	outer.Add("a", d.worker("a", nil))
	outer.Add("inner", &inner)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := outer.Run(ctx); fmt.Sprint(err) != "inner: b: broken" {
		t.Errorf("run: %v", err)
	}
	d.want(t, oneAtATimeInReverse...)
}
