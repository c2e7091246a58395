package jfr

import (
	"fmt"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
)

// Options say how to read a recording.
type Options struct {
	// Period is the time that a sample of CPU or wall time stands for, in nanoseconds; positive.
	Period int64
	// Labels of contexts, or nil.
	Labels *Snapshot
	// Limits of one profile.
	Limits pprof.Limits
}

// Recording is what a recording holds.
type Recording struct {
	// Profiles are those that have samples, in an order that does not change from one recording to the next.
	Profiles []Profile
	// Event is what async-profiler was told to sample, such as itimer; empty if the recording does not say.
	Event string
}

// Profile is what the events of one kind became.
type Profile struct {
	// Kind is what the profile is called, its __name__.
	Kind string
	// Types are the names of its sample types.
	Types   []string
	Builder *profile.Builder
}

// Parse reads a recording. The errors wrap ErrMalformed, profile.ErrOverflow or pprof.ErrTooLarge.
func Parse(data []byte, o Options) (*Recording, error) {
	p := &parser{Options: o}
	for at := 0; at < len(data); {
		size, err := p.readChunk(data[at:])
		if err != nil {
			return nil, fmt.Errorf("chunk at byte %d: %w", at, err)
		}
		at += size
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrMalformed)
	}
	r := &Recording{Event: p.event}
	for e, b := range p.builders {
		if b == nil {
			continue
		}
		out := Profile{Kind: kinds[e].name, Builder: b}
		for _, t := range kinds[e].types {
			out.Types = append(out.Types, t[0])
		}
		r.Profiles = append(r.Profiles, out)
	}
	return r, nil
}

// parser is what is known of a recording between its chunks.
type parser struct {
	Options
	event    string
	builders [events]*profile.Builder
	// frames counts the frames of stacks that were put together.
	frames int
}

// maxFrames bounds the frames of all stacks of a recording together, some seconds of work. A stack of a thousand
// frames for every sample that a profile may have is a quarter of it.
const maxFrames = 1 << 26

// maxStack bounds the frames of one stack. The JVM keeps 64 unless told otherwise, async-profiler 2048.
const maxStack = 1 << 16
