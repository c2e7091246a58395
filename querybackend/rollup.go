package querybackend

import (
	"context"

	"github.com/kilndb/kiln/block"
)

// rollupBytes is about what a stored byte of a rollup counts in the budget once it is decoded.
const rollupBytes = 8

// answering returns the rollups of rows that can answer, at least in part: where series are chosen, or some were deleted,
// only those that keep them apart, and one of all rows only where the range holds all rows. Then it is the only one.
func (w *weights) answering(d *block.Dataset, r *block.Rows) (answering []block.Rollup) {
	for _, u := range r.Rollups() {
		switch {
		case w.chooses(r) && !u.PerSeries:
		case u.Bucket > 0:
			answering = append(answering, u)
		case w.question.covers(d.MinTime, d.MaxTime):
			return []block.Rollup{u}
		}
	}
	return answering
}

// coarse adds up rows by rollups, and reads profiles only where no rollup answers: at the edges of the range,
// and not at all where the range holds them all.
func (w *weights) coarse(ctx context.Context, d *block.Dataset, r *block.Rows, column int, rollups []block.Rollup) error {
	choice, err := w.chooser(ctx, d, r)
	if err != nil {
		return err
	}
	var selected func(series uint32) bool
	if choice != nil {
		selected = choice.chooses
	}
	for _, rollup := range rollups {
		if err := w.budget.take(rollup.Bytes * rollupBytes); err != nil {
			return err
		}
	}
	s, err := w.stacks(ctx, d, r)
	if err != nil {
		return err
	}
	// What is added is not more than all there is.
	if err := w.turn(s, counted{total: r.Sums[column]}); err != nil {
		return err
	}
	rest, err := r.SumRollups(ctx, column, block.Span{From: w.question.Start, Until: w.question.End}, selected, w.at.sums)
	if err != nil {
		return err
	}
	w.cost.rollups.Add(1)
	if len(rest) == 0 {
		return nil
	}
	return w.edges(ctx, d, r, column, rest)
}

// edges adds up the profiles of rows in some parts of the range.
func (w *weights) edges(ctx context.Context, d *block.Dataset, r *block.Rows, column int, parts []block.Span) error {
	p, err := w.pick(ctx, d, r)
	if err != nil {
		return err
	}
	counts := func(i int) bool {
		if i < p.first || i >= p.last || !p.has(i) {
			return false
		}
		for _, s := range parts {
			if t := p.Times[i]; t >= s.From && t < s.Until {
				return true
			}
		}
		return false
	}
	rows, samples := 0, 0
	for i := p.first; i < p.last; i++ {
		if counts(i) {
			rows++
			samples += int(p.Samples[i])
		}
	}
	if rows == 0 {
		return nil
	}
	if err := w.spend(rows, samples); err != nil {
		return err
	}
	read, err := r.Samples(ctx, p.Profiles, column)
	if err != nil {
		return err
	}
	return read.Sum(column, counts, w.at.sums)
}
