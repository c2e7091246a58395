package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/tenant"
)

// speedscopeSchema is what every file of this format says it is.
const speedscopeSchema = "https://www.speedscope.app/file-format-schema.json"

// Bounds of a file, far above what its viewer can show.
const (
	maxSpeedscopeProfiles = 1 << 10
	maxSpeedscopeFrames   = 1 << 18
	maxSpeedscopeEvents   = 1 << 21
	// maxSpeedscopeRatio is how many times larger than the largest profile a file may be: numbers and stacks that repeat
	// take more in JSON than in a profile, and up to eight times as much while they are read.
	maxSpeedscopeRatio = 4
)

// speedscopeFile is a file as https://www.speedscope.app/file-format-schema.json describes it, as far as it matters here.
type speedscopeFile struct {
	Schema string `json:"$schema"`
	Shared struct {
		Frames list[speedscopeFrame] `json:"frames"`
	} `json:"shared"`
	Profiles list[speedscopeProfile] `json:"profiles"`
}

type speedscopeFrame struct {
	Name string `json:"name"`
	File string `json:"file"`
	Line int64  `json:"line"`
}

// speedscopeProfile is one of either type: evented, a stack that changes, or sampled, stacks with their weights.
type speedscopeProfile struct {
	Type       string                `json:"type"`
	Name       string                `json:"name"`
	Unit       string                `json:"unit"`
	StartValue float64               `json:"startValue"`
	EndValue   float64               `json:"endValue"`
	Events     list[speedscopeEvent] `json:"events"`
	Samples    numberLists           `json:"samples"`
	Weights    numbers               `json:"weights"`
}

// speedscopeEvent opens (O) or closes (C) a frame.
type speedscopeEvent struct {
	Type  string  `json:"type"`
	At    float64 `json:"at"`
	Frame int     `json:"frame"`
}

// bounds returns how many elements a list may have, and what no element goes without.
func (f speedscopeFrame) bounds() (int, string)   { return maxSpeedscopeFrames, f.Name }
func (p speedscopeProfile) bounds() (int, string) { return maxSpeedscopeProfiles, p.Type }
func (e speedscopeEvent) bounds() (int, string)   { return maxSpeedscopeEvents, e.Type }

// list is an array of JSON objects. Neither many nor empty ones are taken: {} takes three bytes there and more here.
type list[T interface{ bounds() (int, string) }] []T

// UnmarshalJSON reads an array.
func (l *list[T]) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return fmt.Errorf("%.20q is not an array", b)
	}
	*l = (*l)[:0]
	for d.More() {
		var element T
		if err := d.Decode(&element); err != nil {
			return err
		}
		switch most, needed := element.bounds(); {
		case len(*l) == most:
			return fmt.Errorf("an array has more than %d elements", most)
		case needed == "":
			return fmt.Errorf("element %d of an array has no name or no type", len(*l))
		}
		*l = append(*l, element)
	}
	return nil
}

// numbers is an array of numbers. Its like in package json takes ten times as long.
type numbers []float64

// UnmarshalJSON reads an array of numbers. What it is given is valid JSON.
func (l *numbers) UnmarshalJSON(b []byte) error {
	if len(b) < 2 || b[0] != '[' {
		return fmt.Errorf("%.20q is not an array of numbers", b)
	}
	*l = make(numbers, 0, bytes.Count(b, []byte{','})+1)
	for more, b := true, b[1:len(b)-1]; more; {
		var text []byte
		text, b, more = bytes.Cut(b, []byte{','})
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue // the array is empty
		}
		v, err := strconv.ParseFloat(string(text), 64)
		if err != nil {
			return fmt.Errorf("%.20q is not a number", text)
		}
		*l = append(*l, v)
	}
	return nil
}

// numberLists is an array of arrays of numbers: those of array i end at ends[i].
type numberLists struct {
	numbers, ends []uint32
}

// UnmarshalJSON reads an array of arrays. What it is given is valid JSON.
func (l *numberLists) UnmarshalJSON(b []byte) error {
	*l = numberLists{make([]uint32, 0, bytes.Count(b, []byte{','})+1), make([]uint32, 0, bytes.Count(b, []byte{'['}))}
	depth := 0
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '[' && depth < 2:
			depth++
		case c == ']':
			if depth == 2 {
				l.ends = append(l.ends, uint32(len(l.numbers)))
			}
			depth--
		case c == ',' || c == ' ' || c == '\t' || c == '\r' || c == '\n':
		case depth == 2:
			n := 0
			for n < len(b)-i && b[i+n] >= '0' && b[i+n] <= '9' {
				n++
			}
			v, err := strconv.ParseUint(string(b[i:i+n]), 10, 32)
			if err != nil {
				return fmt.Errorf("%.20q is not the number of a frame", b[i:])
			}
			l.numbers = append(l.numbers, uint32(v))
			i += n - 1
		default:
			return fmt.Errorf("%.20q is not an array of numbers", b[i:])
		}
	}
	return nil
}

// unit is a unit of values: how many nanoseconds one is if it is a time, and what it adds to the program's name where that
// is what tells the profiles of a file apart.
type unit struct {
	nanoseconds float64
	ending      string
}

func unitOf(name string) (unit, error) {
	switch name {
	case "none", "":
		return unit{}, nil
	case "nanoseconds":
		return unit{1, name}, nil
	case "microseconds":
		return unit{1e3, name}, nil
	case "milliseconds":
		return unit{1e6, name}, nil
	case "seconds":
		return unit{1e9, name}, nil
	case "bytes":
		return unit{0, name}, nil
	}
	return unit{}, fmt.Errorf("unit %.40q is none of none, nanoseconds, microseconds, milliseconds, seconds and bytes", name)
}

// speedscopeBuild is one profile that a file becomes, of all its profiles of a unit.
type speedscopeBuild struct {
	*stacks
	app   string
	kind  stackKind
	unit  unit
	scale int64 // of values that are no time
	time  bool  // the values are nanoseconds
	// locations are those of the frames of the file, plus one; 0 has not been needed yet.
	locations []uint32
}

// parseSpeedscope reads format speedscope. Profiles of one unit, such as those of several threads, become one.
func parseSpeedscope(body []byte, name string, sampleRate int, limits tenant.Limits) ([]*speedscopeBuild, error) {
	if limit := maxSpeedscopeRatio * limits.MaxProfileBytes; len(body) > limit {
		return nil, &pprof.LimitError{What: "bytes of JSON", Limit: limit}
	}
	var file speedscopeFile
	if err := json.Unmarshal(body, &file); err != nil {
		return nil, err
	}
	if file.Schema != speedscopeSchema {
		return nil, fmt.Errorf("its $schema is %.80q, want %q", file.Schema, speedscopeSchema)
	}
	units := map[string]*speedscopeBuild{}
	for _, p := range file.Profiles {
		units[p.Unit] = nil
	}
	var builds []*speedscopeBuild
	for i := range file.Profiles {
		p := &file.Profiles[i]
		b := units[p.Unit]
		if b == nil {
			var err error
			if b, err = newSpeedscopeBuild(name, p.Unit, len(units) > 1, sampleRate, limits); err != nil {
				return nil, fmt.Errorf("profile %d: %w", i, err)
			}
			units[p.Unit], builds = b, append(builds, b)
		}
		if err := b.read(p, file.Shared.Frames); err != nil {
			return nil, fmt.Errorf("profile %d (%.80q): %w", i, p.Name, err)
		}
	}
	return builds, nil
}

// newSpeedscopeBuild returns an empty profile for values of a unit. The program's name says what they count, as with
// other stacks; the unit does where there are several, and where they are bytes and the name does not say which.
func newSpeedscopeBuild(name, unitName string, several bool, sampleRate int, limits tenant.Limits) (*speedscopeBuild, error) {
	u, err := unitOf(unitName)
	if err != nil {
		return nil, err
	}
	if _, _, dotted := cutLast(name); u.ending != "" && (several || u.ending == "bytes" && !dotted) {
		name += "." + u.ending
	}
	b := &speedscopeBuild{unit: u, scale: 1}
	if b.app, b.kind, err = parseApp(name); err != nil {
		return nil, err
	}
	b.stacks = newStacks(profile.NewBuilder(), limits)
	b.time = u.nanoseconds > 0 && (b.kind.timed || b.kind.unit == "nanoseconds")
	switch {
	case b.time && b.kind.timed:
		b.kind.nanoseconds(b.Builder, 1)
	case b.time:
		b.AddSampleType(b.kind.sampleType, b.kind.unit)
	default:
		b.scale = b.kind.columns(b.Builder, sampleRate)
	}
	return b, nil
}

// value returns a value of the file as it is stored. What lies between two whole numbers is rounded.
func (b *speedscopeBuild) value(v float64) (int64, error) {
	if b.time {
		v *= b.unit.nanoseconds
	} else {
		v *= float64(b.scale)
	}
	if v = math.Round(v); !(v >= 0 && v < math.MaxInt64) {
		return 0, fmt.Errorf("the value %g is negative or larger than an int64 holds", v)
	}
	return int64(v), nil
}

// open puts a frame of the file on the stack.
func (b *speedscopeBuild) open(frame int, frames []speedscopeFrame) error {
	if frame < 0 || frame >= len(frames) {
		return fmt.Errorf("frame %d of %d", frame, len(frames))
	}
	if b.locations == nil {
		b.locations = make([]uint32, len(frames))
	}
	if b.locations[frame] == 0 {
		f := &frames[frame]
		b.locations[frame] = b.Location(b.Function(b.String([]byte(f.Name)), b.String([]byte(f.File))), max(0, f.Line)) + 1
	}
	b.pushLocation(b.locations[frame] - 1)
	return b.check()
}

func (b *speedscopeBuild) read(p *speedscopeProfile, frames []speedscopeFrame) error {
	b.stack = b.stack[:0]
	switch p.Type {
	case "sampled":
		return b.readSampled(p, frames)
	case "evented":
		return b.readEvented(p, frames)
	}
	return fmt.Errorf("type %.40q is neither sampled nor evented", p.Type)
}

func (b *speedscopeBuild) readSampled(p *speedscopeProfile, frames []speedscopeFrame) error {
	if len(p.Samples.ends) != len(p.Weights) {
		return fmt.Errorf("%d samples have %d weights", len(p.Samples.ends), len(p.Weights))
	}
	start := uint32(0)
	for i, end := range p.Samples.ends {
		b.stack = b.stack[:0]
		for _, frame := range p.Samples.numbers[start:end] {
			if err := b.open(int(frame), frames); err != nil {
				return fmt.Errorf("sample %d: %w", i, err)
			}
		}
		start = end
		v, err := b.value(p.Weights[i])
		if err == nil {
			err = b.add(v)
		}
		if err != nil {
			return fmt.Errorf("sample %d: %w", i, err)
		}
	}
	return nil
}

// readEvented adds what passes between two events to the stack that is open meanwhile. Moments are rounded before they
// are subtracted, so that what is lost of one is gained by the next.
func (b *speedscopeBuild) readEvented(p *speedscopeProfile, frames []speedscopeFrame) error {
	var open []int
	last := int64(0)
	until := func(at float64) error {
		now, err := b.value(at - p.StartValue)
		if err != nil {
			return err
		}
		if now < last {
			return errors.New("it is before the one that precedes it")
		}
		if now > last && len(open) > 0 {
			err = b.add(now - last)
		}
		last = now
		return err
	}
	for i, e := range p.Events {
		err := until(e.At)
		switch {
		case err != nil:
		case e.Type == "O":
			if len(open) == maxDepth {
				err = fmt.Errorf("more than %d frames are open", maxDepth)
				break
			}
			open = append(open, e.Frame)
			err = b.open(e.Frame, frames)
		case e.Type == "C" && len(open) > 0 && open[len(open)-1] == e.Frame:
			open = open[:len(open)-1]
			b.stack = b.stack[:min(len(open), len(b.stack))]
		case e.Type == "C":
			err = fmt.Errorf("it closes frame %d, which is not the one that was opened last", e.Frame)
		default:
			err = fmt.Errorf("type %.40q is neither O nor C", e.Type)
		}
		if err != nil {
			return fmt.Errorf("event %d: %w", i, err)
		}
	}
	if len(open) == 0 || p.EndValue == 0 {
		return nil
	}
	if err := until(p.EndValue); err != nil {
		return fmt.Errorf("endValue: %w", err)
	}
	return nil
}
