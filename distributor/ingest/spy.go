package ingest

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
)

// fixOf returns what the profiles of an SDK need before they mean what those of others do, nil if they are fine.
func fixOf(spy string, config sampleTypes, maxBytes int) func(*profile.Profile) error {
	switch {
	case spy == "pyspy", spy == "rbspy", spy == "scripting":
		return func(p *profile.Profile) error { return placeFunctions(p, spy == "pyspy", 2*maxBytes) }
	case spy == "dotnetspy", (spy == "" || spy == "unknown") && config.hyphenated():
		return underscoreTypes
	}
	return nil
}

// placeFunctions puts file and line in front of the names of functions, as in app.rb:12 - call: in a language where
// every other function is called call or <module> a bare name says little. Files with an absolute path are left alone
// if relativeOnly is set: that SDK sends relative ones for the program itself. The strings of the profile may grow to
// maxBytes.
func placeFunctions(p *profile.Profile, relativeOnly bool, maxBytes int) error {
	type place struct {
		function uint32
		line     int64
	}
	placed := map[place]uint32{}
	originals := append([]profile.Function(nil), p.Functions...)
	// A function that is on one line only, as most are, keeps its number.
	taken := make([]bool, len(originals))
	var name []byte
	for i := range p.Lines {
		l := &p.Lines[i]
		f := originals[l.Function]
		file := p.String(f.File)
		if len(file) == 0 || relativeOnly && file[0] == '/' {
			continue
		}
		at := place{l.Function, l.Line}
		if number, ok := placed[at]; ok {
			l.Function = number
			continue
		}
		name = append(append(name[:0], file...), ':')
		name = append(strconv.AppendInt(name, l.Line, 10), " - "...)
		name = append(name, p.String(f.Name)...)
		f.Name = addString(p, name)
		if len(p.Data) > maxBytes {
			return &pprof.LimitError{What: "bytes of names with their files", Limit: maxBytes}
		}
		if number := l.Function; !taken[number] {
			taken[number], p.Functions[number] = true, f
		} else {
			p.Functions = append(p.Functions, f)
			l.Function = uint32(len(p.Functions) - 1)
		}
		placed[at] = l.Function
	}
	return nil
}

// underscoreTypes makes a sample type alloc-size what others call alloc_size.
func underscoreTypes(p *profile.Profile) error {
	for i := range p.SampleTypes {
		t := &p.SampleTypes[i]
		if name := p.String(t.Type); bytes.IndexByte(name, '-') >= 0 {
			t.Type = addString(p, bytes.ReplaceAll(name, []byte{'-'}, []byte{'_'}))
		}
	}
	return nil
}

// addString adds a string to the table of a profile, which no longer is what was sent.
func addString(p *profile.Profile, s []byte) uint32 {
	p.Wire = 0
	p.Strings = append(p.Strings, profile.Span{Off: uint32(len(p.Data)), Len: uint32(len(s))})
	p.Data = append(p.Data, s...)
	return uint32(len(p.Strings) - 1)
}

// hyphenated tells whether a configuration is of the SDK that has hyphens in its sample types.
func (config sampleTypes) hyphenated() bool {
	for name := range config {
		if strings.Contains(name, "-") {
			return true
		}
	}
	return false
}
