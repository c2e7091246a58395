package placement

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/tenant"
)

func TestShardStaysWithinItsRings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ring := Ring{
			Shards:     rapid.Uint32Range(1, 64).Draw(t, "shards"),
			PerTenant:  rapid.Uint32Range(0, 70).Draw(t, "per tenant"),
			PerService: rapid.Uint32Range(0, 70).Draw(t, "per service"),
		}
		ofTenant, ofService := map[uint32]bool{}, map[uint32]bool{}
		for service := range 20 {
			for series := range 200 {
				shard := ring.Shard("acme", fmt.Sprint("service-", service), hash(fmt.Sprint(series)))
				if shard >= ring.Shards {
					t.Fatalf("shard %d of %d", shard, ring.Shards)
				}
				ofTenant[shard] = true
				if service == 0 {
					ofService[shard] = true
				}
			}
		}
		if limit := ring.PerTenant; limit > 0 && len(ofTenant) > int(limit) {
			t.Fatalf("the tenant is in %d shards, may be in %d", len(ofTenant), limit)
		}
		if limit := max(ring.PerService, 1); len(ofService) > int(limit) {
			t.Fatalf("the service is in %d shards, may be in %d", len(ofService), limit)
		}
	})
}

func TestServicesSpreadEvenlyOverShards(t *testing.T) {
	ring := Ring{Shards: 16}
	count := make([]int, ring.Shards)
	const services = 16_000
	for i := range services {
		count[ring.Shard("acme", fmt.Sprint("service-", i), 0)]++
	}
	for shard, n := range count {
		if n < 850 || n > 1150 { // 1000 expected, standard deviation 31
			t.Errorf("shard %d has %d services of %d", shard, n, services)
		}
	}
}

func TestOneMoreShardMovesOnlyWhatItTakes(t *testing.T) {
	const services = 10_000
	for _, n := range []uint32{1, 2, 5, 16, 63} {
		moved := 0
		for i := range services {
			name := fmt.Sprint("service-", i)
			before := Ring{Shards: n}.Shard("acme", name, 7)
			after := Ring{Shards: n + 1}.Shard("acme", name, 7)
			if before != after {
				moved++
				if after != n {
					t.Fatalf("%s moved from shard %d to %d, which is not the new one", name, before, after)
				}
			}
		}
		want := services / float64(n+1)
		if float64(moved) < 0.8*want || float64(moved) > 1.2*want {
			t.Errorf("%d to %d shards moved %d services, want about %.0f", n, n+1, moved, want)
		}
	}
}

func TestShardIsTheSameForEver(t *testing.T) {
	ring := Ring{Shards: 64, PerTenant: 8, PerService: 2}
	golden := map[tenant.ID][]uint32{"anonymous": {56, 54, 52}, "acme": {44, 41, 46}}
	for id, want := range golden {
		var got []uint32
		for _, service := range []string{"checkout", "cart", "kiln"} {
			got = append(got, ring.Shard(id, service, 0x1234_5678_9abc_def0))
		}
		if !slices.Equal(got, want) {
			t.Errorf("tenant %s is in shards %d, was in %d", id, got, want)
		}
	}
}

func members(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("writer-%d:4040", i)
	}
	return all
}

func TestEveryMemberIsACandidateAndNoneOwnsTooMuch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shards := rapid.Uint32Range(1, 200).Draw(t, "shards")
		all := members(rapid.IntRange(1, 20).Draw(t, "members"))
		m := Assign(shards, rapid.Permutation(append(slices.Clone(all), all[0])).Draw(t, "order"), nil)
		owned := map[string]int{}
		for shard := range shards {
			candidates := m.Candidates(shard)
			if got := slices.Sorted(slices.Values(candidates)); !slices.Equal(got, slices.Sorted(slices.Values(all))) {
				t.Fatalf("candidates %v of members %v", got, all)
			}
			if other := Assign(shards, all, nil).Candidates(shard); !slices.Equal(candidates, other) {
				t.Fatalf("shard %d: %v, and with the members in another order %v", shard, candidates, other)
			}
			owned[candidates[0]]++
		}
		most := int(slack*float64(shards)/float64(len(all))) + 1
		for member, n := range owned {
			if n > most {
				t.Fatalf("%s owns %d of %d shards, may own %d", member, n, shards, most)
			}
		}
	})
}

func TestOneMoreMemberMovesAboutItsPart(t *testing.T) {
	const shards = 256
	for n := 2; n < 20; n++ {
		before, after := Assign(shards, members(n), nil), Assign(shards, members(n+1), nil)
		moved := 0
		for shard := range uint32(shards) {
			if before.Candidates(shard)[0] != after.Candidates(shard)[0] {
				moved++
			}
		}
		if limit := 2 * shards / (n + 1); moved == 0 || moved > limit {
			t.Errorf("%d to %d members moved %d of %d shards, want at most %d", n, n+1, moved, shards, limit)
		}
	}
}

func TestWithoutMembersThereIsNoCandidate(t *testing.T) {
	if got := Assign(4, nil, nil).Candidates(3); len(got) != 0 {
		t.Errorf("candidates %v", got)
	}
	if got := Assign(4, members(1), nil).Candidates(9); len(got) != 1 {
		t.Errorf("a shard beyond the assigned ones has candidates %v", got)
	}
}
