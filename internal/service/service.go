package service

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
)

// ErrReturnedEarly is returned when a member returned nil although nobody had asked it to stop.
var ErrReturnedEarly = errors.New("returned before it was stopped")

// Service works until its context ends, then returns nil with everything it held released. An error, or nil before
// that, means that it cannot go on.
type Service interface {
	Run(ctx context.Context) error
}

// Func is a Service of one function.
type Func func(ctx context.Context) error

// Run calls f.
func (f Func) Run(ctx context.Context) error { return f(ctx) }

// Group runs services as one unit, and is a Service itself. Add order is start order; they stop one at a time in
// reverse, so each may rely on those added before it until its own Run has returned. The zero value is empty and ready.
type Group struct {
	members []member
}

type member struct {
	name    string
	service Service
}

// Add adds a service to those that Run starts. The name is for error messages.
func (g *Group) Add(name string, s Service) {
	g.members = append(g.members, member{name, s})
}

// Run starts all members and works until its context ends or a member fails or returns, whichever is first. Then it
// stops them all, and returns their errors joined, each with its member's name. A panic in a member is such an error.
func (g *Group) Run(ctx context.Context) error {
	ended := make(chan struct{}, len(g.members)) // room for all, so that nobody waits to say so
	var started []*running
	for _, m := range g.members {
		started = append(started, m.start(ctx, ended))
	}
	select {
	case <-ctx.Done():
	case <-ended:
	}
	var errs []error
	for i := len(started) - 1; i >= 0; i-- {
		errs = append(errs, started[i].stop())
	}
	return errors.Join(errs...)
}

// running is a member at work.
type running struct {
	name   string
	cancel context.CancelFunc
	result chan error
}

// start runs the member with a context of its own, which has the values of ctx but ends only in its turn. Every way in
// which Run can end has a result.
func (m member) start(ctx context.Context, ended chan<- struct{}) *running {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &running{name: m.name, cancel: cancel, result: make(chan error, 1)}
	go func() {
		err := errors.New("its goroutine exited") // unless Run returns or panics
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
			r.result <- err
			ended <- struct{}{}
		}()
		err = m.service.Run(ctx)
	}()
	return r
}

// stop ends the member's context, waits for it, and returns its error.
func (r *running) stop() error {
	defer r.cancel()
	var err error
	select {
	case err = <-r.result:
		if err == nil {
			err = ErrReturnedEarly
		}
	default:
		r.cancel()
		err = <-r.result
	}
	if err != nil {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	return nil
}
