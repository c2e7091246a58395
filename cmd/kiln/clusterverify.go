package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	"github.com/kilndb/kiln/api/kiln/admin/v1/adminv1connect"
)

// verifyClusterCommand is `kiln cluster verify`.
type verifyClusterCommand struct {
	clusterTarget
	Within time.Duration `default:"1m" help:"Give up after this long. Default: ${default}."`
}

// verifyAhead is how far ahead of the leader the index is at which members are compared: each must be asked before it is there.
const verifyAhead = 64

// verifyRound is how long members are given to get there.
const verifyRound = 5 * time.Second

// Run asks every member for the hash of its state. Where nothing is written they are all at the same index now; else they
// are asked for one that is to come.
func (c *verifyClusterCommand) Run(ctx context.Context, out output) error {
	ctx, cancel := context.WithTimeout(ctx, c.Within)
	defer cancel()
	for {
		resp, err := c.cluster().GetCluster(ctx, connect.NewRequest(&adminv1.GetClusterRequest{}))
		if err != nil {
			return err
		}
		index := uint64(0)
		for _, m := range resp.Msg.GetMembers() {
			if !m.GetReachable() {
				return fmt.Errorf("member %s does not answer", m.GetId())
			}
			if m.GetLeads() {
				index = m.GetAppliedIndex() + verifyAhead
			}
		}
		hashes, err := stateHashes(ctx, resp.Msg.GetMembers(), 0)
		if err == nil && !sameIndex(hashes) {
			hashes, err = stateHashes(ctx, resp.Msg.GetMembers(), index)
		}
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("the members were never at one index: %w", ctx.Err())
		case connect.CodeOf(err) == connect.CodeFailedPrecondition: // somebody was past it already
		case connect.CodeOf(err) == connect.CodeDeadlineExceeded: // or nobody gets there
		case err != nil:
			return err
		case sameIndex(hashes):
			return printHashes(out, resp.Msg.GetMembers(), hashes)
		}
	}
}

// stateHashes asks all members at once for their hash at an index; 0 is now.
func stateHashes(ctx context.Context, members []*adminv1.GroupMember, index uint64) ([]*adminv1.StateHashResponse, error) {
	hashes := make([]*adminv1.StateHashResponse, len(members))
	ctx, cancel := context.WithTimeout(ctx, verifyRound)
	defer cancel()
	asking, ctx := errgroup.WithContext(ctx)
	for i, m := range members {
		asking.Go(func() error {
			client := adminv1connect.NewStateServiceClient(target{}.client(), "http://"+m.GetServiceAddress())
			resp, err := client.StateHash(ctx, connect.NewRequest(&adminv1.StateHashRequest{Index: index}))
			if err == nil {
				hashes[i] = resp.Msg
			}
			return err
		})
	}
	return hashes, asking.Wait()
}

func sameIndex(hashes []*adminv1.StateHashResponse) bool {
	return !slices.ContainsFunc(hashes, func(h *adminv1.StateHashResponse) bool { return h.GetIndex() != hashes[0].GetIndex() })
}

func printHashes(out output, members []*adminv1.GroupMember, hashes []*adminv1.StateHashResponse) error {
	differ := false
	for i, h := range hashes {
		differ = differ || !bytes.Equal(h.GetHash(), hashes[0].GetHash())
		fmt.Fprintf(out, "%s  at %d  %x\n", members[i].GetId(), h.GetIndex(), h.GetHash())
	}
	if differ {
		return errors.New("the members' states differ")
	}
	_, err := fmt.Fprintln(out, "The members have the same state.")
	return err
}
