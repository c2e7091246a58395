package flamegraph

import (
	"bytes"
	"hash/maphash"
	"slices"
	"strings"
)

// rankNames sorts texts and drops repetitions. rank[i] is the index into names of texts[i]. The names share
// one piece of memory of their own.
func rankNames(texts [][]byte) (names []string, rank []uint32) {
	order := make([]uint32, len(texts))
	ascending := true
	size := 0
	for i, t := range texts {
		order[i] = uint32(i)
		size += len(t)
		ascending = ascending && (i == 0 || bytes.Compare(texts[i-1], t) < 0)
	}
	if !ascending {
		slices.SortFunc(order, func(a, b uint32) int { return bytes.Compare(texts[a], texts[b]) })
	}
	var text strings.Builder
	text.Grow(size)
	rank = make([]uint32, len(texts))
	names = make([]string, 0, len(texts))
	for i, at := range order {
		if i == 0 || !bytes.Equal(texts[order[i-1]], texts[at]) {
			start := text.Len()
			text.Write(texts[at])
			names = append(names, text.String()[start:])
		}
		rank[at] = uint32(len(names) - 1)
	}
	return names, rank
}

// nameTable gives each distinct name one number, for good, and knows the order of names, so that nobody
// compares strings twice.
type nameTable struct {
	names  []string
	hashes []uint64
	// rank is the place of each name in the order of names, sorted the reverse.
	rank, sorted []uint32
	// slots hold a number plus one, 0 if free; a power of two.
	slots []uint32
	seed  maphash.Seed
}

func newNameTable() nameTable {
	return nameTable{slots: make([]uint32, 1024), seed: maphash.MakeSeed()}
}

// add returns the numbers of names, which ascend and are distinct, in ids.
func (t *nameTable) add(names []string, ids []uint32) []uint32 {
	ids = ids[:0]
	known := len(t.names)
	for _, name := range names {
		ids = append(ids, t.number(name))
	}
	if len(t.names) > known {
		t.own(known)
		t.insert(known)
	}
	return ids
}

func (t *nameTable) number(name string) uint32 {
	h := maphash.String(t.seed, name)
	mask := uint64(len(t.slots) - 1)
	i := h & mask
	for ; t.slots[i] != 0; i = (i + 1) & mask {
		if id := t.slots[i] - 1; t.hashes[id] == h && t.names[id] == name {
			return id
		}
	}
	t.names = append(t.names, name)
	t.hashes = append(t.hashes, h)
	t.slots[i] = uint32(len(t.names))
	if 2*len(t.names) > len(t.slots) {
		t.grow()
	}
	return uint32(len(t.names) - 1)
}

func (t *nameTable) grow() {
	t.slots = make([]uint32, 2*len(t.slots))
	mask := uint64(len(t.slots) - 1)
	for id, h := range t.hashes {
		i := h & mask
		for t.slots[i] != 0 {
			i = (i + 1) & mask
		}
		t.slots[i] = uint32(id + 1)
	}
}

// own copies the text of the names from first on: a name must not keep the memory of its whole tree alive.
func (t *nameTable) own(first int) {
	size := 0
	for _, name := range t.names[first:] {
		size += len(name)
	}
	var text strings.Builder
	text.Grow(size)
	for i, name := range t.names[first:] {
		start := text.Len()
		text.WriteString(name)
		t.names[first+i] = text.String()[start:]
	}
}

// insert sorts in the names from first on, which ascend. It works from the end, so that each known name
// moves once; the search for the place is all that compares strings.
func (t *nameTable) insert(first int) {
	known, end := first, len(t.names)
	t.sorted = append(t.sorted, make([]uint32, end-first)...)
	t.rank = append(t.rank, make([]uint32, end-first)...)
	for id := end - 1; id >= first; id-- {
		at, _ := slices.BinarySearchFunc(t.sorted[:known], t.names[id], func(other uint32, name string) int {
			return strings.Compare(t.names[other], name)
		})
		fresh := id - first + 1
		copy(t.sorted[at+fresh:known+fresh], t.sorted[at:known])
		t.sorted[at+fresh-1] = uint32(id)
		known = at
	}
	for i := known; i < end; i++ {
		t.rank[t.sorted[i]] = uint32(i)
	}
}

// inOrder returns the names in order.
func (t *nameTable) inOrder() []string {
	names := make([]string, len(t.sorted))
	for i, id := range t.sorted {
		names[i] = t.names[id]
	}
	return names
}
