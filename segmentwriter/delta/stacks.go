package delta

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/kilndb/kiln/profile"
)

// stack names a stack by its content: two hashes with seeds that nobody outside knows. That two stacks of one series
// share both does not happen.
type stack [2]uint64

// hasher names the stacks of profiles.
type hasher struct {
	seeds [2]maphash.Seed
}

func newHasher() hasher { return hasher{[2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}} }

func (h *hasher) sum(b []byte) stack {
	return stack{maphash.Bytes(h.seeds[0], b), maphash.Bytes(h.seeds[1], b)}
}

// stacks returns the names of the stacks of all samples of p.
func (h *hasher) stacks(p *profile.Profile) []stack {
	var b []byte
	locations := make([]stack, len(p.Locations))
	for i := range locations {
		b = appendLocation(b[:0], p, uint32(i))
		locations[i] = h.sum(b)
	}
	all := make([]stack, p.Samples())
	for i := range all {
		b = b[:0]
		for _, l := range p.Stack(i) {
			b = binary.LittleEndian.AppendUint64(b, locations[l][0])
			b = binary.LittleEndian.AppendUint64(b, locations[l][1])
		}
		all[i] = h.sum(b)
	}
	return all
}

// appendLocation appends what makes a location the same in the next profile of a program. Flags of its mapping, which
// say what was found out so far, are no part of it.
func appendLocation(b []byte, p *profile.Profile, i uint32) []byte {
	l := &p.Locations[i]
	m := &p.Mappings[l.Mapping]
	b = binary.LittleEndian.AppendUint64(b, l.Address)
	b = appendText(b, p.String(m.File))
	b = appendText(b, p.String(m.BuildID))
	for _, line := range p.LinesOf(i) {
		f := &p.Functions[line.Function]
		b = appendText(b, p.String(f.Name))
		b = appendText(b, p.String(f.SystemName))
		b = appendText(b, p.String(f.File))
		b = binary.AppendVarint(b, f.StartLine)
		b = binary.AppendVarint(b, line.Line)
		b = binary.AppendVarint(b, line.Column)
	}
	return b
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
