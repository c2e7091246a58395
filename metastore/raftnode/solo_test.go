package raftnode

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestAloneLeadsAtOnce: a group of one has nobody to wait for. The clock stands still while anything works.
func TestAloneLeadsAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "raft")
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		leader(t, run(t, DefaultConfig(dir)))
		if waited := time.Since(begun); waited >= heartbeatTimeout {
			t.Errorf("it led after %s", waited)
		}
	})
}
