package node

import "github.com/kilndb/kiln/api/kiln/admin/v1/adminv1connect"

// serveCluster shows the cluster and changes it: to other nodes where the metastore is, and to operators where they ask their
// questions, unless that is where one tenant of many asks as well.
func (n *Node) serveCluster(store metastoreClient) {
	path, handler := adminv1connect.NewClusterServiceHandler(store, n.questionOptions()...)
	public := !n.cfg.MultiTenant && (n.cfg.plays(QueryFrontend) || n.cfg.plays(Metastore))
	if public {
		n.public.Handle(path, n.question(handler))
	}
	if n.cfg.plays(Metastore) && !(public && n.internal == n.public) {
		n.internal.Handle(path, handler)
	}
}
