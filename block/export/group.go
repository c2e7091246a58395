package export

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// group writes the datasets of one group.
type group struct {
	out    *files
	tenant string
	names  *profile.Symbols
	// text is every string of names.
	text []string
	// frames are the function names of each location, root first; nil until they are asked for.
	frames [][]string
	// used are the locations that go out. All of them, unless some datasets of the group stay.
	used []bool
	// What is added to the numbers of the group: how many rows there were before. Mapping 0 is none everywhere.
	series, functions, locations, mappings int64
}

func (g *group) write(ctx context.Context, r *block.Reader, s Selection) (err error) {
	all := r.Datasets()
	datasets := slices.DeleteFunc(slices.Clone(all), func(d *block.Dataset) bool { return !s.matches(d) })
	g.tenant = datasets[0].Tenant
	if g.names, err = datasets[0].Symbols(ctx); err != nil {
		return err
	}
	g.text = make([]string, len(g.names.Strings))
	for i := range g.text {
		g.text[i] = string(g.names.String(uint32(i)))
	}
	g.frames = make([][]string, len(g.names.Locations))
	g.used = make([]bool, len(g.names.Locations))
	if len(datasets) == len(all) {
		for i := range g.used {
			g.used[i] = true
		}
	}
	g.series, g.functions, g.locations, g.mappings = g.out.series.last, g.out.functions.last, g.out.locations.last, g.out.mappings.last
	series, err := datasets[0].Series(ctx)
	if err != nil {
		return err
	}
	for _, d := range datasets {
		for _, rows := range d.Rows {
			if err := g.rows(ctx, d, rows, series); err != nil {
				return fmt.Errorf("export service %q, %s: %w", d.Service, rows.Kind.Name, err)
			}
		}
	}
	g.writeSeries(series, s)
	g.writeNames(len(datasets) == len(all))
	return g.out.failed()
}

func (g *group) writeSeries(series []labels.Labels, s Selection) {
	for i, ls := range series {
		service := ls.Get(labels.ServiceName)
		if s.Service == "" || s.Service == service {
			g.out.series.add(Series{Series: g.series + int64(i), Tenant: g.tenant, Service: service, Labels: labelMap(ls)}, 64*len(ls))
		}
	}
	g.out.series.last += int64(len(series))
}

func labelMap(ls labels.Labels) map[string]string {
	m := make(map[string]string, len(ls))
	for _, l := range ls {
		m[l.Name] = l.Value
	}
	return m
}

// rows writes the profiles of one kind of one service and their samples.
func (g *group) rows(ctx context.Context, d *block.Dataset, rows *block.Rows, series []labels.Labels) error {
	tree, _, err := rows.Trees(ctx)
	if err != nil {
		return err
	}
	ps, err := rows.Profiles(ctx)
	if err != nil {
		return err
	}
	samples, err := rows.Samples(ctx, ps)
	if err != nil {
		return err
	}
	k := rows.Kind
	for i := range ps.Len() {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := Profile{
			Profile: g.out.profiles.rows, Tenant: d.Tenant, Service: d.Service, Kind: k.Name, PeriodType: k.PeriodType, PeriodUnit: k.PeriodUnit,
			ID: ps.IDs[i].String(), Time: ps.Times[i], Duration: ps.Durations[i], Period: ps.Periods[i],
			Series: g.series + int64(ps.Series[i]), Labels: labelMap(series[ps.Series[i]]), Samples: int64(ps.Samples[i]),
		}
		for c, t := range k.SampleTypes {
			p.Totals = append(p.Totals, Total{t.Type, t.Unit, ps.Totals[c][i]})
		}
		stacks, values, err := samples.Profile(i)
		if err != nil {
			return err
		}
		x, err := samples.Extras(i)
		if err != nil {
			return err
		}
		for j, node := range stacks {
			g.sample(&p, k, tree, node, values, x, j)
		}
		g.out.profiles.add(p, 64*(1+len(p.Labels)))
		if err := g.out.failed(); err != nil {
			return err
		}
	}
	return nil
}

// sample writes a row for each sample type that has a value.
func (g *group) sample(p *Profile, k profile.Kind, tree *profile.StackTree, node uint32, values [][]int64, x *block.Extras, row int) {
	var stack []string
	var locations []int64
	for n := node; n != 0; n = tree.Parents[n] {
		l := tree.Locations[n]
		g.used[l] = true
		locations = append(locations, g.locations+int64(l))
	}
	slices.Reverse(locations)
	for _, l := range locations {
		stack = append(stack, g.framesOf(uint32(l-g.locations))...)
	}
	folded := strings.Join(stack, ";")
	var span, trace string
	if len(x.Spans) > 0 {
		span = x.Spans[row].String()
	}
	if len(x.Traces) > 0 {
		trace = x.Traces[row].String()
	}
	seen := slices.Clone(x.TimesOf(row))
	for c, t := range k.SampleTypes {
		if values[c][row] == 0 {
			continue
		}
		g.out.samples.add(Sample{
			Profile: p.Profile, Tenant: p.Tenant, Service: p.Service, Kind: k.Name, Type: t.Type, Unit: t.Unit, Time: p.Time, Series: p.Series,
			Value: values[c][row], Span: span, Trace: trace, Seen: seen, Stack: stack, Folded: folded, Locations: locations,
		}, len(folded)+12*len(stack)+8*len(locations)+len(span)+len(trace)+8*len(seen))
	}
}

// framesOf returns the names of a location, root first.
func (g *group) framesOf(l uint32) []string {
	if g.frames[l] == nil {
		lines := g.names.LinesOf(l)
		for i := len(lines) - 1; i >= 0; i-- {
			g.frames[l] = append(g.frames[l], g.text[g.names.Functions[lines[i].Function].Name])
		}
		if len(lines) == 0 {
			g.frames[l] = []string{fmt.Sprintf("0x%x", g.names.Locations[l].Address)}
		}
	}
	return g.frames[l]
}

// writeNames writes the locations that are used and what they name; functions and mappings that no location names
// as well, if everything is wanted.
func (g *group) writeNames(everything bool) {
	s := g.names
	functions, mappings := make([]bool, len(s.Functions)), make([]bool, len(s.Mappings))
	for i := range s.Locations {
		if !g.used[i] {
			continue
		}
		l := &s.Locations[i]
		mappings[l.Mapping] = true
		row := Location{Location: g.locations + int64(i), Tenant: g.tenant, Address: l.Address, Mapping: number(g.mappings, l.Mapping), Folded: l.Folded}
		for _, line := range slices.Backward(s.LinesOf(uint32(i))) {
			f := &s.Functions[line.Function]
			functions[line.Function] = true
			row.Lines = append(row.Lines, Line{number(g.functions, line.Function), g.text[f.Name], g.text[f.File], line.Line, line.Column})
		}
		g.out.locations.add(row, 100*(1+len(row.Lines)))
	}
	for i, f := range s.Functions {
		if i > 0 && (everything || functions[i]) {
			name, system, file := g.text[f.Name], g.text[f.SystemName], g.text[f.File]
			g.out.functions.add(Function{number(g.functions, uint32(i)), g.tenant, name, system, file, f.StartLine}, len(name)+len(system)+len(file))
		}
	}
	for i, m := range s.Mappings {
		if i > 0 && (everything || mappings[i]) {
			g.out.mappings.add(Mapping{
				number(g.mappings, uint32(i)), g.tenant, m.Start, m.Limit, m.Offset, g.text[m.File], g.text[m.BuildID],
				m.HasFunctions, m.HasFilenames, m.HasLineNumbers, m.HasInlineFrames,
			}, 100)
		}
	}
	g.out.locations.last += int64(len(s.Locations))
	g.out.functions.last += int64(len(s.Functions) - 1)
	g.out.mappings.last += int64(len(s.Mappings) - 1)
}

// number is what a mapping or function of the group is called in the files; 0 is none.
func number(before int64, i uint32) int64 {
	if i == 0 {
		return 0
	}
	return before + int64(i)
}
