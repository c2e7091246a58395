package raftnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/hashicorp/raft"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
)

const (
	// dialTimeout is when a member that does not even refuse a connection is taken for gone.
	dialTimeout = 2 * time.Second
	// helloTimeout is how long a member is given to say who it is. One that cannot within it is of no use either.
	helloTimeout = time.Second
	// maxCall bounds a message of PeerService.
	maxCall = 64 << 10
)

// peers are the other members, as far as this one has met them.
type peers struct {
	http *http.Client

	mu       sync.Mutex
	services map[string]string                               // id → where it serves
	clients  map[string]metastorev1connect.PeerServiceClient // by address for members
}

func newPeers(network Network) *peers {
	t := &http.Transport{
		DialContext: func(ctx context.Context, kind, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			return network.DialContext(ctx, kind, addr)
		},
		Protocols: new(http.Protocols),
		HTTP2:     &http.HTTP2Config{SendPingTimeout: dialTimeout, PingTimeout: dialTimeout},
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return &peers{
		http: &http.Client{Transport: t}, services: map[string]string{},
		clients: map[string]metastorev1connect.PeerServiceClient{},
	}
}

// met remembers where a member serves.
func (p *peers) met(peer *metastorev1.Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.services[peer.GetId()] = peer.GetServiceAddress()
}

// service returns where a member serves, or nothing if that is not known.
func (p *peers) service(id string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.services[id]
}

func (p *peers) at(address string) metastorev1connect.PeerServiceClient {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.clients[address]
	if c == nil {
		c = metastorev1connect.NewPeerServiceClient(p.http, "http://"+address, connect.WithReadMaxBytes(maxCall))
		p.clients[address] = c
	}
	return c
}

// self is how this member presents itself.
func (n *Node) self() *metastorev1.Peer {
	return &metastorev1.Peer{Id: n.ID(), RaftAddress: n.cfg.Address, ServiceAddress: n.cfg.Service, Cluster: n.state.Position().Cluster}
}

// peer returns a client of the member at an address.
func (n *Node) peer(address string) metastorev1connect.PeerServiceClient { return n.peers.at(address) }

// hello asks the member at an address who it is.
func (n *Node) hello(ctx context.Context, address string) (*metastorev1.HelloResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	resp, err := n.peer(address).Hello(ctx, connect.NewRequest(&metastorev1.HelloRequest{Peer: n.self()}))
	if err != nil {
		return nil, err
	}
	if err := sameCluster(n.state.Position().Cluster, resp.Msg.GetPeer().GetCluster()); err != nil {
		return nil, fmt.Errorf("member at %s: %w", address, err)
	}
	n.peers.met(resp.Msg.GetPeer())
	return resp.Msg, nil
}

// helloAll asks all of them at once. Who does not answer is not in the result, which is by address.
func (n *Node) helloAll(ctx context.Context, addresses []string) map[string]*metastorev1.HelloResponse {
	var mu sync.Mutex
	answers := map[string]*metastorev1.HelloResponse{}
	var all sync.WaitGroup
	for _, address := range addresses {
		all.Go(func() {
			resp, err := n.hello(ctx, address)
			if err != nil {
				n.log.Debug("member does not answer", "address", address, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[address] = resp
		})
	}
	all.Wait()
	return answers
}

// peerService serves PeerService.
type peerService struct{ n *Node }

// newPeerServer serves PeerService to other members.
func newPeerServer(n *Node) *http.Server {
	mux := http.NewServeMux()
	mux.Handle(metastorev1connect.NewPeerServiceHandler(peerService{n}, connect.WithReadMaxBytes(maxCall)))
	s := &http.Server{Handler: mux, ReadHeaderTimeout: prefaceTimeout, Protocols: new(http.Protocols)}
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// Hello says who this member is.
func (s peerService) Hello(_ context.Context, req *connect.Request[metastorev1.HelloRequest]) (*connect.Response[metastorev1.HelloResponse], error) {
	n, caller := s.n, req.Msg.GetPeer()
	if sameCluster(n.state.Position().Cluster, caller.GetCluster()) == nil && caller.GetId() != "" {
		n.peers.met(caller)
	}
	return connect.NewResponse(n.present()), nil
}

// present says who this member is and how it is.
func (n *Node) present() *metastorev1.HelloResponse {
	_, leader := n.raft.LeaderWithID()
	return &metastorev1.HelloResponse{
		Peer: n.self(), Learner: n.cfg.Learner, HasState: n.hasState(), Peers: slices.Sorted(slices.Values(n.cfg.Peers)),
		LastIndex: n.raft.LastIndex(), CommitIndex: n.raft.CommitIndex(), AppliedIndex: n.state.Position().Index,
		Term: n.raft.CurrentTerm(), Leader: string(leader), Reason: Reason(n.Ready()),
	}
}

// hasState says whether this member is in a group, or was.
func (n *Node) hasState() bool { return n.raft.LastIndex() > 0 || n.raft.CurrentTerm() > 0 }

// ReadIndex answers if this member leads.
func (s peerService) ReadIndex(ctx context.Context, req *connect.Request[metastorev1.ReadIndexRequest]) (*connect.Response[metastorev1.ReadIndexResponse], error) {
	if err := sameCluster(s.n.state.Position().Cluster, req.Msg.GetCluster()); err != nil {
		return nil, connect.NewError(connect.CodePermissionDenied, err)
	}
	if s.n.raft.State() != raft.Leader {
		return nil, s.elsewhere()
	}
	index, err := s.n.ReadIndex(ctx)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	return connect.NewResponse(&metastorev1.ReadIndexResponse{Index: index}), nil
}

// Join takes the caller into the group if this member leads.
func (s peerService) Join(ctx context.Context, req *connect.Request[metastorev1.JoinRequest]) (*connect.Response[metastorev1.JoinResponse], error) {
	if s.n.raft.State() != raft.Leader {
		return nil, s.elsewhere()
	}
	err := s.n.join(ctx, req.Msg.GetPeer())
	switch {
	case errors.Is(err, ErrRemoved), errors.Is(err, ErrCluster):
		return nil, connect.NewError(connect.CodePermissionDenied, err)
	case errors.Is(err, ErrUnsafe):
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	case err != nil:
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	return connect.NewResponse(&metastorev1.JoinResponse{Cluster: s.n.state.Position().Cluster}), nil
}

// elsewhere tells a member where the leader listens for members.
func (s peerService) elsewhere() error {
	address, _ := s.n.raft.LeaderWithID()
	err := connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("not the leader, which is at %q", address))
	if detail, failed := connect.NewErrorDetail(&metastorev1.NotLeader{Leader: string(address)}); failed == nil {
		err.AddDetail(detail)
	}
	return err
}

// leaderOf returns the address for members that an error of PeerService sends to, or nothing.
func leaderOf(err error) string {
	var e *connect.Error
	if !errors.As(err, &e) {
		return ""
	}
	for _, d := range e.Details() {
		if v, err := d.Value(); err == nil {
			if to, ok := v.(*metastorev1.NotLeader); ok {
				return to.GetLeader()
			}
		}
	}
	return ""
}
