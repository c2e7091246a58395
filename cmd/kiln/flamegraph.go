package main

import (
	"context"
	"fmt"
	"sort"
	"strings"

	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"

	"github.com/kilndb/kiln/flamegraph"
	"github.com/kilndb/kiln/tenant"
)

// flamegraphCommand is `kiln query flamegraph`.
type flamegraphCommand struct {
	typedSelection
	MaxNodes int64   `default:"8192" help:"Nodes of a JSON flame graph; the lightest become \"other\"."`
	Min      float64 `default:"1" help:"Leave out frames below this percentage, in text."`
	Depth    int     `default:"40" help:"Deepest frame to show, in text."`
}

// Run prints the API's flame graph as JSON, or the tree for a terminal.
func (c *flamegraphCommand) Run(ctx context.Context, out output) error {
	if c.Output == "json" {
		resp, _, err := c.mergeStacktraces(ctx, querierv1.ProfileFormat_PROFILE_FORMAT_FLAMEGRAPH, c.MaxNodes)
		if err != nil {
			return err
		}
		return printJSON(out, resp.Flamegraph)
	}
	resp, q, err := c.mergeStacktraces(ctx, querierv1.ProfileFormat_PROFILE_FORMAT_TREE, int64(tenant.DefaultLimits().MaxNodes))
	if err != nil {
		return err
	}
	tree, err := flamegraph.DecodeTreeBytes(resp.Tree)
	if err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	totals := tree.Totals(nil)
	fmt.Fprintf(out, "%s  %s\n\n", q.profileType, q.selector)
	g := terminalGraph{out: out, tree: tree, totals: totals, unit: q.unit, depth: c.Depth, width: width()}
	g.least = int64(c.Min / 100 * float64(totals[0]))
	g.children = make([][]uint32, len(totals))
	for i := 1; i < len(totals); i++ {
		g.children[tree.Parents[i]] = append(g.children[tree.Parents[i]], uint32(i))
	}
	g.line("total", 0, "")
	g.branch(0, "", 1)
	return nil
}

// terminalGraph draws a tree with one line a frame: value, share, a bar, and the name behind its branch.
type terminalGraph struct {
	out          output
	tree         *flamegraph.Tree
	totals       []int64
	children     [][]uint32
	unit         string
	least        int64
	depth, width int
}

// branch draws the children of a node, heaviest first, and says what it leaves out.
func (g *terminalGraph) branch(node uint32, indent string, depth int) {
	children := g.children[node]
	sort.SliceStable(children, func(i, j int) bool { return g.totals[children[i]] > g.totals[children[j]] })
	shown := 0
	for shown < len(children) && depth <= g.depth && g.totals[children[shown]] >= max(g.least, 1) {
		shown++
	}
	// A chain of single calls stays in its column: only forks indent.
	for i, child := range children[:shown] {
		edge, next := "├ ", "│ "
		if i == shown-1 {
			edge, next = "└ ", "  "
		}
		if shown == 1 {
			edge, next = "", ""
		}
		g.line(g.tree.Names[g.tree.NodeNames[child]], child, indent+edge)
		g.branch(child, indent+next, depth+1)
	}
}

const barWidth = 10

func (g *terminalGraph) line(name string, node uint32, indent string) {
	share := 0.0
	if g.totals[0] > 0 {
		share = float64(g.totals[node]) / float64(g.totals[0])
	}
	bar := strings.Repeat("█", int(share*barWidth+0.5))
	prefix := fmt.Sprintf("%10s %6s  %-*s  %s", quantity(float64(g.totals[node]), g.unit), percent(g.totals[node], g.totals[0]), barWidth, bar, indent)
	fmt.Fprintln(g.out, prefix+clip(name, max(20, g.width-len([]rune(prefix)))))
}
