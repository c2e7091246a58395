package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
)

// members announces this node to the metastore and keeps the list of the live ones.
type members struct {
	self      *metastorev1.Member
	metastore metastorev1connect.MembershipServiceClient
	log       *slog.Logger
	// list is replaced whole by every heartbeat that was answered.
	list atomic.Pointer[metastorev1.HeartbeatResponse]
}

// retryHeartbeat is the pause after a heartbeat that failed; an answered one says when the next is due.
const retryHeartbeat = 200 * time.Millisecond

// patience is how many heartbeats may fail before it is worth a line in the log: an election takes a moment.
const patience = 10

// Run sends heartbeats until ctx ends, then takes this node off the list.
func (m *members) Run(ctx context.Context) error {
	failures := 0
	for ctx.Err() == nil {
		pause := retryHeartbeat
		resp, err := m.metastore.Heartbeat(ctx, connect.NewRequest(&metastorev1.HeartbeatRequest{Member: m.self}))
		if err == nil {
			failures = 0
			m.list.Store(resp.Msg)
			pause = time.Duration(resp.Msg.LeaseMs) * time.Millisecond / 3
		} else if failures++; failures == patience {
			m.log.Warn("metastore does not answer heartbeats", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	// The lease ends by itself if this fails.
	_, _ = m.metastore.Leave(leaving, connect.NewRequest(&metastorev1.LeaveRequest{Node: m.self.Node}))
	return nil
}

// joined returns nil once the metastore has answered.
func (m *members) joined() error {
	if m.list.Load() == nil {
		return errors.New("the metastore has not answered yet")
	}
	return nil
}

// addresses returns where nodes of that role are, sorted by node.
func (m *members) addresses(r Role) []string {
	var addrs []string
	if list := m.list.Load(); list != nil {
		for _, member := range list.Members {
			if slices.Contains(member.Roles, string(r)) {
				addrs = append(addrs, member.Address)
			}
		}
	}
	return addrs
}
