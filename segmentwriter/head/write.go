package head

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/profile"
)

// cutter is the scratch memory of Write.
type cutter struct {
	tree   profile.StackTree
	nodes  []uint32 // of each stack
	sorted []*rows
	order  []uint32
	keys   []uint64
	stacks []uint32
	values [][]int64
	extras extras
}

func (c *cutter) bytes() int {
	return 4*(cap(c.tree.Parents)+cap(c.tree.Locations)+cap(c.nodes)+cap(c.order)) + 8*(cap(c.keys)+cap(c.sorted)) + c.extras.bytes()
}

// Write writes everything as one group of w. The head stays as it is. After an error w is of no use: the group is
// open, and may hold a part of the head.
func (h *Head) Write(tenant string, w *block.Writer) error {
	c := &h.cut
	g := w.Group(tenant, false)
	g.Symbols(&h.table.Symbols)
	g.Series(h.series)
	c.nodes = h.stacks.Tree(&c.tree, c.nodes)
	trees := g.Trees(&c.tree, nil)

	c.sorted = c.sorted[:0]
	for _, r := range h.rows {
		if len(r.rows) > 0 { // none if its only profiles were refused
			c.sorted = append(c.sorted, r)
		}
	}
	slices.SortFunc(c.sorted, func(a, b *rows) int {
		return cmp.Or(strings.Compare(a.service, b.service), a.kind.Compare(b.kind))
	})
	for _, r := range c.sorted {
		if err := c.write(r, g.Rows(r.service, r.kind, trees)); err != nil {
			return fmt.Errorf("write %s of %s: %w", r.kind.Name, r.service, err)
		}
	}
	return g.Close()
}

// write writes rows in order of time, series and id. Of copies, which a client makes that sends again what it did
// not see answered, one is enough.
func (c *cutter) write(r *rows, w *block.RowsWriter) error {
	c.order = c.order[:0]
	for i := range r.rows {
		c.order = append(c.order, uint32(i))
	}
	slices.SortStableFunc(c.order, func(a, b uint32) int { return compare(&r.rows[a], &r.rows[b]) })
	var last *row
	for _, i := range c.order {
		row := &r.rows[i]
		if last == nil || compare(last, row) != 0 {
			var stacks []uint32
			var values [][]int64
			if row.extras.any() {
				stacks, values = c.samplesApart(r, row)
			} else {
				stacks, values = c.samples(r, row)
			}
			p := block.Profile{Time: row.time, Series: row.series, ID: row.id, Duration: row.duration, Period: row.period}
			if err := w.AppendExtras(p, stacks, values, &c.extras.out); err != nil {
				return err
			}
		}
		last = row
	}
	return nil
}

func compare(a, b *row) int {
	return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.series, b.series), bytes.Compare(a.id[:], b.id[:]))
}

// begin empties the columns that samples returns.
func (c *cutter) begin(width int) {
	for len(c.values) < width {
		c.values = append(c.values, nil)
	}
	c.stacks = c.stacks[:0]
	for column := range width {
		c.values[column] = c.values[column][:0]
	}
}

// samples returns the stack nodes of a row, ascending, and the values of each type in that order.
func (c *cutter) samples(r *rows, row *row) ([]uint32, [][]int64) {
	c.extras.out.Reset()
	c.keys = c.keys[:0]
	for i, stack := range r.stacks[row.first : row.first+row.count] {
		c.keys = append(c.keys, uint64(c.nodes[stack])<<32|uint64(i))
	}
	slices.Sort(c.keys)

	width := len(r.kind.SampleTypes)
	c.begin(width)
	values := r.values[int(row.first)*width:]
	for _, key := range c.keys {
		c.stacks = append(c.stacks, uint32(key>>32))
		for column := range width {
			c.values[column] = append(c.values[column], values[int(uint32(key))*width+column])
		}
	}
	return c.stacks, c.values[:width]
}
