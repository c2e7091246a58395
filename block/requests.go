package block

import (
	"context"
	"fmt"

	"github.com/kilndb/kiln/block/samples"
	"github.com/kilndb/kiln/profile"
)

// Requests chooses rows by the request that they were taken in: those of one of the spans or, if there are none, of one
// of the traces.
type Requests struct {
	Spans  map[profile.SpanID]bool
	Traces map[profile.TraceID]bool
}

// Column returns the column that says what is chosen.
func (q *Requests) Column() samples.Extra {
	if len(q.Spans) > 0 {
		return samples.Spans
	}
	return samples.Traces
}

func (q *Requests) chooses(id []byte) bool {
	if len(q.Spans) > 0 {
		return q.Spans[profile.SpanID(id)]
	}
	return q.Traces[profile.TraceID(id)]
}

// FindRequests returns the profiles, of those that are selected or of all if selected is nil, that have rows that are
// chosen by their request. It reads their ids and nothing else.
func (r *Rows) FindRequests(ctx context.Context, p *Profiles, q *Requests, selected func(i int) bool) (found []int, err error) {
	if !r.Has(q.Column()) {
		return nil, nil
	}
	s, err := r.samples(ctx, p, 0, nil)
	if err != nil {
		return nil, err
	}
	defer s.wrap(&err)
	c := chooser{requests: q}
	for i := range p.Len() {
		if p.extraLengths(i)[q.Column()] == 0 || selected != nil && !selected(i) {
			continue
		}
		any, err := c.read(s, i)
		if err != nil {
			return nil, err
		}
		if any {
			found = append(found, i)
		}
	}
	return found, nil
}

// SumRequests is Sum of the rows of some profiles, ascending, that are chosen by their request.
func (s *Samples) SumRequests(column int, q *Requests, profiles []int, sums []int64) (err error) {
	defer s.wrap(&err)
	if types := len(s.rows.Kind.SampleTypes); column < 0 || column >= types || len(sums) < s.nodes {
		return fmt.Errorf("sample type %d of %d, %d sums for %d stack nodes", column, types, len(sums), s.nodes)
	}
	c := chooser{requests: q}
	for _, i := range profiles {
		any, err := c.read(s, i)
		if err != nil {
			return err
		}
		if !any {
			continue
		}
		if err := s.sumChosen(&c, i, column, sums); err != nil {
			return err
		}
	}
	return nil
}

// sumChosen adds the chosen rows of profile i to the sums.
func (s *Samples) sumChosen(c *chooser, i, column int, sums []int64) error {
	stacks, err := s.stackNodes(i)
	if err != nil {
		return err
	}
	c.rows = resize(c.rows, len(stacks))
	if err := c.ids.Rows(c.rows); err != nil {
		return err
	}
	run, factor, err := s.valueRun(i, column)
	if err != nil {
		return err
	}
	c.values = resize(c.values, len(stacks))
	if err := samples.Values(c.values, run); err != nil {
		return err
	}
	for j, k := range c.rows {
		if c.ofID[k] {
			sums[stacks[j]] += c.values[j] * factor
		}
	}
	return nil
}

// chooser reads which rows of a profile are chosen.
type chooser struct {
	requests *Requests
	ids      samples.IDs
	ofID     []bool   // whether the id of that number is chosen; 0 is no id
	rows     []uint32 // the number of each row's id
	values   []int64
}

// read tells whether any id of profile i is chosen.
func (c *chooser) read(s *Samples, i int) (any bool, err error) {
	run, err := s.extraRun(i, c.requests.Column())
	if err != nil {
		return false, err
	}
	if err := c.ids.Read(run, c.requests.Column()); err != nil {
		return false, err
	}
	c.ofID = append(c.ofID[:0], false)
	for k := range c.ids.Len() {
		chosen := c.requests.chooses(c.ids.At(k))
		c.ofID = append(c.ofID, chosen)
		any = any || chosen
	}
	return any, nil
}
