package segmentwritertest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
)

// Sample is a sample of a small profile.
type Sample struct {
	// Stack is function names, root first, joined by semicolons; "" is no stack.
	Stack  string
	Values []int64
	Labels map[string]string
	// Times are when it was seen, which pprof does not say but Profile does.
	Times []int64
}

// Pprof returns an uncompressed pprof. Types are type:unit; the first is the period type as well.
func Pprof(time int64, types []string, samples ...Sample) []byte {
	t := profile.NewTable()
	str := func(s string) uint32 { return t.AddString([]byte(s)) }
	p := &profile.Profile{TimeNanos: time, Period: 1}
	for _, text := range types {
		name, unit, _ := strings.Cut(text, ":")
		p.SampleTypes = append(p.SampleTypes, profile.ValueType{Type: str(name), Unit: str(unit)})
	}
	p.PeriodType = p.SampleTypes[0]
	locations := map[string]uint32{}
	for _, s := range samples {
		names := strings.FieldsFunc(s.Stack, func(r rune) bool { return r == ';' })
		slices.Reverse(names)
		for _, name := range names {
			l, ok := locations[name]
			if !ok {
				l = uint32(len(t.Locations))
				locations[name] = l
				t.Functions = append(t.Functions, profile.Function{Name: str(name)})
				t.Lines = append(t.Lines, profile.Line{Function: uint32(len(t.Functions) - 1), Line: 1})
				t.Locations = append(t.Locations, profile.Location{FirstLine: uint32(len(t.Lines) - 1), Lines: 1})
			}
			p.Stacks = append(p.Stacks, l)
		}
		p.StackEnds = append(p.StackEnds, uint32(len(p.Stacks)))
		p.Values = append(p.Values, s.Values...)
		for _, name := range slices.Sorted(maps.Keys(s.Labels)) {
			p.SampleLabels = append(p.SampleLabels, profile.SampleLabel{Key: str(name), Str: str(s.Labels[name])})
		}
		p.LabelEnds = append(p.LabelEnds, uint32(len(p.SampleLabels)))
	}
	p.Symbols = t.Symbols
	return pprof.Append(nil, p)
}

// Profile is Decode of a Pprof, with the times of the samples.
func Profile(time int64, types []string, samples ...Sample) *profile.Profile {
	return decode(Pprof(time, types, samples...), samples)
}

// Decode returns a pprof decoded and normalised, as a distributor would. It panics if it cannot.
func Decode(body []byte) *profile.Profile { return decode(body, nil) }

func decode(body []byte, samples []Sample) *profile.Profile {
	p := &profile.Profile{}
	if err := pprof.NewDecoder().Decode(body, pprof.Limits{MaxBytes: 16 << 20}, p); err != nil {
		panic(fmt.Sprintf("segmentwritertest: %v", err))
	}
	for _, s := range samples {
		p.Wire = 0
		p.Times = append(p.Times, s.Times...)
		p.TimeEnds = append(p.TimeEnds, uint32(len(p.Times)))
	}
	if _, err := p.Normalise(profile.Limits{MaxStackDepth: 1000, MaxSymbolLength: 65535}); err != nil {
		panic(fmt.Sprintf("segmentwritertest: %v", err))
	}
	return p
}
