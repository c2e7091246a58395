package objstore_test

import (
	"context"
	"errors"
	"testing"

	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/memory"
)

// source is what other packages declare for themselves and a Handle must satisfy.
type source interface {
	ReadRange(ctx context.Context, off, n int64) ([]byte, error)
	Size() int64
}

func TestObject(t *testing.T) {
	bucket := memory.New()
	if err := bucket.Put(t.Context(), "k", []byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	var object source = objstore.Object(bucket, "k", 10)
	if got, err := object.ReadRange(t.Context(), 3, 4); err != nil || string(got) != "3456" {
		t.Errorf("ReadRange(3, 4) = %q, %v", got, err)
	}
	if object.Size() != 10 {
		t.Errorf("Size() = %d", object.Size())
	}
	if _, err := object.ReadRange(t.Context(), 8, 3); !errors.Is(err, objstore.ErrRange) {
		t.Errorf("a read past the size: %v, want ErrRange", err)
	}
	tooLong := objstore.Object(bucket, "k", 100)
	if _, err := tooLong.ReadRange(t.Context(), 8, 3); !errors.Is(err, objstore.ErrRange) {
		t.Errorf("a read past the object that the size allows: %v, want ErrRange", err)
	}
	missing := objstore.Object(bucket, "none", 100)
	if _, err := missing.ReadRange(t.Context(), 0, 1); !errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("a read of a missing object: %v, want ErrNotFound", err)
	}
}
