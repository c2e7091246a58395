package objstoretest

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/kilndb/kiln/objstore"
)

var _ objstore.Bucket = (*Faulty)(nil)

// Step is a moment in an operation at which Faulty can be told to fail or to wait. Every kind of put passes the steps
// of a put; gets, ranges and attributes pass BeforeGet.
type Step string

// The steps. After means that the bucket below has done it, durably, and only the answer is missing.
const (
	BeforePut    Step = "before put"
	AfterPut     Step = "after put"
	BeforeGet    Step = "before get"
	BeforeList   Step = "before list"
	BeforeDelete Step = "before delete"
	AfterDelete  Step = "after delete"
)

// Always, as a number of times, means until Heal.
const Always = -1

// corrupted is the step at which read bytes are flipped.
const corrupted Step = "corrupted"

// Faulty is a bucket that does what the one below it does, except where a test has it fail. It may be told so at any
// time, also while it is used. The fault that was asked for first comes first.
type Faulty struct {
	below objstore.Bucket

	mu     sync.Mutex
	faults []*fault     // guarded by mu
	passed map[Step]int // guarded by mu
}

type fault struct {
	step   Step
	prefix string
	err    error // of a failure
	hold   *Hold // of a wait
	do     func(ctx context.Context, key string) error
	left   int // times, or Always
}

// NewFaulty returns a bucket without a fault so far.
func NewFaulty(below objstore.Bucket) *Faulty {
	return &Faulty{below: below, passed: map[Step]int{}}
}

// Fail has the next operations that come to the step return err.
func (f *Faulty) Fail(step Step, err error, times int) {
	f.FailPrefix(step, "", err, times)
}

// FailPrefix is Fail for those keys, or prefixes of a list, that start with prefix.
func (f *Faulty) FailPrefix(step Step, prefix string, err error, times int) {
	f.add(&fault{step: step, prefix: prefix, err: err, left: times})
}

// Corrupt has the next gets and ranges of keys that start with prefix return their bytes with one bit flipped. Where
// there are no bytes there is nothing to flip, but it counts.
func (f *Faulty) Corrupt(prefix string, times int) {
	f.add(&fault{step: corrupted, prefix: prefix, left: times})
}

// Hold has all operations that come to the step wait until the hold is released or their context ends.
func (f *Faulty) Hold(step Step) *Hold {
	h := &Hold{reached: make(chan struct{}), released: make(chan struct{})}
	f.add(&fault{step: step, hold: h, left: Always})
	return h
}

// Do has all operations that come to the step call do first, which may wait; an error of it is theirs.
func (f *Faulty) Do(step Step, do func(ctx context.Context, key string) error) {
	f.add(&fault{step: step, do: do, left: Always})
}

// Heal removes all faults and releases all holds.
func (f *Faulty) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fault := range f.faults {
		if fault.hold != nil {
			fault.hold.Release()
		}
	}
	f.faults = nil
}

// Passed returns how many operations have come to the step so far, whether they failed there or not.
func (f *Faulty) Passed(step Step) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.passed[step]
}

// Hold is a step at which operations wait.
type Hold struct {
	reach, release    sync.Once
	reached, released chan struct{}
}

// Reached is closed when the first operation waits.
func (h *Hold) Reached() <-chan struct{} { return h.reached }

// Release lets all pass, those that wait and those that come. It may be called more than once.
func (h *Hold) Release() { h.release.Do(func() { close(h.released) }) }

func (h *Hold) wait(ctx context.Context) error {
	h.reach.Do(func() { close(h.reached) })
	select {
	case <-h.released:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Get implements objstore.Getter.
func (f *Faulty) Get(ctx context.Context, key string) ([]byte, error) {
	if err := f.reach(ctx, BeforeGet, key); err != nil {
		return nil, err
	}
	data, err := f.below.Get(ctx, key)
	return f.corrupt(key, data), err
}

// GetRange implements objstore.Getter.
func (f *Faulty) GetRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	if err := f.reach(ctx, BeforeGet, key); err != nil {
		return nil, err
	}
	data, err := f.below.GetRange(ctx, key, off, n)
	return f.corrupt(key, data), err
}

// Attributes implements objstore.Getter.
func (f *Faulty) Attributes(ctx context.Context, key string) (objstore.Attributes, error) {
	if err := f.reach(ctx, BeforeGet, key); err != nil {
		return objstore.Attributes{}, err
	}
	return f.below.Attributes(ctx, key)
}

// Put implements objstore.Putter.
func (f *Faulty) Put(ctx context.Context, key string, data []byte) error {
	return f.around(ctx, BeforePut, AfterPut, key, func() error { return f.below.Put(ctx, key, data) })
}

// PutFrom implements objstore.Putter.
func (f *Faulty) PutFrom(ctx context.Context, key string, src io.ReaderAt, size int64) error {
	return f.around(ctx, BeforePut, AfterPut, key, func() error { return f.below.PutFrom(ctx, key, src, size) })
}

// PutIfAbsent implements objstore.Putter.
func (f *Faulty) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	return f.around(ctx, BeforePut, AfterPut, key, func() error { return f.below.PutIfAbsent(ctx, key, data) })
}

// List implements objstore.Lister.
func (f *Faulty) List(ctx context.Context, prefix string, fn func(objstore.Attributes) error) error {
	if err := f.reach(ctx, BeforeList, prefix); err != nil {
		return err
	}
	return f.below.List(ctx, prefix, fn)
}

// Delete implements objstore.Deleter.
func (f *Faulty) Delete(ctx context.Context, key string) error {
	return f.around(ctx, BeforeDelete, AfterDelete, key, func() error { return f.below.Delete(ctx, key) })
}

// Close closes the bucket below.
func (f *Faulty) Close() error { return f.below.Close() }

// around does an operation with a step on either side. What fails below never comes to the step after it.
func (f *Faulty) around(ctx context.Context, before, after Step, key string, do func() error) error {
	if err := f.reach(ctx, before, key); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return f.reach(ctx, after, key)
}

func (f *Faulty) reach(ctx context.Context, step Step, key string) error {
	due := f.due(step, key)
	switch {
	case due == nil:
		return nil
	case due.hold != nil:
		if err := due.hold.wait(ctx); err != nil {
			return fmt.Errorf("held %s %s: %w", step, key, err)
		}
		return nil
	case due.do != nil:
		if err := due.do(ctx, key); err != nil {
			return fmt.Errorf("done %s %s: %w", step, key, err)
		}
		return nil
	}
	return fmt.Errorf("injected %s %s: %w", step, key, due.err)
}

// corrupt flips a bit in data, which is the caller's, if that is due.
func (f *Faulty) corrupt(key string, data []byte) []byte {
	if f.due(corrupted, key) != nil && len(data) > 0 {
		data[len(data)/2] ^= 0x10
	}
	return data
}

// due counts that an operation came to the step, and takes one time from the first fault that waits there.
func (f *Faulty) due(step Step, key string) *fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.passed[step]++
	for _, fault := range f.faults {
		if fault.step != step || fault.left == 0 || !strings.HasPrefix(key, fault.prefix) {
			continue
		}
		if fault.left > 0 {
			fault.left--
		}
		return fault
	}
	return nil
}

func (f *Faulty) add(fault *fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, fault)
}
