package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/objstoretest"
)

func TestBucket(t *testing.T) {
	objstoretest.Run(t, func(t *testing.T) objstore.Bucket { return mustOpen(t, filepath.Join(t.TempDir(), "data", "bucket")) })
}

// recorder is the disk as a power cut sees it: it keeps the order of syncs, and fails them on demand.
type recorder struct {
	mu     sync.Mutex
	synced []string // "file NAME" or "folder NAME", relative to dir
	dir    string
	fail   func(event string) error
	block  func(event string)
}

func (r *recorder) syncs() syncs {
	return syncs{
		file:   func(f *os.File) error { return r.sync("file", f) },
		folder: func(f *os.File) error { return r.sync("folder", f) },
	}
}

func (r *recorder) sync(kind string, f *os.File) error {
	name, err := filepath.Rel(r.dir, f.Name())
	if err != nil {
		return err
	}
	if strings.HasPrefix(filepath.Base(name), tempPrefix) {
		name = filepath.Join(filepath.Dir(name), "TEMP")
	}
	event := kind + " " + name
	if r.block != nil {
		r.block(event)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		if err := r.fail(event); err != nil {
			return err
		}
	}
	r.synced = append(r.synced, event)
	return f.Sync()
}

// take returns the syncs since the last take.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.synced
	r.synced = nil
	return taken
}

func openRecorded(t *testing.T) (*Bucket, *recorder) {
	t.Helper()
	r := &recorder{dir: t.TempDir()}
	b, err := open(t.Context(), r.dir, r.syncs())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b, r
}

func TestEveryStepIsSynced(t *testing.T) {
	b, r := openRecorded(t)
	ctx := t.Context()
	steps := []struct {
		name string
		do   func() error
		want []string
	}{
		{"open", func() error { return nil }, []string{"folder .."}},
		{"first put into new folders", func() error { return b.Put(ctx, "a/b/k", []byte("x")) },
			[]string{"folder .", "folder a", "file a/b/TEMP", "folder a/b"}},
		{"second put into the same folder", func() error { return b.Put(ctx, "a/b/k2", []byte("x")) },
			[]string{"file a/b/TEMP", "folder a/b"}},
		{"overwrite", func() error { return b.Put(ctx, "a/b/k2", nil) },
			[]string{"file a/b/TEMP", "folder a/b"}},
		{"put from a source", func() error { return b.PutFrom(ctx, "a/k", bytes.NewReader([]byte("x")), 1) },
			[]string{"file a/TEMP", "folder a"}},
		{"put at the root", func() error { return b.Put(ctx, "k", nil) },
			[]string{"file TEMP", "folder ."}},
		{"put if absent", func() error { return b.PutIfAbsent(ctx, "a/c/k", []byte("x")) },
			[]string{"folder a", "file a/c/TEMP", "folder a/c"}},
		{"put if absent that loses", func() error { return refused(b.PutIfAbsent(ctx, "a/c/k", []byte("y")), objstore.ErrExists) },
			[]string{"file a/c/TEMP", "folder a/c"}},
		{"delete", func() error { return b.Delete(ctx, "a/b/k") }, []string{"folder a/b"}},
		{"delete again", func() error { return b.Delete(ctx, "a/b/k") }, []string{"folder a/b"}},
		{"read", func() error { _, err := b.Get(ctx, "a/b/k2"); return err }, nil},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := r.take(); !slices.Equal(got, step.want) {
			t.Errorf("%s synced %q, want %q", step.name, got, step.want)
		}
	}
}

// A folder that exists may have been made by a process that died before its sync.
func TestFolderOfAnotherProcessIsSynced(t *testing.T) {
	b, r := openRecorded(t)
	r.take()
	if err := os.MkdirAll(filepath.Join(r.dir, "a", "b"), dirMode); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "a/b/k", nil); err != nil {
		t.Fatal(err)
	}
	want := []string{"folder .", "folder a", "file a/b/TEMP", "folder a/b"}
	if got := r.take(); !slices.Equal(got, want) {
		t.Errorf("synced %q, want %q", got, want)
	}
}

func TestNewDirectoriesAboveTheBucketAreSynced(t *testing.T) {
	r := &recorder{dir: t.TempDir()}
	b, err := open(t.Context(), filepath.Join(r.dir, "x", "y", "bucket"), r.syncs())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got := r.take(); len(got) < 3 || !slices.Equal(got[len(got)-3:], []string{"folder .", "folder x", "folder x/y"}) {
		t.Errorf("synced %q, want the folders of x, y and bucket", got)
	}
}

func TestFailedSyncFailsThePut(t *testing.T) {
	broken := errors.New("the disk is broken")
	for _, event := range []string{"folder .", "file a/TEMP", "folder a"} {
		for _, name := range []string{"put", "put if absent"} {
			b, r := openRecorded(t)
			store := b.Put
			if name == "put if absent" {
				store = b.PutIfAbsent
			}
			r.fail = func(e string) error {
				if e == event {
					return broken
				}
				return nil
			}
			if err := store(t.Context(), "a/k", []byte("x")); !errors.Is(err, broken) {
				t.Errorf("%s with a broken sync of %q: %v", name, event, err)
			}
			r.fail = nil
			r.take()
			if err := b.Put(t.Context(), "a/k", []byte("y")); err != nil {
				t.Errorf("put after the disk was mended: %v", err)
			}
			if event == "folder ." && !slices.Contains(r.take(), event) {
				t.Errorf("the failed sync of %q was not repeated", event)
			}
			wantFiles(t, r.dir, "a/k")
		}
	}
}

// A lost race whose winner could not be made durable is no ErrExists, which promises that the object stays.
func TestExistsIsDurable(t *testing.T) {
	b, r := openRecorded(t)
	if err := b.Put(t.Context(), "a/k", nil); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the disk is broken")
	r.fail = func(event string) error {
		if event == "folder a" {
			return broken
		}
		return nil
	}
	if err := b.PutIfAbsent(t.Context(), "a/k", nil); !errors.Is(err, broken) || errors.Is(err, objstore.ErrExists) {
		t.Errorf("put if absent: %v, want the broken disk and not ErrExists", err)
	}
}

func TestFailedPutLeavesNothing(t *testing.T) {
	b, r := openRecorded(t)
	if err := b.Put(t.Context(), "a/k", []byte("old")); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the source is broken")
	if err := b.PutFrom(t.Context(), "a/k", brokenSource{broken}, 10); !errors.Is(err, broken) {
		t.Errorf("put from a broken source: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.block = func(string) { cancel() }
	if err := b.Put(ctx, "a/k", []byte("new")); !errors.Is(err, context.Canceled) {
		t.Errorf("put that is cancelled at its sync: %v", err)
	}
	if got, err := b.Get(t.Context(), "a/k"); err != nil || string(got) != "old" {
		t.Errorf("after failed puts the object is %q, %v", got, err)
	}
	wantFiles(t, r.dir, "a/k")
}

func TestCrashedPutIsInvisibleAndSwept(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, dir)
	if err := b.Put(t.Context(), "a/b/k", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	// What a killed process leaves: temporary files without a living owner, one of them linked but not unlinked.
	for _, folder := range []string{".", "a", "a/b"} {
		left, err := createTemp(b.root, folder)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := left.file.WriteString("half an obj"); err != nil {
			t.Fatal(err)
		}
		left.file.Close() // as the system does for the dead
	}
	if err := os.Link(filepath.Join(dir, "a/b/k"), filepath.Join(dir, "a/b/~LINKED")); err != nil {
		t.Fatal(err)
	}
	wantListed(t, b, "a/b/k")
	b.Close()

	b = mustOpen(t, dir)
	defer b.Close()
	wantListed(t, b, "a/b/k")
	wantFiles(t, dir, "a/b/k")
	if got, err := b.Get(t.Context(), "a/b/k"); err != nil || string(got) != "kept" {
		t.Errorf("the object is %q, %v", got, err)
	}
}

// Several processes share the directory: one that starts must not sweep what another is writing.
func TestLivingWriterIsNotSwept(t *testing.T) {
	b, r := openRecorded(t)
	reached, release := make(chan struct{}), make(chan struct{})
	r.block = func(event string) {
		if event == "file a/TEMP" {
			close(reached)
			<-release
		}
	}
	done := make(chan error, 1)
	go func() { done <- b.Put(t.Context(), "a/k", []byte("x")) }()
	<-reached
	other := mustOpen(t, r.dir)
	defer other.Close()
	wantListed(t, other)
	close(release)
	if err := <-done; err != nil {
		t.Fatalf("put beside an open: %v", err)
	}
	if got, err := other.Get(t.Context(), "a/k"); err != nil || string(got) != "x" {
		t.Errorf("the other process reads %q, %v", got, err)
	}
}

// Opening over and over while others write finds the moment between the making of a file and its lock.
func TestOpensBesideWriters(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, dir)
	defer b.Close()
	b.syncs.file = func(*os.File) error { return nil }
	var writers sync.WaitGroup
	stop := make(chan struct{})
	for w := range 4 {
		writers.Go(func() {
			for i := range 200 {
				if err := b.Put(t.Context(), fmt.Sprintf("%d/%d", w, i), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() { writers.Wait(); close(stop) }()
	for opens := 0; ; opens++ {
		select {
		case <-stop:
			t.Logf("%d opens", opens)
			return
		default:
			mustOpen(t, dir).Close()
		}
	}
}

func TestFolderRemovedByHand(t *testing.T) {
	b, r := openRecorded(t)
	if err := b.Put(t.Context(), "a/b/k", nil); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(r.dir, "a")); err != nil {
		t.Fatal(err)
	}
	r.take()
	if err := b.Put(t.Context(), "a/b/k", nil); err != nil {
		t.Fatal(err)
	}
	if got, want := r.take(), []string{"folder .", "folder a", "file a/b/TEMP", "folder a/b"}; !slices.Equal(got, want) {
		t.Errorf("synced %q, want %q", got, want)
	}
}

func TestNothingLeadsOut(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), fileMode); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "door")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "window")); err != nil {
		t.Fatal(err)
	}
	b := mustOpen(t, dir)
	defer b.Close()
	for _, key := range []string{"door/secret", "window"} {
		if got, err := b.Get(t.Context(), key); err == nil {
			t.Errorf("get %s: %q", key, got)
		}
	}
	if err := b.Put(t.Context(), "door/new", nil); err == nil {
		t.Error("put through a symbolic link succeeded")
	}
	wantFiles(t, outside, "secret")
	wantListed(t, b)
}

func TestForeignFilesAreNotListed(t *testing.T) {
	b, r := openRecorded(t)
	for _, name := range []string{"lost+found/x", "a/~temp", "a/with space", "a/k"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(r.dir, name)), dirMode); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(r.dir, name), nil, fileMode); err != nil {
			t.Fatal(err)
		}
	}
	wantListed(t, b, "a/k")
}

func TestKeyThatIsAFolder(t *testing.T) {
	b, _ := openRecorded(t)
	if err := b.Put(t.Context(), "a/k", nil); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "a", nil); err == nil {
		t.Error("put over a folder succeeded")
	}
	if err := b.PutIfAbsent(t.Context(), "a", nil); err == nil || errors.Is(err, objstore.ErrExists) {
		t.Errorf("put if absent over a folder: %v, want an error that is not ErrExists", err)
	}
	if err := b.Put(t.Context(), "a/k/below", nil); err == nil {
		t.Error("put below an object succeeded")
	}
	wantListed(t, b, "a/k")
}

func TestSyncsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r rounds
		var calls int
		release := make(chan struct{})
		work := func() error {
			calls++
			if calls == 1 {
				<-release
				return nil
			}
			return errors.New("second")
		}
		results := make(chan error, 100)
		go func() { results <- r.join(work) }()
		synctest.Wait() // the first round is at work
		for range 99 {
			go func() { results <- r.join(work) }()
		}
		synctest.Wait() // all others wait for the second: what they did may be later than the first began
		close(release)
		synctest.Wait()
		var failed int
		for range 100 {
			if <-results != nil {
				failed++
			}
		}
		if calls != 2 || failed != 99 {
			t.Errorf("%d calls for 100 callers, %d of them in the second; want 2 and 99", calls, failed)
		}
	})
}

func TestMemoryOfFoldersIsBounded(t *testing.T) {
	f := newFolders(nil, nil)
	for i := range 3 * maxFolders {
		f.setDurable(fmt.Sprint(i))
	}
	if len(f.known) > maxFolders {
		t.Errorf("%d folders are remembered, more than %d", len(f.known), maxFolders)
	}
}

func BenchmarkPut(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			bucket, err := Open(b.Context(), b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			defer bucket.Close()
			data := make([]byte, size)
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				if err := bucket.Put(b.Context(), fmt.Sprintf("segments/0/%d", i), data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type brokenSource struct{ err error }

func (s brokenSource) ReadAt([]byte, int64) (int, error) { return 0, s.err }

func mustOpen(t *testing.T, dir string) *Bucket {
	t.Helper()
	b, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// refused returns nil if err is want.
func refused(err, want error) error {
	if errors.Is(err, want) {
		return nil
	}
	return fmt.Errorf("%v, want %w", err, want)
}

func wantListed(t *testing.T, b *Bucket, want ...string) {
	t.Helper()
	var got []string
	err := b.List(t.Context(), "", func(a objstore.Attributes) error {
		got = append(got, a.Key)
		return nil
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("listed %q, %v; want %q", got, err, want)
	}
}

// wantFiles compares all files below dir, also those that a bucket does not show.
func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	var got []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			got = append(got, name)
		}
		return err
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("files %q, %v; want %q", got, err, want)
	}
}
