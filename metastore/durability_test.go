package metastore

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/fsm"
	"github.com/kilndb/kiln/metastore/raftnode"
)

func TestARestartKeepsWhatWasAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := serving(t, dir, &deletions{})
		compacted := segment(newID(), 1, dataset{"a", "web", 1, 2})
		r.mustAdd(compacted)
		a := r.poll("w", 1, 30*time.Second)[0]
		if err := r.complete("w", a, merged(a)); err != nil {
			t.Fatal(err)
		}
		running := segment(newID(), 2, dataset{"a", "web", 1, 2})
		r.mustAdd(running)
		held := r.poll("w", 1, 30*time.Second)[0]
		r.mustAdd(segment(newID(), 3, dataset{"a", "web", 1, 2}))
		want := r.ids("a")
		before, err := r.StateHash()
		if err != nil {
			t.Fatal(err)
		}

		crash := t.TempDir()
		if err := os.CopyFS(crash, os.DirFS(dir)); err != nil { // as a kill leaves it: nothing is closed
			t.Fatal(err)
		}
		r.stop()
		for _, from := range []string{dir, crash} {
			r := serving(t, from, &deletions{})
			if after, err := r.StateHash(); err != nil || after != before {
				t.Errorf("the state differs after the restart (%v)", err)
			}
			if got := r.ids("a"); !slices.Equal(got, want) {
				t.Errorf("the index has %v, want %v", got, want)
			}
			r.mustAdd(compacted, running) // known, the one as replaced
			if got := r.ids("a"); !slices.Equal(got, want) {
				t.Errorf("registered again: the index has %v, want %v", got, want)
			}
			if err := r.complete("w", held, merged(held)); err != nil {
				t.Errorf("a job that outlived the restart: %v", err)
			}
			r.stop()
		}
	})
}

func TestAStateFileThatCannotBeReadIsRebuilt(t *testing.T) {
	damages := map[string]func(path string, b []byte) error{
		"gone":  func(path string, _ []byte) error { return os.Remove(path) },
		"empty": func(path string, _ []byte) error { return os.WriteFile(path, nil, 0o600) },
		"text": func(path string, _ []byte) error {
			return os.WriteFile(path, []byte(strings.Repeat("kiln", 5000)), 0o600)
		},
		"cut short": func(path string, b []byte) error { return os.WriteFile(path, b[:len(b)/2/4096*4096], 0o600) },
		"zeroes": func(path string, b []byte) error {
			clear(b[8192:])
			return os.WriteFile(path, b, 0o600)
		},
	}
	for _, snapshot := range []bool{false, true} {
		for name, damage := range damages {
			t.Run(fmt.Sprintf("%s, snapshot %v", name, snapshot), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					dir := t.TempDir()
					r := serving(t, dir, &deletions{})
					for i := range 30 {
						r.mustAdd(segment(newID(), uint32(i), dataset{"a", strings.Repeat("web", 100), 1, 2}))
						if i == 20 && snapshot {
							if err := r.Snapshot(t.Context()); err != nil {
								t.Fatal(err)
							}
						}
					}
					want, err := r.StateHash()
					if err != nil {
						t.Fatal(err)
					}
					r.stop()
					path := filepath.Join(dir, "metastore", "state.db")
					b, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					if err := damage(path, b); err != nil {
						t.Fatal(err)
					}
					r = serving(t, dir, &deletions{})
					if got, err := r.StateHash(); err != nil || got != want {
						t.Errorf("the rebuilt state differs (%v)", err)
					}
				})
			})
		}
	}
}

// The state may be older than the log after a power cut: an earlier file in its place is brought up to date by the log.
func TestAnOlderStateCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "metastore", "state.db")
		r := serving(t, dir, &deletions{})
		var images [][]byte
		for i := range 40 {
			r.mustAdd(segment(newID(), uint32(i), dataset{"a", "web", 1, 2}))
			if i%10 == 5 {
				image, err := os.ReadFile(path) // nothing is being written: the registration is answered
				if err != nil {
					t.Fatal(err)
				}
				images = append(images, image)
			}
		}
		want, err := r.StateHash()
		if err != nil {
			t.Fatal(err)
		}
		r.stop()
		for i, image := range images {
			if err := os.WriteFile(path, image, 0o600); err != nil {
				t.Fatal(err)
			}
			r = serving(t, dir, &deletions{})
			if got, err := r.StateHash(); err != nil || got != want {
				t.Errorf("from image %d the state differs (%v)", i, err)
			}
			r.stop()
		}
	})
}

func TestASnapshotThatIsDamagedIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := serving(t, dir, &deletions{})
		for range 2 {
			for i := range 10 {
				r.mustAdd(segment(newID(), uint32(i), dataset{"a", "web", 1, 2}))
			}
			if err := r.Snapshot(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // snapshots are named after the time
		}
		r.mustAdd(segment(newID(), 0, dataset{"a", "web", 1, 2}))
		want, err := r.StateHash()
		if err != nil {
			t.Fatal(err)
		}
		r.stop()
		var files []string
		if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if e.Name() == "state.bin" {
				files = append(files, path)
			}
			return err
		}); err != nil || len(files) != 2 {
			t.Fatalf("snapshots are %v (%v)", files, err)
		}
		for n := 1; n <= 2; n++ { // first the newest alone, then both: the log is whole still
			b, err := os.ReadFile(files[2-n])
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(files[2-n], b, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(dir, "metastore", "state.db")); err != nil {
				t.Fatal(err)
			}
			r = serving(t, dir, &deletions{})
			if got, err := r.StateHash(); err != nil || got != want {
				t.Errorf("%d damaged: the state differs (%v)", n, err)
			}
			r.stop()
		}
	})
}

func TestAStateWithoutItsLogIsNotServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := serving(t, dir, &deletions{})
		r.mustAdd(segment(newID(), 0, dataset{"a", "web", 1, 2}))
		r.stop()
		if err := os.RemoveAll(filepath.Join(dir, "metastore", "raft")); err != nil {
			t.Fatal(err)
		}
		if m, err := Open(DefaultConfig(dir), &deletions{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err == nil {
			t.Error("opened over a state whose log is gone")
			_ = m.Close()
		}
	})
}

func TestOneDirectoryIsForOneProcess(t *testing.T) {
	dir := t.TempDir()
	serving(t, dir, &deletions{})
	m, err := Open(DefaultConfig(dir), &deletions{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err == nil {
		_ = m.Close()
		t.Fatal("opened twice")
	}
	if !strings.Contains(err.Error(), "another process") {
		t.Errorf("the error does not say why: %v", err)
	}
}

func TestConcurrentRegistrationsShareLogEntries(t *testing.T) {
	r := serving(t, t.TempDir(), &deletions{})
	const callers, rounds = 64, 20
	before := r.state.Position().Index
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range rounds {
				if err := r.add(segment(newID(), 1, dataset{"a", "web", 1, 2})); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got := len(r.ids("a")); got != callers*rounds {
		t.Errorf("%d entries, want %d", got, callers*rounds)
	}
	if used := r.state.Position().Index - before; used > callers*rounds/4 {
		t.Errorf("%d log entries for %d registrations", used, callers*rounds)
	} else {
		t.Logf("%d log entries for %d registrations", used, callers*rounds)
	}
}

func TestEachCallerGetsItsOwnAnswer(t *testing.T) {
	r := serving(t, t.TempDir(), &deletions{})
	old := ulid.MustNew(ulid.Timestamp(time.Now().Add(-25*time.Hour)), ulid.DefaultEntropy()).String()
	future := ulid.MustNew(ulid.Timestamp(time.Now().Add(25*time.Hour)), ulid.DefaultEntropy()).String()
	far := ulid.MustNew(ulid.MaxTime(), ulid.DefaultEntropy()).String()
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			bad := []string{old, future, far}[i%3]
			if code := connect.CodeOf(r.add(segment(bad, 1, dataset{"a", "web", 1, 2}))); code != connect.CodeInvalidArgument {
				t.Errorf("an id outside of the window ends with %v", code)
			}
		})
		all.Go(func() {
			if err := r.add(segment(newID(), 1, dataset{"a", "web", 1, 2})); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := len(r.ids("a")); got != 32 {
		t.Errorf("%d entries, want 32", got)
	}
}

func TestBadRequests(t *testing.T) {
	r := serving(t, t.TempDir(), &deletions{})
	block := object(newID(), "a", 1, 1, []string{newID()}, dataset{"a", "web", 1, 2})
	for name, segments := range map[string][]*storagev1.BlockMeta{
		"none": {}, "empty": {nil}, "no id": {{}}, "a block": {block},
		"no datasets":    {segment(newID(), 1)},
		"a lower id":     {segment(strings.ToLower(newID()), 1, dataset{"a", "web", 1, 2})},
		"a bad tenant":   {segment(newID(), 1, dataset{"..", "web", 1, 2})},
		"time backwards": {segment(newID(), 1, dataset{"a", "web", 2, 1})},
	} {
		if code := connect.CodeOf(r.add(segments...)); code != connect.CodeInvalidArgument {
			t.Errorf("add %s: ends with %v", name, code)
		}
	}
	for name, q := range map[string]*metastorev1.FindRequest{
		"no tenant":        {},
		"a bad tenant":     {Tenants: []string{"a/b"}},
		"end before start": {Tenants: []string{"a"}, Start: 2, End: 1},
		"an empty range":   {Tenants: []string{"a"}, Start: 2, End: 2},
		"a bad selector":   {Tenants: []string{"a"}, Selector: "{service_name="},
	} {
		if _, err := r.Index().Find(t.Context(), connect.NewRequest(q)); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("find %s: ends with %v", name, err)
		}
	}
	if err := r.Ready(); err != nil {
		t.Errorf("not ready after bad requests: %v", err)
	}
}

func TestAnUnknownCommandHaltsTheReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, cmd := range map[string]*storagev1.Command{
			"no body":         {Version: fsm.Version},
			"a newer version": {Version: fsm.Version + 1, Body: &storagev1.Command_DeleteTombstones{DeleteTombstones: &storagev1.DeleteTombstones{}}},
			"another cluster": {Version: fsm.Version, Cluster: "another", Body: &storagev1.Command_DeleteTombstones{DeleteTombstones: &storagev1.DeleteTombstones{}}},
		} {
			dir := t.TempDir()
			r := serving(t, dir, &deletions{})
			id := newID()
			r.mustAdd(segment(id, 1, dataset{"a", "web", 1, 2}))
			if cmd.Cluster == "" {
				cmd.Cluster = r.state.Position().Cluster
			}
			if _, err := r.node.Apply(t.Context(), cmd); err == nil {
				t.Errorf("%s: applied", name)
			}
			for range 2 { // and again after a restart, when the log is replayed: no panic, no loop
				r.until(func() bool { return r.Ready() != nil && strings.Contains(r.Ready().Error(), "halted") })
				if got := raftnode.Reason(r.Ready()); got != "halted" {
					t.Errorf("%s: the reason is %q", name, got)
				}
				if code := connect.CodeOf(r.add(segment(newID(), 1, dataset{"a", "web", 1, 2}))); code != connect.CodeUnavailable {
					t.Errorf("%s: a write to the halted replica ends with %v", name, code)
				}
				_, err := r.Index().Find(t.Context(), connect.NewRequest(&metastorev1.FindRequest{Tenants: []string{"a"}}))
				if connect.CodeOf(err) != connect.CodeUnavailable {
					t.Errorf("%s: a read from the halted replica ends with %v", name, err)
				}
				r.stop()
				r = start(t, dir, &deletions{})
			}
			if got := len(r.machine.index.View().Find(queryOf("a"))); got != 1 {
				t.Errorf("%s: %d entries, want the one from before", name, got)
			}
			r.stop()
		}
	})
}
