package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"text/tabwriter"

	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"

	"github.com/kilndb/kiln/flamegraph"
	"github.com/kilndb/kiln/tenant"
)

// topCommand is `kiln query top`.
type topCommand struct {
	typedSelection
	Limit int  `short:"n" default:"30" help:"Functions to show."`
	Total bool `help:"Order by total instead of self."`
}

// Run asks for the whole tree, so that the table is exact.
func (c *topCommand) Run(ctx context.Context, out output) error {
	resp, q, err := c.mergeStacktraces(ctx, querierv1.ProfileFormat_PROFILE_FORMAT_TREE, int64(tenant.DefaultLimits().MaxNodes))
	if err != nil {
		return err
	}
	tree, err := flamegraph.DecodeTreeBytes(resp.Tree)
	if err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	total, functions := tree.Total(), flamegraph.Functions(tree)
	sort.SliceStable(functions, func(i, j int) bool {
		if c.Total {
			return functions[i].Total > functions[j].Total
		}
		return functions[i].Self > functions[j].Self
	})
	functions = functions[:min(c.Limit, len(functions))]
	if c.Output == "json" {
		return printFunctionsJSON(out, q, total, functions)
	}
	return printFunctions(out, q, total, functions)
}

// functionTable is the JSON of `kiln query top`; values are in the unit of the profile type.
type functionTable struct {
	ProfileType string          `json:"profileType"`
	Total       int64           `json:"total"`
	Functions   []functionEntry `json:"functions"`
}

type functionEntry struct {
	Name  string `json:"name"`
	Self  int64  `json:"self"`
	Total int64  `json:"total"`
}

func printFunctionsJSON(out output, q question, total int64, functions []flamegraph.Function) error {
	table := functionTable{ProfileType: q.profileType, Total: total, Functions: []functionEntry{}}
	for _, f := range functions {
		table.Functions = append(table.Functions, functionEntry{f.Name, f.Self, f.Total})
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(table)
}

func printFunctions(out output, q question, total int64, functions []flamegraph.Function) error {
	fmt.Fprintf(out, "%s  %s  total %s\n\n", q.profileType, q.selector, quantity(float64(total), q.unit))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "self\tself%\ttotal\ttotal%\t  function")
	for _, f := range functions {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t  %s\n", quantity(float64(f.Self), q.unit), percent(f.Self, total),
			quantity(float64(f.Total), q.unit), percent(f.Total, total), clip(f.Name, width()-44))
	}
	return w.Flush()
}
