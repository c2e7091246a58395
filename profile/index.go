package profile

import (
	"math/bits"
	"math/rand/v2"
)

// index finds numbers by the hash of what they stand for: open addressing, linear probing, at most half
// full. A slot holds 32 bits of hash and the number + 1; 0 is free. What the numbers stand for is kept and
// compared by the owner, so equal hashes are harmless.
type index struct {
	slots []uint64
	used  int
	// seed makes hashes unpredictable, so that nobody can send names that all collide.
	seed uint64
	// warmed is there so that warm's loads are not optimised away.
	warmed uint64
}

// 256 slots are 2 KiB; every use ends up with more.
const minSlots = 256

// init makes a zero index usable; calling it again does nothing.
func (x *index) init() {
	if x.slots == nil {
		x.slots = make([]uint64, minSlots)
		x.seed = rand.Uint64() | 1
	}
}

// reset forgets all numbers and keeps the memory.
func (x *index) reset() {
	clear(x.slots)
	x.used = 0
}

func (x *index) bytes() int { return 8 * cap(x.slots) }

// seek looks from slot i on for the next number that has the hash h. It returns the number + 1 and
// its slot, or 0 and the free slot where the number belongs. To go on after a wrong number, pass its slot + 1.
func (x *index) seek(h, i uint32) (number, slot uint32) {
	mask := uint32(len(x.slots) - 1)
	for i &= mask; ; i = (i + 1) & mask {
		s := x.slots[i]
		if s == 0 || uint32(s>>32) == h {
			return uint32(s), i
		}
	}
}

// warm brings the slots where the hashes begin into the cache. They lie anywhere in a table that may be larger than the
// cache: looked at one after the other as they are needed, each would be waited for; looked at all together, the waits
// overlap.
func (x *index) warm(hashes []uint32) {
	mask := uint32(len(x.slots) - 1)
	all := uint64(0)
	for _, h := range hashes {
		all |= x.slots[h&mask]
	}
	x.warmed = all
}

// put stores a number in the free slot that seek found for its hash.
func (x *index) put(slot, h, number uint32) {
	x.slots[slot] = uint64(h)<<32 | uint64(number+1)
	x.used++
	if 2*x.used > len(x.slots) {
		x.grow()
	}
}

func (x *index) grow() {
	old := x.slots
	x.slots = make([]uint64, 4*len(old))
	mask := uint32(len(x.slots) - 1)
	for _, s := range old {
		if s == 0 {
			continue
		}
		i := uint32(s>>32) & mask
		for x.slots[i] != 0 {
			i = (i + 1) & mask
		}
		x.slots[i] = s
	}
}

// mix folds v into the hash h. Both halves of the product depend on every bit of h ^ v.
func mix(h, v uint64) uint64 {
	hi, lo := bits.Mul64(h^v, 0x9e3779b97f4a7c15)
	return hi ^ lo
}

// fold makes 32 bits of 64.
func fold(h uint64) uint32 { return uint32(h ^ h>>32) }
