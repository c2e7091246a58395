package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	"github.com/kilndb/kiln/api/kiln/admin/v1/adminv1connect"
	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	"github.com/kilndb/kiln/api/kiln/compaction/v1/compactionv1connect"
	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	"github.com/kilndb/kiln/tenant"
)

// GiveUp is how long a call without a deadline is repeated.
const GiveUp = 30 * time.Second

// PassedOn is the header of every call that a Client makes to another process. A process that passes on to the leader what it is asked
// must not pass on what has it: two that take each other for the leader's would send a call back and forth for ever.
const PassedOn = "Kiln-Passed-On"

// The pauses between attempts double from the first to the last, each with jitter. An election takes about as long as
// the last of them.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = time.Second
)

// maxRemotes bounds the addresses that are remembered: in some places a node that restarts has a new one.
const maxRemotes = 64

// Client calls the leader of the metastore. It may be used concurrently.
type Client struct {
	addresses *addresses
	http      connect.HTTPClient
	options   []connect.ClientOption
	local     Local  // nil: no member of the group is in this process
	here      string // the address of local

	mu      sync.Mutex
	leader  string // where the last call succeeded, or was sent to; empty if not known
	next    int    // of the addresses, the one to try when no leader is known
	remotes map[string]*remote
}

// Local is a member of the group that is called directly.
type Local interface {
	metastorev1connect.IndexServiceClient
	metastorev1connect.MembershipServiceClient
	compactionv1connect.WorkerServiceClient
	compactionv1connect.JobServiceClient
	adminv1connect.DeletionServiceClient
	adminv1connect.ClusterServiceClient
	Watch(ctx context.Context, told func(*metastorev1.WatchResponse) error) error
}

// remote is the clients of one address. Local is set if that is in this process, and pages and watch are not.
type remote struct {
	local   Local
	index   metastorev1connect.IndexServiceClient
	pages   metastorev1connect.IndexPagesServiceClient
	watch   metastorev1connect.MembershipWatchServiceClient
	members metastorev1connect.MembershipServiceClient
	workers compactionv1connect.WorkerServiceClient
	jobs    compactionv1connect.JobServiceClient
	deletes adminv1connect.DeletionServiceClient
	cluster adminv1connect.ClusterServiceClient
}

var (
	_ metastorev1connect.IndexServiceClient      = (*Client)(nil)
	_ metastorev1connect.MembershipServiceClient = (*Client)(nil)
	_ compactionv1connect.WorkerServiceClient    = (*Client)(nil)
	_ compactionv1connect.JobServiceClient       = (*Client)(nil)
	_ adminv1connect.DeletionServiceClient       = (*Client)(nil)
	_ adminv1connect.ClusterServiceClient        = (*Client)(nil)
)

// New returns a client of the metastore at addresses, at least one: host:port, which the dialler looks up; a URL;
// dns+host:port, which is all addresses that the host has; or dnssrv+_name._tcp.host, all that the service has. An address
// without a scheme is spoken to in plain HTTP.
func New(addresses []string, httpClient connect.HTTPClient, options ...connect.ClientOption) *Client {
	return NewWithResolver(addresses, net.DefaultResolver, httpClient, options...)
}

// NewWithResolver is New with somebody else to look names up.
func NewWithResolver(addresses []string, resolver Resolver, httpClient connect.HTTPClient, options ...connect.ClientOption) *Client {
	return &Client{addresses: newAddresses(addresses, resolver), http: httpClient, options: options, remotes: map[string]*remote{}}
}

// NewBeside returns a client of the group that a member in this process, at that address, is part of. It finds the others through
// it.
func NewBeside(local Local, address string, httpClient connect.HTTPClient, options ...connect.ClientOption) *Client {
	c := New([]string{address}, httpClient, options...)
	c.local, c.here = local, address
	return c
}

// AddSegments registers segments.
func (c *Client) AddSegments(ctx context.Context, req *connect.Request[metastorev1.AddSegmentsRequest]) (*connect.Response[metastorev1.AddSegmentsResponse], error) {
	return call(ctx, c, req, func(r *remote) method[metastorev1.AddSegmentsRequest, metastorev1.AddSegmentsResponse] {
		return r.index.AddSegments
	})
}

// Find finds entries. The member in this process is asked first, whether it leads or not: each of them knows what was
// acknowledged. Elsewhere the answer comes in pages, of which the client makes one: no message grows with it.
func (c *Client) Find(ctx context.Context, req *connect.Request[metastorev1.FindRequest]) (*connect.Response[metastorev1.FindResponse], error) {
	if c.local != nil {
		answer, err := c.local.Find(ctx, req)
		if connect.CodeOf(err) != connect.CodeUnavailable && connect.CodeOf(err) != connect.CodeFailedPrecondition {
			return answer, err
		}
	}
	return call(ctx, c, req, func(r *remote) method[metastorev1.FindRequest, metastorev1.FindResponse] { return r.find })
}

// Heartbeat announces a node. Nobody is kept waiting by it, so it is heartbeats that keep the addresses up to date.
func (c *Client) Heartbeat(ctx context.Context, req *connect.Request[metastorev1.HeartbeatRequest]) (*connect.Response[metastorev1.HeartbeatResponse], error) {
	c.addresses.refresh(ctx, lookupEvery, false)
	return call(ctx, c, req, func(r *remote) method[metastorev1.HeartbeatRequest, metastorev1.HeartbeatResponse] {
		return r.members.Heartbeat
	})
}

// Leave takes a node off the list.
func (c *Client) Leave(ctx context.Context, req *connect.Request[metastorev1.LeaveRequest]) (*connect.Response[metastorev1.LeaveResponse], error) {
	return call(ctx, c, req, func(r *remote) method[metastorev1.LeaveRequest, metastorev1.LeaveResponse] { return r.members.Leave })
}

// Poll waits for jobs.
func (c *Client) Poll(ctx context.Context, req *connect.Request[compactionv1.PollRequest]) (*connect.Response[compactionv1.PollResponse], error) {
	return call(ctx, c, req, func(r *remote) method[compactionv1.PollRequest, compactionv1.PollResponse] { return r.workers.Poll })
}

// Renew extends leases.
func (c *Client) Renew(ctx context.Context, req *connect.Request[compactionv1.RenewRequest]) (*connect.Response[compactionv1.RenewResponse], error) {
	return call(ctx, c, req, func(r *remote) method[compactionv1.RenewRequest, compactionv1.RenewResponse] { return r.workers.Renew })
}

// Complete reports the result of a job.
func (c *Client) Complete(ctx context.Context, req *connect.Request[compactionv1.CompleteRequest]) (*connect.Response[compactionv1.CompleteResponse], error) {
	return call(ctx, c, req, func(r *remote) method[compactionv1.CompleteRequest, compactionv1.CompleteResponse] {
		return r.workers.Complete
	})
}

// Fail gives a job back.
func (c *Client) Fail(ctx context.Context, req *connect.Request[compactionv1.FailRequest]) (*connect.Response[compactionv1.FailResponse], error) {
	return call(ctx, c, req, func(r *remote) method[compactionv1.FailRequest, compactionv1.FailResponse] { return r.workers.Fail })
}

// List shows jobs.
func (c *Client) List(ctx context.Context, req *connect.Request[compactionv1.ListRequest]) (*connect.Response[compactionv1.ListResponse], error) {
	return call(ctx, c, req, func(r *remote) method[compactionv1.ListRequest, compactionv1.ListResponse] { return r.jobs.List })
}

// Delete begins a deletion. One whose outcome is not known may be begun again.
func (c *Client) Delete(ctx context.Context, req *connect.Request[adminv1.DeleteRequest]) (*connect.Response[adminv1.DeleteResponse], error) {
	return call(ctx, c, req, func(r *remote) method[adminv1.DeleteRequest, adminv1.DeleteResponse] { return r.deletes.Delete })
}

// GetDeletion shows one deletion.
func (c *Client) GetDeletion(ctx context.Context, req *connect.Request[adminv1.GetDeletionRequest]) (*connect.Response[adminv1.GetDeletionResponse], error) {
	return call(ctx, c, req, func(r *remote) method[adminv1.GetDeletionRequest, adminv1.GetDeletionResponse] {
		return r.deletes.GetDeletion
	})
}

// ListDeletions shows deletions.
func (c *Client) ListDeletions(ctx context.Context, req *connect.Request[adminv1.ListDeletionsRequest]) (*connect.Response[adminv1.ListDeletionsResponse], error) {
	return call(ctx, c, req, func(r *remote) method[adminv1.ListDeletionsRequest, adminv1.ListDeletionsResponse] {
		return r.deletes.ListDeletions
	})
}

// GetCluster shows the cluster.
func (c *Client) GetCluster(ctx context.Context, req *connect.Request[adminv1.GetClusterRequest]) (*connect.Response[adminv1.GetClusterResponse], error) {
	return call(ctx, c, req, func(r *remote) method[adminv1.GetClusterRequest, adminv1.GetClusterResponse] {
		return r.cluster.GetCluster
	})
}

// AddMember adds a member to the group.
func (c *Client) AddMember(ctx context.Context, req *connect.Request[adminv1.AddMemberRequest]) (*connect.Response[adminv1.AddMemberResponse], error) {
	return call(ctx, c, req, func(r *remote) method[adminv1.AddMemberRequest, adminv1.AddMemberResponse] {
		return r.cluster.AddMember
	})
}

// PromoteMember lets a learner vote.
func (c *Client) PromoteMember(ctx context.Context, req *connect.Request[adminv1.PromoteMemberRequest]) (*connect.Response[adminv1.PromoteMemberResponse], error) {
	return call(ctx, c, req, func(r *remote) method[adminv1.PromoteMemberRequest, adminv1.PromoteMemberResponse] {
		return r.cluster.PromoteMember
	})
}

// RemoveMember removes a member from the group.
func (c *Client) RemoveMember(ctx context.Context, req *connect.Request[adminv1.RemoveMemberRequest]) (*connect.Response[adminv1.RemoveMemberResponse], error) {
	return call(ctx, c, req, func(r *remote) method[adminv1.RemoveMemberRequest, adminv1.RemoveMemberResponse] {
		return r.cluster.RemoveMember
	})
}

// TransferLeadership has another member lead.
func (c *Client) TransferLeadership(ctx context.Context, req *connect.Request[adminv1.TransferLeadershipRequest]) (*connect.Response[adminv1.TransferLeadershipResponse], error) {
	return call(ctx, c, req, func(r *remote) method[adminv1.TransferLeadershipRequest, adminv1.TransferLeadershipResponse] {
		return r.cluster.TransferLeadership
	})
}

type method[Req, Res any] func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error)

// call makes attempts until one is answered for good.
func call[Req, Res any](ctx context.Context, c *Client, req *connect.Request[Req], on func(*remote) method[Req, Res]) (*connect.Response[Res], error) {
	over := time.Now().Add(GiveUp)
	if deadline, ok := ctx.Deadline(); ok {
		over = deadline
	}
	pause := firstPause
	for {
		answer, address, err := attempt(ctx, c, req, on)
		if err == nil {
			c.found(address)
			return answer, nil
		}
		at, repeat := c.elsewhere(address, err)
		if !repeat || ctx.Err() != nil || time.Now().After(over) {
			return nil, err
		}
		if at != "" && at != address && pause == firstPause {
			pause *= 2 // sent on once: go there at once
			continue
		}
		if !sleep(ctx, pause/2+rand.N(pause)) {
			return nil, err
		}
		pause = min(2*pause, lastPause)
	}
}

// attempt makes one call, and returns where.
func attempt[Req, Res any](ctx context.Context, c *Client, req *connect.Request[Req], on func(*remote) method[Req, Res]) (answer *connect.Response[Res], address string, err error) {
	if address, err = c.pick(ctx); err != nil {
		return nil, "", err
	}
	// A request is for one call; and the headers of who asks here are not the metastore's business, but for the tenant where it is
	// behind the door of tenants.
	once := connect.NewRequest(req.Msg)
	once.Header().Set(PassedOn, "true")
	if id, ok := tenant.FromContext(ctx); ok {
		once.Header().Set(tenant.Header, string(id))
	}
	answer, err = on(c.remote(address))(ctx, once)
	return answer, address, err
}

// elsewhere says whether err at address is worth another attempt, and notes where; at is empty if that is not known.
func (c *Client) elsewhere(address string, err error) (at string, repeat bool) {
	code := connect.CodeOf(err)
	if dial := new(net.OpError); errors.As(err, &dial) && dial.Op == "dial" {
		code = connect.CodeUnavailable // also where nobody answered, so that it ended with a deadline which is not the caller's
	}
	switch code {
	case connect.CodeFailedPrecondition:
		leader, refused := notLeader(err)
		if !refused {
			return "", false
		}
		c.lost(address, leader)
		return leader, true
	case connect.CodeUnavailable:
		c.lost(address, "")
		return "", true
	case connect.CodeAborted:
		return "", true
	}
	return "", false
}

// notLeader returns the address of the leader that err names, and whether err is a node's that does not lead.
func notLeader(err error) (leader string, refused bool) {
	var e *connect.Error
	if !errors.As(err, &e) {
		return "", false
	}
	for _, d := range e.Details() {
		if v, err := d.Value(); err == nil {
			if n, ok := v.(*metastorev1.NotLeader); ok {
				return n.GetLeader(), true
			}
		}
	}
	return "", false
}

// pick returns the address to try.
func (c *Client) pick(ctx context.Context) (string, error) {
	c.mu.Lock()
	leader := c.leader
	c.mu.Unlock()
	if leader != "" {
		return leader, nil
	}
	known, err := c.addresses.known(ctx)
	if err != nil {
		return "", connect.NewError(connect.CodeUnavailable, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return known[c.next%len(known)], nil
}

func (c *Client) found(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leader = address
}

// lost notes that the leader is not at address but at leader, if that is known. What another call learned since is kept.
func (c *Client) lost(address, leader string) {
	c.addresses.failed()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case leader != "":
		c.leader = leader
	case c.leader == address:
		c.leader = ""
		c.next++
	case c.leader == "":
		c.next++
	}
}

func (c *Client) remote(address string) *remote {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.local != nil && address == c.here {
		return &remote{local: c.local, index: c.local, members: c.local, workers: c.local, jobs: c.local, deletes: c.local, cluster: c.local}
	}
	r := c.remotes[address]
	if r == nil {
		if len(c.remotes) >= maxRemotes {
			clear(c.remotes)
		}
		url := address
		if !strings.Contains(url, "://") {
			url = "http://" + url
		}
		// Compressing pages takes longer than sending them over a near network.
		plain := append(slices.Clone(c.options), connect.WithAcceptCompression("gzip", nil, nil))
		r = &remote{
			index:   metastorev1connect.NewIndexServiceClient(c.http, url, c.options...),
			pages:   metastorev1connect.NewIndexPagesServiceClient(c.http, url, plain...),
			watch:   metastorev1connect.NewMembershipWatchServiceClient(c.http, url, c.options...),
			members: metastorev1connect.NewMembershipServiceClient(c.http, url, c.options...),
			workers: compactionv1connect.NewWorkerServiceClient(c.http, url, c.options...),
			jobs:    compactionv1connect.NewJobServiceClient(c.http, url, c.options...),
			deletes: adminv1connect.NewDeletionServiceClient(c.http, url, c.options...),
			cluster: adminv1connect.NewClusterServiceClient(c.http, url, c.options...),
		}
		c.remotes[address] = r
	}
	return r
}

// sleep waits for d and says whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
