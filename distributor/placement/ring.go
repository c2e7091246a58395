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
	of := r.divide(id, service)
	return of.at(jump(series, of.count))
}

// Turn returns the shard of the service whose turn it is.
func (r Ring) Turn(id tenant.ID, service string, turn uint64) uint32 {
	of := r.divide(id, service)
	return of.at(uint32(turn % uint64(of.count)))
}

// arc is the shards of a service: count of them, from service0 on, in the circle of its tenant's, which are ofTenant from first on in the
// circle of all.
type arc struct{ all, first, ofTenant, service0, count uint32 }

func (a arc) at(i uint32) uint32 { return (a.first + (a.service0+i)%a.ofTenant) % a.all }

func (r Ring) divide(id tenant.ID, service string) arc {
	a := arc{all: max(r.Shards, 1)}
	a.ofTenant = a.all
	if r.PerTenant > 0 && r.PerTenant < a.all {
		a.ofTenant, a.first = r.PerTenant, jump(hash(string(id)), a.all)
	}
	a.count = min(max(r.PerService, 1), a.ofTenant)
	a.service0 = jump(hash(string(id), service), a.ofTenant)
	return a
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
