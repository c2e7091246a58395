package node

import (
	"context"
	"errors"
	"net/http"

	"connectrpc.com/connect"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	"github.com/kilndb/kiln/api/kiln/admin/v1/adminv1connect"
	"github.com/kilndb/kiln/tenant"
)

// serveDeletions lets people delete what is theirs where they ask their questions, and other nodes pass that on to where
// the metastore is.
func (n *Node) serveDeletions(store, here metastoreClient) {
	all := func(asked metastoreClient) (string, http.Handler) {
		return adminv1connect.NewDeletionServiceHandler(asked, n.questionOptions()...)
	}
	own := func(asked metastoreClient) (string, http.Handler) { return all(deletions{asked}) }
	n.serveLed(store, here, n.cfg.plays(QueryFrontend), own, all)
}

// deletions serves the deletions of a metastore that may be elsewhere, of the caller's tenant alone.
type deletions struct{ metastoreClient }

// caller returns the tenant that calls; asked is what the request names, and may be empty.
func caller(ctx context.Context, asked string) (string, error) {
	id, ok := tenant.FromContext(ctx)
	if !ok || asked != "" && asked != string(id) {
		return "", connect.NewError(connect.CodePermissionDenied, errors.New("tenant: it is not the caller's"))
	}
	return string(id), nil
}

// Delete deletes data of the caller.
func (d deletions) Delete(ctx context.Context, req *connect.Request[adminv1.DeleteRequest]) (*connect.Response[adminv1.DeleteResponse], error) {
	id, err := caller(ctx, req.Msg.GetTenant())
	if err != nil {
		return nil, err
	}
	return d.metastoreClient.Delete(ctx, connect.NewRequest(&adminv1.DeleteRequest{Tenant: id, Service: req.Msg.Service, Selector: req.Msg.GetSelector()}))
}

// GetDeletion shows a deletion of the caller.
func (d deletions) GetDeletion(ctx context.Context, req *connect.Request[adminv1.GetDeletionRequest]) (*connect.Response[adminv1.GetDeletionResponse], error) {
	id, err := caller(ctx, "")
	if err != nil {
		return nil, err
	}
	resp, err := d.metastoreClient.GetDeletion(ctx, connect.NewRequest(req.Msg))
	if err == nil && resp.Msg.GetDeletion().GetTenant() != id {
		return nil, connect.NewError(connect.CodeNotFound, errors.New("there is no such deletion"))
	}
	return resp, err
}

// ListDeletions shows the deletions of the caller.
func (d deletions) ListDeletions(ctx context.Context, req *connect.Request[adminv1.ListDeletionsRequest]) (*connect.Response[adminv1.ListDeletionsResponse], error) {
	id, err := caller(ctx, req.Msg.GetTenant())
	if err != nil {
		return nil, err
	}
	return d.metastoreClient.ListDeletions(ctx, connect.NewRequest(&adminv1.ListDeletionsRequest{Tenant: id}))
}
