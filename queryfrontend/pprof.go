package queryfrontend

import (
	"context"

	"connectrpc.com/connect"
	googlev1 "github.com/grafana/pyroscope/api/gen/proto/go/google/v1"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/query"
)

// SelectMergeProfile returns the sum of all matching profiles as one pprof profile of the profile type asked for,
// with everything that is known of its locations. It is whole: max_nodes does not cut it.
func (f *Frontend) SelectMergeProfile(ctx context.Context, req *connect.Request[querierv1.SelectMergeProfileRequest]) (*connect.Response[googlev1.Profile], error) {
	return serve(ctx, f, "SelectMergeProfile", req, f.selectMergeProfile)
}

func (f *Frontend) selectMergeProfile(ctx context.Context, c *call, req *querierv1.SelectMergeProfileRequest) (*googlev1.Profile, error) {
	if err := refuseStacks(req.StackTraceSelector); err != nil {
		return nil, err
	}
	if _, err := parseMaxNodes(req.MaxNodes, c.limits.DefaultNodes, c.limits); err != nil {
		return nil, err
	}
	ids, err := parseIDs(req.ProfileIdSelector, req.TraceIdSelector, nil)
	if err != nil {
		return nil, err
	}
	return f.pprof(ctx, c, req.ProfileTypeID, req.LabelSelector, req.Start, req.End, ids)
}

// pprof asks for the sum of profiles and writes it as pprof.
func (f *Frontend) pprof(ctx context.Context, c *call, typeID, selector string, start, end int64, ids ids) (*googlev1.Profile, error) {
	r, err := parseLimitedRange(start, end, c.limits)
	if err != nil {
		return nil, err
	}
	q, err := profileQuestion(r, typeID, selector)
	if err != nil {
		return nil, err
	}
	ids.narrow(q.message)
	q.message.Ask = &queryv1.Question_Stacks{Stacks: &queryv1.AskStacks{}}
	report, err := f.ask(ctx, c, q)
	if err != nil {
		return nil, err
	}
	stacks := report.GetStacks()
	if stacks == nil {
		stacks = &queryv1.Stacks{}
	} else if _, _, err := query.StacksFromProto(stacks); err != nil { // so that no reference has to be checked below
		return nil, err
	}
	return encodePprof(stacks, *q.profileType), nil
}

// encodePprof writes stacks as a pprof profile with the one sample type that t names. Ids are indexes of the report,
// plus one for locations, whose index 0 is a location like any other.
func encodePprof(s *queryv1.Stacks, t profile.Type) *googlev1.Profile {
	names := pprofNames{table: []string{""}, of: map[string]int64{"": 0}}
	strings := make([]int64, len(s.Strings)) // where the report's strings are in the table
	for i, text := range s.Strings {
		strings[i] = names.add(text)
	}
	p := &googlev1.Profile{
		SampleType:    []*googlev1.ValueType{{Type: names.add(t.SampleType), Unit: names.add(t.SampleUnit)}},
		PeriodType:    &googlev1.ValueType{Type: names.add(t.PeriodType), Unit: names.add(t.PeriodUnit)},
		Period:        s.Period,
		TimeNanos:     s.Time,
		DurationNanos: s.Duration,
		Sample:        pprofSamples(s),
		Location:      pprofLocations(s),
	}
	for i, m := range s.Mappings {
		if i == 0 { // none
			continue
		}
		p.Mapping = append(p.Mapping, &googlev1.Mapping{
			Id: uint64(i), MemoryStart: m.Start, MemoryLimit: m.Limit, FileOffset: m.Offset, Filename: strings[m.File], BuildId: strings[m.BuildId],
			HasFunctions: m.HasFunctions, HasFilenames: m.HasFilenames, HasLineNumbers: m.HasLineNumbers, HasInlineFrames: m.HasInlineFrames,
		})
	}
	for i, fn := range s.Functions {
		if i == 0 { // none
			continue
		}
		p.Function = append(p.Function, &googlev1.Function{
			Id: uint64(i), Name: strings[fn.Name], SystemName: strings[fn.SystemName], Filename: strings[fn.File], StartLine: fn.StartLine,
		})
	}
	p.StringTable = names.table
	return p
}

func pprofSamples(s *queryv1.Stacks) []*googlev1.Sample {
	var samples []*googlev1.Sample
	for node, value := range s.Self {
		if value == 0 {
			continue
		}
		var stack []uint64 // leaf first
		for n := uint32(node); n != 0; n = s.Parents[n] {
			stack = append(stack, uint64(s.NodeLocations[n])+1)
		}
		samples = append(samples, &googlev1.Sample{LocationId: stack, Value: []int64{value}})
	}
	return samples
}

func pprofLocations(s *queryv1.Stacks) []*googlev1.Location {
	locations := make([]*googlev1.Location, len(s.Locations))
	for i, l := range s.Locations {
		to := &googlev1.Location{Id: uint64(i) + 1, MappingId: uint64(l.Mapping), Address: l.Address, IsFolded: l.Folded}
		for _, line := range l.Lines {
			if line.Function != 0 { // a line of no function says nothing, and pprof refuses it
				to.Line = append(to.Line, &googlev1.Line{FunctionId: uint64(line.Function), Line: line.Line})
			}
		}
		locations[i] = to
	}
	return locations
}

// pprofNames is a string table of which every string is there once.
type pprofNames struct {
	table []string
	of    map[string]int64
}

func (n *pprofNames) add(s string) int64 {
	if i, ok := n.of[s]; ok {
		return i
	}
	i := int64(len(n.table))
	n.table = append(n.table, s)
	n.of[s] = i
	return i
}
