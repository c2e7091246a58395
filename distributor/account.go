package distributor

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/kilndb/kiln/tenant"
)

const (
	// generation is how long a set of active series grows before the next one begins. Two are kept, so that a series
	// counts for 5 to 10 minutes after its last profile: longer than any agent pauses.
	generation = 5 * time.Minute
	// maxRemembered bounds the series of all tenants that are remembered: about 80 MB at 20 bytes each.
	maxRemembered = 4 << 20
	// accountCost is what an account without series counts as, in series.
	accountCost = 16
)

// account is what the door remembers of a tenant between its requests.
type account struct {
	rate   bucket
	series activeSeries
	// used is when a request last asked for the account, Unix nanoseconds.
	used atomic.Int64
}

// accounts holds the accounts of the tenants that were here in the last minutes. Whoever may choose a tenant id may
// choose a new one for every request, so what they hold together is bounded.
type accounts struct {
	now func() time.Time
	// remembered counts the series of all accounts, and the accounts.
	remembered atomic.Int64

	mu    sync.RWMutex // guards the rest
	of    map[tenant.ID]*account
	swept time.Time
}

func newAccounts(now func() time.Time) *accounts {
	return &accounts{now: now, of: map[tenant.ID]*account{}, swept: now()}
}

// get returns the account of a tenant. ok is false when there is no room for another.
func (a *accounts) get(id tenant.ID) (_ *account, ok bool) {
	now := a.now()
	a.mu.RLock()
	acc, due := a.of[id], now.Sub(a.swept) >= generation
	a.mu.RUnlock()
	if acc == nil || due {
		if acc = a.open(id, now); acc == nil {
			return nil, false
		}
	}
	acc.used.Store(now.UnixNano())
	return acc, true
}

// open returns the account of a tenant, made now if there is none, and forgets those that nobody used of late.
func (a *accounts) open(id tenant.ID, now time.Time) *account {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.swept) >= generation {
		a.swept = now
		a.sweep(now)
	}
	acc := a.of[id]
	if acc != nil {
		return acc
	}
	if a.remembered.Load()+accountCost > maxRemembered {
		return nil
	}
	a.remembered.Add(accountCost)
	acc = &account{series: activeSeries{all: &a.remembered}}
	a.of[id] = acc
	return acc
}

// sweep forgets accounts that would say nothing that a new one does not: their series are out of date and their rate
// has recovered. The caller holds mu.
func (a *accounts) sweep(now time.Time) {
	for id, acc := range a.of {
		unused := now.Sub(time.Unix(0, acc.used.Load()))
		acc.series.age(now)
		if unused >= 2*generation && !acc.rate.owes(now) {
			a.remembered.Add(-accountCost)
			delete(a.of, id)
		}
	}
}
