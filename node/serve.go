package node

import (
	"context"
	"net/http"

	"connectrpc.com/connect"
	"github.com/grafana/pyroscope/api/gen/proto/go/push/v1/pushv1connect"

	"github.com/kilndb/kiln/api/kiln/admin/v1/adminv1connect"
	"github.com/kilndb/kiln/api/kiln/compaction/v1/compactionv1connect"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	"github.com/kilndb/kiln/distributor"
	"github.com/kilndb/kiln/distributor/otlp"
	"github.com/kilndb/kiln/metastore"
	metastoreclient "github.com/kilndb/kiln/metastore/client"
)

// serveMetastore adds what other roles ask of the metastore. Calls that wait for something to happen end with closing.
func (n *Node) serveMetastore(m *metastore.Metastore, closing context.Context) {
	n.serveInternal(metastorev1connect.NewIndexServiceHandler(m.Index()))
	n.serveInternal(metastorev1connect.NewIndexPagesServiceHandler(m.IndexPages()))
	n.serveInternal(metastorev1connect.NewMembershipServiceHandler(m.Membership()))
	n.serveBucket(m)
	n.serveInternal(adminv1connect.NewStateServiceHandler(m.State()))
	path, handler := metastorev1connect.NewMembershipWatchServiceHandler(m.MembershipWatch())
	n.serveInternal(path, endWith(closing, handler))
	path, handler = compactionv1connect.NewWorkerServiceHandler(m.Workers())
	n.serveInternal(path, handler)
	n.serveInternal(compactionv1connect.WorkerServicePollProcedure, endWith(closing, handler))
}

// servePushes adds everything by which profiles come in.
func (n *Node) servePushes(d *distributor.Distributor) {
	path, handler := d.RPC(func(more ...connect.HandlerOption) (string, http.Handler) {
		return pushv1connect.NewPusherServiceHandler(d, append(more, n.recovered())...)
	})
	n.public.Handle(path, n.door(handler))
	n.public.Handle("/ingest", n.door(d.Guard(d.Ingest())))
	n.public.Handle("/pyroscope/ingest", n.door(d.Guard(d.Ingest())))
	n.serveOTLP(d)
}

// serveOTLP adds what OpenTelemetry's exporters call.
func (n *Node) serveOTLP(d *distributor.Distributor) {
	n.public.Handle(otlp.Path, n.door(d.Guard(d.OTLP())))
	path, handler := d.RPC(func(more ...connect.HandlerOption) (string, http.Handler) {
		return d.OTLP().GRPC(append(more, n.recovered())...)
	})
	n.public.Handle(path, n.door(handler))
}

// serveJobs shows compaction: to people where they ask their questions, to other nodes where the metastore is.
func (n *Node) serveJobs(store, here metastoreClient) {
	jobs := func(asked metastoreClient) (string, http.Handler) {
		return compactionv1connect.NewJobServiceHandler(asked, n.questionOptions()...)
	}
	n.serveLed(store, here, n.cfg.plays(QueryFrontend), jobs, jobs)
}

// led makes the handler of a service that asks a metastore.
type led func(asked metastoreClient) (path string, handler http.Handler)

// serveLed adds a service of which the leader of the metastore knows the answers: store passes calls on to it, here answers if it is the
// member in this process, nil if there is none. It is open to people, as they may have it, if it is public, and to other nodes where
// the metastore is. Where both come to one door, other nodes are let in as people are: anybody may say that a call was passed on.
func (n *Node) serveLed(store, here metastoreClient, public bool, people, nodes led) {
	shared := public && n.internal == n.public
	if public {
		path, handler := people(store)
		if shared && here != nil {
			handler = passedOn(people, here, handler)
		}
		n.public.Handle(path, n.question(handler))
	}
	if here != nil && !shared {
		path, handler := nodes(store)
		n.internal.Handle(path, passedOn(nodes, here, handler))
	}
}

// passedOn serves calls that another node has passed on to this one by the member that is here, and all others by others: passed on
// again, they could go back and forth between two nodes of which each takes the other for the leader's.
func passedOn(service led, here metastoreClient, others http.Handler) http.Handler {
	_, local := service(here)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(metastoreclient.PassedOn) != "" {
			local.ServeHTTP(w, r)
			return
		}
		others.ServeHTTP(w, r)
	})
}

// serveBucket shows the whole index to those who compare it with the bucket: to operators, and not to one tenant of many.
func (n *Node) serveBucket(m *metastore.Metastore) {
	path, handler := metastorev1connect.NewBucketServiceHandler(m.Bucket(), n.questionOptions()...)
	n.internal.Handle(path, handler)
	if n.internal != n.public && !n.cfg.MultiTenant {
		n.public.Handle(path, handler)
	}
}

// serveCluster shows the cluster and changes it: to other nodes where the metastore is, and to operators where they ask their
// questions, unless that is where one tenant of many asks as well.
func (n *Node) serveCluster(store, here metastoreClient) {
	public := !n.cfg.MultiTenant && (n.cfg.plays(QueryFrontend) || here != nil)
	cluster := func(asked metastoreClient) (string, http.Handler) {
		return adminv1connect.NewClusterServiceHandler(asked, n.questionOptions()...)
	}
	n.serveLed(store, here, public, cluster, cluster)
}
