// Package ingest measures what a profile costs on its way in: inflated, decoded, checked, normalised, interned and
// encoded into a segment.
//
//	go test -run '^$' -bench . ./benchmarks/ingest
//
// Every figure that counts is a ratio of CPU time against a yardstick that runs in the same process, in turns
// with what is measured, so that it holds on any machine and on a busy one: google/pprof for decoding, and
// klauspost/compress, with a reader and a buffer that are reused, for everything that begins with gzip. CPU time is
// that of the whole process, garbage collection included. Ratios are medians over the rounds of one run. Nothing fails for being slow.
//
// Two kinds of data: perturbed copies of the corpus, as many programs send that run the same code, and the corpus
// itself, each file once ("hard"), where hardly a stack repeats.
package ingest

import (
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/kilndb/kiln/benchmarks/workload"
)

// contest collects rounds, in each of which the yardstick and what is measured ran once.
type contest struct {
	yardstick, measured []time.Duration
}

// run makes b's rounds. Who begins changes from round to round.
func (c *contest) run(b *testing.B, yardstick, measured func()) {
	yardstick()
	measured() // both have their memory now
	for round := 0; b.Loop(); round++ {
		if round%2 == 0 {
			c.yardstick = append(c.yardstick, timed(yardstick))
			c.measured = append(c.measured, timed(measured))
		} else {
			c.measured = append(c.measured, timed(measured))
			c.yardstick = append(c.yardstick, timed(yardstick))
		}
	}
}

// timed returns the CPU time of a turn. What garbage there was is collected before, so that nobody pays for others.
func timed(turn func()) time.Duration {
	runtime.GC()
	start := workload.CPU()
	turn()
	return workload.CPU() - start
}

// ratios returns a over b, round by round.
func ratios(a, b []time.Duration) []float64 {
	r := make([]float64, len(a))
	for i := range a {
		r[i] = float64(a[i]) / float64(b[i])
	}
	return r
}

func median[T float64 | time.Duration](of []T) T {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}

// micros returns the median of rounds that took n profiles each, in microseconds per profile.
func micros(rounds []time.Duration, n int) float64 {
	return float64(median(rounds).Nanoseconds()) / 1000 / float64(n)
}
