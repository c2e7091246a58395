package metastore

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/internal/failpoint"
	"github.com/kilndb/kiln/objstore/memory"
)

// TestReadsDoNotWaitForWrites has the state machine stand still until raft's loop does as well.
func TestReadsDoNotWaitForWrites(t *testing.T) {
	points := &failpoint.Set{}
	r := serving(t, t.TempDir(), memory.New(), func(c *Config) { c.Failpoints = points })
	r.mustAdd(segment(newID(), 1, dataset{"a", "web", 1, 2}))
	stuck := make(chan struct{})
	points.Do("apply/before-commit", 1, func() error { <-stuck; return nil })
	defer close(stuck)
	for range 300 { // raft's loop hands on some batches before it waits for the state machine as well
		go func() {
			_, _ = propose[added](context.WithoutCancel(t.Context()), r.Metastore, &storagev1.Command{Body: &storagev1.Command_AddSegments{
				AddSegments: &storagev1.AddSegments{Segments: []*storagev1.BlockMeta{segment(newID(), 1, dataset{"b", "web", 1, 2})}},
			}})
		}()
	}
	soon, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	found, err := r.Index().Find(soon, connect.NewRequest(&metastorev1.FindRequest{Tenants: []string{"a"}}))
	if err != nil || len(found.Msg.GetEntries()) != 1 {
		t.Errorf("found %v: %v", found, err)
	}
}
