package pprof_test

import (
	"fmt"
	"strings"
	"testing"

	gprofile "github.com/google/pprof/profile"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
)

var limits = pprof.Limits{MaxBytes: 4 << 20, MaxRatio: 200, MaxSamples: 16_000, MaxSampleTypes: 32, MaxSampleLabels: 100}

var normal = profile.Limits{MaxStackDepth: 1000, MaxSymbolLength: 65_535}

// head is where profiles end up: decoded, normalised, interned.
type head struct {
	decoder *pprof.Decoder
	profile profile.Profile
	table   *profile.Table
	stacks  profile.StackSet
	remap   profile.Remap
	stack   []uint32
	rows    []uint32
}

func (h *head) init() { h.decoder, h.table = pprof.NewDecoder(), profile.NewTable() }

func (h *head) take(t testing.TB, body []byte) {
	p := &h.profile
	if err := h.decoder.Decode(body, limits, p); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Normalise(normal); err != nil {
		t.Fatal(err)
	}
	h.table.Add(&p.Symbols, &h.remap)
	h.rows = h.rows[:0]
	for i := range p.Samples() {
		h.stack = h.stack[:0]
		for _, l := range p.Stack(i) {
			h.stack = append(h.stack, h.remap.Locations[l])
		}
		h.rows = append(h.rows, h.stacks.Add(h.stack))
	}
}

// describe returns everything that a profile says as text, one line per fact, numbers of tables resolved.
func describe(p *profile.Profile) []string {
	str := func(i uint32) string { return string(p.String(i)) }
	out := []string{fmt.Sprintf("period %s %s %d time %d duration %d", str(p.PeriodType.Type), str(p.PeriodType.Unit), p.Period, p.TimeNanos, p.DurationNanos)}
	for _, t := range p.SampleTypes {
		out = append(out, fmt.Sprintf("type %s %s", str(t.Type), str(t.Unit)))
	}
	for i := range p.Samples() {
		text, num := map[string][]string{}, map[string][]string{}
		for _, l := range p.LabelsOf(i) {
			switch {
			case l.Str != 0:
				text[str(l.Key)] = append(text[str(l.Key)], str(l.Str))
			case l.Num != 0 || l.Unit != 0:
				num[str(l.Key)] = append(num[str(l.Key)], fmt.Sprint(l.Num, " ", str(l.Unit)))
			}
		}
		out = append(out, fmt.Sprintf("sample %d labels %q %q", p.Row(i), text, num))
		for _, l := range p.Stack(i) {
			out = append(out, "  "+describeLocation(&p.Symbols, l))
		}
	}
	for i := range p.Locations {
		out = append(out, "location "+describeLocation(&p.Symbols, uint32(i)))
	}
	return out
}

func describeLocation(s *profile.Symbols, i uint32) string {
	l := s.Locations[i]
	var b strings.Builder
	fmt.Fprintf(&b, "%x folded %v", l.Address, l.Folded)
	if l.Mapping != 0 {
		m := s.Mappings[l.Mapping]
		fmt.Fprintf(&b, " in %x-%x+%x %q %q %v %v %v %v", m.Start, m.Limit, m.Offset, s.String(m.File), s.String(m.BuildID),
			m.HasFunctions, m.HasFilenames, m.HasLineNumbers, m.HasInlineFrames)
	}
	for _, line := range s.LinesOf(i) {
		f := s.Functions[line.Function]
		fmt.Fprintf(&b, " | %q %q %q %d:%d:%d", s.String(f.Name), s.String(f.SystemName), s.String(f.File), f.StartLine, line.Line, line.Column)
	}
	return b.String()
}

// describeGoogle says the same of a profile that google/pprof has parsed.
func describeGoogle(p *gprofile.Profile) []string {
	out := []string{fmt.Sprintf("period %s %s %d time %d duration %d", p.PeriodType.Type, p.PeriodType.Unit, p.Period, p.TimeNanos, p.DurationNanos)}
	for _, t := range p.SampleType {
		out = append(out, fmt.Sprintf("type %s %s", t.Type, t.Unit))
	}
	for _, s := range p.Sample {
		num := map[string][]string{}
		for k, values := range s.NumLabel {
			for i, v := range values {
				unit := ""
				if i < len(s.NumUnit[k]) {
					unit = s.NumUnit[k][i]
				}
				num[k] = append(num[k], fmt.Sprint(v, " ", unit))
			}
		}
		text := s.Label
		if text == nil {
			text = map[string][]string{}
		}
		out = append(out, fmt.Sprintf("sample %d labels %q %q", s.Value, text, num))
		for _, l := range s.Location {
			out = append(out, "  "+describeGoogleLocation(l))
		}
	}
	for _, l := range p.Location {
		out = append(out, "location "+describeGoogleLocation(l))
	}
	return out
}

func describeGoogleLocation(l *gprofile.Location) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%x folded %v", l.Address, l.IsFolded)
	if m := l.Mapping; m != nil {
		fmt.Fprintf(&b, " in %x-%x+%x %q %q %v %v %v %v", m.Start, m.Limit, m.Offset, m.File, m.BuildID,
			m.HasFunctions, m.HasFilenames, m.HasLineNumbers, m.HasInlineFrames)
	}
	for _, line := range l.Line {
		f := line.Function
		fmt.Fprintf(&b, " | %q %q %q %d:%d:%d", f.Name, f.SystemName, f.Filename, f.StartLine, line.Line, line.Column)
	}
	return b.String()
}

// sameText fails at the first line that differs.
func sameText(t interface {
	Helper()
	Fatalf(string, ...any)
}, what string, got, want []string) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("%s: line %d:\n got %s\nwant %s", what, i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d lines, want %d", what, len(got), len(want))
	}
}

// sound fails if a reference inside of p leads nowhere, which is what nobody checks after Decode.
func sound(t testing.TB, p *profile.Profile) {
	t.Helper()
	within := func(what string, i uint32, n int) {
		if int(i) >= n {
			t.Fatalf("%s %d of %d", what, i, n)
		}
	}
	for _, s := range p.Strings {
		within("string end", s.Off+s.Len, len(p.Data)+1)
	}
	for _, m := range p.Mappings {
		within("mapping file", m.File, len(p.Strings))
		within("mapping build id", m.BuildID, len(p.Strings))
	}
	for _, f := range p.Functions {
		within("function name", f.Name, len(p.Strings))
		within("function system name", f.SystemName, len(p.Strings))
		within("function file", f.File, len(p.Strings))
	}
	for _, l := range p.Locations {
		within("mapping", l.Mapping, len(p.Mappings))
		within("line end", l.FirstLine+l.Lines, len(p.Lines)+1)
	}
	for _, l := range p.Lines {
		within("function", l.Function, len(p.Functions))
		if l.Function == 0 {
			t.Fatal("line without a function")
		}
	}
	for i := range p.Samples() {
		for _, l := range p.Stack(i) {
			within("location", l, len(p.Locations))
		}
		for _, l := range p.LabelsOf(i) {
			within("label key", l.Key, len(p.Strings))
			within("label str", l.Str, len(p.Strings))
			within("label unit", l.Unit, len(p.Strings))
		}
	}
	for _, column := range []int{len(p.Spans), len(p.Traces)} {
		if column != 0 && column != p.Samples() {
			t.Fatalf("%d samples, %d of them with a span or trace", p.Samples(), column)
		}
	}
	if len(p.Values) != p.Samples()*len(p.SampleTypes) || len(p.LabelEnds) != p.Samples() {
		t.Fatalf("%d samples, %d values, %d label ends", p.Samples(), len(p.Values), len(p.LabelEnds))
	}
	if p.Strings[0].Len != 0 || p.Mappings[0] != (profile.Mapping{}) || p.Functions[0] != (profile.Function{}) {
		t.Fatal("index 0 is not none")
	}
}
