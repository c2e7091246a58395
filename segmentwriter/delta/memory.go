package delta

import (
	"container/list"
	"slices"
	"time"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/tenant"
)

// outcome is what a profile counted for.
type outcome int

const (
	baseline   outcome = iota // the first of its series
	stale                     // a baseline after a gap
	restart                   // all that a new run of the program counted
	difference                // to the one before
	late                      // nothing: a newer one has counted it
	copied                    // what its first copy counted
)

func (o outcome) String() string {
	return [...]string{"baseline", "stale", "restart", "difference", "late", "copied"}[o]
}

// keptSteps is how many steps are kept for copies of their profiles: clients repeat what they sent last.
const keptSteps = 4

// memory is what a series counted last.
type memory struct {
	key   string
	owner *account
	gone  bool // forgotten: what is still on its way no longer moves it

	// numbers says where values has the counters of a stack; nil before the first profile. Stacks whose counters are
	// all zero are not in it.
	numbers map[stack]uint32
	values  []int64
	width   int
	// time of the last profile, and how long after the one before it came; 0 if that is not known. Nanoseconds.
	time, interval int64
	// steps lead to the values, the latest last.
	steps []*step

	used             time.Time
	bytes            int
	ofAll, ofAccount *list.Element
}

// step is how one profile moved a memory, and how to move it back.
type step struct {
	id      profile.ID
	time    int64
	outcome outcome
	// open counts the copies of the profile whose fate is not known; stored tells whether one is durable.
	open   int
	stored bool

	lastTime, lastInterval int64
	// Of a difference: the stacks that changed and what they were, and how many stacks there were.
	changed []stack
	old     []int64
	known   int
	// Of others: everything as it was.
	numbers map[stack]uint32
	values  []int64
}

func (s *step) failed() bool { return s.open == 0 && !s.stored }

// take turns the counters of a profile into what it counts for. The step is nil if it moves nothing.
func (m *memory) take(c *counters, id profile.ID, at int64, cfg *Config) (outcome, *step) {
	if s := m.stepOf(id, at); s != nil {
		s.repeat(c)
		s.open++
		return copied, s
	}
	if m.numbers != nil && at <= m.time {
		clear(c.sums)
		return late, nil
	}
	s := &step{id: id, time: at, open: 1, lastTime: m.time, lastInterval: m.interval}
	s.outcome = m.judge(c, at, cfg)
	m.advanceTime(s)
	switch s.outcome {
	case difference:
		m.subtract(c, s)
	case restart:
		m.replace(c, s)
	default:
		m.replace(c, s)
		clear(c.sums)
	}
	m.steps = append(m.steps, s)
	m.trim()
	return s.outcome, s
}

// stepOf returns the step of an earlier copy of a profile. A client that sends no ids repeats a profile that failed under
// another id: then the time is enough.
func (m *memory) stepOf(id profile.ID, at int64) *step {
	for _, s := range m.steps {
		if s.time == at && (s.id == id || s.failed()) {
			return s
		}
	}
	return nil
}

func (m *memory) judge(c *counters, at int64, cfg *Config) outcome {
	switch {
	case m.numbers == nil:
		return baseline
	case float64(at-m.time) > m.longestGap(cfg):
		return stale
	}
	known := 0
	for i, name := range c.stacks {
		n, ok := m.numbers[name]
		if !ok {
			continue
		}
		known++
		for j, v := range c.row(i, m.width) {
			if v < m.values[int(n)*m.width+j] {
				return restart
			}
		}
	}
	if known < len(m.numbers) {
		return restart
	}
	return difference
}

func (m *memory) longestGap(cfg *Config) float64 {
	if m.interval == 0 {
		return float64(cfg.MaxGap)
	}
	return cfg.GapRatio * float64(m.interval)
}

// advanceTime notes when the profile of a step came. An interval may shrink to half at once, no more: one profile out of
// turn must not make the next, in turn again, look late. After a gap nothing is known of the interval, but where nothing
// was known before the gap is the interval: some programs push every ten minutes.
func (m *memory) advanceTime(s *step) {
	gap := s.time - m.time
	switch {
	case s.outcome == baseline || s.outcome == stale && m.interval > 0:
		m.interval = 0
	default:
		m.interval = max(gap, m.interval/2)
	}
	m.time = s.time
}

// replace makes c what the memory holds.
func (m *memory) replace(c *counters, s *step) {
	s.numbers, s.values = m.numbers, m.values
	m.numbers, m.values = make(map[stack]uint32, len(c.stacks)), make([]int64, 0, len(c.sums))
	for i, name := range c.stacks {
		if row := c.row(i, m.width); !zero(row) {
			m.add(name, row)
		}
	}
}

func (m *memory) add(name stack, row []int64) {
	m.numbers[name] = uint32(len(m.numbers))
	m.values = append(m.values, row...)
}

func zero(row []int64) bool {
	return !slices.ContainsFunc(row, func(v int64) bool { return v != 0 })
}

// subtract makes c what the memory holds, and of c the difference.
func (m *memory) subtract(c *counters, s *step) {
	s.known = len(m.numbers)
	none := make([]int64, m.width)
	for i, name := range c.stacks {
		row := c.row(i, m.width)
		n, ok := m.numbers[name]
		if !ok {
			if !zero(row) {
				s.changed, s.old = append(s.changed, name), append(s.old, none...)
				m.add(name, row)
			}
			continue
		}
		values := m.values[int(n)*m.width:][:m.width]
		if slices.Equal(values, row) {
			clear(row)
			continue
		}
		s.changed, s.old = append(s.changed, name), append(s.old, values...)
		for j, v := range row {
			row[j], values[j] = v-values[j], v
		}
	}
}

// repeat does to a copy of the profile of a step what was done to the first.
func (s *step) repeat(c *counters) {
	switch s.outcome {
	case restart:
		return
	case difference:
		if len(c.stacks) == 0 {
			return
		}
		width := len(c.sums) / len(c.stacks)
		old := make(map[stack][]int64, len(s.changed))
		for i, name := range s.changed {
			old[name] = s.old[i*width:][:width]
		}
		for i, name := range c.stacks {
			row := c.row(i, width)
			was, ok := old[name]
			if !ok {
				was = row
			}
			for j := range row {
				row[j] = max(0, row[j]-was[j]) // below zero only if it is no copy after all
			}
		}
	default:
		clear(c.sums)
	}
}

// settle learns the fate of a copy of a profile.
func (m *memory) settle(s *step, stored bool) {
	s.open--
	s.stored = s.stored || stored
	for len(m.steps) > 0 && m.steps[len(m.steps)-1].failed() {
		m.undo(m.steps[len(m.steps)-1])
		m.steps = m.steps[:len(m.steps)-1]
	}
	if s.stored {
		s.numbers, s.values = nil, nil // nothing leads back there
	}
	m.trim()
}

// trim forgets the oldest steps that have their answer. A series is as large as its steps, so they are few.
func (m *memory) trim() {
	for len(m.steps) > keptSteps && m.steps[0].open == 0 {
		m.steps = slices.Delete(m.steps, 0, 1)
	}
}

// undo moves the memory back to before the last step.
func (m *memory) undo(s *step) {
	m.time, m.interval = s.lastTime, s.lastInterval
	if s.outcome != difference {
		m.numbers, m.values = s.numbers, s.values
		return
	}
	for i, name := range s.changed {
		n := int(m.numbers[name])
		if n >= s.known {
			delete(m.numbers, name)
			continue
		}
		copy(m.values[n*m.width:], s.old[i*m.width:][:m.width])
	}
	m.values = m.values[:s.known*m.width]
}

// size returns the memory that a series takes, about.
func (m *memory) size() int {
	const (
		ofSeries, ofStep = 512, 192
		ofStack          = 40 // in a map, which is two thirds full on average
	)
	n := ofSeries + 2*len(m.key) + ofStack*len(m.numbers) + 8*cap(m.values)
	for _, s := range m.steps {
		n += ofStep + 16*cap(s.changed) + 8*cap(s.old) + ofStack*len(s.numbers) + 8*cap(s.values)
	}
	return n
}

// oldest returns the memory in front of an order of use.
func oldest(order *list.List) *memory { return order.Front().Value.(*memory) }

// account is the memory of one tenant.
type account struct {
	id       tenant.ID
	memories map[string]*memory
	order    list.List // by use, the oldest first
	bytes    int
}
