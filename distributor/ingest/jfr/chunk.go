package jfr

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/kilndb/kiln/profile/pprof"
)

const (
	headerSize = 68
	magic      = "FLR\x00"
	// classCheckpoint is the class of events that hold constants.
	classCheckpoint = 1
)

// chunk is a chunk being read.
type chunk struct {
	*parser
	data      []byte
	ticks     uint64 // per second
	classes   *classes
	constants *constants
	sums      map[key][2]int64
	functions map[function]uint32
}

// readChunk reads the chunk that data begins with and returns its size.
func (p *parser) readChunk(data []byte) (int, error) {
	if len(data) < headerSize || string(data[:4]) != magic {
		return 0, fmt.Errorf("%w: it does not begin with the header of a chunk", ErrMalformed)
	}
	version, features := binary.BigEndian.Uint16(data[4:]), data[67]
	size, metadata := binary.BigEndian.Uint64(data[8:]), binary.BigEndian.Uint64(data[24:])
	switch {
	case version != 2:
		return 0, fmt.Errorf("%w: version %d of the format is not known, 2 is", ErrMalformed, version)
	case features&1 == 0:
		return 0, fmt.Errorf("%w: its integers are not compressed, which no recorder does", ErrMalformed)
	case size < headerSize || size > uint64(len(data)):
		return 0, fmt.Errorf("%w: it has %d bytes, of %d that follow", ErrMalformed, size, len(data))
	case metadata < headerSize || metadata >= size:
		return 0, fmt.Errorf("%w: its metadata begin at byte %d of %d", ErrMalformed, metadata, size)
	case size > math.MaxUint32:
		return 0, fmt.Errorf("%w: it has %d bytes", ErrMalformed, size)
	}
	c := &chunk{parser: p, data: data[:size], ticks: binary.BigEndian.Uint64(data[56:]), sums: map[key][2]int64{}, functions: map[function]uint32{}}
	cur := &cursor{b: c.data, i: int(metadata)}
	if c.classes = readMetadata(cur); cur.err != nil {
		return 0, fmt.Errorf("metadata: %w", cur.err)
	}
	c.constants = newConstants(c.data, c.classes)
	if err := c.readConstants(); err != nil {
		return 0, err
	}
	if err := c.readEvents(); err != nil {
		return 0, err
	}
	return int(size), c.flush()
}

// eachEvent calls visit with every event and a cursor over what comes after its class.
func (c *chunk) eachEvent(visit func(class uint64, cur *cursor)) error {
	for at := headerSize; at < len(c.data); {
		cur := &cursor{b: c.data, i: at}
		size := cur.varint()
		class := cur.varint()
		if cur.err == nil && (size > uint64(len(c.data)-at) || at+int(size) < cur.i) {
			cur.fail("an event of %d bytes, of %d that follow", size, len(c.data)-at)
		}
		if cur.err == nil {
			cur.b = c.data[:at+int(size)]
			visit(class, cur)
		}
		if cur.err != nil {
			return cur.err
		}
		at += int(size)
	}
	return nil
}

// readConstants reads the checkpoints and, since what events mean depends on it, the setting that says what is sampled.
func (c *chunk) readConstants() error {
	setting := c.classes.byName["jdk.ActiveSetting"]
	var r record
	err := c.eachEvent(func(class uint64, cur *cursor) {
		switch {
		case class == classCheckpoint:
			c.constants.readCheckpoint(cur, c.classes)
		case setting != nil && class == setting.id:
			if r.read(cur, setting); string(r.string(slotName)) == "event" {
				c.event = string(r.string(slotValue))
			}
		}
	})
	c.constants.sort()
	return err
}

// readEvents sums all events that become samples.
func (c *chunk) readEvents() error {
	states := map[uint64]string{}
	state := func(r *record) string {
		id := r.num[slotState]
		if s, ok := states[id]; ok || len(states) > 100 {
			return s
		}
		states[id] = c.constants.stateOf(id)
		return states[id]
	}
	one := func(e event) func(*chunk, *record) { return func(c *chunk, r *record) { c.count(e, r, 1) } }
	of := map[*class]func(*chunk, *record){}
	for name, take := range map[string]func(*chunk, *record){
		"jdk.ExecutionSample": func(c *chunk, r *record) {
			if state(r) != "STATE_SLEEPING" {
				c.count(eventCPU, r, 1)
			}
			if c.event == "wall" {
				c.count(eventWall, r, 1)
			}
		},
		"profiler.WallClockSample": func(c *chunk, r *record) {
			if c.event == "wall" && state(r) == "STATE_RUNNABLE" {
				c.count(eventCPU, r, r.num[slotSamples])
			}
			c.count(eventWall, r, r.num[slotSamples])
		},
		"jdk.ObjectAllocationInNewTLAB":   one(eventInTLAB),
		"jdk.ObjectAllocationOutsideTLAB": one(eventOutsideTLAB),
		"jdk.ObjectAllocationSample":      one(eventAllocSample),
		"profiler.Malloc":                 one(eventMalloc),
		"profiler.LiveObject":             one(eventLive),
		"jdk.JavaMonitorEnter":            one(eventMonitor),
		"jdk.ThreadPark":                  one(eventPark),
	} {
		of[c.classes.byName[name]] = take
	}
	var r record
	var failed error
	err := c.eachEvent(func(class uint64, cur *cursor) {
		cl := c.classes.byID[class]
		take := of[cl]
		if cl == nil || take == nil || failed != nil {
			return
		}
		if r.read(cur, cl); cur.err == nil {
			take(c, &r)
			if limit := int(events) * c.Limits.MaxSamples; c.Limits.MaxSamples > 0 && len(c.sums) > limit {
				failed = &pprof.LimitError{What: "samples", Limit: limit}
			}
		}
	})
	if failed != nil {
		return failed
	}
	return err
}
