package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/querier/v1/querierv1connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/kilndb/kiln/labels"
)

// queryCommands is `kiln query`.
type queryCommands struct {
	Flamegraph flamegraphCommand `cmd:"" help:"Show where time or memory goes, as a tree."`
	Top        topCommand        `cmd:"" help:"List the heaviest functions."`
	Pprof      pprofCommand      `cmd:"" help:"Write the merged profile as a pprof file for go tool pprof."`
	Series     seriesCommand     `cmd:"" help:"Show values over time."`
	Labels     labelsCommand     `cmd:"" help:"List label names, or the values of one."`
}

// selection is what a query is about.
type selection struct {
	target
	window
	Service  string `help:"Shorthand for the selector service_name=\"NAME\"." placeholder:"NAME"`
	Selector string `help:"Which series, such as '{namespace=\"prod\",pod=~\"a.*\"}'." placeholder:"SELECTOR"`
	Output   string `short:"o" enum:"text,json" default:"text" help:"text or json."`
}

// typedSelection is a selection of one profile type.
type typedSelection struct {
	selection
	Type string `help:"Profile type, such as process_cpu:cpu:nanoseconds:cpu:nanoseconds. Default: CPU, or the first there is." placeholder:"ID"`
}

func (s selection) querier() querierv1connect.QuerierServiceClient {
	return querierv1connect.NewQuerierServiceClient(s.client(), s.Server, s.options(), connect.WithSendGzip())
}

// selector joins --service and --selector.
func (s selection) selector() string {
	if s.Service == "" {
		if s.Selector == "" {
			return "{}"
		}
		return s.Selector
	}
	rest := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(s.Selector), "{"), "}")
	if rest != "" {
		rest = "," + rest
	}
	return fmt.Sprintf("{%s=%q%s}", labels.ServiceName, s.Service, rest)
}

// errNoData is returned when there is nothing to choose a profile type from.
var errNoData = errors.New("no profiles there: look further back with --from, or see `kiln query labels service_name`")

// choose returns the profile type to ask for.
func (s typedSelection) choose(ctx context.Context, start, end int64) (string, error) {
	if s.Type != "" {
		return s.Type, nil
	}
	resp, err := s.querier().Series(ctx, connect.NewRequest(&querierv1.SeriesRequest{
		Matchers: []string{s.selector()}, LabelNames: []string{labels.ProfileType}, Start: start, End: end,
	}))
	if err != nil {
		return "", err
	}
	chosen := ""
	for _, set := range resp.Msg.LabelsSet {
		for _, l := range set.Labels {
			if chosen == "" || strings.HasPrefix(l.Value, "process_cpu:cpu:") {
				chosen = l.Value
			}
		}
	}
	if chosen == "" {
		return "", errNoData
	}
	return chosen, nil
}

// question is a typed selection made concrete.
type question struct {
	profileType, unit, selector string
	start, end                  int64
}

func (s typedSelection) question(ctx context.Context) (question, error) {
	start, end, err := s.millis(time.Now())
	if err != nil {
		return question{}, err
	}
	profileType, err := s.choose(ctx, start, end)
	if err != nil {
		return question{}, err
	}
	q := question{profileType: profileType, selector: s.selector(), start: start, end: end}
	if parts := strings.Split(profileType, ":"); len(parts) > 2 {
		q.unit = parts[2]
	}
	return q, nil
}

// mergeStacktraces asks for one format of the merged stacks.
func (s typedSelection) mergeStacktraces(ctx context.Context, format querierv1.ProfileFormat, maxNodes int64) (*querierv1.SelectMergeStacktracesResponse, question, error) {
	q, err := s.question(ctx)
	if err != nil {
		return nil, q, err
	}
	resp, err := s.querier().SelectMergeStacktraces(ctx, connect.NewRequest(&querierv1.SelectMergeStacktracesRequest{
		ProfileTypeID: q.profileType, LabelSelector: q.selector, Start: q.start, End: q.end, MaxNodes: &maxNodes, Format: format,
	}))
	if err != nil {
		return nil, q, err
	}
	return resp.Msg, q, nil
}

// printJSON prints an answer as the API's JSON.
func printJSON(out output, m proto.Message) error {
	b, err := protojson.MarshalOptions{Multiline: true}.Marshal(m)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, string(b))
	return err
}
