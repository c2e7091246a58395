package segmentwritertest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/profile"
)

// Row is one stored profile of one series.
type Row struct {
	Tenant, Service        string
	Kind                   profile.Kind
	Labels                 labels.Labels
	Time, Duration, Period int64
	ID                     profile.ID
	// Samples are its samples in their order.
	Samples []Stored
	// Stacks has a value per sample type for each stack, that of all its samples: the signatures of its locations as package oracle writes
	// them, root first, joined by semicolons.
	Stacks map[string][]int64
	// Names is Stacks with function names alone.
	Names map[string][]int64
}

// Stored is one stored sample.
type Stored struct {
	// Stack is function names, root first, joined by semicolons.
	Stack  string
	Values []int64
	// Span and Trace are hexadecimal digits, "" if there is none.
	Span, Trace string
	Times       []int64
}

// Read returns all rows of the objects of entries, in their order.
func Read(ctx context.Context, bucket objstore.Getter, entries []*storagev1.BlockMeta) ([]Row, error) {
	var all []Row
	for _, m := range entries {
		source := objstore.Object(bucket, block.Key(m), int64(m.GetSize()))
		r, err := block.Open(source, m)
		if err != nil {
			return nil, fmt.Errorf("open segment %s: %w", m.GetId(), err)
		}
		for _, d := range r.Datasets() {
			for _, rows := range d.Rows {
				if all, err = readRows(ctx, all, d, rows); err != nil {
					return nil, fmt.Errorf("read segment %s: %w", m.GetId(), err)
				}
			}
		}
	}
	return all, nil
}

func readRows(ctx context.Context, all []Row, d *block.Dataset, rows *block.Rows) ([]Row, error) {
	symbols, err := d.Symbols(ctx)
	if err != nil {
		return nil, err
	}
	series, err := d.Series(ctx)
	if err != nil {
		return nil, err
	}
	tree, _, err := rows.Trees(ctx)
	if err != nil {
		return nil, err
	}
	profiles, err := rows.Profiles(ctx)
	if err != nil {
		return nil, err
	}
	samples, err := rows.Samples(ctx, profiles)
	if err != nil {
		return nil, err
	}
	for i := range profiles.Len() {
		row := Row{
			Tenant: d.Tenant, Service: d.Service, Kind: rows.Kind, Labels: series[profiles.Series[i]],
			Time: profiles.Times[i], Duration: profiles.Durations[i], Period: profiles.Periods[i], ID: profiles.IDs[i],
			Stacks: map[string][]int64{}, Names: map[string][]int64{},
		}
		stacks, values, err := samples.Profile(i)
		if err != nil {
			return nil, err
		}
		extras, err := samples.Extras(i)
		if err != nil {
			return nil, err
		}
		for j, node := range stacks {
			names, signature := texts(symbols, tree, node)
			s := Stored{Stack: names, Times: slices.Clone(extras.TimesOf(j))}
			for _, column := range values {
				s.Values = append(s.Values, column[j])
			}
			if len(extras.Spans) > 0 {
				s.Span = extras.Spans[j].String()
			}
			if len(extras.Traces) > 0 {
				s.Trace = extras.Traces[j].String()
			}
			row.Samples = append(row.Samples, s)
			row.Names[names] = add(row.Names[names], s.Values)
			row.Stacks[signature] = add(row.Stacks[signature], s.Values)
		}
		all = append(all, row)
	}
	return all, nil
}

// add returns the sum of two lists, of which the first may be nil.
func add(sums, values []int64) []int64 {
	if sums == nil {
		sums = make([]int64, len(values))
	}
	for i, v := range values {
		sums[i] += v
	}
	return sums
}

// texts returns a stack as function names and as signatures.
func texts(s *profile.Symbols, tree *profile.StackTree, node uint32) (names, signature string) {
	var ns, ss []string
	for ; node != 0; node = tree.Parents[node] {
		l := tree.Locations[node]
		for _, line := range s.LinesOf(l) {
			ns = append(ns, string(s.String(s.Functions[line.Function].Name)))
		}
		ss = append(ss, locationText(s, l))
	}
	slices.Reverse(ns)
	slices.Reverse(ss)
	return strings.Join(ns, ";"), strings.Join(ss, ";")
}

// locationText is what package oracle makes of a location.
func locationText(s *profile.Symbols, i uint32) string {
	var b strings.Builder
	l := s.Locations[i]
	fmt.Fprintf(&b, "0x%x", l.Address)
	if l.Mapping != 0 {
		m := s.Mappings[l.Mapping]
		fmt.Fprintf(&b, "@%x-%x+%x %s %s", m.Start, m.Limit, m.Offset, s.String(m.File), s.String(m.BuildID))
	}
	for _, line := range s.LinesOf(i) {
		f := s.Functions[line.Function]
		fmt.Fprintf(&b, "|%s %s %s:%d:%d:%d", s.String(f.Name), s.String(f.SystemName), s.String(f.File), f.StartLine, line.Line, line.Column)
	}
	return b.String()
}

// Sum adds up a sample type of rows by stack. Zeros are left out.
func Sum(rows []Row, sampleType string) map[string]int64 {
	sums := map[string]int64{}
	for _, r := range rows {
		column := slices.IndexFunc(r.Kind.SampleTypes, func(t profile.SampleType) bool { return t.Type == sampleType })
		for stack, values := range r.Stacks {
			if column >= 0 && values[column] != 0 {
				sums[stack] += values[column]
			}
		}
	}
	return sums
}
