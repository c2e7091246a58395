package pprof

import (
	"fmt"
	"math"
	"slices"
)

// ids are the ids of one table of a profile, and the means to turn references into indexes.
//
// On the wire an id is any number of 64 bits. Nearly everybody sends 1, 2, 3 and so on, so ids are first read as
// they are, in 32 bits. If that fails, because an id is longer or they are far apart, the profile is
// read once more with wide set: then every id gets a number in order of first sight, and the rest works as before.
type ids struct {
	// defined are the ids of the table's entries.
	defined []uint32
	wide    bool
	numbers map[uint64]uint32
	// position is the entry + 1 of each id; nil if the ids are dense.
	position, memory []uint32
}

// maxNumbers bounds the map that is kept: one never shrinks, and emptying it takes as long as it is large.
const maxNumbers = 1 << 14

func (s *ids) reset(wide bool) {
	s.defined, s.position, s.wide = s.defined[:0], nil, wide
	if len(s.numbers) > maxNumbers {
		s.numbers = nil
	}
	clear(s.numbers)
}

// bytes returns the memory that is kept, used or not, but for the map.
func (s *ids) bytes() int { return 4 * (cap(s.defined) + cap(s.memory)) }

// refer returns the 32-bit form of an id; 0 stays 0.
func (s *ids) refer(id uint64) (uint32, error) {
	if !s.wide {
		if id > math.MaxUint32 {
			return 0, errWide
		}
		return uint32(id), nil
	}
	if id == 0 {
		return 0, nil
	}
	if s.numbers == nil {
		s.numbers = map[uint64]uint32{}
	}
	n, ok := s.numbers[id]
	if !ok {
		n = uint32(len(s.numbers)) + 1
		s.numbers[id] = n
	}
	return n, nil
}

// define takes in the id of the next entry.
func (s *ids) define(id uint64) error {
	if id == 0 {
		return fmt.Errorf("entry %d has no id", len(s.defined))
	}
	n, err := s.refer(id)
	s.defined = append(s.defined, n)
	return err
}

// index gets ready to resolve references: it finds out whether the ids are dense, and if not, where each is.
func (s *ids) index() error {
	dense := true
	highest := uint32(0)
	for i, id := range s.defined {
		dense = dense && id == uint32(i)+1
		highest = max(highest, id)
	}
	if dense {
		return nil
	}
	// A table of positions may be eight times as long as the entries, or 16 KiB.
	if !s.wide && uint64(highest) > 8*uint64(len(s.defined))+4096 {
		return errWide
	}
	s.memory = slices.Grow(s.memory[:0], int(highest)+1)[:highest+1]
	clear(s.memory)
	for i, id := range s.defined {
		if s.memory[id] != 0 {
			return fmt.Errorf("entries %d and %d have the same id %d", s.memory[id]-1, i, s.original(id))
		}
		s.memory[id] = uint32(i) + 1
	}
	s.position = s.memory
	return nil
}

// resolve returns the entry + 1 of an id, 0 if there is none.
func (s *ids) resolve(id uint32) uint32 {
	if s.position == nil {
		if id > uint32(len(s.defined)) {
			return 0
		}
		return id
	}
	if id >= uint32(len(s.position)) {
		return 0
	}
	return s.position[id]
}

// original returns an id as it came, for messages.
func (s *ids) original(id uint32) uint64 {
	if s.wide {
		for long, n := range s.numbers {
			if n == id {
				return long
			}
		}
	}
	return uint64(id)
}
