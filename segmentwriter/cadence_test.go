package segmentwriter

import (
	"math/rand/v2"
	"testing"
	"time"
)

// play has pushes come to one shard, each after the pause that next returns, and flushes what the cadence lets go, each flush
// taking that long. It returns the profiles and the mean wait of the flushes, the first second apart.
func play(c *cadence, flush time.Duration, span time.Duration, next func(now time.Time, answered bool) (pause time.Duration, comes bool)) (perFlush float64, wait time.Duration) {
	now := time.Unix(1000, 0)
	end, settled := now.Add(span), now.Add(time.Second)
	var opened, landing, arrival time.Time
	gathered, flying, flushes, pushes, answered := 0, 0, 0, 0, true
	var waited time.Duration
	schedule := func() {
		if pause, comes := next(now, answered); comes {
			arrival = now.Add(pause)
		} else {
			arrival = time.Time{}
		}
		answered = false
	}
	schedule()
	for ; now.Before(end); now = now.Add(100 * time.Microsecond) {
		if flying > 0 && !now.Before(landing) {
			flying = 0
			c.answered(now)
			answered = true
			if arrival.IsZero() {
				schedule()
			}
		}
		for !arrival.IsZero() && !now.Before(arrival) {
			if gathered == 0 {
				opened = now
			}
			gathered++
			c.arrived(now)
			schedule()
		}
		if gathered > 0 && flying == 0 && c.wait(now, opened) == 0 {
			c.budget.spend(now)
			if now.After(settled) {
				flushes++
				pushes += gathered
				waited += now.Sub(opened)
			}
			gathered, flying, landing = 0, gathered, now.Add(flush)
		}
	}
	return float64(pushes) / float64(flushes), waited / time.Duration(flushes)
}

func every(pause time.Duration) func(time.Time, bool) (time.Duration, bool) {
	return func(time.Time, bool) (time.Duration, bool) { return pause, true }
}

func TestCadence(t *testing.T) {
	const ms = time.Millisecond
	rnd := rand.New(rand.NewPCG(1, 1))
	turn := 0
	for _, c := range []struct {
		name               string
		linger             time.Duration
		perSecond          float64
		next               func(time.Time, bool) (time.Duration, bool)
		least, most        float64 // profiles per flush
		waitLeast, waitMax time.Duration
	}{
		{"one a second waits for nobody", 500 * ms, 0, every(time.Second), 1, 1, 0, ms},
		{"twenty a second share", 500 * ms, 0, every(50 * ms), 9, 12, 450 * ms, 500 * ms},
		{"twenty a second at random times share", 500 * ms, 0, func(time.Time, bool) (time.Duration, bool) {
			return time.Duration(rnd.ExpFloat64() * float64(50*ms)), true
		}, 5, 12, 150 * ms, 500 * ms},
		{"one that waits for its answers is not kept waiting", 500 * ms, 0, func(_ time.Time, answered bool) (time.Duration, bool) {
			return ms, answered
		}, 1, 1, 0, 6 * ms},
		{"ten that wait for their answers share", 500 * ms, 0, func(_ time.Time, answered bool) (time.Duration, bool) {
			if answered {
				turn = 10
			}
			turn--
			return ms / 2, turn >= 0
		}, 10, 10, 4 * ms, 12 * ms},
		{"one a second, one put in two", 500 * ms, 0.5, every(time.Second), 1.5, 3, 400 * ms, 2 * time.Second},
		{"without a linger only the flight is waited for", 0, 0, every(2 * ms), 2, 4, 0, 5 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			perFlush, wait := play(&cadence{linger: c.linger, budget: newBudget(c.perSecond)}, 5*ms, 30*time.Second, c.next)
			if perFlush < c.least || perFlush > c.most {
				t.Errorf("%.1f profiles a flush, want %g to %g", perFlush, c.least, c.most)
			}
			if wait < c.waitLeast || wait > c.waitMax {
				t.Errorf("they wait %s, want %s to %s", wait, c.waitLeast, c.waitMax)
			}
		})
	}
}
