// Package nodetest runs the real kiln inside a test: nodes on a memory network, with real Raft, real
// objects and real files in the test's temporary directory.
package nodetest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/grafana/pyroscope/api/gen/proto/go/push/v1/pushv1connect"
	"github.com/grafana/pyroscope/api/gen/proto/go/querier/v1/querierv1connect"

	"github.com/kilndb/kiln/api/kiln/admin/v1/adminv1connect"
	"github.com/kilndb/kiln/api/kiln/compaction/v1/compactionv1connect"
	"github.com/kilndb/kiln/internal/memnet"
	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/tenant"
)

// Cluster is nodes on one memory network.
type Cluster struct {
	t   testing.TB
	net *memnet.Network
	log *slog.Logger
	// Bucket, if not nil, is that of all nodes, whatever their configuration says. Nobody closes it.
	Bucket objstore.Bucket
}

// shared is a bucket that outlives the nodes that are given it.
type shared struct{ objstore.Bucket }

func (shared) Close() error { return nil }

// New returns a cluster without nodes.
func New(t testing.TB) *Cluster {
	w := io.Discard
	if os.Getenv("KILN_TEST_LOG") != "" {
		w = os.Stderr
	}
	return &Cluster{t: t, net: memnet.New(), log: slog.New(slog.NewTextHandler(w, nil))}
}

// Partition cuts off what is sent to and from the node at an address, or heals the cut.
func (c *Cluster) Partition(addr string, cutOff bool) { c.net.Partition(addr, cutOff) }

// Node is one running node.
type Node struct {
	cluster *Cluster
	dials   *dials
	cfg     node.Config
	cancel  context.CancelFunc
	done    chan error
	client  *http.Client
	hangups chan os.Signal
}

// Whole starts a node with every role on a directory of its own and waits until it is ready. Change may
// change its configuration.
func (c *Cluster) Whole(change func(*node.Config)) *Node {
	cfg := node.DefaultConfig()
	cfg.DataDir = c.t.TempDir()
	cfg.HTTP = "kiln:4040"
	cfg.SelfProfile = false
	if change != nil {
		change(&cfg)
	}
	return c.Start(cfg)
}

// Start starts a node and waits until it is ready. The test's end stops it.
func (c *Cluster) Start(cfg node.Config) *Node {
	c.t.Helper()
	return c.StartAll(cfg)[0]
}

// StartAll starts nodes of which none may be ready before all run, and waits until all are.
func (c *Cluster) StartAll(cfgs ...node.Config) (nodes []*Node) {
	c.t.Helper()
	for _, cfg := range cfgs {
		nodes = append(nodes, c.open(cfg))
	}
	for _, n := range nodes {
		n.waitReady()
	}
	return nodes
}

func (c *Cluster) open(cfg node.Config) *Node {
	c.t.Helper()
	n := &Node{cluster: c, cfg: cfg, dials: &dials{Network: c.net}, done: make(chan error, 1), hangups: make(chan os.Signal, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	env := node.Env{Log: c.log.With("node", cfg.HTTP), Network: n.dials, Hangups: n.hangups}
	if c.Bucket != nil {
		env.Bucket = shared{c.Bucket}
	}
	opened, err := node.Open(ctx, cfg, env)
	if err != nil {
		cancel()
		c.t.Fatalf("open node %s: %v", cfg.HTTP, err)
	}
	go func() { n.done <- opened.Run(ctx) }()
	n.client = c.httpClient()
	c.t.Cleanup(n.Stop)
	return n
}

// dials is the network of one node, which remembers what the node dialled.
type dials struct {
	*memnet.Network
	addresses sync.Map
}

// DialContext dials.
func (d *dials) DialContext(ctx context.Context, kind, addr string) (net.Conn, error) {
	d.addresses.Store(addr, true)
	return d.Network.DialContext(ctx, kind, addr)
}

// Dialled tells whether the node has ever called an address.
func (n *Node) Dialled(addr string) bool {
	_, ok := n.dials.addresses.Load(addr)
	return ok
}

func (c *Cluster) httpClient() *http.Client {
	tr := &http.Transport{DialContext: c.net.DialContext, Protocols: new(http.Protocols), MaxIdleConnsPerHost: 256}
	tr.Protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

func (n *Node) waitReady() {
	n.cluster.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	var last string
	for time.Now().Before(deadline) {
		resp, err := n.client.Get(n.URL() + "/ready")
		if err == nil {
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
			err = fmt.Errorf("%s: %s", resp.Status, body)
		}
		last = err.Error()
		select {
		case err := <-n.done:
			n.done <- err
			n.cluster.t.Fatalf("node %s ended: %v", n.cfg.HTTP, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	n.cluster.t.Fatalf("node %s is not ready: %s", n.cfg.HTTP, last)
}

// Stop stops the node gracefully; it may be called again.
func (n *Node) Stop() {
	n.cluster.t.Helper()
	if n.cancel == nil {
		return
	}
	n.client.CloseIdleConnections() // a door that closes waits a second for those who might not have heard
	n.cancel()
	n.cancel = nil
	if err := <-n.done; err != nil {
		n.cluster.t.Errorf("node %s: %v", n.cfg.HTTP, err)
	}
	n.client.CloseIdleConnections()
}

// Restart stops the node and starts it again on the same directory.
func (n *Node) Restart() *Node {
	n.cluster.t.Helper()
	n.Stop()
	return n.cluster.Start(n.cfg)
}

// Hangup has the node read its limits file again.
func (n *Node) Hangup() { n.hangups <- syscall.SIGHUP }

// URL is the node's address for Client.
func (n *Node) URL() string { return "http://" + n.cfg.HTTP }

// HTTP returns a client whose network is the cluster's.
func (n *Node) HTTP() *http.Client { return n.client }

// Pusher returns a client of the write API that says it is the tenant; empty says nothing.
func (n *Node) Pusher(t tenant.ID) pushv1connect.PusherServiceClient {
	return pushv1connect.NewPusherServiceClient(n.client, n.URL(), as(t))
}

// Querier returns a client of the read API.
func (n *Node) Querier(t tenant.ID) querierv1connect.QuerierServiceClient {
	return querierv1connect.NewQuerierServiceClient(n.client, n.URL(), as(t))
}

// Jobs returns a client of the compaction jobs.
func (n *Node) Jobs(t tenant.ID) compactionv1connect.JobServiceClient {
	return compactionv1connect.NewJobServiceClient(n.client, n.URL(), as(t))
}

// Deletions returns a client of the deletions.
func (n *Node) Deletions(t tenant.ID) adminv1connect.DeletionServiceClient {
	return adminv1connect.NewDeletionServiceClient(n.client, n.URL(), as(t))
}

// as makes calls carry a tenant.
func as(t tenant.ID) connect.ClientOption {
	return connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if t != "" {
				req.Header().Set(tenant.Header, string(t))
			}
			return next(ctx, req)
		}
	}))
}

// Compacting restarts the node so that it compacts whatever is there at once.
func Compacting(n *Node) *Node {
	n.cluster.t.Helper()
	n.Stop()
	cfg := n.cfg
	cfg.CompactAfter = time.Millisecond
	return n.cluster.Start(cfg)
}

// Dial connects to the node's door, for those who do not speak HTTP properly.
func (n *Node) Dial(ctx context.Context) (net.Conn, error) {
	return n.cluster.net.DialContext(ctx, "tcp", n.cfg.HTTP)
}

// DataDir is where the node keeps its files.
func (n *Node) DataDir() string { return n.cfg.DataDir }
