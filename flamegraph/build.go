package flamegraph

import (
	"fmt"
	"strconv"

	"github.com/kilndb/kiln/profile"
)

// Build returns the tree of sums, one per stack node, over the call tree that the stacks have. It has only
// the nodes with a weight, and their names.
func Build(call *profile.CallTree, sym *profile.Symbols, sums []int64) (*Tree, error) {
	if len(sums) != len(call.OfStack) {
		return nil, fmt.Errorf("%w: %d sums for %d stack nodes", ErrMalformed, len(sums), len(call.OfStack))
	}
	if _, err := sum(sums); err != nil {
		return nil, err
	}
	self := make([]int64, max(1, len(call.Parents)))
	for i, v := range sums {
		if v != 0 {
			self[call.OfStack[i]] += v
		}
	}
	alive, count := live(call.Parents, self)
	t := &Tree{Parents: make([]uint32, 0, count), NodeNames: make([]uint32, 0, count), Self: make([]int64, 0, count)}
	place := make([]uint32, len(self))
	used := make([]bool, len(sym.Strings))
	for i, a := range alive {
		switch {
		case i == 0:
			t.append(0, 0, self[0])
		case a:
			place[i] = uint32(len(t.Self))
			t.append(place[call.Parents[i]], call.Names[i], self[i])
			used[call.Names[i]] = true
		}
	}
	// In the order of the strings: where those are sorted, so are these.
	picked := newPick(sym)
	for str, u := range used {
		if u {
			picked.name(uint32(str))
		}
	}
	names, rank := rankNames(picked.texts)
	for i := 1; i < len(t.NodeNames); i++ {
		t.NodeNames[i] = rank[picked.name(t.NodeNames[i])]
	}
	t.Names = names
	return t, nil
}

func (t *Tree) append(parent, name uint32, self int64) {
	t.Parents = append(t.Parents, parent)
	t.NodeNames = append(t.NodeNames, name)
	t.Self = append(t.Self, self)
}

// BuildUnsorted returns the tree of sums, one per stack node, of stacks in any order and without a call
// tree. Each line of a location is a frame, the outermost call first; a location without lines is one frame
// named by its address.
func BuildUnsorted(sym *profile.Symbols, stacks *profile.StackTree, sums []int64) (*Tree, error) {
	if len(sums) != len(stacks.Parents) {
		return nil, fmt.Errorf("%w: %d sums for %d stack nodes", ErrMalformed, len(sums), len(stacks.Parents))
	}
	if _, err := sum(sums); err != nil {
		return nil, err
	}
	alive, _ := live(stacks.Parents, sums)
	frames := newFrames(sym)
	for i, a := range alive {
		if a && i > 0 {
			frames.add(stacks.Locations[i])
		}
	}
	names := frames.rank()
	f := newForest()
	f.useIndex()
	nodes := make([]uint32, len(alive))
	for i, a := range alive {
		if !a || i == 0 {
			continue
		}
		at := nodes[stacks.Parents[i]]
		for _, name := range frames.of(stacks.Locations[i]) {
			at = f.child(at, name)
		}
		nodes[i] = at
	}
	self := make([]int64, len(f.nodes))
	for i, v := range sums {
		self[nodes[i]] += v
	}
	rank := identity(len(names))
	return f.tree(f.order(rank, len(names)), rank, names, self), nil
}

// live marks the nodes that have a weight themselves or below them, and the root; weights are not negative.
func live(parents []uint32, self []int64) (alive []bool, count int) {
	alive = make([]bool, len(self))
	for i := len(self) - 1; i >= 0; i-- {
		if self[i] != 0 || alive[i] || i == 0 {
			alive[i] = true
			count++
			if i > 0 {
				alive[parents[i]] = true
			}
		}
	}
	return alive, count
}

func identity(n int) []uint32 {
	ids := make([]uint32, n)
	for i := range ids {
		ids[i] = uint32(i)
	}
	return ids
}

// pick collects the names in use out of many.
type pick struct {
	sym   *profile.Symbols
	texts [][]byte
	// numbers has the index into texts plus one for each string of sym.
	numbers []uint32
}

func newPick(sym *profile.Symbols) *pick {
	return &pick{sym: sym, numbers: make([]uint32, len(sym.Strings))}
}

// name returns the index into texts of a string of sym.
func (p *pick) name(str uint32) uint32 {
	if p.numbers[str] == 0 {
		p.texts = append(p.texts, p.sym.String(str))
		p.numbers[str] = uint32(len(p.texts))
	}
	return p.numbers[str] - 1
}

// frames are the names of the locations in use, root first.
type frames struct {
	*pick
	list []uint32
	// spans has a range of list for each location of sym; it is empty for those not in use.
	spans []span
}

type span struct{ start, end uint32 }

func newFrames(sym *profile.Symbols) *frames {
	return &frames{pick: newPick(sym), spans: make([]span, len(sym.Locations))}
}

func (f *frames) add(location uint32) {
	s := &f.spans[location]
	if s.start != s.end {
		return
	}
	s.start = uint32(len(f.list))
	lines := f.sym.LinesOf(location)
	for i := len(lines) - 1; i >= 0; i-- {
		f.list = append(f.list, f.name(f.sym.Functions[lines[i].Function].Name))
	}
	if len(lines) == 0 {
		f.list = append(f.list, uint32(len(f.texts)))
		f.texts = append(f.texts, strconv.AppendUint([]byte("0x"), f.sym.Locations[location].Address, 16))
	}
	s.end = uint32(len(f.list))
}

// rank sorts the names; the frames are indexes into them from then on.
func (f *frames) rank() (names []string) {
	names, rank := rankNames(f.texts)
	for i, n := range f.list {
		f.list[i] = rank[n]
	}
	return names
}

func (f *frames) of(location uint32) []uint32 {
	s := f.spans[location]
	return f.list[s.start:s.end]
}
