package node_test

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/objstore/objstoretest"
	"github.com/kilndb/kiln/segmentwriter/segmentwritertest"
)

// TestStoppingTakesLessThanHalfAMinute stops a node whose bucket is slow, or answers nothing, while pushes are in flight and one after
// the other waits to be: each must have its answer, which is true, and the node must be gone in time.
func TestStoppingTakesLessThanHalfAMinute(t *testing.T) {
	for name, c := range map[string]struct {
		put    time.Duration // how long one takes
		stored bool
	}{
		"slow":    {put: 4 * time.Second, stored: true},
		"hanging": {put: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			segmentwritertest.Bubble(t, func(t *testing.T) {
				bucket := objstoretest.NewFaulty(memory.New())
				bucket.Do(objstoretest.BeforePut, func(ctx context.Context, _ string) error {
					select {
					case <-time.After(c.put):
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				})
				cluster := nodetest.New(t)
				cluster.Bucket = bucket
				n := cluster.Whole(func(cfg *node.Config) { cfg.Bucket = "s3://slow"; neverCompact(cfg) })
				s := newStream()
				const pushes = 40
				answers := make(chan error, pushes)
				for i := range pushes {
					go func() {
						time.Sleep(time.Duration(i) * 100 * time.Millisecond) // in flight, gathered, waiting for a flight
						answers <- s.push(n)
					}()
				}
				time.Sleep(pushes * 100 * time.Millisecond)
				begun := time.Now()
				n.Stop()
				if took := time.Since(begun); took > 30*time.Second {
					t.Errorf("stopped after %s", took)
				}
				for range pushes {
					if err := <-answers; c.stored != (err == nil) {
						t.Errorf("a push in flight: %v", err)
					} else if err != nil && connect.CodeOf(err) != connect.CodeUnavailable {
						t.Errorf("a push in flight has no answer of ours: %v", err)
					}
				}
				bucket.Heal()
				s.verify(t, n.Restart())
			})
		})
	}
}
