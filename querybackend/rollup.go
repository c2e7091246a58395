package querybackend

import (
	"context"
	"slices"

	"github.com/kilndb/kiln/block"
)

// rollupBytes is about what a stored byte of a rollup counts in the budget once it is decoded.
const rollupBytes = 8

// answerable tells whether some rollup of rows can answer: where series are chosen, only one that keeps them apart.
func (w *weights) answerable(r *block.Rows) bool {
	return slices.ContainsFunc(r.Rollups(), func(u block.Rollup) bool { return u.PerSeries || len(w.question.own) == 0 })
}

// coarse adds up rows by their rollups, and reads profiles only where no rollup answers: at the edges of the range,
// and not at all where the range holds them all.
func (w *weights) coarse(ctx context.Context, d *block.Dataset, r *block.Rows, column int) error {
	choice, err := w.chooser(ctx, d)
	if err != nil {
		return err
	}
	var selected func(series uint32) bool
	if choice != nil {
		selected = choice.chooses
	}
	for _, rollup := range r.Rollups() {
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
