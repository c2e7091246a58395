package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	"github.com/kilndb/kiln/api/kiln/admin/v1/adminv1connect"
)

// clusterCommands is `kiln cluster`.
type clusterCommands struct {
	Status   clusterStatusCommand `cmd:"" default:"withargs" help:"Show the members of the metastore's group and the nodes of every role."`
	Verify   verifyClusterCommand `cmd:"" help:"Compare the states of the metastore's members. They stop applying while they are read. Exit code 1 if they differ."`
	Add      addMemberCommand     `cmd:"" help:"Take a member that runs into the group. It votes when it has caught up."`
	Promote  promoteMemberCommand `cmd:"" help:"Let a learner vote."`
	Remove   removeMemberCommand  `cmd:"" help:"Take a member out of the group, for good."`
	Transfer transferCommand      `cmd:"" help:"Have another member lead."`
}

// clusterTarget is which cluster.
type clusterTarget struct {
	Server string `default:"http://localhost:4040" help:"URL of any node that plays the metastore. Default: ${default}." placeholder:"URL"`
}

func (t clusterTarget) cluster() adminv1connect.ClusterServiceClient {
	return adminv1connect.NewClusterServiceClient(target{}.client(), t.Server)
}

// clusterStatusCommand is `kiln cluster status`.
type clusterStatusCommand struct {
	clusterTarget
	Output string `short:"o" enum:"text,json" default:"text" help:"text or json."`
}

// Run prints the members and the nodes.
func (c *clusterStatusCommand) Run(ctx context.Context, out output) error {
	resp, err := c.cluster().GetCluster(ctx, connect.NewRequest(&adminv1.GetClusterRequest{}))
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return printJSON(out, resp.Msg)
	}
	fmt.Fprintf(out, "cluster %s, term %d\n\n", resp.Msg.GetCluster(), resp.Msg.GetTerm())
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MEMBER\tROLE\tADDRESS\tSERVES AT\tAPPLIED\tLOG\tSTATE")
	for _, m := range resp.Msg.GetMembers() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\n", m.GetId(), memberRole(m), m.GetRaftAddress(), dash(m.GetServiceAddress()),
			m.GetAppliedIndex(), m.GetLastIndex(), memberState(m))
	}
	fmt.Fprintln(w, "\nNODE\tADDRESS\tROLES\tSEEN")
	for _, n := range resp.Msg.GetNodes() {
		seen := (time.Duration(n.GetAgeMs()) * time.Millisecond).Truncate(100 * time.Millisecond)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s ago\n", n.GetNode(), n.GetAddress(), strings.Join(n.GetRoles(), ","), seen)
	}
	return w.Flush()
}

func memberRole(m *adminv1.GroupMember) string {
	switch {
	case m.GetLeads():
		return "leader"
	case m.GetSuffrage() == adminv1.Suffrage_SUFFRAGE_VOTER:
		return "voter"
	}
	return "learner"
}

func memberState(m *adminv1.GroupMember) string {
	switch {
	case !m.GetReachable():
		return "does not answer"
	case m.GetReason() != "":
		return m.GetReason()
	}
	return "ok"
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// addMemberCommand is `kiln cluster add`.
type addMemberCommand struct {
	clusterTarget
	Address string `arg:"" help:"Where the member listens for members: its --metastore.raft."`
}

// Run adds the member.
func (c *addMemberCommand) Run(ctx context.Context, out output) error {
	resp, err := c.cluster().AddMember(ctx, connect.NewRequest(&adminv1.AddMemberRequest{RaftAddress: c.Address}))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, "added", resp.Msg.GetId())
	return err
}

// promoteMemberCommand is `kiln cluster promote`.
type promoteMemberCommand struct {
	clusterTarget
	ID string `arg:"" help:"Id of the member, as kiln cluster status shows it."`
}

// Run promotes the member.
func (c *promoteMemberCommand) Run(ctx context.Context, out output) error {
	if _, err := c.cluster().PromoteMember(ctx, connect.NewRequest(&adminv1.PromoteMemberRequest{Id: c.ID})); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, "votes now:", c.ID)
	return err
}

// removeMemberCommand is `kiln cluster remove`.
type removeMemberCommand struct {
	clusterTarget
	ID string `arg:"" help:"Id of the member, as kiln cluster status shows it."`
}

// Run removes the member.
func (c *removeMemberCommand) Run(ctx context.Context, out output) error {
	if _, err := c.cluster().RemoveMember(ctx, connect.NewRequest(&adminv1.RemoveMemberRequest{Id: c.ID})); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, "removed", c.ID)
	return err
}

// transferCommand is `kiln cluster transfer`.
type transferCommand struct {
	clusterTarget
	ID string `arg:"" optional:"" help:"Id of the member that is to lead. Default: whoever has most of the log."`
}

// Run transfers the leadership.
func (c *transferCommand) Run(ctx context.Context, out output) error {
	resp, err := c.cluster().TransferLeadership(ctx, connect.NewRequest(&adminv1.TransferLeadershipRequest{Id: c.ID}))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, resp.Msg.GetLeader(), "leads")
	return err
}
