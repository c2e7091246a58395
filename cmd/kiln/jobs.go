package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"

	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	"github.com/kilndb/kiln/api/kiln/compaction/v1/compactionv1connect"
)

// jobsCommand is `kiln jobs`.
type jobsCommand struct {
	target
	Limit  uint32 `help:"Jobs to show. Default: all that wait or run and the latest 100 that are done."`
	Output string `short:"o" enum:"text,json" default:"text" help:"text or json."`
}

// Run prints the levels and the jobs.
func (c *jobsCommand) Run(ctx context.Context, out output) error {
	client := compactionv1connect.NewJobServiceClient(c.client(), c.Server, c.options())
	resp, err := client.List(ctx, connect.NewRequest(&compactionv1.ListRequest{Limit: c.Limit}))
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return printJSON(out, resp.Msg)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LEVEL\tOBJECTS\tSIZE\tOLDEST WAITING")
	now := time.Now()
	for _, l := range resp.Msg.Levels {
		fmt.Fprintf(w, "%d\t%d\t%s\t%s\n", l.Level, l.Entries, quantity(float64(l.Bytes), "bytes"), age(now, l.OldestWaiting))
	}
	fmt.Fprintf(w, "\n%d replaced objects wait for deletion\n\n", resp.Msg.Tombstones)
	fmt.Fprintln(w, "JOB\tSTATE\tLEVEL\tSHARD\tTENANT\tSOURCES\tSIZE\tOUTPUTS\tSIZE\tAGE\tTOOK\tFAILURES\tLAST FAILURE")
	for _, j := range resp.Msg.Jobs {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%d\t%s\t%d\t%s\t%s\t%s\t%d\t%s\n", j.Id, stateText(j.State), j.Level, j.Shard, j.Tenant,
			j.Sources, quantity(float64(j.SourceBytes), "bytes"), j.Outputs, quantity(float64(j.OutputBytes), "bytes"),
			age(now, j.Created), took(j), j.Failures, clip(j.LastFailure, 60))
	}
	return w.Flush()
}

func stateText(s compactionv1.JobState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "JOB_STATE_"))
}

// age of a moment in Unix nanoseconds; a dash if it has not come.
func age(now time.Time, nanos int64) string {
	if nanos == 0 {
		return "-"
	}
	return now.Sub(time.Unix(0, nanos)).Truncate(time.Second).String()
}

func took(j *compactionv1.Job) string {
	if j.Assigned == 0 || j.Finished == 0 {
		return "-"
	}
	return time.Duration(j.Finished - j.Assigned).Truncate(time.Millisecond).String()
}
