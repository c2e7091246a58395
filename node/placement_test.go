package node

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	distribution "github.com/kilndb/kiln/distributor/placement"
	"github.com/kilndb/kiln/metastore/placement"
	"github.com/kilndb/kiln/tenant"
)

// town is many services of some tenants that store at rates after Zipf's law: the rate of the n-th is 1/n of the first's.
type town struct {
	tenants, services int
	rate              float64 // of all, bytes a second
	series            int     // of a service
}

// TestPlacementSimulation has distributors follow the rules that a metastore finds, and publishes what comes of it (-v). The bounds are
// what operators may count on.
func TestPlacementSimulation(t *testing.T) {
	const shards, writers = 64, 8
	for _, c := range []struct {
		town
		imbalance float64 // of writers, max over mean
		objects   float64 // shards of a service, on average
	}{
		{town{tenants: 1, services: 1, rate: 30e6, series: 20}, 1.5, 40},
		{town{tenants: 1, services: 300, rate: 30e6, series: 50}, 1.4, 1.3},
		{town{tenants: 20, services: 500, rate: 30e6, series: 50}, 1.5, 1.2},
		{town{tenants: 20, services: 500, rate: 2e6, series: 50}, 2.5, 1.01},
	} {
		name := fmt.Sprintf("%d tenants, %d services, %.0f MB a second", c.tenants, c.services, c.rate/1e6)
		t.Run(name, func(t *testing.T) {
			rules := c.settle(shards)
			load, ofService := c.load(rules)
			assigned := distribution.Assign(shards, writerNames(writers), rules.Weights)
			byWriter := map[string]float64{}
			for shard, bytes := range load {
				byWriter[assigned.Candidates(uint32(shard))[0]] += bytes
			}
			most, sum := 0.0, 0.0
			for _, bytes := range byWriter {
				most, sum = max(most, bytes), sum+bytes
			}
			imbalance := most / (sum / writers)
			names := writerNames(writers + 1)
			come := c.moved(rules, assigned, distribution.Assign(shards, names, rules.Weights))
			gone := c.moved(rules, assigned, distribution.Assign(shards, append(names[:3:3], names[4:writers]...), rules.Weights))
			t.Logf("%s: busiest writer %.2f of the mean; %.2f shards a service, so %.0f segments of it an hour; a ninth writer moves %.1f %% of the series, one of eight that goes %.1f %%",
				name, imbalance, ofService, ofService*3600*2, 100*come, 100*gone)
			if imbalance > c.imbalance {
				t.Errorf("the busiest writer has %.2f times the mean, want at most %.2f", imbalance, c.imbalance)
			}
			if ofService > c.objects {
				t.Errorf("a service is in %.2f shards on average, want at most %.2f", ofService, c.objects)
			}
			if most := max(come, gone); most > 0.35 || min(come, gone) == 0 {
				t.Errorf("a writer more moves %.0f %% of the series, one less %.0f %%", 100*come, 100*gone)
			}
		})
	}
}

func writerNames(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("writer-%d:4040", i))
	}
	return names
}

// rateOf is what a service stores a second.
func (c town) rateOf(service int) float64 {
	harmonic := 0.0
	for n := range c.services {
		harmonic += 1 / float64(n+1)
	}
	return c.rate / harmonic / float64(service+1)
}

func (c town) tenant(service int) string { return fmt.Sprint("tenant-", service%c.tenants) }

// settle has distributors follow the rules of a watch for a while, and returns those that they end with.
func (c town) settle(shards uint32) *distribution.Rules {
	now := time.Unix(1_700_000_000, 0)
	w := placement.New(placement.DefaultConfig(), now)
	rules := &distribution.Rules{Shards: shards}
	var load []float64
	for step := range 96 {
		if step%12 == 0 {
			load, _ = c.load(rules)
		}
		now = now.Add(10 * time.Second)
		// One segment for the services, whose parts are in the proportion of their rates, and one of a nobody for the rest of each shard.
		m := &storagev1.BlockMeta{Strings: []string{"", "filler"}, Datasets: []*storagev1.Dataset{{Tenant: 1}}}
		for s := range c.services {
			m.Strings = append(m.Strings, c.tenant(s), fmt.Sprint("service-", s))
			rows := uint64(c.rateOf(s) * 10)
			m.Size += rows
			m.Datasets = append(m.Datasets, &storagev1.Dataset{Tenant: uint32(2*s + 2), Service: uint32(2*s + 3), Rows: []*storagev1.Rows{{Samples: rows}}})
		}
		m.Shard = shards
		w.Observe(m, now)
		for shard, bytes := range load {
			w.Observe(&storagev1.BlockMeta{Shard: uint32(shard), Size: uint64(bytes * 10), Strings: []string{"", "filler"}, Datasets: []*storagev1.Dataset{{Tenant: 1, Rows: []*storagev1.Rows{{Samples: 1}}}}}, now)
		}
		if r := w.Rules(now); r != nil {
			rules = readRules(r, shards)
		}
	}
	return rules
}

// load returns the bytes a second that each shard gets, and in how many shards a service is on average.
func (c town) load(rules *distribution.Rules) (ofShard []float64, shardsOfService float64) {
	rnd := rand.New(rand.NewPCG(1, 1))
	ofShard = make([]float64, rules.Shards)
	turn := uint64(0)
	for s := range c.services {
		seen := map[uint32]bool{}
		const profiles = 100
		for range profiles {
			turn++
			// Series are uneven as well: the square makes some of them four times as busy as the mean.
			series := uint64(math.Pow(rnd.Float64(), 2) * float64(c.series))
			shard := rules.Shard(tenant.ID(c.tenant(s)), fmt.Sprint("service-", s), series*0x9e3779b97f4a7c15, turn, false)
			ofShard[shard] += c.rateOf(s) / profiles
			seen[shard] = true
		}
		shardsOfService += float64(len(seen)) / float64(c.services)
	}
	return ofShard, shardsOfService
}

// moved returns the part of the series that another writer has: whose deltas begin anew, for instance.
func (c town) moved(rules *distribution.Rules, before, after *distribution.Map) float64 {
	n := 0
	for s := range c.services {
		for series := range uint64(c.series) {
			shard := rules.Shard(tenant.ID(c.tenant(s)), fmt.Sprint("service-", s), series*0x9e3779b97f4a7c15, 0, true)
			if before.Candidates(shard)[0] != after.Candidates(shard)[0] {
				n++
			}
		}
	}
	return float64(n) / float64(c.services*c.series)
}
