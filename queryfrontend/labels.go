package queryfrontend

import (
	"context"
	"slices"

	"connectrpc.com/connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/labels"
)

// LabelNames returns the names of the labels of all matching series, sorted.
func (f *Frontend) LabelNames(ctx context.Context, req *connect.Request[typesv1.LabelNamesRequest]) (*connect.Response[typesv1.LabelNamesResponse], error) {
	return serve(ctx, f, "LabelNames", req, f.labelNames)
}

func (f *Frontend) labelNames(ctx context.Context, c *call, req *typesv1.LabelNamesRequest) (*typesv1.LabelNamesResponse, error) {
	q, err := labelsQuestion(req.Start, req.End, req.Matchers)
	if err != nil {
		return nil, err
	}
	q.message.Ask = &queryv1.Question_LabelNames{LabelNames: &queryv1.AskLabelNames{}}
	report, err := f.ask(ctx, c, q)
	if err != nil {
		return nil, err
	}
	names := report.GetNames()
	if !c.utf8 {
		names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !plainName(n) })
	}
	return &typesv1.LabelNamesResponse{Names: names}, nil
}

// LabelValues returns the values that one label has in all matching series, sorted.
func (f *Frontend) LabelValues(ctx context.Context, req *connect.Request[typesv1.LabelValuesRequest]) (*connect.Response[typesv1.LabelValuesResponse], error) {
	return serve(ctx, f, "LabelValues", req, f.labelValues)
}

func (f *Frontend) labelValues(ctx context.Context, c *call, req *typesv1.LabelValuesRequest) (*typesv1.LabelValuesResponse, error) {
	if req.Name == "" {
		return nil, invalid("name is empty: say which label's values are asked for")
	}
	q, err := labelsQuestion(req.Start, req.End, req.Matchers)
	if err != nil {
		return nil, err
	}
	q.message.Ask = &queryv1.Question_LabelValues{LabelValues: &queryv1.AskLabelValues{Name: req.Name}}
	report, err := f.ask(ctx, c, q)
	if err != nil {
		return nil, err
	}
	return &typesv1.LabelValuesResponse{Names: report.GetNames()}, nil
}

// Series returns the distinct label sets of all matching series, projected on label_names if there are any. Which
// services have which profile types is answered by the index alone, and as exactly as it knows: a dataset counts if
// its time range meets the question's.
func (f *Frontend) Series(ctx context.Context, req *connect.Request[querierv1.SeriesRequest]) (*connect.Response[querierv1.SeriesResponse], error) {
	return serve(ctx, f, "Series", req, f.series)
}

func (f *Frontend) series(ctx context.Context, c *call, req *querierv1.SeriesRequest) (*querierv1.SeriesResponse, error) {
	if slices.Contains(req.LabelNames, "") {
		return nil, invalid("label_names has an empty name")
	}
	if len(req.Matchers) == 0 && indexKnows(req.LabelNames) {
		r, err := parseRange(req.Start, req.End)
		if err != nil {
			return nil, err
		}
		sets, err := f.indexedSeries(ctx, c, r, req.LabelNames)
		return &querierv1.SeriesResponse{LabelsSet: sets}, err
	}
	q, err := labelsQuestion(req.Start, req.End, req.Matchers)
	if err != nil {
		return nil, err
	}
	q.message.Ask = &queryv1.Question_Series{Series: &queryv1.AskSeries{LabelNames: req.LabelNames}}
	report, err := f.ask(ctx, c, q)
	if err != nil {
		return nil, err
	}
	return &querierv1.SeriesResponse{LabelsSet: labelSets(report.GetSeries(), c.utf8)}, nil
}

// labelSets writes sets for the wire. A client that does not know names of any characters gets the sets without
// them, each once.
func labelSets(sets []*queryv1.LabelSet, utf8 bool) []*typesv1.Labels {
	wire := make([]*typesv1.Labels, 0, len(sets))
	seen := map[string]bool{}
	for _, set := range sets {
		pairs := labelPairs(set.Labels)
		if !utf8 {
			pairs = slices.DeleteFunc(pairs, func(p *typesv1.LabelPair) bool { return !plainName(p.Name) })
		}
		if len(pairs) < len(set.Labels) { // what is left may be a set that is there already
			if key := pairsKey(pairs); seen[key] {
				continue
			}
		}
		seen[pairsKey(pairs)] = true
		wire = append(wire, &typesv1.Labels{Labels: pairs})
	}
	return wire
}

func pairsKey(pairs []*typesv1.LabelPair) string {
	ls := make(labels.Labels, len(pairs))
	for i, p := range pairs {
		ls[i] = labels.Label{Name: p.Name, Value: p.Value}
	}
	return ls.String()
}

// plainName tells whether a label name is one that every client knows: a word of letters, digits and underscores.
func plainName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
