package metastore

import (
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

// TestJobIDsShareNothing draws job ids while another part of the process draws ids from the ulid package's own
// source. Under the race detector it fails if the two share state: two objects could then have one id.
func TestJobIDsShareNothing(t *testing.T) {
	var group sync.WaitGroup
	for range 2 {
		next := newIDs()
		group.Go(func() {
			last := ulid.ULID{}
			for range 20_000 {
				id := next(time.UnixMilli(1))
				if id.Compare(last) <= 0 {
					t.Errorf("id %s follows %s", id, last)
					return
				}
				last = id
			}
		})
	}
	group.Go(func() {
		for range 20_000 {
			ulid.Make()
		}
	})
	group.Wait()
}
