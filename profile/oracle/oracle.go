// Package oracle computes answers by brute force with google/pprof: what a flame graph, a function
// table or a merged profile must say. Only tests import it. It is slow and obvious, which is its use.
package oracle

import (
	"fmt"
	"sort"
	"strings"

	gprofile "github.com/google/pprof/profile"
)

// Weight is what one function weighs.
type Weight struct {
	// Self is the value of samples whose leaf frame is the function.
	Self int64
	// Total is the value of samples that have the function anywhere in their stack, counted once each.
	Total int64
}

// Answer is the sum of some profiles for one sample type.
type Answer struct {
	Total int64
	// Functions by name.
	Functions map[string]Weight
	// Stacks by their function names, root first, joined with ";".
	Stacks map[string]int64
	// Locations by full signature, root first: names, files, lines, addresses and mappings. What a merged
	// pprof must preserve.
	Locations map[string]int64
}

// Parse parses pprof, gzipped or raw, and panics if it cannot.
func Parse(b []byte) *gprofile.Profile {
	p, err := gprofile.ParseData(b)
	if err != nil {
		panic(err)
	}
	return p
}

// Index returns the column of a sample type, or panics.
func Index(p *gprofile.Profile, sampleType string) int {
	for i, t := range p.SampleType {
		if t.Type == sampleType {
			return i
		}
	}
	panic(fmt.Sprintf("oracle: no sample type %q", sampleType))
}

// Sum adds up profiles for one sample type. As kiln does when it normalises, it leaves out negative values
// and so samples of which nothing remains.
func Sum(sampleType string, profiles ...*gprofile.Profile) Answer {
	a := Answer{Functions: map[string]Weight{}, Stacks: map[string]int64{}, Locations: map[string]int64{}}
	for _, p := range profiles {
		column := Index(p, sampleType)
		signatures := map[*gprofile.Location]string{}
		for _, s := range p.Sample {
			if !negative(s.Value) && s.Value[column] != 0 {
				a.add(s, s.Value[column], signatures)
			}
		}
	}
	return a
}

// negative tells whether a sample has a negative value: kiln drops such samples whole.
func negative(values []int64) bool {
	for _, v := range values {
		if v < 0 {
			return true
		}
	}
	return false
}

// add adds one sample. Signatures are kept from sample to sample, for they are most of the work.
func (a *Answer) add(s *gprofile.Sample, value int64, signatures map[*gprofile.Location]string) {
	a.Total += value
	var names, signature []string
	for i := len(s.Location) - 1; i >= 0; i-- {
		l := s.Location[i]
		for j := len(l.Line) - 1; j >= 0; j-- {
			names = append(names, l.Line[j].Function.Name)
		}
		if len(l.Line) == 0 {
			names = append(names, fmt.Sprintf("0x%x", l.Address))
		}
		if _, ok := signatures[l]; !ok {
			signatures[l] = locationSignature(l)
		}
		signature = append(signature, signatures[l])
	}
	a.Stacks[strings.Join(names, ";")] += value
	a.Locations[strings.Join(signature, ";")] += value
	seen := map[string]bool{}
	for i, n := range names {
		w := a.Functions[n]
		if !seen[n] {
			w.Total += value
		}
		if i == len(names)-1 {
			w.Self += value
		}
		seen[n] = true
		a.Functions[n] = w
	}
}

func locationSignature(l *gprofile.Location) string {
	var b strings.Builder
	fmt.Fprintf(&b, "0x%x", l.Address)
	if l.Mapping != nil {
		fmt.Fprintf(&b, "@%x-%x+%x %s %s", l.Mapping.Start, l.Mapping.Limit, l.Mapping.Offset, l.Mapping.File, l.Mapping.BuildID)
	}
	for _, ln := range l.Line {
		fmt.Fprintf(&b, "|%s %s %s:%d:%d:%d", ln.Function.Name, ln.Function.SystemName, ln.Function.Filename, ln.Function.StartLine, ln.Line, ln.Column)
	}
	return b.String()
}

// Names returns the functions sorted by name.
func (a Answer) Names() []string {
	names := make([]string, 0, len(a.Functions))
	for n := range a.Functions {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}
