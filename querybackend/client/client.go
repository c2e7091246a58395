// Package client calls query-backends, most of them in other processes. There is one type, Client; only node makes one.
package client

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"sync"

	"connectrpc.com/connect"
	"github.com/cespare/xxhash/v2"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/api/kiln/query/v1/queryv1connect"
)

// Local returns the query-backend of this process if that is what is at an address, and nil otherwise. It is called directly.
type Local func(address string) queryv1connect.QueryBackendServiceClient

// Client sends each node of a plan to a backend that rendezvous hashing picks for its first object, so that the same
// objects meet the same backend again. A backend that cannot be reached is passed over for the next; executing a
// node twice does no harm. It is safe for concurrent use.
type Client struct {
	http      connect.HTTPClient
	local     Local
	addresses func() []string

	mu      sync.Mutex // guards clients
	clients map[string]queryv1connect.QueryBackendServiceClient
}

// New returns a Client of the backends at the addresses (host:port) that are known at the time of each call. A nil Local is
// none.
func New(http connect.HTTPClient, local Local, addresses func() []string) *Client {
	return &Client{http: http, local: local, addresses: addresses, clients: map[string]queryv1connect.QueryBackendServiceClient{}}
}

// Invoke has one backend execute a node.
func (c *Client) Invoke(ctx context.Context, req *connect.Request[queryv1.InvokeRequest]) (*connect.Response[queryv1.InvokeResponse], error) {
	err := error(connect.NewError(connect.CodeUnavailable, errors.New("no query-backend is known")))
	for _, addr := range candidates(firstObject(req.Msg.GetNode()), c.addresses()) {
		var res *connect.Response[queryv1.InvokeResponse]
		// A request belongs to one call: connect writes headers into it.
		res, err = c.client(addr).Invoke(ctx, connect.NewRequest(req.Msg))
		if err == nil {
			return res, nil
		}
		if !unreachable(err) || ctx.Err() != nil {
			return nil, err
		}
	}
	return nil, err
}

// unreachable tells whether an error says that a backend cannot be reached. Where nobody answers a dial, what ends is the time
// for it, and that is not the caller's.
func unreachable(err error) bool {
	dial := new(net.OpError)
	return connect.CodeOf(err) == connect.CodeUnavailable || errors.As(err, &dial) && dial.Op == "dial"
}

func (c *Client) client(addr string) queryv1connect.QueryBackendServiceClient {
	if c.local != nil {
		if here := c.local(addr); here != nil {
			return here
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.clients[addr]
	if !ok {
		// Reports are columns of numbers on a near network: compressing them takes longer than sending them.
		known = queryv1connect.NewQueryBackendServiceClient(c.http, "http://"+addr, connect.WithAcceptCompression("gzip", nil, nil))
		c.clients[addr] = known
	}
	return known
}

// candidates orders addresses by how well each suits an object.
func candidates(object string, addresses []string) []string {
	scored := slices.Clone(addresses)
	score := func(addr string) uint64 { return xxhash.Sum64String(addr + "\x00" + object) }
	slices.SortFunc(scored, func(a, b string) int { return cmp.Or(cmp.Compare(score(b), score(a)), cmp.Compare(a, b)) })
	return scored
}

// firstObject returns the id of the first object below a node.
func firstObject(n *queryv1.PlanNode) string {
	for len(n.GetChildren()) > 0 {
		n = n.Children[0]
	}
	if len(n.GetEntries()) == 0 {
		return ""
	}
	return n.Entries[0].GetId()
}
