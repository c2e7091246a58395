package node

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grafana/pyroscope/api/gen/proto/go/querier/v1/querierv1connect"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/segmentwriter/v1/segmentwriterv1connect"
	"github.com/kilndb/kiln/compactionworker"
	"github.com/kilndb/kiln/distributor"
	"github.com/kilndb/kiln/distributor/relabel"
	"github.com/kilndb/kiln/internal/service"
	metastoreclient "github.com/kilndb/kiln/metastore/client"
	"github.com/kilndb/kiln/node/overrides"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/retried"
	"github.com/kilndb/kiln/queryfrontend"
	"github.com/kilndb/kiln/segmentwriter"
	segmentwriterclient "github.com/kilndb/kiln/segmentwriter/client"
)

// Network is where a node listens and what it dials.
type Network interface {
	Listen(addr string) (net.Listener, error)
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// Env is what a node is given by whoever starts it.
type Env struct {
	Log     *slog.Logger
	Network Network
	// Bucket replaces the bucket that Config.Bucket names; for tests.
	Bucket objstore.Bucket
	// Hangups make the node read its limits file again, if it is not nil.
	Hangups <-chan os.Signal
}

// Node is one running process of kiln.
type Node struct {
	cfg   Config
	env   Env
	id    string
	reg   *prometheus.Registry
	group service.Group
	// limits of the tenants.
	limits *overrides.Overrides
	// relabel are the rules of that file; nil without one.
	relabel atomic.Pointer[relabel.Tenants]
	// serviceRetention is what it says of services; nil without one.
	serviceRetention atomic.Pointer[serviceRetention]
	// ready are the questions that /ready asks.
	ready []check
	// public is behind the door for everybody, internal behind the one for other nodes. They are the same
	// in a process of some roles that was not given a second door.
	public, internal *http.ServeMux
	front, back      net.Listener
	client           *http.Client
	// held is what Open opened and nobody in the group closes.
	held []io.Closer
}

// Open makes everything that cfg asks for; Run makes it work. What Open opened is closed when Run returns,
// or at once if Open fails.
func Open(ctx context.Context, cfg Config, env Env) (_ *Node, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, env: env, id: ulid.MustNew(ulid.Now(), rand.Reader).String(), reg: prometheus.NewRegistry()}
	n.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n.client = &http.Client{Transport: transport(env.Network)}

	if err := n.openLimits(); err != nil {
		return nil, err
	}
	if err := n.listen(); err != nil {
		return nil, err
	}
	// closing ends when the first door begins to close; closeBy is when the last one is closed.
	closing, close := context.WithCancel(context.Background())
	closeBy := sync.OnceValue(func() time.Time { return time.Now().Add(closeAfter) })
	defer func() {
		if err != nil {
			close()
			err = errors.Join(err, n.closeListeners(), n.release())
		}
	}()
	direct, err := n.openBucket(ctx)
	if err != nil {
		return nil, err
	}
	n.held = append(n.held, direct)
	bucket := retried.New(direct, retried.DefaultConfig())

	// The metastore: here is the member in this process, nil if there is none; store asks whichever leads.
	var store, here metastoreClient
	var group *metastorev1.GroupMember
	if cfg.plays(Metastore) {
		m, err := n.openMetastore(bucket)
		if err != nil {
			return nil, err
		}
		n.held = append(n.held, m)
		group = m.GroupMember()
		member := localMetastore{m, m.Index(), m.Membership(), m.Workers(), m.Jobs(), m.Deletions(), m.Cluster()}
		store, here = member, member
		if cfg.Raft.Address != "" { // another member may lead
			store = metastoreclient.NewBeside(member, n.advertised(), n.client)
		}
		n.group.Add("metastore", m)
		n.ready = append(n.ready, check{"metastore", m.Ready})
		n.serveMetastore(m, closing)
	} else {
		store = metastoreclient.New(cfg.Metastore, n.client)
	}
	self := n.member(group)
	members := &members{
		self:      self,
		metastore: store, log: n.log("members"), shards: cfg.Shards, closing: closing,
	}
	n.group.Add("members", members)
	n.ready = append(n.ready, check{"members", members.joined})

	// Writing: distributors hand profiles to segment-writers.
	var local segmentwriterclient.Local
	if cfg.plays(SegmentWriter) {
		// It tries again by itself, within the deadline of its flush.
		w, err := segmentwriter.New(n.segmentWriterConfig(), direct, store, n.log("segmentwriter"), n.reg)
		if err != nil {
			return nil, err
		}
		local = segmentwriterclient.Local{Address: self.GetAddress(), Writer: w}
		context.AfterFunc(closing, w.Drain)
		n.group.Add("segmentwriter", w)
		n.serveInternal(segmentwriterv1connect.NewSegmentWriterServiceHandler(segmentwriter.NewService(w)))
	}
	if cfg.plays(Distributor) {
		var writer distributor.SegmentWriter = local.Writer
		if !cfg.alone() {
			writer = segmentwriterclient.New(n.client, local, members.candidates, n.log("segmentwriter"))
		}
		d, err := distributor.New(n.distributorConfig(members), writer, n.log("distributor"), n.reg)
		if err != nil {
			return nil, err
		}
		n.servePushes(d)
		if cfg.SelfProfile {
			n.group.Add("selfprofile", n.profileItself(d))
		}
	}
	if cfg.plays(CompactionWorker) {
		w, err := compactionworker.New(n.compactionWorkerConfig(), bucket, store, n.log("compactionworker"), n.reg)
		if err != nil {
			return nil, err
		}
		n.group.Add("compactionworker", w)
	}

	// Reading: frontends plan, backends read.
	backend := n.openBackend(bucket, self, members)
	if cfg.plays(QueryFrontend) {
		f := queryfrontend.New(queryfrontend.Config{Limits: n.limits.Limits, LeafBytes: cfg.LeafBytes}, store, backend, n.log("queryfrontend"), n.reg)
		path, handler := querierv1connect.NewQuerierServiceHandler(f, n.questionOptions()...)
		n.public.Handle(path, n.question(handler))
	}
	n.serveJobs(store, here)
	n.serveDeletions(store, here)
	n.serveCluster(store, here)

	// Last in, first out: the doors close before the rooms.
	n.serveOperations()
	if n.back != nil {
		n.group.Add("rpc", n.newDoor(n.back, n.internal, close, closeBy))
	}
	n.group.Add("http", n.newDoor(n.front, n.public, close, closeBy))
	return n, nil
}

// Run works until ctx ends or a part fails.
func (n *Node) Run(ctx context.Context) error {
	return errors.Join(n.group.Run(ctx), n.release())
}

// release closes what is held, the youngest first.
func (n *Node) release() (err error) {
	n.client.CloseIdleConnections()
	for _, h := range slices.Backward(n.held) {
		err = errors.Join(err, h.Close())
	}
	return err
}

// Addr is where the public API answers.
func (n *Node) Addr() net.Addr { return n.front.Addr() }

func (n *Node) log(component string) *slog.Logger { return n.env.Log.With("component", component) }
