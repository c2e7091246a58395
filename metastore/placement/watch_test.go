package placement

import (
	"fmt"
	"testing"
	"time"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

var start = time.Unix(1_700_000_000, 0)

// stored is a segment of that many bytes in which the services have equal parts.
func stored(bytes float64, tenant string, services ...string) *storagev1.BlockMeta {
	m := &storagev1.BlockMeta{Size: uint64(bytes), Strings: []string{"", tenant}}
	for _, s := range services {
		m.Strings = append(m.Strings, s)
		m.Datasets = append(m.Datasets, &storagev1.Dataset{Tenant: 1, Service: uint32(len(m.Strings) - 1), Rows: []*storagev1.Rows{{Profiles: 10, Samples: 1000}}})
	}
	return m
}

// run has the services of acme store at a rate for a while, and returns the rules at the end.
func run(w *Watch, now *time.Time, span time.Duration, rate float64, services ...string) *metastorev1.Placement {
	for end := now.Add(span); now.Before(end); *now = now.Add(time.Second) {
		w.Observe(stored(rate*float64(len(services)), "acme", services...), *now)
		w.Rules(*now)
	}
	return w.Rules(*now)
}

// shards returns what the rules say of acme and one of its services.
func shards(p *metastorev1.Placement, service string) (ofTenant, ofService uint32, roundRobin bool) {
	ofTenant, ofService = 1, 1
	for _, t := range p.GetTenants() {
		if t.GetTenant() != "acme" {
			continue
		}
		ofTenant = t.GetShards()
		for _, s := range t.GetServices() {
			if s.GetService() == service {
				ofService, roundRobin = s.GetShards(), s.GetRoundRobin()
			}
		}
	}
	return ofTenant, ofService, roundRobin
}

func TestShardsFollowTheRate(t *testing.T) {
	now := start
	w := New(Config{ShardRate: 1000, Calm: 10 * time.Minute}, now)
	if rules := run(w, &now, warmUp-2*time.Second, 900, "quiet"); rules != nil {
		t.Errorf("rules %v after less than %s", rules, warmUp)
	}
	expect := func(what string, rules *metastorev1.Placement, service string, ofTenant, ofService uint32, roundRobin bool) {
		t.Helper()
		if rules == nil {
			t.Fatalf("%s: no rules", what)
		}
		if a, b, c := shards(rules, service); a != ofTenant || b != ofService || c != roundRobin {
			t.Errorf("%s: %d shards, %d for the service, round robin %t; want %d, %d, %t", what, a, b, c, ofTenant, ofService, roundRobin)
		}
	}
	expect("900 a second", run(w, &now, time.Minute, 900, "quiet"), "quiet", 2, 1, false)
	expect("2,500 a second", run(w, &now, 10*time.Minute, 2500, "hot"), "hot", 6, 3, false)
	expect("5,500 a second", run(w, &now, 10*time.Minute, 5500, "hot"), "hot", 12, 6, true)
	expect("less, but not for long enough", run(w, &now, 9*time.Minute, 900, "hot"), "hot", 12, 6, true)
	expect("less for long", run(w, &now, 10*time.Minute, 900, "hot"), "hot", 4, 2, false)
	expect("nothing for long", run(w, &now, 30*time.Minute, 0), "hot", 1, 1, false)
	if len(w.tenants) != 0 || w.services != 0 {
		t.Errorf("%d tenants and %d services are remembered", len(w.tenants), w.services)
	}
	var many []string
	for i := range 10 {
		many = append(many, fmt.Sprint("small-", i))
	}
	expect("ten that are small", run(w, &now, 10*time.Minute, 450, many...), "small-3", 10, 1, false)
}

// A rate about where a shard is full must not move services to and fro.
func TestShardsDoNotFlap(t *testing.T) {
	now := start
	w := New(Config{ShardRate: 1000, Calm: 10 * time.Minute}, now)
	run(w, &now, 10*time.Minute, 1000, "a")
	changes, last := 0, uint32(0)
	for i := range 100 {
		rate := 800.0
		if i%2 == 0 {
			rate = 1200
		}
		_, n, _ := shards(run(w, &now, 5*time.Minute, rate, "a"), "a")
		if last != 0 && n != last {
			changes++
		}
		last = n
	}
	if changes > 1 {
		t.Errorf("%d changes in eight hours", changes)
	}
}

func TestServicesAreBounded(t *testing.T) {
	w := New(DefaultConfig(), start)
	for i := range maxServices/1000 + 5 {
		var names []string
		for j := range 1000 {
			names = append(names, fmt.Sprint("service-", i, "-", j))
		}
		w.Observe(stored(1e6, "acme", names...), start)
	}
	if w.services != maxServices || len(w.tenants["acme"].services) != maxServices {
		t.Errorf("%d services are watched, want %d", w.services, maxServices)
	}
}

func BenchmarkObserve(b *testing.B) {
	var names []string
	for i := range 1000 {
		names = append(names, fmt.Sprint("service-", i))
	}
	w, m := New(DefaultConfig(), start), stored(1e6, "acme", names...)
	b.ReportAllocs()
	for b.Loop() {
		w.Observe(m, start)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/dataset")
}
