package block

import (
	"fmt"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// makeProfile makes a CPU profile of a service whose stacks are the given lists of function names, root first,
// with a value of each sample type per stack.
func makeProfile(service string, values [][2]int64, stacks ...[]string) decoded {
	t := profile.NewTable()
	str := func(s string) uint32 { return t.AddString([]byte(s)) }
	p := &profile.Profile{
		SampleTypes: []profile.ValueType{{Type: str("samples"), Unit: str("count")}, {Type: str("cpu"), Unit: str("nanoseconds")}},
		PeriodType:  profile.ValueType{Type: str("cpu"), Unit: str("nanoseconds")},
		Period:      10_000_000, DurationNanos: 15_000_000_000,
	}
	p.Symbols = t.Symbols
	functions := map[string]uint32{}
	for i, stack := range stacks {
		for j := len(stack) - 1; j >= 0; j-- {
			l, ok := functions[stack[j]]
			if !ok {
				l = uint32(len(p.Locations))
				functions[stack[j]] = l
				addFrame(&p.Symbols, t, stack[j], l)
			}
			p.Stacks = append(p.Stacks, l)
		}
		p.StackEnds = append(p.StackEnds, uint32(len(p.Stacks)))
		p.LabelEnds = append(p.LabelEnds, 0)
		p.Values = append(p.Values, values[i][:]...)
		p.Order = append(p.Order, uint32(i))
	}
	p.Data, p.Strings = t.Data, t.Strings
	p.Series = []profile.SeriesRows{{Count: len(stacks)}}
	return decoded{p, service, "process_cpu"}
}

// addFrame adds a location with one line, or without any if the name is that of an address: "@4a0".
func addFrame(s *profile.Symbols, t *profile.Table, name string, l uint32) {
	var address uint64
	if n, err := fmt.Sscanf(name, "@%x", &address); n == 1 && err == nil {
		s.Locations = append(s.Locations, profile.Location{FirstLine: uint32(len(s.Lines)), Address: address})
		return
	}
	f := uint32(len(s.Functions))
	s.Functions = append(s.Functions, profile.Function{Name: t.AddString([]byte(name)), File: t.AddString([]byte(name + ".go")), StartLine: 1})
	s.Locations = append(s.Locations, profile.Location{FirstLine: uint32(len(s.Lines)), Lines: 1, Address: uint64(l)})
	s.Lines = append(s.Lines, profile.Line{Function: f, Line: int64(10 + l)})
}

// simple is a profile of one stack worth v.
func simple(service string, v int64, stack ...string) decoded {
	return makeProfile(service, [][2]int64{{v, v * 10_000_000}}, stack)
}

var noLabels = labels.Labels{}

// seriesOf is one series of a service.
func seriesOf(service string) []labels.Labels {
	return []labels.Labels{labels.FromStrings(labels.ServiceName, service)}
}
