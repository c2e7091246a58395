package block

import (
	"context"
	"fmt"
	"math"
	"slices"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/samples"
)

// Samples are the rows of samples of one kind of one service. Pages are inflated when they are needed, one at a
// time. A Samples is not safe for concurrent use; make one for each goroutine.
type Samples struct {
	rows     *Rows
	kind     storagev1.SectionType // SAMPLES or ROLLUP
	profiles *Profiles
	// chunks, if it is not nil, has the profiles, of which those at hand are only some.
	chunks  *inputProfiles
	section *samples.Directory
	source  pageSource
	nodes   int
	columns []int // which were asked for
	page    *page
	// What Profile returns.
	stacks []uint32
	values [][]int64
	extra  *extraReader // once it is needed
}

// page is one inflated page of a section. A merge shares it between the services that have rows on it.
type page struct {
	number int // -1: none
	source pageSource
	stored []byte // all columns as they are stored, as long as some are not inflated
	left   int    // how many are not
	// Per column of the section: whether it is inflated, its bytes and the memory for them.
	loaded []bool
	bytes  [][]byte
	memory [][]byte
	// ledger, if there is one, counts that memory: held.
	ledger *ledger
	held   int64
}

func newPage(columns int) *page {
	return &page{number: -1, loaded: make([]bool, columns), bytes: make([][]byte, columns), memory: make([][]byte, columns)}
}

// reset empties the page for a section of that many columns and keeps its memory.
func (p *page) reset(columns int) {
	p.number, p.source, p.stored = -1, nil, nil
	for len(p.memory) < columns {
		p.memory = append(p.memory, nil)
	}
	p.loaded, p.bytes = make([]bool, columns), make([][]byte, columns)
}

// Samples gives the samples of profiles, which Profiles has returned. Columns are the sample types that will be
// asked for, all of them if none is named; Profile returns these in that order.
func (r *Rows) Samples(ctx context.Context, p *Profiles, columns ...int) (*Samples, error) {
	types := len(r.Kind.SampleTypes)
	if len(columns) == 0 {
		for i := range types {
			columns = append(columns, i)
		}
	}
	for _, c := range columns {
		if c < 0 || c >= types {
			return nil, fmt.Errorf("object %s: sample type %d of %d", r.dataset.group.r.meta.GetId(), c, types)
		}
	}
	t, err := r.dataset.group.loadTrees(ctx, r.meta.GetTreesSection())
	if err != nil {
		return nil, err
	}
	return r.samples(ctx, p, len(t.stack.Parents), columns)
}

// samples is Samples with the number of stack nodes.
func (r *Rows) samples(ctx context.Context, p *Profiles, nodes int, columns []int) (*Samples, error) {
	section, err := r.dataset.group.loadSamples(ctx, r.meta.GetSamplesSection(), 1+len(r.Kind.SampleTypes), ExtrasOf(r.meta)...)
	if err != nil {
		return nil, err
	}
	return &Samples{
		rows: r, kind: storagev1.SectionType_SECTION_TYPE_SAMPLES, profiles: p, section: section.Directory, source: wholeSection{section},
		nodes: nodes, columns: slices.Clone(columns), page: newPage(section.Columns()), values: make([][]int64, len(columns)),
	}, nil
}

// seek makes the chunk that has profile i the one at hand, and returns its index there.
func (s *Samples) seek(i int) (int, error) {
	if s.chunks == nil {
		return i, nil
	}
	j, err := s.chunks.seek(i)
	s.profiles = s.chunks.chunk
	return j, err
}

// rowCount returns how many rows profile i has.
func (s *Samples) rowCount(i int) (int, error) {
	i, err := s.seek(i)
	if err != nil {
		return 0, err
	}
	return int(s.profiles.Samples[i]), nil
}

// Sum adds the values of one sample type of the selected profiles, of all if selected is nil, to the sums of
// their stack nodes. Sums must have an entry for every node of the stack tree.
func (s *Samples) Sum(column int, selected func(i int) bool, sums []int64) (err error) {
	defer s.wrap(&err)
	if types := len(s.rows.Kind.SampleTypes); column < 0 || column >= types || len(sums) < s.nodes {
		return fmt.Errorf("sample type %d of %d, %d sums for %d stack nodes", column, types, len(sums), s.nodes)
	}
	for i, n := range s.profiles.Samples {
		if n == 0 || selected != nil && !selected(i) {
			continue
		}
		stacks, err := s.run(i, 0)
		if err != nil {
			return err
		}
		values, factor, err := s.valueRun(i, column)
		if err != nil {
			return err
		}
		if err := samples.Sum(stacks, values, n, factor, sums[:s.nodes]); err != nil {
			return err
		}
	}
	return nil
}

// Profile returns the rows of profile i: its stack nodes, ascending, and a slice of values for each column
// asked for. They live until the next call. A node is there once for each span and trace that Extras tells.
func (s *Samples) Profile(i int) (stacks []uint32, values [][]int64, err error) {
	defer s.wrap(&err)
	if stacks, err = s.stackNodes(i); err != nil {
		return nil, nil, err
	}
	values, err = s.values64(i)
	return stacks, values, err
}

// values64 returns the values of profile i.
func (s *Samples) values64(i int) ([][]int64, error) {
	n, err := s.rowCount(i)
	if err != nil {
		return nil, err
	}
	for j, c := range s.columns {
		run, factor, err := s.valueRun(i, c)
		if err != nil {
			return nil, err
		}
		if n > len(run) {
			return nil, fmt.Errorf("%w: %d rows in %d bytes", ErrCorrupt, n, len(run))
		}
		s.values[j] = resize(s.values[j], n)
		if err := samples.Values(s.values[j], run); err != nil {
			return nil, err
		}
		if err := multiply(s.values[j], factor); err != nil {
			return nil, err
		}
	}
	return s.values, nil
}

// multiply multiplies values in place.
func multiply(values []int64, factor int64) error {
	if factor == 1 {
		return nil
	}
	for i, v := range values {
		if v > math.MaxInt64/factor {
			return fmt.Errorf("%w: %d times %d in a column", ErrCorrupt, v, factor)
		}
		values[i] = v * factor
	}
	return nil
}

// stackNodes returns the stack nodes of profile i.
func (s *Samples) stackNodes(i int) ([]uint32, error) {
	run, err := s.run(i, 0)
	if err != nil {
		return nil, err
	}
	n, err := s.rowCount(i)
	if err != nil {
		return nil, err
	}
	if n > len(run) {
		return nil, fmt.Errorf("%w: %d rows in %d bytes", ErrCorrupt, n, len(run))
	}
	s.stacks = resize(s.stacks, n)
	at, err := s.seek(i)
	if err != nil {
		return nil, err
	}
	if s.profiles.tagged(at) {
		return s.stacks, samples.RepeatedStacks(s.stacks, run, s.nodes)
	}
	return s.stacks, samples.Stacks(s.stacks, run, s.nodes)
}

// run returns the bytes of profile i in a column of the section.
func (s *Samples) run(i, column int) ([]byte, error) {
	i, err := s.seek(i)
	if err != nil {
		return nil, err
	}
	return s.runAt(i, column)
}

// runAt is run for a profile of the chunk at hand.
func (s *Samples) runAt(i, column int) ([]byte, error) {
	stack := s.profiles.offsets[0]
	if stack[i] == stack[i+1] {
		return nil, nil // no rows
	}
	if err := s.turn(stack[i]); err != nil {
		return nil, err
	}
	if err := s.page.inflate(s.section, column); err != nil {
		return nil, err
	}
	start, end := s.section.Bounds(s.page.number, column)
	from, to := s.profiles.offsets[column][i], s.profiles.offsets[column][i+1]
	if from < start || to > end || from > to {
		return nil, fmt.Errorf("%w: a run from byte %d to %d on a page from %d to %d", ErrCorrupt, from, to, start, end)
	}
	return s.page.bytes[column][from-start : to-start], nil
}

// valueRun returns a run whose values, times the factor, are those of profile i in a column: of a column that is the
// multiple of another it is the run of that other, so that the column need not be made.
func (s *Samples) valueRun(i, column int) (run []byte, factor int64, err error) {
	if i, err = s.seek(i); err != nil {
		return nil, 0, err
	}
	from, factor := 1+column, int64(1)
	stack := s.profiles.offsets[0]
	if stack[i] == stack[i+1] {
		return nil, 1, nil // no rows
	}
	if err := s.turn(stack[i]); err != nil {
		return nil, 0, err
	}
	if base, times, ok := s.section.Multiple(s.page.number, from); ok {
		if times > math.MaxInt64 {
			return nil, 0, fmt.Errorf("%w: a column that is a multiple by %d", ErrCorrupt, times)
		}
		from, factor = base, int64(times)
	}
	run, err = s.runAt(i, from)
	return run, factor, err
}

// turn goes to the page that holds an offset of the stack column.
func (s *Samples) turn(offset uint64) error {
	if s.page.number >= 0 {
		if from, to := s.section.Bounds(s.page.number, 0); offset >= from && offset < to {
			return nil
		}
	}
	p := s.section.Find(offset)
	if p == s.section.Pages() {
		return fmt.Errorf("%w: a run at byte %d, after the last page", ErrCorrupt, offset)
	}
	s.page.number = -1
	clear(s.page.loaded)
	stored, err := s.source.page(p)
	if err != nil {
		return err
	}
	s.page.number, s.page.source, s.page.stored, s.page.left = p, s.source, stored, s.section.Columns()
	return nil
}

// inflate makes the bytes of a column available.
func (p *page) inflate(section *samples.Directory, column int) error {
	if p.loaded[column] {
		return nil
	}
	if p.ledger != nil && !section.Plain(p.number, column) {
		from, to := section.Bounds(p.number, column)
		if err := p.account(max(int64(to-from)-int64(cap(p.memory[column])), 0)); err != nil {
			return err
		}
	}
	base, _, multiple := section.Multiple(p.number, column)
	if multiple {
		if err := p.inflate(section, base); err != nil {
			return err
		}
	}
	var b []byte
	var err error
	if multiple {
		b, err = section.Multiply(p.number, column, p.bytes[base], p.memory[column])
	} else {
		b, err = section.Inflate(p.stored, p.number, column, p.memory[column])
	}
	if err != nil {
		return err
	}
	if multiple || !section.Plain(p.number, column) {
		p.memory[column] = b // keep what may have been allocated
	}
	p.bytes[column], p.loaded[column] = b, true
	if !section.Plain(p.number, column) { // as it is stored it lies in what is stored
		p.left--
	}
	if p.left == 0 {
		p.stored = nil
		p.source.done(p.number)
	}
	return nil
}

// account tells the ledger what the page holds and is about to.
func (p *page) account(more int64) error {
	for _, m := range p.memory {
		more += int64(cap(m))
	}
	return p.ledger.set(&p.held, more)
}

func (s *Samples) wrap(err *error) {
	if *err != nil {
		*err = s.rows.wrap(s.kind, *err)
	}
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
