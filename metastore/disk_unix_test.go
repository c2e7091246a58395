//go:build unix

package metastore

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/raftnode"
	"github.com/kilndb/kiln/objstore/memory"
)

// fullDisk makes the test program a process whose disk is full for a while.
const fullDisk = "KILN_TEST_METASTORE_FULL_DISK"

// room sets how long files may become. It is one limit for the process, so the test runs in a process of its own.
func room(t *testing.T, bytes uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	limit.Cur = min(bytes, limit.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
}

func TestAFullDiskRefusesWritesAndRecovers(t *testing.T) {
	if os.Getenv(fullDisk) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAFullDiskRefusesWritesAndRecovers$", "-test.v")
		cmd.Env = append(os.Environ(), fullDisk+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	signal.Ignore(syscall.SIGXFSZ)
	dir := t.TempDir()
	r := serving(t, dir, memory.New())
	acked, tried := map[string]bool{}, map[string]bool{}
	add := func() error {
		id := newID()
		tried[id] = true
		// With a deadline, as every client has one: what is in the log and not in the state has no answer yet.
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := r.Index().AddSegments(ctx, connect.NewRequest(&metastorev1.AddSegmentsRequest{
			Segments: []*storagev1.BlockMeta{segment(id, 1, dataset{"a", "web", 1, 2})},
		}))
		if err == nil {
			acked[id] = true
		}
		return err
	}
	for round := range 3 {
		for range 20 {
			if err := add(); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		room(t, []uint64{0, 4096, 40 << 10}[round])
		refused := 0
		// Long enough for several elections, each of which has a term to store.
		for begun := time.Now(); refused < 20 || time.Since(begun) < 500*time.Millisecond; {
			err := add()
			switch code := connect.CodeOf(err); {
			case err == nil: // it fitted into what the files have already
			case code == connect.CodeUnavailable, code == connect.CodeAborted, code == connect.CodeFailedPrecondition, code == connect.CodeDeadlineExceeded:
				refused++
			default:
				t.Fatalf("round %d: a write to a full disk ends with %v", round, err)
			}
			if time.Since(begun) > 20*time.Second {
				t.Fatalf("round %d: %d writes were refused", round, refused)
			}
		}
		r.until(func() bool {
			_ = add() // where a term fits into the files and an entry does not, the member tries to lead again
			return raftnode.Reason(r.Ready()) == "disk_full"
		})
		room(t, ^uint64(0))
		r.until(func() bool { return r.Ready() == nil }) // by itself
		if err := add(); err != nil {
			t.Errorf("round %d: with room again: %v", round, err)
		}
	}
	check := func(when string) {
		t.Helper()
		found := map[string]bool{}
		for _, id := range r.ids("a") {
			if found[id] || !tried[id] {
				t.Errorf("%s: %s is there twice, or was never pushed", when, id)
			}
			found[id] = true
		}
		for id := range acked {
			if !found[id] {
				t.Errorf("%s: %s was acknowledged and is lost", when, id)
			}
		}
	}
	check("after the disk was full")
	r.stop()
	r = serving(t, dir, memory.New())
	check("after a restart")

	room(t, 0)
	r.until(func() bool { _ = add(); return r.Ready() != nil })
	time.Sleep(300 * time.Millisecond) // until raft waits for its disk
	begun := time.Now()
	r.stop() // does not wait for room
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("stopping on a full disk took %v", took)
	}
	room(t, ^uint64(0))
	r = serving(t, dir, memory.New())
	check("after a stop with a full disk")
}
