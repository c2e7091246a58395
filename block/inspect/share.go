package inspect

import "math/bits"

// shares divides the sections among the rows that they are for. No byte is lost in rounding.
func (o *object) shares() map[use]int64 {
	shares := map[use]int64{}
	for i, g := range o.meta.GetGroups() {
		for j, s := range g.GetSections() {
			o.divide(shares, s.GetLength(), o.usesOf(sectionRef{i, j}), byProfiles(s.GetType()))
		}
	}
	return shares
}

// divide adds to the share of each user its part of n bytes.
func (o *object) divide(shares map[use]int64, n uint64, users []use, byProfiles bool) {
	weight := func(u use) uint64 {
		if byProfiles {
			return o.rows(u).GetProfiles()
		}
		return o.rows(u).GetSamples()
	}
	total := uint64(0)
	for _, u := range users {
		total += weight(u)
	}
	if total == 0 && !byProfiles { // profiles without samples
		o.divide(shares, n, users, true)
		return
	}
	before, given := uint64(0), uint64(0)
	for _, u := range users {
		before += weight(u)
		upTo := part(n, before, total)
		shares[u] += int64(upTo - given)
		given = upTo
	}
}

// part is n * a / b without overflow, for a <= b; 0 if b is 0.
func part(n, a, b uint64) uint64 {
	if b == 0 || a > b {
		return 0
	}
	high, low := bits.Mul64(n, a)
	q, _ := bits.Div64(high, low, b)
	return q
}
