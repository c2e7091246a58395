package delta_test

import (
	"maps"
	"testing"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/segmentwriter/delta"
	. "github.com/kilndb/kiln/segmentwriter/segmentwritertest"
)

// program is a program that counts, its client, and what is stored of its profiles.
type program struct {
	rt      *rapid.T
	tracker *tracker
	ids     bool // whether the client gives its profiles ids

	run, time int64
	counters  map[string]int64 // by stack and pool; the pool is a label
	begun     map[string]int64 // what was counted when the run began to be watched
	captures  []*capture       // not known to be stored, oldest first
	next      byte
	stored    map[key]values
	want      map[string]int64
}

// key is what copies of a profile share.
type key struct {
	time int64
	id   byte
}

// capture is one profile.
type capture struct {
	key
	values values
	open   *attempt
}

// attempt is a push whose fate is open.
type attempt struct {
	key
	change *delta.Change
	counts values
}

var pools = []string{"", "@x"}

// boot begins a run. A smaller value in every series is what a new run is known by.
func (p *program) boot() {
	p.run++
	p.counters, p.begun = map[string]int64{}, map[string]int64{}
	for _, pool := range pools {
		p.counters["boot"+pool] = 1000 - p.run
	}
}

func (p *program) work() {
	for range rapid.IntRange(0, 3).Draw(p.rt, "stacks") {
		stack := rapid.SampledFrom([]string{"a", "b", "a;b", "c"}).Draw(p.rt, "stack") + rapid.SampledFrom(pools).Draw(p.rt, "pool")
		p.counters[stack] += rapid.Int64Range(1, 1000).Draw(p.rt, "value")
	}
}

// capture takes a profile of the program and pushes it.
func (p *program) capture() *capture {
	p.time += 10
	p.next++
	c := &capture{key: key{p.time, p.next}, values: values{}}
	for stack, v := range p.counters {
		c.values[stack] = [2]int64{v, rapid.Int64Range(0, 3).Draw(p.rt, "in use")}
	}
	p.captures = append(p.captures, c)
	p.push(c)
	return c
}

// push makes an attempt. What is in use is left alone, and no sample without a value remains.
func (p *program) push(c *capture) {
	k := c.key
	if !p.ids {
		p.next++
		k.id = p.next
	}
	body := Decode(encode(k.time*second, c.values))
	change, err := p.tracker.Take("acme", memory, profile.ID{k.id}, body, noon)
	if err != nil {
		p.rt.Fatal(err)
	}
	counts := read(body)
	for stack, v := range c.values {
		if counts[stack][1] != v[1] {
			p.rt.Fatalf("%s: %d in use became %d", stack, v[1], counts[stack][1])
		}
	}
	for stack, v := range counts {
		if v == ([2]int64{}) {
			p.rt.Fatalf("%s has no value left", stack)
		}
	}
	c.open = &attempt{k, change, counts}
}

// answer ends the open attempt of a capture.
func (p *program) answer(c *capture, ok bool) {
	a := c.open
	c.open = nil
	a.change.Settle(ok)
	if !ok {
		return
	}
	if first, again := p.stored[a.key]; again && !maps.Equal(first, a.counts) {
		p.rt.Fatalf("a copy counts %v, the first %v", a.counts, first)
	}
	p.stored[a.key] = a.counts
}

// finish has captures stored: the client repeats what failed.
func (p *program) finish(captures int) {
	for range captures {
		c := p.captures[0]
		if c.open == nil {
			p.push(c)
		}
		p.answer(c, true)
		if p.ids && rapid.IntRange(0, 3).Draw(p.rt, "copy") == 0 { // the client did not see the answer
			p.push(c)
			p.answer(c, rapid.Bool().Draw(p.rt, "copy is stored"))
		}
		p.captures = p.captures[1:]
	}
}

// endRun has everything stored and notes what the run must have added up to.
func (p *program) endRun() {
	p.capture()
	p.finish(len(p.captures))
	for stack, v := range p.counters {
		p.want[stack] += v - p.begun[stack]
	}
}

func (p *program) added() map[string]int64 {
	sums := map[string]int64{}
	for _, counts := range p.stored {
		for stack, v := range counts {
			sums[stack] += v[0]
		}
	}
	for stack := range p.want {
		sums[stack] += 0
	}
	maps.DeleteFunc(sums, func(_ string, v int64) bool { return v == 0 })
	return sums
}

// However pushes fail, overlap and are repeated, and whenever the program is started anew: what is stored adds up to
// what each run counted, but for what the first had counted before it was seen.
func TestDeltasAddUp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := &program{
			rt: rt, ids: rapid.Bool().Draw(rt, "ids"), stored: map[key]values{}, want: map[string]int64{},
			tracker: track(t, func(c *delta.Config) { c.GapRatio = 100 }),
		}
		p.boot()
		p.work()
		p.capture()
		p.begun = maps.Clone(p.counters)
		p.finish(1)
		for range rapid.IntRange(1, 20).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"work", "capture", "answer", "retry", "restart"}).Draw(rt, "step") {
			case "work":
				p.work()
			case "capture":
				p.finish(max(0, len(p.captures)-2)) // of a failure before that no more is known
				p.capture()
			case "answer", "retry":
				if len(p.captures) == 0 {
					continue
				}
				c := rapid.SampledFrom(p.captures).Draw(rt, "which")
				if c.open != nil {
					p.answer(c, false)
				} else {
					p.push(c)
				}
			case "restart":
				p.endRun()
				p.boot()
				p.work()
			}
		}
		p.endRun()
		want := p.want
		maps.DeleteFunc(want, func(_ string, v int64) bool { return v == 0 })
		if got := p.added(); !maps.Equal(got, want) {
			rt.Fatalf("stored %v, want %v", got, want)
		}
	})
}
