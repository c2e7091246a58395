package placement

import (
	"github.com/cespare/xxhash/v2"

	"github.com/kilndb/kiln/tenant"
)

// Ring says into how many shards profiles are divided.
type Ring struct {
	// Shards is the number of all shards, at least 1.
	Shards uint32
	// PerTenant is how many of them one tenant may use. 0 means all.
	PerTenant uint32
	// PerService is how many of its tenant's shards one service uses. 0 means one: a service that is whole in one
	// shard shares its symbols and is read fastest.
	PerService uint32
}

// Shard returns the shard of a series, which is given by the hash of its labels.
func (r Ring) Shard(id tenant.ID, service string, series uint64) uint32 {
	all := max(r.Shards, 1)
	ofTenant, first := all, uint32(0)
	if r.PerTenant > 0 && r.PerTenant < all {
		ofTenant, first = r.PerTenant, jump(hash(string(id)), all)
	}
	ofService := min(max(r.PerService, 1), ofTenant)
	// A tenant's shards, and a service's among them, follow one another in a circle.
	service0 := jump(hash(string(id), service), ofTenant)
	inService := (service0 + jump(series, ofService)) % ofTenant
	return (first + inService) % all
}

// jump is the consistent hash of Lamping and Veach (2014): it returns a bucket below n, and where n grows by one, a
// key moves to the new bucket with probability 1/n and stays otherwise.
func jump(key uint64, n uint32) uint32 {
	bucket, next := int64(-1), int64(0)
	for next < int64(n) {
		bucket = next
		key = key*2862933555777941757 + 1
		next = int64(float64(bucket+1) * (float64(1<<31) / float64(key>>33+1)))
	}
	return uint32(bucket)
}

// hash returns a hash of parts, none of which may contain a byte 0xff: UTF-8 has none.
func hash(parts ...string) uint64 {
	// 256 bytes hold all but extraordinary names without going to the heap.
	var stack [256]byte
	b := stack[:0]
	for _, p := range parts {
		b = append(b, p...)
		b = append(b, 0xff)
	}
	return xxhash.Sum64(b)
}
