package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/kilndb/kiln/objstore"
)

// probeKey is an object that stays for ever, so that every process can ask the store the same question at the same
// time: may I create what exists?
const probeKey = "probes/put-if-absent"

// condition knows whether the store honours the condition of a conditional write.
type condition struct {
	mu      sync.Mutex // also held while asking, so that one asks for all
	checked bool       // guarded by mu
	ignored bool       // guarded by mu
}

// check returns nil where conditions are honoured. The store is asked once, or until it answers.
func (c *condition) check(ctx context.Context, upload func(ctx context.Context, key string, src io.Reader, ifAbsent bool) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for attempt := 0; !c.checked; attempt++ { // the second time at the latest, it exists
		err := upload(ctx, probeKey, strings.NewReader("written to see whether it can be written twice"), true)
		switch {
		case errors.Is(err, objstore.ErrExists):
			c.checked = true
		case err != nil:
			return fmt.Errorf("probe conditional writes: %w", err)
		case attempt > 0:
			c.checked, c.ignored = true, true
		}
	}
	if c.ignored {
		return fmt.Errorf("%w: the store ignores the condition of a conditional write", errors.ErrUnsupported)
	}
	return nil
}
