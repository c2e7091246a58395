package profile

import (
	"math"
	"slices"
)

// timesMerger notes what samples become while Normalise merges them. It does nothing for a profile without times.
type timesMerger struct {
	on bool
	// to says of each sample that there was which one it is now; dropped if none.
	to    []uint32
	ends  []uint32
	times []int64
}

const dropped = math.MaxUint32

func (t *timesMerger) begin(p *Profile) { t.on, t.to = len(p.TimeEnds) > 0, t.to[:0] }

func (t *timesMerger) bytes() int { return 4*(cap(t.to)+cap(t.ends)) + 8*cap(t.times) }

// drop says that the next sample is gone, became that it is now part of another or that one itself.
func (t *timesMerger) drop() { t.became(dropped) }

func (t *timesMerger) became(sample uint32) {
	if t.on {
		t.to = append(t.to, sample)
	}
}

// mergeTimes gives each sample that remains the times of those that it is made of, ascending.
func (n *normaliser) mergeTimes(p *Profile) {
	t := &n.times
	if !t.on {
		p.Times = p.Times[:0]
		return
	}
	// How many each will have, then where they begin, and as they are put in place, where they end.
	t.ends = cleared(t.ends, p.Samples())
	t.each(p, func(to uint32, times []int64) { t.ends[to] += uint32(len(times)) })
	total := uint32(0)
	for i, count := range t.ends {
		t.ends[i] = total
		total += count
	}
	t.times = slices.Grow(t.times[:0], int(total))[:total]
	t.each(p, func(to uint32, times []int64) { t.ends[to] += uint32(copy(t.times[t.ends[to]:], times)) })
	p.Times, t.times = t.times, p.Times
	p.TimeEnds, t.ends = t.ends, p.TimeEnds
	if total == 0 {
		p.TimeEnds = p.TimeEnds[:0]
	}
	for i := range p.TimeEnds {
		slices.Sort(p.TimesOf(i))
	}
}

// each calls f with the times of every sample that has not been dropped, and what it is now.
func (t *timesMerger) each(p *Profile, f func(to uint32, times []int64)) {
	for i, to := range t.to {
		if to != dropped {
			f(to, p.TimesOf(i))
		}
	}
}
