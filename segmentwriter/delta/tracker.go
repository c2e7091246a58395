package delta

import (
	"container/list"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/tenant"
)

// Tracker remembers what the series of all tenants counted last. It is safe for concurrent use.
type Tracker struct {
	cfg     Config
	hasher  hasher
	metrics *metrics

	mu       sync.Mutex // guards what follows, and every memory and step
	accounts map[tenant.ID]*account
	order    list.List // of all memories by use, the oldest first
	bytes    int
}

// New returns a tracker that knows of nothing.
func New(cfg Config, reg prometheus.Registerer) (*Tracker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Tracker{cfg: cfg, hasher: newHasher(), metrics: newMetrics(reg), accounts: map[tenant.ID]*account{}}, nil
}

// Change is how a profile moved what is remembered of its series.
type Change struct {
	tracker *Tracker
	moves   []move
}

type move struct {
	memory *memory
	step   *step
}

// Take puts differences in the place of the counters of p, which is normalised and has its time, and drops the samples
// of which nothing is left. Settle must be called on the change, which is nil if there are no counters. The errors wrap
// ErrOverflow; p and the memory are as they were then.
func (t *Tracker) Take(id tenant.ID, series labels.Labels, of profile.ID, p *profile.Profile, now time.Time) (*Change, error) {
	columns := columnsOf(series, p)
	if len(columns) == 0 {
		return nil, nil
	}
	all, err := t.hasher.read(series, p, columns)
	if err != nil {
		return nil, err
	}
	change := t.move(id, all, of, p.TimeNanos, len(columns), now)
	for i := range all {
		all[i].write(p, p.Series[i], columns)
	}
	p.DropZeros()
	return change, nil
}

// move makes differences of counters.
func (t *Tracker) move(id tenant.ID, all []counters, of profile.ID, at int64, width int, now time.Time) *Change {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgetIdle(now)
	change := &Change{tracker: t}
	for i := range all {
		m := t.memory(id, all[i].key, width)
		outcome, step := m.take(&all[i], of, at, &t.cfg)
		t.metrics.profiles.WithLabelValues(outcome.String()).Inc()
		if step != nil {
			change.moves = append(change.moves, move{m, step})
		}
		m.used = now
		t.order.MoveToBack(m.ofAll)
		m.owner.order.MoveToBack(m.ofAccount)
		t.weigh(m)
		t.bound(m)
	}
	t.observe()
	return change
}

// Settle says whether the profile is durable. If it is not, or nobody knows, the memory moves back to before it, unless
// a newer profile has come. A nil change has nothing to settle.
func (c *Change) Settle(stored bool) {
	if c == nil {
		return
	}
	t := c.tracker
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, move := range c.moves {
		m := move.memory
		if m.gone {
			continue
		}
		m.settle(move.step, stored)
		if m.numbers == nil {
			t.forget(m)
			continue
		}
		t.weigh(m)
	}
	t.observe()
}

// memory returns what is known of a series, made if need be.
func (t *Tracker) memory(id tenant.ID, key string, width int) *memory {
	a := t.accounts[id]
	if a == nil {
		a = &account{id: id, memories: map[string]*memory{}}
		t.accounts[id] = a
	}
	m := a.memories[key]
	if m == nil {
		m = &memory{key: key, owner: a, width: width}
		a.memories[key] = m
		m.ofAll, m.ofAccount = t.order.PushBack(m), a.order.PushBack(m)
	}
	return m
}

// weigh brings the sums of memory up to date with a series.
func (t *Tracker) weigh(m *memory) {
	grown := m.size() - m.bytes
	m.bytes += grown
	m.owner.bytes += grown
	t.bytes += grown
}

// forgetIdle forgets what was not used for long.
func (t *Tracker) forgetIdle(now time.Time) {
	for t.order.Len() > 0 && now.Sub(oldest(&t.order).used) > t.cfg.IdleTimeout {
		t.evict(oldest(&t.order), evictIdle)
	}
}

// bound forgets what was not used for longest until the rest fits.
func (t *Tracker) bound(m *memory) {
	a := m.owner
	// One that is too large alone must not push out all others first.
	if m.bytes > t.cfg.MaxTenantBytes {
		t.evict(m, evictTenant)
	}
	for a.bytes > t.cfg.MaxTenantBytes {
		t.evict(oldest(&a.order), evictTenant)
	}
	for t.bytes > t.cfg.MaxBytes {
		t.evict(oldest(&t.order), evictMemory)
	}
}

func (t *Tracker) evict(m *memory, reason string) {
	t.metrics.evicted.WithLabelValues(reason).Inc()
	t.forget(m)
}

func (t *Tracker) forget(m *memory) {
	a := m.owner
	m.gone = true
	delete(a.memories, m.key)
	t.order.Remove(m.ofAll)
	a.order.Remove(m.ofAccount)
	a.bytes -= m.bytes
	t.bytes -= m.bytes
	if len(a.memories) == 0 {
		delete(t.accounts, a.id)
	}
}

func (t *Tracker) observe() {
	t.metrics.bytes.Set(float64(t.bytes))
	t.metrics.series.Set(float64(t.order.Len()))
}
