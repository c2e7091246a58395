package objstoretest_test

import (
	"context"
	"errors"
	"math/bits"
	"strings"
	"testing"

	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/objstore/objstoretest"
)

var errInjected = errors.New("injected by the test")

func TestFaultyWithoutFaults(t *testing.T) {
	objstoretest.Run(t, func(*testing.T) objstore.Bucket { return objstoretest.NewFaulty(memory.New()) })
}

func TestFailBeforeAndAfter(t *testing.T) {
	below := memory.New()
	f := objstoretest.NewFaulty(below)
	ctx := t.Context()
	puts := map[string]func(key string) error{
		"put":           func(key string) error { return f.Put(ctx, key, []byte("x")) },
		"put-if-absent": func(key string) error { return f.PutIfAbsent(ctx, key, []byte("x")) },
		"put-from":      func(key string) error { return f.PutFrom(ctx, key, strings.NewReader("x"), 1) },
	}
	for name, put := range puts {
		for step, stored := range map[objstoretest.Step]bool{objstoretest.BeforePut: false, objstoretest.AfterPut: true} {
			key := name + strings.ReplaceAll(string(step), " ", "-")
			f.Fail(step, errInjected, 1)
			if err := put(key); !errors.Is(err, errInjected) {
				t.Errorf("%s that fails %s: %v", name, step, err)
			}
			if _, err := below.Get(ctx, key); (err == nil) != stored {
				t.Errorf("%s that failed %s: get %v, want stored %v", name, step, err, stored)
			}
		}
		if err := put(name + "-again"); err != nil {
			t.Errorf("%s after the faults were used up: %v", name, err)
		}
	}

	f.Fail(objstoretest.AfterDelete, errInjected, 1)
	if err := f.Delete(ctx, "put-again"); !errors.Is(err, errInjected) {
		t.Errorf("delete: %v", err)
	}
	if _, err := below.Get(ctx, "put-again"); !errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("after a delete that failed afterwards: %v", err)
	}
}

func TestTimesPrefixAndHeal(t *testing.T) {
	f := objstoretest.NewFaulty(memory.New())
	ctx := t.Context()
	if err := f.Put(ctx, "a/k", nil); err != nil {
		t.Fatal(err)
	}
	if err := f.Put(ctx, "b/k", nil); err != nil {
		t.Fatal(err)
	}
	f.FailPrefix(objstoretest.BeforeGet, "a/", objstore.ErrNotFound, 2)
	f.FailPrefix(objstoretest.BeforeList, "b/", errInjected, objstoretest.Always)
	for i, want := range []error{objstore.ErrNotFound, objstore.ErrNotFound, nil} {
		if _, err := f.Get(ctx, "a/k"); !errors.Is(err, want) {
			t.Errorf("get %d of a/k: %v, want %v", i, err, want)
		}
		if _, err := f.Get(ctx, "b/k"); err != nil {
			t.Errorf("get %d of b/k: %v", i, err)
		}
		if err := f.List(ctx, "b/", nil); !errors.Is(err, errInjected) {
			t.Errorf("list %d: %v", i, err)
		}
	}
	if got := f.Passed(objstoretest.BeforeGet); got != 6 {
		t.Errorf("%d gets have passed, want 6", got)
	}
	f.Heal()
	if err := f.List(ctx, "b/", func(objstore.Attributes) error { return nil }); err != nil {
		t.Errorf("list after heal: %v", err)
	}
}

func TestCorrupt(t *testing.T) {
	f := objstoretest.NewFaulty(memory.New())
	ctx := t.Context()
	if err := f.Put(ctx, "k", make([]byte, 9)); err != nil {
		t.Fatal(err)
	}
	f.Corrupt("", 2)
	for i, want := range []int{1, 1, 0} {
		got, err := f.GetRange(ctx, "k", 2, 5)
		flipped := 0
		for _, b := range got {
			flipped += bits.OnesCount8(b)
		}
		if err != nil || flipped != want || len(got) != 5 {
			t.Errorf("range %d: %v, %v; want %d bits flipped", i, got, err, want)
		}
	}
}

func TestHold(t *testing.T) {
	below := memory.New()
	f := objstoretest.NewFaulty(below)
	hold := f.Hold(objstoretest.AfterPut)
	done := make(chan error, 1)
	go func() { done <- f.Put(t.Context(), "k", nil) }()
	<-hold.Reached()
	if _, err := below.Get(t.Context(), "k"); err != nil {
		t.Errorf("held after the put, the object is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancelled := make(chan error, 1)
	go func() { cancelled <- f.Put(ctx, "k2", nil) }()
	cancel() // before it is held or while it is
	if err := <-cancelled; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while held: %v", err)
	}
	select {
	case err := <-done:
		t.Errorf("put returned %v while it was held", err)
	default:
	}
	hold.Release()
	if err := <-done; err != nil {
		t.Errorf("released put: %v", err)
	}
}

func TestDo(t *testing.T) {
	f := objstoretest.NewFaulty(memory.New())
	calls := 0
	f.Do(objstoretest.AfterPut, func(_ context.Context, key string) error {
		if calls++; key == "odd" {
			return errInjected
		}
		return nil
	})
	if err := f.Put(t.Context(), "even", []byte("a")); err != nil {
		t.Error(err)
	}
	if err := f.Put(t.Context(), "odd", []byte("b")); !errors.Is(err, errInjected) {
		t.Errorf("%v, want what was done", err)
	}
	if got, err := f.Get(t.Context(), "odd"); err != nil || string(got) != "b" || calls != 2 {
		t.Errorf("%q, %v after %d calls: it was to be stored", got, err, calls)
	}
}
