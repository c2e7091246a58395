package distributor

import (
	"sync"
	"time"

	"github.com/kilndb/kiln/tenant"
)

// retryMemory is what a sender is told to wait when there is no memory for its request: requests are answered that fast.
const retryMemory = time.Second

// memory bounds what the requests that are inside hold together. A tenant may have half of it, so that nobody alone
// keeps the others out; messages that are being inflated, whose tenant nobody knows there, a quarter.
type memory struct {
	max int64

	mu   sync.Mutex // guards the rest
	used int64
	// of says how much of it each tenant has; none has 0. Inflated messages are of the tenant without a name.
	of map[tenant.ID]int64
}

func newMemory(max int64) *memory { return &memory{max: max, of: map[tenant.ID]int64{}} }

// hold is what one request has of the memory. Not safe for concurrent use.
type hold struct {
	memory *memory
	tenant tenant.ID
	n      int64
}

// grow takes n bytes more, if they are there.
func (h *hold) grow(n int64) bool {
	m := h.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if n <= 0 {
		return true
	}
	most := m.max / 2
	if h.tenant == "" {
		most = m.max / 4
	}
	if m.used+n > m.max || m.of[h.tenant]+n > most {
		return false
	}
	m.used += n
	m.of[h.tenant] += n
	h.n += n
	return true
}

// release gives back all of it.
func (h *hold) release() {
	m := h.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used -= h.n
	if m.of[h.tenant] -= h.n; m.of[h.tenant] == 0 {
		delete(m.of, h.tenant)
	}
	h.n = 0
}

func errMemory() error {
	return refuseUntil(retryMemory, reasonMemory, "the server has no memory for more requests now; try again")
}
