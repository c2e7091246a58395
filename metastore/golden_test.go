package metastore

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	"github.com/kilndb/kiln/metastore/fsm"
	"github.com/kilndb/kiln/objstore/memory"
)

// writeGolden has TestGoldenFiles write the files of this build's version of the command set before it reads all.
const writeGolden = "KILN_WRITE_GOLDEN"

// TestGoldenFiles replays the log and restores the snapshot that a build of each version of the command set has left, and wants
// the state that it had. The files of a version are written once and never changed: what is stored lives for ever.
func TestGoldenFiles(t *testing.T) {
	if os.Getenv(writeGolden) != "" {
		writeGoldenFiles(t, goldenDir(fsm.Version))
	}
	if _, err := os.Stat(goldenDir(fsm.Version)); err != nil {
		t.Errorf("%v: run this test with %s=1 once", err, writeGolden)
	}
	dirs, err := filepath.Glob(filepath.Join("testdata", "v*"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("there are no golden files (%v)", err)
	}
	for _, dir := range dirs {
		want := strings.TrimSpace(string(readFile(t, filepath.Join(dir, "hash"))))
		t.Run(filepath.Base(dir)+"/log", func(t *testing.T) {
			r := openReplica(t, filepath.Join(t.TempDir(), "state.db"))
			defer r.close(t)
			replayLog(t, r, inflated(t, filepath.Join(dir, "log.db.gz")))
			if got := fmt.Sprintf("%x", r.hash(t)); got != want {
				t.Errorf("the state is %s, was %s", got, want)
			}
		})
		t.Run(filepath.Base(dir)+"/snapshot", func(t *testing.T) {
			r := openReplica(t, filepath.Join(t.TempDir(), "state.db"))
			defer r.close(t)
			if err := r.state.Restore(io.NopCloser(bytes.NewReader(readFile(t, filepath.Join(dir, "snapshot"))))); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%x", r.hash(t)); got != want {
				t.Errorf("the state is %s, was %s", got, want)
			}
		})
	}
}

func goldenDir(version int) string { return filepath.Join("testdata", fmt.Sprintf("v%d", version)) }

// replayLog applies every entry of a log, as Raft would.
func replayLog(t *testing.T, r *replica, log []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log.db")
	if err := os.WriteFile(path, log, 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := raftboltdb.New(raftboltdb.Options{Path: path, MsgpackUseNewTimeFormat: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	first, err := store.FirstIndex()
	if err != nil || first != 1 {
		t.Fatalf("the log begins at %d (%v)", first, err)
	}
	last, err := store.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for i := first; i <= last; i++ {
		var entry raft.Log
		if err := store.GetLog(i, &entry); err != nil {
			t.Fatal(err)
		}
		if entry.Type != raft.LogCommand && entry.Type != raft.LogConfiguration {
			continue // Raft keeps those to itself
		}
		if err, failed := r.state.Apply(&entry).(error); failed {
			t.Fatalf("entry %d: %v", i, err)
		}
		kinds[entry.Type.String()] = true
	}
	if len(kinds) != 2 {
		t.Fatalf("the log has entries of the kinds %v", kinds)
	}
}

// writeGoldenFiles lives through everything that leaves commands in the log.
func writeGoldenFiles(t *testing.T, to string) {
	t.Helper()
	dir := t.TempDir()
	var hash [32]byte
	var snapshot bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		bucket := memory.New()
		r := serving(t, dir, bucket, func(c *Config) {
			c.Grace = time.Minute
			c.Sweep = SweepConfig{Interval: time.Minute, Age: 10 * time.Minute, Apart: 2 * time.Minute}
		})
		web, db := dataset{"a", "web", 1, 2}, dataset{"b", "db", 3, 4}
		upload(t, bucket, segment(newID(), 1, web)) // an orphan
		for range 3 {
			r.mustAdd(upload(t, bucket, segment(newID(), 1, web, db)))
		}
		a := r.poll("w", 1, 30*time.Second)[0]
		if err := r.fail("w", a, "no luck"); err != nil {
			t.Fatal(err)
		}
		a = r.poll("w", 1, 30*time.Second)[0]
		if err := r.complete("w", a, merged(a)); err != nil {
			t.Fatal(err)
		}
		r.mustAdd(upload(t, bucket, segment(newID(), 1, web, db)))
		deleteGolden(t, r)
		time.Sleep(30 * time.Minute) // tombstones are deleted, orphans buried
		r.mustAdd(upload(t, bucket, segment(newID(), 2, web, db)))
		r.poll("w", 1, 30*time.Second) // a running job
		var err error
		if hash, err = r.StateHash(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.state.WriteSnapshot(&snapshot); err != nil {
			t.Fatal(err)
		}
		r.stop()
	})
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	z := gzip.NewWriter(&log)
	if _, err := z.Write(readFile(t, filepath.Join(dir, "metastore", "raft", "log.db"))); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"log.db.gz": log.Bytes(), "snapshot": snapshot.Bytes(), "hash": []byte(hex.EncodeToString(hash[:]) + "\n")} {
		if err := os.WriteFile(filepath.Join(to, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// deleteGolden deletes in every way that this version knows.
func deleteGolden(t *testing.T, r *running) {
	t.Helper()
	service := "db"
	for _, req := range []*adminv1.DeleteRequest{{Tenant: "b", Service: &service}, {Tenant: "a", Selector: `{pod="1"}`}} {
		if _, err := r.Deletions().Delete(t.Context(), connect.NewRequest(req)); err != nil {
			t.Fatal(err)
		}
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func inflated(t *testing.T, path string) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(readFile(t, path)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
