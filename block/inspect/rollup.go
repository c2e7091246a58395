package inspect

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/block/rollup"
	"github.com/kilndb/kiln/block/samples"
)

// rollupShare is what part of the bytes of its rows a rollup takes at most.
const rollupShare = 4

// sums is a ROLLUP section. What rows say is taken out of it, and nothing must be left.
type sums struct {
	*rollup.Section
	line *storagev1.Rollup
	// place is the index of the section.
	place int
	// first[i] is where the rows of run i begin in nodes and values; one more entry than runs.
	first  []int
	nodes  []uint32
	values [][]int64
	// seen are the runs that some profile belongs to; err is the first that is wrong with what they say.
	seen []bool
	err  error
}

// rollupLines checks the order of the rollups of rows: coarsest first, and of equal buckets that of all series.
func (v *verifier) rollupLines() {
	length := func(m *storagev1.Rollup) int64 {
		if m.GetBucket() == 0 {
			return math.MaxInt64
		}
		return m.GetBucket()
	}
	for _, d := range v.o.meta.GetDatasets() {
		for _, r := range d.GetRows() {
			all := r.GetRollups()
			for i := 1; i < len(all); i++ {
				a, b := all[i-1], all[i]
				if cmp.Or(cmp.Compare(length(b), length(a)), cmp.Compare(number(a.GetPerSeries()), number(b.GetPerSeries()))) >= 0 {
					v.fail("footer", "service %q: rollup %d is not after the one before it", v.o.meta.Strings[d.GetService()], i)
				}
			}
		}
	}
}

// rollup decodes section j of a group, a ROLLUP, and checks it alone.
func (v *verifier) rollup(c *contents, j int, b []byte) error {
	users := v.o.uses[sectionRef{c.index, j}]
	if len(users) != 1 {
		return fmt.Errorf("%w: sums of %d rows, want one", block.ErrCorrupt, len(users))
	}
	rows := v.o.rows(users[0])
	section, err := rollup.Parse(b, len(v.o.kind(rows.GetKind()).SampleTypes))
	if err != nil {
		return err
	}
	if err := inflateAll(section.Samples); err != nil {
		return err
	}
	tree := c.trees[int(rows.GetTreesSection())]
	if tree == nil || c.series == nil {
		return nil // damaged, which has been said
	}
	i := slices.IndexFunc(rows.GetRollups(), func(m *storagev1.Rollup) bool { return int(m.GetSection()) == j })
	s := &sums{Section: section, line: rows.GetRollups()[i], place: j, seen: make([]bool, len(section.Rows))}
	for i, id := range s.Series {
		if s.line.GetPerSeries() != (id != rollup.All) || id != rollup.All && int64(id) >= int64(len(c.series)) {
			return fmt.Errorf("%w: run %d is of series %d of %d, each alone: %t", block.ErrCorrupt, i, id, len(c.series), s.line.GetPerSeries())
		}
		if s.line.GetBucket() == 0 && s.Buckets[i] != 0 {
			return fmt.Errorf("%w: run %d is of bucket %d where there is one", block.ErrCorrupt, i, s.Buckets[i])
		}
	}
	if err := s.decode(len(tree.stack.Parents)); err != nil {
		return err
	}
	c.rollups[j] = s
	return nil
}

// decode reads all runs of a stack tree with that many nodes, and checks that there is nothing besides.
func (s *sums) decode(nodes int) error {
	s.first, s.values = []int{0}, make([][]int64, s.Samples.Columns()-1)
	page, bytes := -1, make([][]byte, s.Samples.Columns())
	for i, n := range s.Rows {
		s.first = append(s.first, s.first[i]+int(n))
		if n == 0 {
			continue
		}
		p := s.Samples.Find(s.Offsets[0][i])
		if p == s.Samples.Pages() {
			return fmt.Errorf("%w: run %d is after the last page", block.ErrCorrupt, i)
		}
		for c := range bytes {
			if p != page {
				b, err := s.Samples.Page(p, c, nil)
				if err != nil {
					return err
				}
				bytes[c] = b
			}
			from, to := s.Samples.Bounds(p, c)
			begin, end := s.Offsets[c][i], s.Offsets[c][i+1]
			if begin < from || end > to {
				return fmt.Errorf("%w: run %d is not on one page", block.ErrCorrupt, i)
			}
			if err := s.decodeRun(c, bytes[c][begin-from:end-from], int(n), nodes); err != nil {
				return err
			}
		}
		page = p
	}
	if rows := s.Samples.Rows(); rows != uint64(len(s.nodes)) {
		return fmt.Errorf("%w: pages of %d rows, the index has %d", block.ErrCorrupt, rows, len(s.nodes))
	}
	return s.checkZeros()
}

func (s *sums) decodeRun(c int, run []byte, n, nodes int) error {
	if c == 0 {
		s.nodes = append(s.nodes, make([]uint32, n)...)
		return samples.Stacks(s.nodes[len(s.nodes)-n:], run, nodes)
	}
	s.values[c-1] = append(s.values[c-1], make([]int64, n)...)
	return samples.Values(s.values[c-1][len(s.nodes)-n:], run)
}

// checkZeros checks that no row has nothing but zeros.
func (s *sums) checkZeros() error {
	for i, n := range s.nodes {
		if !slices.ContainsFunc(s.values, func(column []int64) bool { return column[i] != 0 }) {
			return fmt.Errorf("%w: the sums of stack node %d are all zero", block.ErrCorrupt, n)
		}
	}
	return nil
}

// rollupsOf returns the rollups of rows that could be decoded.
func (c *contents) rollupsOf(m *storagev1.Rows) (all []*sums) {
	for _, line := range m.GetRollups() {
		if s := c.rollups[int(line.GetSection())]; s != nil {
			all = append(all, s)
		}
	}
	return all
}

// takeOut subtracts what profile i says.
func (s *sums) takeOut(p *block.Profiles, i int, stacks []uint32, values [][]int64) {
	if s.err != nil {
		return
	}
	run := s.find(p, i)
	if run < 0 {
		s.err = fmt.Errorf("%w: no sums of series %d and time %d, which profile %d has", block.ErrCorrupt, p.Series[i], p.Times[i], i)
		return
	}
	s.seen[run] = true
	at, end := s.first[run], s.first[run+1]
	for j, n := range stacks {
		k, ok := slices.BinarySearch(s.nodes[at:end], n)
		at += k
		for c := range values {
			switch {
			case ok:
				s.values[c][at] -= values[c][j]
			case values[c][j] != 0:
				s.err = fmt.Errorf("%w: no sum of stack node %d, which profile %d has", block.ErrCorrupt, n, i)
				return
			}
		}
	}
}

// find returns the run that a profile belongs to, -1 if there is none.
func (s *sums) find(p *block.Profiles, i int) int {
	series, bucket := uint32(rollup.All), int64(0)
	if s.line.GetPerSeries() {
		series = p.Series[i]
	}
	if length := s.line.GetBucket(); length > 0 {
		bucket = p.Times[i] / length
		if p.Times[i]%length < 0 {
			bucket--
		}
	}
	run, ok := sort.Find(len(s.Series), func(i int) int {
		return cmp.Or(cmp.Compare(series, s.Series[i]), cmp.Compare(bucket, s.Buckets[i]))
	})
	if !ok {
		return -1
	}
	return run
}

// finish checks that nothing is left once all profiles have been taken out.
func (s *sums) finish() error {
	if s.err != nil {
		return s.err
	}
	for i := range s.seen {
		if !s.seen[i] {
			return fmt.Errorf("%w: sums of series %d and bucket %d, in which there is no profile", block.ErrCorrupt, s.Series[i], s.Buckets[i])
		}
	}
	for c, column := range s.values {
		for i, left := range column {
			if left != 0 {
				return fmt.Errorf("%w: the sum of stack node %d and sample type %d is %d more than the rows have", block.ErrCorrupt, s.nodes[i], c, left)
			}
		}
	}
	return nil
}
