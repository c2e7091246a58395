package placement

import (
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// Config says what a shard can take.
type Config struct {
	// ShardRate is what one shard takes, in bytes of stored segments a second. A service's part of a segment is estimated from
	// its rows.
	ShardRate float64
	// Calm is how long a rate must have been low before shards are given back.
	Calm time.Duration
}

// DefaultConfig divides what keeps about half a core busy.
func DefaultConfig() Config { return Config{ShardRate: 1 << 20, Calm: 10 * time.Minute} }

const (
	// window is the time over which rates are averaged, with weights that fall exponentially.
	window = time.Minute
	// warmUp is how long a Watch knows too little to say anything.
	warmUp = 3 * window
	// low is the part of its shards' rate below which a service, or a tenant, has too many.
	low = 0.6
	// room is how many times the shards a tenant gets that its rate asks for once it needs more than one: services hash to them
	// unevenly.
	room = 2
	// busy is the number of shards from which on profiles go round: series are few and uneven.
	busy = 4
	// quiet is the part of its rate at which a shard has the weight 1. Weights are powers of two, and a rate must leave that of its
	// weight by a factor of drift before the weight follows, so that shards do not change their writers for nothing.
	quiet = 1.0 / 16
	drift = 1.8
	// maxServices bounds the services that are watched; further ones stay in one shard.
	maxServices = 100_000
	// forgotten is the rate, in bytes a second, below which a service is not watched any more.
	forgotten = 1
)

// Watch follows the rates of all services. It is safe for concurrent use.
type Watch struct {
	cfg   Config
	begun time.Time

	mu       sync.Mutex // guards what follows
	tenants  map[string]*watched
	services int
	shards   map[uint32]*load
	rules    *metastorev1.Placement
	ruled    time.Time
}

// watched is a tenant with its services.
type watched struct {
	share
	services map[string]*share
}

// New returns a watch that begins now.
func New(cfg Config, now time.Time) *Watch {
	return &Watch{cfg: cfg, begun: now, tenants: map[string]*watched{}, shards: map[uint32]*load{}}
}

// Observe counts a segment that was registered now.
func (w *Watch) Observe(segment *storagev1.BlockMeta, now time.Time) {
	weights, total := weigh(segment)
	if total == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.shards[segment.GetShard()]
	if l == nil {
		l = &load{weight: 1}
		w.shards[segment.GetShard()] = l
	}
	l.observe(float64(segment.GetSize()), now)
	for i, d := range segment.GetDatasets() {
		bytes := float64(segment.GetSize()) * float64(weights[i]) / float64(total)
		tenant, service := segment.GetStrings()[d.GetTenant()], segment.GetStrings()[d.GetService()]
		t := w.tenants[tenant]
		if t == nil {
			t = &watched{services: map[string]*share{}}
			w.tenants[tenant] = t
		}
		t.observe(bytes, now)
		s := t.services[service]
		if s == nil {
			if w.services >= maxServices {
				continue
			}
			s = &share{}
			t.services[service] = s
			w.services++
		}
		s.observe(bytes, now)
	}
}

// weigh returns what part of a segment each dataset is: its rows, and a few for each profile, which has a row of its own and names.
func weigh(segment *storagev1.BlockMeta) (weights []uint64, total uint64) {
	const ofProfile = 16
	for _, d := range segment.GetDatasets() {
		n := uint64(0)
		for _, r := range d.GetRows() {
			n += r.GetSamples() + ofProfile*r.GetProfiles()
		}
		weights = append(weights, n)
		total += n
	}
	return weights, total
}

// Rules returns the rules of the last second, or nil while it is too early to say. Nobody may change them.
func (w *Watch) Rules(now time.Time) *metastorev1.Placement {
	if now.Sub(w.begun) < warmUp {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rules != nil && now.Sub(w.ruled) < time.Second {
		return w.rules
	}
	w.rules, w.ruled = &metastorev1.Placement{}, now
	for _, tenant := range slices.Sorted(maps.Keys(w.tenants)) {
		if r := w.tenant(tenant, now); r != nil {
			w.rules.Tenants = append(w.rules.Tenants, r)
		}
	}
	for _, shard := range slices.Sorted(maps.Keys(w.shards)) {
		if weight := w.shards[shard].update(w.cfg, now); weight > 1 {
			w.rules.Shards = append(w.rules.Shards, &metastorev1.ShardLoad{Shard: shard, Weight: weight})
		}
	}
	return w.rules
}

// tenant brings the shares of a tenant up to date and returns its rule, nil if it has one shard.
func (w *Watch) tenant(name string, now time.Time) *metastorev1.TenantPlacement {
	t, most := w.tenants[name], uint32(1)
	var services []*metastorev1.ServicePlacement
	for _, service := range slices.Sorted(maps.Keys(t.services)) {
		s := t.services[service]
		n := s.update(w.cfg, now)
		if n > 1 {
			services = append(services, &metastorev1.ServicePlacement{Service: service, Shards: n, RoundRobin: n >= busy})
		} else if s.at(now) < forgotten {
			delete(t.services, service)
			w.services--
		}
		most = max(most, n)
	}
	n := max(most, t.update(Config{w.cfg.ShardRate / room, w.cfg.Calm}, now))
	if n == 1 && len(t.services) == 0 {
		delete(w.tenants, name)
	}
	if n == 1 {
		return nil
	}
	return &metastorev1.TenantPlacement{Tenant: name, Shards: n, Services: services}
}

// flow is a rate.
type flow struct {
	rate float64 // bytes a second, as of seen
	seen time.Time
}

func (f *flow) observe(bytes float64, now time.Time) {
	f.rate = f.at(now) + bytes/window.Seconds()
	f.seen = now
}

// at returns the rate now.
func (f *flow) at(now time.Time) float64 {
	return f.rate * math.Exp(-now.Sub(f.seen).Seconds()/window.Seconds())
}

// load is the rate of a shard, and its weight.
type load struct {
	flow
	weight uint32
}

// update returns the weight from now on.
func (l *load) update(cfg Config, now time.Time) uint32 {
	rate := l.at(now) / (cfg.ShardRate * quiet)
	if off := rate / float64(l.weight); off > drift || off < 1/drift {
		l.weight = 1 << max(0, min(16, int(math.Round(math.Log2(max(rate, 1))))))
	}
	return l.weight
}

// share is the rate of a service or of a tenant, and the shards that it has.
type share struct {
	flow
	shards uint32
	// calm is since when the rate has been low; zero if it is not.
	calm time.Time
}

// update returns how many shards it has from now on.
func (s *share) update(cfg Config, now time.Time) uint32 {
	rate := s.at(now)
	s.shards = max(1, s.shards)
	if needs := need(rate, cfg.ShardRate); needs > s.shards {
		s.shards, s.calm = needs, time.Time{}
		return s.shards
	}
	fewer := need(rate, low*cfg.ShardRate)
	switch {
	case fewer >= s.shards:
		s.calm = time.Time{}
	case s.calm.IsZero():
		s.calm = now
	case now.Sub(s.calm) >= cfg.Calm:
		s.shards, s.calm = fewer, time.Time{}
	}
	return s.shards
}

// need returns how many shards of that rate it takes, at most 65,536.
func need(rate, ofShard float64) uint32 { return uint32(min(max(1, math.Ceil(rate/ofShard)), 1<<16)) }
