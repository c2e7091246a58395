package objstoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kilndb/kiln/objstore"
)

// Run runs the suite. open returns a new, empty bucket; the suite closes it.
func Run(t *testing.T, open func(t *testing.T) objstore.Bucket) {
	for _, c := range []struct {
		name string
		test func(*testing.T, objstore.Bucket)
	}{
		{"put and get", testPutGet},
		{"put from a source", testPutFrom},
		{"range", testRange},
		{"attributes", testAttributes},
		{"missing", testMissing},
		{"delete", testDelete},
		{"bytes are copied", testCopies},
		{"put if absent", testPutIfAbsent},
		{"put if absent, raced", testPutIfAbsentRace},
		{"list", testList},
		{"list many", testListMany},
		{"list stops at an error", testListError},
		{"list and change", testListChange},
		{"hostile keys", testHostileKeys},
		{"ended context", testEndedContext},
		{"concurrent puts of one key are atomic", testAtomic},
		{"concurrent puts into a new folder", testNewFolder},
	} {
		t.Run(c.name, func(t *testing.T) {
			bucket := open(t)
			defer func() {
				if err := bucket.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}()
			c.test(t, bucket)
		})
	}
}

func testPutGet(t *testing.T, b objstore.Bucket) {
	for _, size := range []int{0, 1, 4096, 1<<20 + 7} {
		key := fmt.Sprintf("sizes/%d", size)
		want := random(size)
		put(t, b, key, want)
		wantObject(t, b, key, want)
	}
	put(t, b, "k", []byte("the first, and the longer one"))
	put(t, b, "k", []byte("the second"))
	wantObject(t, b, "k", []byte("the second"))
}

func testPutFrom(t *testing.T, b objstore.Bucket) {
	for _, size := range []int64{0, 1, 3<<20 + 1} {
		src := random(int(size) + 5)
		if err := b.PutFrom(t.Context(), "k", bytes.NewReader(src), size); err != nil {
			t.Fatalf("put %d bytes from a source: %v", size, err)
		}
		wantObject(t, b, "k", src[:size])
	}
	for _, missing := range []int64{1, 2 << 20} {
		src := random(3 << 20)
		err := b.PutFrom(t.Context(), "short", bytes.NewReader(src), int64(len(src))+missing)
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("put from a source that is %d bytes short: %v, want an unexpected EOF", missing, err)
		}
		wantNone(t, b, "short")
	}
	if err := b.PutFrom(t.Context(), "short", bytes.NewReader(nil), -1); err == nil {
		t.Error("a put of -1 bytes succeeded")
	}
	wantNone(t, b, "short")
}

func testRange(t *testing.T, b objstore.Bucket) {
	const maxInt64 = 1<<63 - 1
	data := random(1000)
	put(t, b, "k", data)
	put(t, b, "empty", nil)
	for _, c := range []struct {
		key    string
		off, n int64
		ok     bool
	}{
		{"k", 0, 1000, true}, {"k", 0, 1, true}, {"k", 999, 1, true}, {"k", 400, 200, true},
		{"k", 0, 0, true}, {"k", 500, 0, true}, {"k", 1000, 0, true}, {"empty", 0, 0, true},
		{"k", 0, 1001, false}, {"k", 999, 2, false}, {"k", 1000, 1, false}, {"k", 1001, 0, false}, {"k", 5000, 10, false},
		{"k", -1, 10, false}, {"k", -10, 10, false}, {"k", 0, -1, false}, {"k", 1000, -1, false},
		{"k", 10, maxInt64, false}, {"k", maxInt64, maxInt64, false}, {"empty", 0, 1, false}, {"empty", 1, 0, false},
	} {
		got, err := b.GetRange(t.Context(), c.key, c.off, c.n)
		switch {
		case c.ok && err != nil:
			t.Errorf("range %d+%d of %s: %v", c.off, c.n, c.key, err)
		case c.ok && c.key == "k" && !bytes.Equal(got, data[c.off:c.off+c.n]):
			t.Errorf("range %d+%d of %s: %d wrong bytes", c.off, c.n, c.key, len(got))
		case !c.ok && !errors.Is(err, objstore.ErrRange):
			t.Errorf("range %d+%d of %s: %d bytes and %v, want ErrRange", c.off, c.n, c.key, len(got), err)
		}
	}
}

func testAttributes(t *testing.T, b objstore.Bucket) {
	before := time.Now().Add(-2 * time.Second) // a store may keep whole seconds only, and a coarse clock
	put(t, b, "a/k", []byte("12345"))
	after := time.Now().Add(2 * time.Second)
	got, err := b.Attributes(t.Context(), "a/k")
	if err != nil {
		t.Fatal(err)
	}
	if got.Key != "a/k" || got.Size != 5 || got.ModTime.Before(before) || got.ModTime.After(after) {
		t.Errorf("attributes: %+v, want key a/k, size 5, modified between %v and %v", got, before, after)
	}
	listed := list(t, b, "a/")
	if len(listed) != 1 || listed[0].Key != got.Key || listed[0].Size != got.Size || listed[0].ModTime.Unix() != got.ModTime.Unix() {
		t.Errorf("listed: %+v, want one like %+v", listed, got)
	}
}

func testMissing(t *testing.T, b objstore.Bucket) {
	put(t, b, "folder/k", []byte("x"))
	for _, key := range []string{"none", "folder", "folder/none", "none/none", "folder/k/below"} {
		wantNone(t, b, key)
		if _, err := b.GetRange(t.Context(), key, 0, 1); !errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("range of %s: %v, want ErrNotFound", key, err)
		}
		if _, err := b.GetRange(t.Context(), key, 0, 0); !errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("empty range of %s: %v, want ErrNotFound", key, err)
		}
		if _, err := b.Attributes(t.Context(), key); !errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("attributes of %s: %v, want ErrNotFound", key, err)
		}
	}
}

func testDelete(t *testing.T, b objstore.Bucket) {
	put(t, b, "a/k", []byte("x"))
	put(t, b, "a/other", []byte("y"))
	for range 2 {
		if err := b.Delete(t.Context(), "a/k"); err != nil {
			t.Fatalf("delete: %v", err)
		}
		wantNone(t, b, "a/k")
	}
	for _, key := range []string{"a", "never", "never/was"} {
		if err := b.Delete(t.Context(), key); err != nil {
			t.Errorf("delete %s, which is no object: %v", key, err)
		}
	}
	wantObject(t, b, "a/other", []byte("y"))
	wantKeys(t, b, "", "a/other")
	put(t, b, "a/k", []byte("again"))
	wantObject(t, b, "a/k", []byte("again"))
}

func testCopies(t *testing.T, b objstore.Bucket) {
	for name, store := range map[string]func(context.Context, string, []byte) error{"put": b.Put, "put-if-absent": b.PutIfAbsent} {
		data := []byte("as it was")
		if err := store(t.Context(), name, data); err != nil {
			t.Fatal(err)
		}
		copy(data, "CHANGED !")
		got := get(t, b, name)
		if string(got) != "as it was" {
			t.Errorf("after the caller reused its buffer, %s reads %q", name, got)
		}
		copy(got, "CHANGED !")
		if again := get(t, b, name); string(again) != "as it was" {
			t.Errorf("after a reader wrote into what it got, %s reads %q", name, again)
		}
		part, err := b.GetRange(t.Context(), name, 0, 2)
		if err != nil {
			t.Fatal(err)
		}
		copy(part, "??")
		if again := get(t, b, name); string(again) != "as it was" {
			t.Errorf("after a reader wrote into a range it got, %s reads %q", name, again)
		}
	}
}

func testPutIfAbsent(t *testing.T, b objstore.Bucket) {
	if err := b.PutIfAbsent(t.Context(), "a/k", []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := b.PutIfAbsent(t.Context(), "a/k", []byte("second")); !errors.Is(err, objstore.ErrExists) {
		t.Errorf("the second put if absent: %v, want ErrExists", err)
	}
	wantObject(t, b, "a/k", []byte("first"))
	if err := b.Delete(t.Context(), "a/k"); err != nil {
		t.Fatal(err)
	}
	if err := b.PutIfAbsent(t.Context(), "a/k", []byte("third")); err != nil {
		t.Errorf("put if absent after a delete: %v", err)
	}
	wantObject(t, b, "a/k", []byte("third"))
	large := make([]byte, objstore.MaxPutIfAbsent+1)
	if err := b.PutIfAbsent(t.Context(), "large", large); err == nil || errors.Is(err, objstore.ErrExists) {
		t.Errorf("put if absent of %d bytes: %v, want another error than ErrExists", len(large), err)
	}
	wantNone(t, b, "large")
	put(t, b, "a/k", []byte("fourth"))
	wantObject(t, b, "a/k", []byte("fourth"))
}

func testPutIfAbsentRace(t *testing.T, b objstore.Bucket) {
	const rounds, writers = 20, 8
	for round := range rounds {
		key := fmt.Sprintf("race/%d/k", round)
		won := make([]bool, writers)
		errs := together(writers, func(i int) error {
			err := b.PutIfAbsent(t.Context(), key, []byte{byte(i)})
			won[i] = err == nil
			if errors.Is(err, objstore.ErrExists) {
				return nil
			}
			return err
		})
		if errs != nil {
			t.Fatal(errs)
		}
		winner := slices.Index(won, true)
		if winner < 0 || slices.Contains(won[winner+1:], true) {
			t.Fatalf("round %d: winners %v, want exactly one", round, won)
		}
		wantObject(t, b, key, []byte{byte(winner)})
	}
}

func testList(t *testing.T, b objstore.Bucket) {
	wantKeys(t, b, "")
	// Sorted as bytes, and not folder by folder: "-" and "." come before "/", "0" and letters after it.
	all := []string{"a-b", "a.b", "a/1", "a/1.x", "a/2/z", "a/20", "a0", "aa/x", "b/c/d/e", "b/c/d/f", "c"}
	for _, i := range rand.Perm(len(all)) {
		put(t, b, all[i], []byte(all[i]))
	}
	if !slices.IsSorted(all) {
		t.Fatal("the test's own keys are not sorted")
	}
	for _, prefix := range []string{"", "a", "a/", "a/1", "a/2", "a/2/", "a/20", "a/1.", "aa", "b", "b/c", "b/c/d/", "b/c/d/e", "c", "c/", "d", "b/x/", "a/1/2/"} {
		var want []string
		for _, key := range all {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		wantKeys(t, b, prefix, want...)
	}
	for _, a := range list(t, b, "") {
		if a.Size != int64(len(a.Key)) {
			t.Errorf("%s is listed with size %d, want %d", a.Key, a.Size, len(a.Key))
		}
	}
}

func testListMany(t *testing.T, b objstore.Bucket) {
	const n, writers = 1100, 10 // more than the 1000 that a page of S3 holds
	var want []string
	for i := range n {
		want = append(want, fmt.Sprintf("many/%04d", i))
	}
	err := together(writers, func(w int) error {
		for i := w; i < n; i += writers {
			if err := b.Put(t.Context(), want[i], nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantKeys(t, b, "many/", want...)
	wantKeys(t, b, "many/00", want[:100]...)
}

func testListError(t *testing.T, b objstore.Bucket) {
	for _, key := range []string{"a/1", "a/2", "b"} {
		put(t, b, key, nil)
	}
	enough := errors.New("enough")
	var seen []string
	err := b.List(t.Context(), "", func(a objstore.Attributes) error {
		seen = append(seen, a.Key)
		if len(seen) == 2 {
			return enough
		}
		return nil
	})
	if err != enough {
		t.Errorf("list: %v, want the error of the function unchanged", err)
	}
	if !slices.Equal(seen, []string{"a/1", "a/2"}) {
		t.Errorf("listed %q, want to stop after two", seen)
	}
}

func testListChange(t *testing.T, b objstore.Bucket) {
	for i := range 10 {
		put(t, b, fmt.Sprintf("a/%d", i), nil)
	}
	err := b.List(t.Context(), "a/", func(a objstore.Attributes) error {
		return b.Delete(t.Context(), a.Key)
	})
	if err != nil {
		t.Fatal(err)
	}
	wantKeys(t, b, "")
}

func testHostileKeys(t *testing.T, b objstore.Bucket) {
	ctx := t.Context()
	for _, key := range []string{
		"", ".", "..", "/", "/a", "a/", "a//b", "../a", "a/../../b", "a/./b", "a/..", "a\x00b", "\x00", `a\b`, `..\a`, "a\nb", "~a", "a b", "ä",
		strings.Repeat("x/", 600), strings.Repeat("x", 300),
	} {
		calls := map[string]error{
			"put":           b.Put(ctx, key, []byte("x")),
			"put if absent": b.PutIfAbsent(ctx, key, []byte("x")),
			"put from":      b.PutFrom(ctx, key, strings.NewReader("x"), 1),
			"delete":        b.Delete(ctx, key),
		}
		_, calls["get"] = b.Get(ctx, key)
		_, calls["range"] = b.GetRange(ctx, key, 0, 1)
		_, calls["attributes"] = b.Attributes(ctx, key)
		for call, err := range calls {
			if !errors.Is(err, objstore.ErrKey) {
				t.Errorf("%s of key %q: %v, want ErrKey", call, key, err)
			}
		}
	}
	for _, prefix := range []string{"/", "../", "../x", "a/../", "a//", "a\x00", "//"} {
		err := b.List(ctx, prefix, func(a objstore.Attributes) error { return fmt.Errorf("listed %s", a.Key) })
		if !errors.Is(err, objstore.ErrKey) {
			t.Errorf("list of prefix %q: %v, want ErrKey", prefix, err)
		}
	}
	wantKeys(t, b, "")
}

func testEndedContext(t *testing.T, b objstore.Bucket) {
	put(t, b, "k", []byte("x"))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for want, ctx := range map[error]context.Context{context.Canceled: cancelled, context.DeadlineExceeded: late} {
		calls := map[string]error{
			"put":           b.Put(ctx, "new", []byte("x")),
			"put if absent": b.PutIfAbsent(ctx, "new", []byte("x")),
			"put from":      b.PutFrom(ctx, "new", strings.NewReader("x"), 1),
			"delete":        b.Delete(ctx, "k"),
			"list":          b.List(ctx, "", func(objstore.Attributes) error { return nil }),
		}
		_, calls["get"] = b.Get(ctx, "k")
		_, calls["range"] = b.GetRange(ctx, "k", 0, 1)
		_, calls["attributes"] = b.Attributes(ctx, "k")
		for call, err := range calls {
			if !errors.Is(err, want) {
				t.Errorf("%s with an ended context: %v, want %v", call, err, want)
			}
		}
	}
	wantKeys(t, b, "", "k")
}

func testAtomic(t *testing.T, b objstore.Bucket) {
	const writers, readers, size, puts = 4, 4, 100_000, 10
	put(t, b, "k", bytes.Repeat([]byte{0}, size))
	var writing atomic.Int32
	writing.Store(writers)
	err := together(writers+readers, func(i int) error {
		if i < writers {
			defer writing.Add(-1)
			for range puts {
				if err := b.Put(t.Context(), "k", bytes.Repeat([]byte{byte(i)}, size-i)); err != nil {
					return err
				}
			}
			return nil
		}
		for writing.Load() > 0 {
			got, err := b.Get(t.Context(), "k")
			if err != nil {
				return err
			}
			if len(got) == 0 || !bytes.Equal(got, bytes.Repeat(got[:1], size-int(got[0]))) {
				return fmt.Errorf("read %d bytes that nobody put as one object", len(got))
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func testNewFolder(t *testing.T, b objstore.Bucket) {
	const writers = 16
	for round := range 3 {
		folder := fmt.Sprintf("new/%d/deep/er/", round)
		err := together(writers, func(i int) error {
			return b.Put(t.Context(), fmt.Sprintf("%s%02d", folder, i), []byte{byte(i)})
		})
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for i := range writers {
			want = append(want, fmt.Sprintf("%s%02d", folder, i))
			wantObject(t, b, want[i], []byte{byte(i)})
		}
		wantKeys(t, b, folder, want...)
	}
}

// together runs n functions at once and returns their errors joined.
func together(n int, fn func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = fn(i)
		})
	}
	close(start)
	wg.Wait()
	return errors.Join(errs...)
}

func put(t *testing.T, b objstore.Bucket, key string, data []byte) {
	t.Helper()
	if err := b.Put(t.Context(), key, data); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func get(t *testing.T, b objstore.Bucket, key string) []byte {
	t.Helper()
	data, err := b.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	return data
}

func wantObject(t *testing.T, b objstore.Bucket, key string, want []byte) {
	t.Helper()
	if got := get(t, b, key); !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes that differ from the %d that were put", key, len(got), len(want))
	}
}

func wantNone(t *testing.T, b objstore.Bucket, key string) {
	t.Helper()
	if got, err := b.Get(t.Context(), key); !errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("get %s: %d bytes and %v, want ErrNotFound", key, len(got), err)
	}
}

func list(t *testing.T, b objstore.Bucket, prefix string) (all []objstore.Attributes) {
	t.Helper()
	err := b.List(t.Context(), prefix, func(a objstore.Attributes) error {
		all = append(all, a)
		return nil
	})
	if err != nil {
		t.Fatalf("list %q: %v", prefix, err)
	}
	return all
}

func wantKeys(t *testing.T, b objstore.Bucket, prefix string, want ...string) {
	t.Helper()
	var got []string
	for _, a := range list(t, b, prefix) {
		got = append(got, a.Key)
	}
	if !slices.Equal(got, want) {
		t.Errorf("list %q: %d keys %q, want %d %q", prefix, len(got), got, len(want), want)
	}
}

func random(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	return data
}
