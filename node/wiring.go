package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/kilndb/kiln/api/kiln/admin/v1/adminv1connect"
	"github.com/kilndb/kiln/api/kiln/compaction/v1/compactionv1connect"
	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	"github.com/kilndb/kiln/api/kiln/query/v1/queryv1connect"
	"github.com/kilndb/kiln/compactionworker"
	"github.com/kilndb/kiln/distributor"
	"github.com/kilndb/kiln/internal/service"
	"github.com/kilndb/kiln/metastore"
	"github.com/kilndb/kiln/node/selfprofile"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/metered"
	"github.com/kilndb/kiln/objstore/open"
	"github.com/kilndb/kiln/querybackend"
	querybackendclient "github.com/kilndb/kiln/querybackend/client"
	"github.com/kilndb/kiln/segmentwriter"
	"github.com/kilndb/kiln/tenant"
)

// metastoreClient is all that other roles ask of the metastore.
type metastoreClient interface {
	metastorev1connect.IndexServiceClient
	membership
	compactionv1connect.WorkerServiceClient
	compactionv1connect.JobServiceClient
	adminv1connect.DeletionServiceClient
	adminv1connect.ClusterServiceClient
}

// localMetastore is the metastore of this process: its handlers are its clients.
type localMetastore struct {
	*metastore.Metastore
	metastorev1connect.IndexServiceHandler
	metastorev1connect.MembershipServiceHandler
	compactionv1connect.WorkerServiceHandler
	compactionv1connect.JobServiceHandler
	adminv1connect.DeletionServiceHandler
	adminv1connect.ClusterServiceHandler
}

// listen opens the doors, so that a port that is taken is known before anything else is opened.
func (n *Node) listen() (err error) {
	n.public, n.internal = http.NewServeMux(), http.NewServeMux()
	if n.front, err = n.env.Network.Listen(n.cfg.HTTP); err != nil {
		return fmt.Errorf("--http: %w", err)
	}
	switch {
	case n.cfg.RPC != "":
		if n.back, err = n.env.Network.Listen(n.cfg.RPC); err != nil {
			return errors.Join(fmt.Errorf("--rpc: %w", err), n.front.Close())
		}
	case !n.cfg.alone():
		n.internal = n.public
	}
	return nil
}

func (n *Node) closeListeners() error {
	err := n.front.Close()
	if n.back != nil {
		err = errors.Join(err, n.back.Close())
	}
	return err
}

// inProcess stands for the address of a node that has no door for others: it is its own metastore's only member.
const inProcess = "in-process"

// advertised is the address that other nodes are told.
func (n *Node) advertised() string {
	l := n.back
	if l == nil {
		if n.cfg.alone() {
			return inProcess
		}
		l = n.front
	}
	if n.cfg.Advertise != "" {
		return n.cfg.Advertise
	}
	if tcp, ok := l.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		if host, err := os.Hostname(); err == nil {
			return fmt.Sprintf("%s:%d", host, tcp.Port)
		}
	}
	return l.Addr().String()
}

// A process that is told to stop ends within 30 s. Who is inside its doors has closeAfter, which is what the segment-writer needs
// for the flights that have begun; then running jobs have jobGrace, and others take them over. The rest takes a moment.
const (
	closeAfter = 20 * time.Second
	jobGrace   = 5 * time.Second
)

// dialTimeout is when a node that does not even refuse a connection is taken for gone. pingAfter is how long one may be silent before it
// is asked for a sign of life, which it must give within pingTimeout.
const (
	dialTimeout = 2 * time.Second
	pingAfter   = 5 * time.Second
	pingTimeout = 5 * time.Second
)

// member is how this node is announced; group says which member of the metastore's group it is, if it is one.
func (n *Node) member(group *metastorev1.GroupMember) *metastorev1.Member {
	return &metastorev1.Member{Node: n.id, Address: n.advertised(), Roles: roleNames(n.cfg.Roles), Metastore: group}
}

// transport speaks HTTP/2 without TLS to other nodes: many calls share a connection.
func transport(network Network) *http.Transport {
	t := &http.Transport{
		DialContext: func(ctx context.Context, kind, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			return network.DialContext(ctx, kind, addr)
		},
		Protocols: new(http.Protocols), IdleConnTimeout: time.Minute,
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

func (n *Node) openBucket(ctx context.Context) (objstore.Bucket, error) {
	bucket := n.env.Bucket
	if bucket == nil {
		url, err := n.cfg.bucketURL()
		if err != nil {
			return nil, err
		}
		if bucket, err = open.Bucket(ctx, url); err != nil {
			return nil, fmt.Errorf("--bucket: %w", err)
		}
	}
	return metered.New(bucket, n.reg), nil
}

func (n *Node) openMetastore(bucket objstore.Bucket) (*metastore.Metastore, error) {
	cfg := metastore.DefaultConfig(n.cfg.DataDir)
	cfg.Grace = n.cfg.DeleteAfter
	cfg.Levels[0].MaxAge = n.cfg.CompactAfter
	cfg.Snapshots.Interval, cfg.Snapshots.Keep = n.cfg.SnapshotInterval, n.cfg.SnapshotsKept
	cfg.Sweep.DryRun = n.cfg.SweepDryRun
	cfg.Retention = func(t, service string) time.Duration { return n.retention(tenant.ID(t), service) }
	if r := n.cfg.Raft; r.Address != "" {
		cfg.Raft.Listen, cfg.Raft.Address, cfg.Raft.Peers, cfg.Raft.Learner = r.Address, r.advertised(), r.Peers, r.Learner
		cfg.Raft.Service, cfg.Raft.Network = n.advertised(), n.env.Network
		if r.TLS != (TLSFiles{}) {
			cfg.Raft.Network = peerNetwork{n.env.Network, r.TLS}
		}
	}
	return metastore.Open(cfg, bucket, n.log("metastore"), n.reg)
}

// openBackend opens this process's query-backend, if it plays one, and returns what asks all there are: they share the work of a
// large plan, and the one in this process is called directly.
func (n *Node) openBackend(bucket objstore.Bucket, self *metastorev1.Member, members *members) queryv1connect.QueryBackendServiceClient {
	var here *querybackend.Backend
	all := querybackendclient.New(n.client, func(address string) queryv1connect.QueryBackendServiceClient {
		if here == nil || address != self.GetAddress() {
			return nil
		}
		return here
	}, func() []string { return members.addresses(QueryBackend) })
	if !n.cfg.plays(QueryBackend) {
		return all
	}
	reading := querybackend.DefaultConfig()
	if !n.cfg.alone() {
		reading.Children = all
	}
	here = querybackend.New(reading, bucket, n.log("querybackend"), n.reg)
	n.serveInternal(queryv1connect.NewQueryBackendServiceHandler(here))
	if n.cfg.alone() {
		return here
	}
	return all
}

func (n *Node) distributorConfig(m *members) distributor.Config {
	cfg := distributor.DefaultConfig()
	cfg.Placement = m.placement
	cfg.Limits, cfg.Rules, cfg.Retention = n.limits.Limits, n.rules, n.retention
	cfg.Distributors = func() int { return m.count(Distributor) }
	return cfg
}

func (n *Node) segmentWriterConfig() segmentwriter.Config {
	cfg := segmentwriter.DefaultConfig()
	cfg.Node = n.id
	cfg.StopTimeout = closeAfter - time.Second // the answers must still get out
	cfg.Limits = n.limits.Limits
	if n.cfg.localBucket() {
		cfg.PutsPerSecond = 0 // they cost nothing
		cfg.HedgeAfter = 0    // a second put would wait for the same disk
	}
	if puts := n.cfg.PutsPerSecond; puts != nil {
		cfg.PutsPerSecond = *puts
	}
	return cfg
}

func (n *Node) compactionWorkerConfig() compactionworker.Config {
	cfg := compactionworker.DefaultConfig(n.id)
	cfg.StopGrace = jobGrace
	return cfg
}

func (n *Node) profileItself(push selfprofile.Pusher) service.Service {
	host, err := os.Hostname()
	if err != nil {
		host = n.id
	}
	return selfprofile.New(anonymous{push}, n.cfg.SelfProfileInterval, n.log("selfprofile"), "hostname", host)
}

func roleNames(roles []Role) []string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = string(r)
	}
	return names
}
