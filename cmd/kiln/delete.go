package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	"github.com/kilndb/kiln/api/kiln/admin/v1/adminv1connect"
)

// deleteCommands is `kiln delete`.
type deleteCommands struct {
	Tenant  deleteTenantCommand  `cmd:"" help:"Delete everything of a tenant."`
	Service deleteServiceCommand `cmd:"" help:"Delete everything of one service."`
	Series  deleteSeriesCommand  `cmd:"" help:"Delete the series that a selector means."`
	List    listDeletionsCommand `cmd:"" help:"Show deletions and what they still wait for."`
}

// deletion is what all kinds of deleting share.
type deletion struct {
	target
	Wait   bool   `help:"Wait until no object in the bucket holds the data: longer than the server's --delete-after."`
	Output string `short:"o" enum:"text,json" default:"text" help:"text or json."`
}

// deleteTenantCommand is `kiln delete tenant`.
type deleteTenantCommand struct {
	deletion
	ID string `arg:"" help:"The tenant; anonymous for a server without tenants."`
}

// Run deletes the tenant.
func (c *deleteTenantCommand) Run(ctx context.Context, out output) error {
	if c.Tenant == "" {
		c.Tenant = c.ID
	}
	return c.run(ctx, out, &adminv1.DeleteRequest{Tenant: c.ID})
}

// deleteServiceCommand is `kiln delete service`.
type deleteServiceCommand struct {
	deletion
	Service string `arg:"" help:"The service's name: the value of the label service_name."`
}

// Run deletes the service.
func (c *deleteServiceCommand) Run(ctx context.Context, out output) error {
	return c.run(ctx, out, &adminv1.DeleteRequest{Tenant: c.Tenant, Service: &c.Service})
}

// deleteSeriesCommand is `kiln delete series`.
type deleteSeriesCommand struct {
	deletion
	Selector string `required:"" help:"Which series, such as {pod=\"a\",version=~\"1.*\"}. They may be sent again."`
	Service  string `help:"Only those of this service; of all if it is left out."`
}

// Run deletes the series.
func (c *deleteSeriesCommand) Run(ctx context.Context, out output) error {
	req := &adminv1.DeleteRequest{Tenant: c.Tenant, Selector: c.Selector}
	if c.Service != "" {
		req.Service = &c.Service
	}
	return c.run(ctx, out, req)
}

// watchPause is how often a deletion is asked for that is waited for.
const watchPause = time.Second

func (c *deletion) run(ctx context.Context, out output, req *adminv1.DeleteRequest) error {
	client := adminv1connect.NewDeletionServiceClient(c.client(), c.Server, c.options())
	resp, err := client.Delete(ctx, connect.NewRequest(req))
	if err != nil {
		return err
	}
	d := resp.Msg.GetDeletion()
	for c.Wait && d.GetState() != adminv1.DeletionState_DELETION_STATE_FINISHED {
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("deletion %s goes on", d.GetId()), ctx.Err())
		case <-time.After(watchPause):
		}
		got, err := client.GetDeletion(ctx, connect.NewRequest(&adminv1.GetDeletionRequest{Id: d.GetId()}))
		if err != nil {
			return fmt.Errorf("deletion %s: %w", d.GetId(), err)
		}
		d = got.Msg.GetDeletion()
	}
	return printDeletions(out, c.Output, d)
}

// listDeletionsCommand is `kiln delete list`.
type listDeletionsCommand struct {
	target
	Output string `short:"o" enum:"text,json" default:"text" help:"text or json."`
}

// Run lists the deletions.
func (c *listDeletionsCommand) Run(ctx context.Context, out output) error {
	client := adminv1connect.NewDeletionServiceClient(c.client(), c.Server, c.options())
	resp, err := client.ListDeletions(ctx, connect.NewRequest(&adminv1.ListDeletionsRequest{}))
	if err != nil {
		return err
	}
	return printDeletions(out, c.Output, resp.Msg.GetDeletions()...)
}

func printDeletions(out output, form string, all ...*adminv1.Deletion) error {
	if form == "json" {
		return printJSON(out, &adminv1.ListDeletionsResponse{Deletions: all})
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DELETION\tSTATE\tTENANT\tSERVICE\tSERIES\tOBJECTS\tIN BUCKET\tAGE\tTOOK")
	now := time.Now()
	for _, d := range all {
		service, series, took := "(all)", "(all)", "-"
		if d.Service != nil {
			service = d.GetService()
		}
		if d.GetSelector() != "" {
			series = d.GetSelector()
		}
		if d.GetFinished() != 0 {
			took = time.Duration(d.GetFinished() - d.GetRequested()).Truncate(time.Millisecond).String()
		}
		state := strings.ToLower(strings.TrimPrefix(d.GetState().String(), "DELETION_STATE_"))
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", d.GetId(), state, d.GetTenant(), service, series, d.GetObjects(), d.GetRemaining(), age(now, d.GetRequested()), took)
	}
	return w.Flush()
}
