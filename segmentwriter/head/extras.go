package head

import (
	"cmp"
	"slices"

	"github.com/kilndb/kiln/block"
)

// extras are the extra columns of a row while it is written.
type extras struct {
	// in are those of its samples as they were appended; times are the numbers of their ends.
	in    block.Extras
	times uint32
	out   block.Extras
	order []uint32
}

func (x *extras) bytes() int {
	return 4*cap(x.order) + x.out.Bytes()
}

// begin takes the columns of a row.
func (x *extras) begin(r *rows, row *row) {
	x.in, x.times = block.Extras{}, row.extras.times
	if at := row.extras.spans; at > 0 {
		x.in.Spans = r.extras.Spans[at-1 : at-1+row.count]
	}
	if at := row.extras.traces; at > 0 {
		x.in.Traces = r.extras.Traces[at-1 : at-1+row.count]
	}
	x.out.Reset()
}

// add writes the row that some equal samples make.
func (x *extras) add(r *rows, same []uint32) {
	if len(x.in.Spans) > 0 {
		x.out.Spans = append(x.out.Spans, x.in.Spans[same[0]])
	}
	if len(x.in.Traces) > 0 {
		x.out.Traces = append(x.out.Traces, x.in.Traces[same[0]])
	}
	if x.times == 0 {
		return
	}
	start := len(x.out.Times)
	for _, i := range same {
		x.out.Times = append(x.out.Times, r.extras.TimesOf(int(x.times-1+i))...)
	}
	slices.Sort(x.out.Times[start:])
	x.out.TimeEnds = append(x.out.TimeEnds, uint32(len(x.out.Times)))
}

// samplesApart is samples for a row with extra columns, which it leaves in c.extras.out. Samples that are equal in stack
// node, span and trace become one: label sets that lead to one series have such.
func (c *cutter) samplesApart(r *rows, row *row) ([]uint32, [][]int64) {
	x := &c.extras
	x.begin(r, row)
	x.order = x.order[:0]
	for i := range row.count {
		x.order = append(x.order, i)
	}
	node := func(i uint32) uint32 { return c.nodes[r.stacks[row.first+i]] }
	compare := func(a, b uint32) int { return cmp.Or(cmp.Compare(node(a), node(b)), x.in.Compare(int(a), int(b))) }
	slices.SortFunc(x.order, compare)

	width := len(r.kind.SampleTypes)
	c.begin(width)
	for rest := x.order; len(rest) > 0; {
		n := 1
		for n < len(rest) && compare(rest[0], rest[n]) == 0 {
			n++
		}
		c.stacks = append(c.stacks, node(rest[0]))
		for column := range width {
			sum := int64(0) // fits: all of a kind's values do
			for _, i := range rest[:n] {
				sum += r.values[int(row.first+i)*width+column]
			}
			c.values[column] = append(c.values[column], sum)
		}
		x.add(r, rest[:n])
		rest = rest[n:]
	}
	return c.stacks, c.values[:width]
}
