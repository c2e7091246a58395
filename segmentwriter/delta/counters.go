package delta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// ErrOverflow is returned when the counters of equal stacks add up to more than an int64 holds.
var ErrOverflow = errors.New("sum of counters overflows")

// counters are the cumulative columns of one series of a profile, by stack.
type counters struct {
	key string // of the series
	// stacks are distinct; sums has a value per column for each, and samples is the first sample with that stack.
	stacks  []stack
	sums    []int64
	samples []uint32
}

// columnsOf returns the columns of a profile that count since the program started.
func columnsOf(series labels.Labels, p *profile.Profile) []int {
	if series.Get(labels.Delta) != "true" {
		return nil
	}
	kind := series.Get(labels.Name)
	var columns []int
	for i, t := range p.SampleTypes {
		if kind == "block" || kind == "mutex" || strings.HasPrefix(string(p.String(t.Type)), "alloc_") {
			columns = append(columns, i)
		}
	}
	return columns
}

// read returns the counters of every series of p.
func (h *hasher) read(series labels.Labels, p *profile.Profile, columns []int) ([]counters, error) {
	all, names, sent := make([]counters, len(p.Series)), h.stacks(p), appendKind(nil, series, p)
	for i, s := range p.Series {
		c := &all[i]
		c.key = string(appendLabels(sent[:len(sent):len(sent)], s.Labels))
		numbers := make(map[stack]int, s.Count)
		for _, sample := range p.Order[s.First : s.First+s.Count] {
			name := names[sample]
			n, ok := numbers[name]
			if !ok {
				n = len(c.stacks)
				numbers[name] = n
				c.stacks, c.samples = append(c.stacks, name), append(c.samples, sample)
				c.sums = append(c.sums, make([]int64, len(columns))...)
			}
			row, sums := p.Row(int(sample)), c.row(n, len(columns))
			for j, column := range columns {
				if row[column] > math.MaxInt64-sums[j] {
					return nil, fmt.Errorf("%w: %s of %s", ErrOverflow, p.String(p.SampleTypes[column].Type), series.Get(labels.Name))
				}
				sums[j] += row[column]
			}
		}
	}
	return all, nil
}

// row returns the sums of stack n.
func (c *counters) row(n, width int) []int64 { return c.sums[n*width : (n+1)*width] }

// write puts the sums in the place of the counters of p, each with the first sample of its stack.
func (c *counters) write(p *profile.Profile, s profile.SeriesRows, columns []int) {
	for _, sample := range p.Order[s.First : s.First+s.Count] {
		row := p.Row(int(sample))
		for _, column := range columns {
			row[column] = 0
		}
	}
	for n, sample := range c.samples {
		row := p.Row(int(sample))
		for j, v := range c.row(n, len(columns)) {
			row[columns[j]] = v
		}
	}
}

// appendKind appends what series of one program share: the labels that were sent, and what the columns are.
func appendKind(b []byte, sent labels.Labels, p *profile.Profile) []byte {
	b = appendLabels(b, sent)
	b = appendText(appendText(b, p.String(p.PeriodType.Type)), p.String(p.PeriodType.Unit))
	b = binary.AppendUvarint(b, uint64(len(p.SampleTypes)))
	for _, t := range p.SampleTypes {
		b = appendText(appendText(b, p.String(t.Type)), p.String(t.Unit))
	}
	return b
}

func appendLabels(b []byte, ls labels.Labels) []byte {
	b = binary.AppendUvarint(b, uint64(len(ls)))
	for _, l := range ls {
		b = appendText(appendText(b, l.Name), l.Value)
	}
	return b
}
