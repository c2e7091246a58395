package ingest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/tenant"
)

// stacks builds the profile of formats that have nothing but stacks of names and a value for each. It holds them to the
// limits of a tenant while they come, so that a small body cannot become a large profile.
type stacks struct {
	*profile.Builder
	// stack is the one that is being put together, root first.
	stack  []uint32
	limits tenant.Limits
	// work counts what was written down for all stacks together, about as many bytes as they take as text: a tree says
	// what its stacks have in common once, and so may stand for far more than its size.
	work int
	flip []uint32
}

func newStacks(b *profile.Builder, limits tenant.Limits) *stacks {
	return &stacks{Builder: b, limits: limits}
}

// push adds a frame at the leaf. A frame without a name is none. Of a stack that is too deep one frame more than allowed
// remains, so that whoever cuts it sees that there is something to cut.
func (s *stacks) push(name []byte) error {
	if s.work += len(name) + 1; s.work > s.limits.MaxRequestBytes {
		return &pprof.LimitError{What: "bytes", Limit: s.limits.MaxRequestBytes}
	}
	if len(name) == 0 || len(s.stack) > s.limits.MaxStackDepth {
		return nil
	}
	s.stack = append(s.stack, s.Frame(name))
	return s.check()
}

// pushLocation does what push does with a frame that the builder knows already.
func (s *stacks) pushLocation(location uint32) {
	if len(s.stack) <= s.limits.MaxStackDepth {
		s.stack = append(s.stack, location)
	}
}

// add adds a sample of the stack as it stands.
func (s *stacks) add(value int64) error {
	if s.work += len(s.stack) + 1; s.work > s.limits.MaxRequestBytes {
		return &pprof.LimitError{What: "bytes", Limit: s.limits.MaxRequestBytes}
	}
	s.flip = append(s.flip[:0], s.stack...)
	slices.Reverse(s.flip)
	if err := s.Add(s.flip, nil, value); err != nil {
		return err
	}
	return s.check()
}

func (s *stacks) check() error {
	return pprof.LimitsOf(s.limits).Check(s.Samples(), s.Size())
}

// stackKind is what stacks are called whose format does not say what they count: the ending of the program's name does,
// as in checkout.alloc_space.
type stackKind struct {
	kind, sampleType, unit string
	// timed says that a value is a number of samples, each of which stands for a period if there is a sample rate.
	timed bool
}

// parseApp takes the ending off a program's name and returns what it says. A name without a dot is one of CPU time.
func parseApp(name string) (app string, k stackKind, err error) {
	app, ending, dotted := cutLast(name)
	if !dotted {
		ending = "cpu"
	}
	if app == "" {
		return "", k, fmt.Errorf("parameter name: %.80q names no program, only a type of profile", name)
	}
	count := func(kind, sampleType string) stackKind {
		return stackKind{kind: kind, sampleType: sampleType, unit: "count"}
	}
	bytes := func(kind, sampleType string) stackKind {
		return stackKind{kind: kind, sampleType: sampleType, unit: "bytes"}
	}
	delay := func(kind string) stackKind { return stackKind{kind: kind, sampleType: "delay", unit: "nanoseconds"} }
	switch ending {
	case "cpu", "itimer":
		k = stackKind{"process_cpu", "samples", "count", true}
	case "wall", "seconds", "milliseconds", "microseconds", "nanoseconds":
		k = stackKind{"wall", "samples", "count", true}
	case "inuse_objects", "alloc_objects", "alloc_in_new_tlab_objects", "alloc_outside_tlab_objects", "live":
		k = count("memory", ending)
	case "inuse_space", "alloc_space", "alloc_in_new_tlab_bytes", "alloc_outside_tlab_bytes":
		k = bytes("memory", ending)
	case "bytes":
		k = bytes("memory", "samples")
	case "goroutines":
		k = count("goroutine", ending)
	case "mutex_count":
		k = count("mutex", "contentions")
	case "mutex_duration":
		k = delay("mutex")
	case "block_count", "lock_count":
		k = count("block", "contentions")
	case "block_duration", "lock_duration":
		k = delay("block")
	case "exceptions":
		k = count("exceptions", "samples")
	default:
		err = fmt.Errorf("parameter name: %.80q ends in %.40q, which is no type of profile: end it in .cpu, .wall, .alloc_space or the like, or leave the dot out", name, ending)
	}
	return app, k, err
}

// cutLast cuts a name at its last dot.
func cutLast(name string) (before, after string, dotted bool) {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[:i], name[i+1:], true
	}
	return name, "", false
}

// columns says of a builder without samples what it will hold, and returns what values are to be multiplied by.
func (k stackKind) columns(b *profile.Builder, sampleRate int) (scale int64) {
	if !k.timed || sampleRate == 0 {
		b.AddSampleType(k.sampleType, k.unit)
		return 1
	}
	period := int64(1e9) / int64(sampleRate)
	k.nanoseconds(b, period)
	return period
}

// nanoseconds is columns for values that are nanoseconds already.
func (k stackKind) nanoseconds(b *profile.Builder, period int64) {
	sampleType := "cpu"
	if k.kind == "wall" {
		sampleType = "wall"
	}
	b.AddSampleType(sampleType, "nanoseconds")
	b.SetPeriod("cpu", "nanoseconds", period)
}
