package block

import (
	"cmp"
	"slices"

	"github.com/kilndb/kiln/profile"
)

// callTrees makes call trees. It is reused.
//
// A call node is one or more stack nodes that read the same by name; its children are theirs, in the order of names. Those of
// one stack node are in that order already, so that nothing is hashed and little is sorted.
type callTrees struct {
	// ends[n] is the first node after the subtree of stack node n.
	ends []uint32
	// items are the children of the call nodes on the path, level by level.
	items          []callItem
	levels         []callLevel
	parents, names []uint32
}

// callItem is a line of a stack node: its name, and how many lines inlined into it follow.
type callItem struct{ name, node, inlined uint32 }

// callLevel are the children of a call node that have not been visited, as a range of items ordered by name.
type callLevel struct {
	call     uint32
	from, to int
}

// of returns the call tree of a stack tree. Symbols and tree are in the total order; bare are the names of locations without
// lines.
func (c *callTrees) of(sym *profile.Symbols, stack *profile.StackTree, bare []uint32) profile.CallTree {
	c.measure(stack)
	ofStack := make([]uint32, len(stack.Parents))
	c.parents, c.names, c.items = append(c.parents[:0], 0), append(c.names[:0], 0), c.items[:0]
	c.addChildren(sym, stack, bare, 0)
	c.levels = append(c.levels[:0], callLevel{0, 0, len(c.items)})
	for len(c.levels) > 0 {
		level := &c.levels[len(c.levels)-1]
		c.items = c.items[:level.to] // without those of levels that are done
		if level.from == level.to {
			c.levels = c.levels[:len(c.levels)-1]
			continue
		}
		call, name := uint32(len(c.parents)), c.items[level.from].name
		c.parents, c.names = append(c.parents, level.call), append(c.names, name)
		for ; level.from < level.to && c.items[level.from].name == name; level.from++ {
			item := c.items[level.from]
			if item.inlined > 0 {
				c.addLine(sym, stack, item.node, item.inlined)
				continue
			}
			ofStack[item.node] = call
			c.addChildren(sym, stack, bare, item.node)
		}
		children := c.items[level.to:]
		byName := func(a, b callItem) int { return cmp.Compare(a.name, b.name) }
		if !slices.IsSortedFunc(children, byName) {
			slices.SortFunc(children, byName)
		}
		c.levels = append(c.levels, callLevel{call, level.to, len(c.items)})
	}
	return profile.CallTree{Parents: slices.Clone(c.parents), Names: slices.Clone(c.names), OfStack: ofStack}
}

// measure finds where subtrees end.
func (c *callTrees) measure(stack *profile.StackTree) {
	c.ends = resize(c.ends, len(stack.Parents))
	for i := range c.ends {
		c.ends[i] = uint32(i + 1)
	}
	for i := len(c.ends) - 1; i > 0; i-- {
		p := stack.Parents[i]
		c.ends[p] = max(c.ends[p], c.ends[i])
	}
}

// addChildren adds the children of a stack node, each with the line that is nearest to the root.
func (c *callTrees) addChildren(sym *profile.Symbols, stack *profile.StackTree, bare []uint32, node uint32) {
	for child := node + 1; child < c.ends[node]; child = c.ends[child] {
		location := stack.Locations[child]
		if lines := sym.Locations[location].Lines; lines > 0 {
			c.addLine(sym, stack, child, lines)
		} else {
			c.items = append(c.items, callItem{name: bare[location], node: child})
		}
	}
}

// addLine adds the line of a stack node that is nearest to the root of as many as are left.
func (c *callTrees) addLine(sym *profile.Symbols, stack *profile.StackTree, node, left uint32) {
	line := &sym.Lines[sym.Locations[stack.Locations[node]].FirstLine+left-1]
	c.items = append(c.items, callItem{sym.Functions[line.Function].Name, node, left - 1})
}

// bytes is the memory that is kept.
func (c *callTrees) bytes() int {
	return 4*(cap(c.ends)+cap(c.parents)+cap(c.names)) + 12*cap(c.items)
}
