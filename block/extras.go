package block

import (
	"fmt"
	"slices"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/samples"
)

// Extras are what is known of a profile's rows besides stacks and values: the request that each was taken in, and when
// its samples were seen. What is not known is empty.
type Extras = samples.Extras

// Of the extra columns of a profile: its runs, the lengths of these, and the lengths of those of many profiles.
type (
	extraRuns    = [samples.NumExtras][]byte
	extraLengths = [samples.NumExtras]uint32
	extraTotals  [samples.NumExtras]uint64
)

// checkExtras refuses extra columns that are not as RowsWriter.AppendExtras wants them.
func checkExtras(stacks []uint32, x *Extras) error {
	if problem := x.Check(len(stacks)); problem != "" {
		return fmt.Errorf("%w: %s", ErrProfile, problem)
	}
	if i := x.Unordered(stacks); i > 0 {
		return fmt.Errorf("%w: row %d is not after the one before it by stack node %d, span and trace", ErrProfile, i, stacks[i])
	}
	return nil
}

// add counts the lengths of a profile's runs.
func (t *extraTotals) add(n *extraLengths) {
	for e := range t {
		t[e] += uint64(n[e])
	}
}

// join adds what was counted of others.
func (t *extraTotals) join(o *extraTotals) {
	for e := range t {
		t[e] += o[e]
	}
}

// sub takes them back.
func (t *extraTotals) sub(n *extraLengths) {
	for e := range t {
		t[e] -= uint64(n[e])
	}
}

// taggedLengths and taggedRuns tell whether rows have spans or traces, so that a stack node may have several.
func taggedLengths(n *extraLengths) bool { return n[samples.Spans]|n[samples.Traces] != 0 }
func taggedRuns(runs *extraRuns) bool    { return len(runs[samples.Spans])+len(runs[samples.Traces]) > 0 }

// rowColumn is what the footer calls an extra column.
func rowColumn(e samples.Extra) storagev1.RowColumn { return storagev1.RowColumn(e) + 1 }

// ExtrasOf returns the extra columns that a footer names, which Open has checked, in their order.
func ExtrasOf(m *storagev1.Rows) []samples.Extra {
	if len(m.GetColumns()) == 0 {
		return nil
	}
	all := make([]samples.Extra, len(m.GetColumns()))
	for i, c := range m.GetColumns() {
		all[i] = samples.Extra(c - rowColumn(0))
	}
	return all
}

// columns checks the extra columns that a footer names.
func (c *checker) columns(i int, r *storagev1.Rows) {
	last := storagev1.RowColumn_ROW_COLUMN_UNSPECIFIED
	for _, column := range r.GetColumns() {
		if column <= last || column > rowColumn(samples.NumExtras-1) {
			c.fail("dataset %d has column %d after column %d", i, column, last)
		}
		last = column
		c.extras = true
	}
}

// sharedColumns checks that all rows of a section say the same of its extra columns.
func (c *checker) sharedColumns() {
	of := map[*storagev1.Section][]storagev1.RowColumn{}
	for i, d := range c.m.GetDatasets() {
		for _, r := range d.GetRows() {
			section := c.m.Groups[d.GetGroup()].Sections[r.GetSamplesSection()]
			if columns, ok := of[section]; ok && !slices.Equal(columns, r.GetColumns()) {
				c.fail("dataset %d has columns %v in samples that have %v", i, r.GetColumns(), columns)
			}
			of[section] = r.GetColumns()
		}
	}
}

// Has tells whether there is an extra column, so that something in there may be known of some row. It reads nothing.
func (r *Rows) Has(e samples.Extra) bool { return slices.Contains(r.meta.GetColumns(), rowColumn(e)) }

// extraLengths are how long the runs of profile i are in the extra columns.
func (p *Profiles) extraLengths(i int) (n extraLengths) {
	for e, column := range p.extras {
		if column > 0 {
			n[e] = uint32(p.offsets[column][i+1] - p.offsets[column][i])
		}
	}
	return n
}

// tagged tells whether rows of profile i have spans or traces.
func (p *Profiles) tagged(i int) bool {
	n := p.extraLengths(i)
	return taggedLengths(&n)
}

// extraReader is the memory in which the extra columns of profiles are read. All inputs of a merge share one.
type extraReader struct {
	extras  Extras
	sorted  Extras // in another order
	decoder samples.Decoder
	// ledger, if there is one, counts that memory: held.
	ledger *ledger
	held   int64
}

func (r *extraReader) bytes() int { return r.extras.Bytes() + r.sorted.Bytes() + r.decoder.Bytes() }

// account tells the ledger what the reader holds.
func (r *extraReader) account() error {
	if r.ledger == nil {
		return nil
	}
	return r.ledger.set(&r.held, int64(r.bytes()))
}

// extraRun returns the run of profile i of those at hand in an extra column; it is empty if there is none.
func (s *Samples) extraRun(i int, e samples.Extra) ([]byte, error) {
	if s.profiles.extraLengths(i)[e] == 0 {
		return nil, nil
	}
	return s.runAt(i, s.profiles.extras[e])
}

// extraRuns returns the runs of profile i, which have been decoded to see that they are sound.
func (s *Samples) extraRuns(i int) (runs extraRuns, err error) {
	at, err := s.seek(i)
	if err != nil || s.profiles.extraLengths(at) == (extraLengths{}) {
		return runs, err
	}
	if _, err := s.readExtras(i); err != nil {
		return runs, err
	}
	for e := range runs {
		if runs[e], err = s.extraRun(at, samples.Extra(e)); err != nil {
			return runs, err
		}
	}
	return runs, nil
}

// Extras returns the extra columns of profile i; its rows are those of Profile. They live until the next call.
func (s *Samples) Extras(i int) (x *Extras, err error) {
	defer s.wrap(&err)
	return s.readExtras(i)
}

func (s *Samples) readExtras(i int) (*Extras, error) {
	if s.extra == nil {
		s.extra = &extraReader{}
	}
	x := &s.extra.extras
	x.Reset()
	i, err := s.seek(i)
	if err != nil {
		return nil, err
	}
	lengths := s.profiles.extraLengths(i)
	if lengths == (extraLengths{}) {
		return x, nil
	}
	for e, n := range lengths {
		if n == 0 {
			continue
		}
		run, err := s.extraRun(i, samples.Extra(e))
		if err != nil {
			return nil, err
		}
		if err := s.extra.decoder.Read(x, samples.Extra(e), run, int(s.profiles.Samples[i]), s.profiles.Times[i]); err != nil {
			return nil, err
		}
	}
	return x, s.extra.account()
}
