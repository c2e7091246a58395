package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryThreadOfTheServerMayWakeLate: the monitor of Go's runtime, which is the oldest, among them.
func TestEveryThreadOfTheServerMayWakeLate(t *testing.T) {
	p := serve(t, "--data-dir", t.TempDir())
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("threads: %v, %v", threads, err)
	}
	for _, thread := range threads {
		slack, err := os.ReadFile(filepath.Join("/proc", filepath.Base(thread), "timerslack_ns"))
		if err != nil {
			t.Skipf("this system does not show the slack of others: %v", err)
		}
		if got, want := strings.TrimSpace(string(slack)), fmt.Sprint(timerSlack.Nanoseconds()); got != want {
			t.Errorf("the slack of thread %s is %s ns, want %s", filepath.Base(thread), got, want)
		}
	}
}
