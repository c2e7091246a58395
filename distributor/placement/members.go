package placement

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// slack is how much more than an equal part of the load a member may own: with none, one member more or less
// would move shards between members that have nothing to do with it.
const slack = 1.25

// Map gives each shard an order of members. It is a value: make a new one when the members change.
type Map struct {
	// byShard holds for every shard all members, the owner first.
	byShard [][]string
}

// Assign divides shards among members. The order of members does not matter, and repeated ones count once. weights are those of
// shards that are busier than others, whose weight is 1. No member owns more than slack times an equal part of the weight and one
// more, unless one shard is more than that.
func Assign(shards uint32, members []string, weights map[uint32]uint32) *Map {
	members = slices.Compact(slices.Sorted(slices.Values(members)))
	m := &Map{byShard: make([][]string, max(shards, 1))}
	if len(members) == 0 {
		return m
	}
	total := 0.0
	order := make([]uint32, len(m.byShard))
	for shard := range order {
		order[shard] = uint32(shard)
		total += weightOf(weights, uint32(shard))
	}
	// The heaviest choose first: what is left is small enough to fill the gaps.
	slices.SortStableFunc(order, func(a, b uint32) int { return cmp.Compare(weightOf(weights, b), weightOf(weights, a)) })
	most := slack*total/float64(len(members)) + 1
	owned := make(map[string]float64, len(members))
	for _, shard := range order {
		candidates, weight := rendezvous(shard, members), weightOf(weights, shard)
		// The owner is the first that has room; the others stay in order, those that are full as well: they
		// stand in only while the owner fails.
		i := slices.IndexFunc(candidates, func(member string) bool { return owned[member]+weight <= most })
		if i < 0 { // one shard may be more than anybody's part
			i = slices.Index(candidates, slices.MinFunc(candidates, func(a, b string) int { return cmp.Compare(owned[a], owned[b]) }))
		}
		owner := candidates[i]
		copy(candidates[1:i+1], candidates[:i])
		candidates[0] = owner
		owned[owner] += weight
		m.byShard[shard] = candidates
	}
	return m
}

func weightOf(weights map[uint32]uint32, shard uint32) float64 {
	return float64(max(1, weights[shard]))
}

// Candidates returns the members that may take shard, in the order in which to try them. The caller must not change
// the answer. A shard beyond those that were assigned has the candidates of some shard.
func (m *Map) Candidates(shard uint32) []string {
	return m.byShard[shard%uint32(len(m.byShard))]
}

// rendezvous orders members by the hash of shard and member, the highest first.
func rendezvous(shard uint32, members []string) []string {
	type scored struct {
		member string
		score  uint64
	}
	all := make([]scored, len(members))
	var b []byte
	for i, member := range members {
		b = binary.LittleEndian.AppendUint32(b[:0], shard)
		all[i] = scored{member, xxhash.Sum64(append(b, member...))}
	}
	slices.SortFunc(all, func(a, b scored) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.member, b.member))
	})
	order := make([]string, len(all))
	for i, s := range all {
		order[i] = s.member
	}
	return order
}
