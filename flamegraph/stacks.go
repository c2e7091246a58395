package flamegraph

import (
	"bufio"
	"encoding/json"
	"io"
	"strconv"
	"strings"
)

// Frames that the folded form needs and a tree has no name for.
const (
	noStack  = "[no stack]"
	noName   = "[no name]"
	frameEnd = ';'
)

// Folded writes one line per stack with a weight of its own: its names, root first, between semicolons, a
// space and the weight. Semicolons and line breaks in names become colons and spaces.
func Folded(w io.Writer, t *Tree) error {
	out := bufio.NewWriter(w)
	escape := strings.NewReplacer(";", ":", "\n", " ", "\r", " ")
	frames := make([]string, len(t.Names))
	for i, name := range t.Names {
		if frames[i] = escape.Replace(name); name == "" {
			frames[i] = noName
		}
	}
	var line []byte
	var lengths []int
	walk(t.Parents, func(n uint32) {
		lengths = append(lengths, len(line))
		if n != 0 {
			if len(line) > 0 {
				line = append(line, frameEnd)
			}
			line = append(line, frames[t.NodeNames[n]]...)
		}
		if t.Self[n] == 0 {
			return
		}
		if n == 0 {
			out.WriteString(noStack)
		}
		out.Write(line)
		out.WriteByte(' ')
		out.WriteString(strconv.FormatInt(t.Self[n], 10))
		out.WriteByte('\n')
	}, func(uint32) {
		line = line[:lengths[len(lengths)-1]]
		lengths = lengths[:len(lengths)-1]
	})
	return out.Flush() // Writer keeps the first error
}

// speedscopeFile is the part of https://www.speedscope.app/file-format-schema.json that we write.
type speedscopeFile struct {
	Schema   string              `json:"$schema"`
	Exporter string              `json:"exporter"`
	Name     string              `json:"name"`
	Shared   speedscopeShared    `json:"shared"`
	Profiles []speedscopeProfile `json:"profiles"`
}

type speedscopeShared struct {
	Frames []speedscopeFrame `json:"frames"`
}

type speedscopeFrame struct {
	Name string `json:"name"`
}

type speedscopeProfile struct {
	Type       string     `json:"type"`
	Name       string     `json:"name"`
	Unit       string     `json:"unit"`
	StartValue int64      `json:"startValue"`
	EndValue   int64      `json:"endValue"`
	Samples    [][]uint32 `json:"samples"`
	Weights    []int64    `json:"weights"`
}

// Speedscope writes t as a file for speedscope: one sample per stack with a weight of its own. unit is that of
// the profile type; those that speedscope does not know become "none".
func Speedscope(w io.Writer, t *Tree, name, unit string) error {
	switch unit {
	case "nanoseconds", "microseconds", "milliseconds", "seconds", "bytes":
	default:
		unit = "none"
	}
	p := speedscopeProfile{Type: "sampled", Name: name, Unit: unit, EndValue: t.Total(), Samples: [][]uint32{}, Weights: []int64{}}
	frames := make([]speedscopeFrame, len(t.Names))
	for i, name := range t.Names {
		frames[i].Name = name
	}
	var stack []uint32
	walk(t.Parents, func(n uint32) {
		if n != 0 {
			stack = append(stack, t.NodeNames[n])
		}
		if t.Self[n] != 0 {
			p.Samples = append(p.Samples, append([]uint32{}, stack...))
			p.Weights = append(p.Weights, t.Self[n])
		}
	}, func(n uint32) {
		if n != 0 {
			stack = stack[:len(stack)-1]
		}
	})
	return json.NewEncoder(w).Encode(speedscopeFile{
		Schema:   "https://www.speedscope.app/file-format-schema.json",
		Exporter: "kiln",
		Name:     name,
		Shared:   speedscopeShared{frames},
		Profiles: []speedscopeProfile{p},
	})
}
