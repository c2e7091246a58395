package placement

import "github.com/kilndb/kiln/tenant"

// Rules say how many shards tenants and services are divided into: as many as what they send asks for. They are never changed; distributors
// take new ones.
type Rules struct {
	// Shards is the number of all shards, at least 1.
	Shards uint32
	// Tenants are those that have more than one.
	Tenants map[tenant.ID]Tenant
	// Weights are those of busy shards, for Assign.
	Weights map[uint32]uint32
}

// Tenant says into how many shards a tenant is divided.
type Tenant struct {
	Shards uint32
	// Services are those that have more than one of them.
	Services map[string]Service
}

// Service says into how many of its tenant's shards a service is divided, and how.
type Service struct {
	Shards uint32
	// RoundRobin: profiles take turns. Otherwise a series stays in its shard.
	RoundRobin bool
}

// Shard returns the shard of a profile of a series, which is given by the hash of its labels. turn counts the profiles of the
// distributor; sticky ones stay with their series whatever the rules say.
func (r *Rules) Shard(id tenant.ID, service string, series, turn uint64, sticky bool) uint32 {
	t := r.Tenants[id]
	s := t.Services[service]
	ring := Ring{Shards: r.Shards, PerTenant: max(1, t.Shards), PerService: s.Shards}
	if s.RoundRobin && !sticky {
		return ring.Turn(id, service, turn)
	}
	return ring.Shard(id, service, series)
}
