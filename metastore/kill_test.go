package metastore

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// victimDir makes the test program a metastore over that directory, which registers segments until it is killed.
const victimDir = "KILN_TEST_METASTORE_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		fmt.Fprintln(os.Stderr, victim(dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// victim prints the id of every segment that was acknowledged.
func victim(dir string) error {
	m, err := Open(DefaultConfig(dir), &deletions{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	go func() { // the parent is gone when its end of the pipe is
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(2)
	}()
	var out sync.Mutex
	for range 8 {
		go func() { // from the first moment on, ready or not
			for {
				id := newID()
				_, err := m.Index().AddSegments(context.Background(), connect.NewRequest(&metastorev1.AddSegmentsRequest{
					Segments: []*storagev1.BlockMeta{segment(id, 1, dataset{"a", "web", 1, 2})},
				}))
				if err == nil {
					out.Lock()
					fmt.Println(id)
					out.Unlock()
				}
			}
		}()
	}
	return m.Run(context.Background())
}

func TestAKillLosesNothingThatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	known := map[string]bool{}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), victimDir+"="+dir)
		cmd.Stderr = t.Output()
		if _, err := cmd.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if n == 200 {
				if err := cmd.Process.Kill(); err != nil { // in the middle of others
					t.Error(err)
				}
			}
			if len(lines.Text()) == 26 { // whole
				known[lines.Text()] = true
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("it was not killed")
		}
	}
	if len(known) < 600 {
		t.Fatalf("%d segments were acknowledged", len(known))
	}
	r := serving(t, dir, &deletions{})
	found := r.ids("a")
	for id := range known {
		if _, ok := slices.BinarySearch(found, id); !ok {
			t.Errorf("%s is lost", id)
		}
	}
	if twice := slices.Compact(slices.Clone(found)); len(twice) != len(found) {
		t.Errorf("%d entries, %d of them distinct", len(found), len(twice))
	}
}
