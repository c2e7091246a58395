package metastoretest

import (
	"context"

	"connectrpc.com/connect"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	"github.com/kilndb/kiln/api/kiln/admin/v1/adminv1connect"
	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	"github.com/kilndb/kiln/api/kiln/compaction/v1/compactionv1connect"
	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
)

var (
	_ metastorev1connect.IndexServiceClient      = (*Server)(nil)
	_ metastorev1connect.MembershipServiceClient = (*Server)(nil)
	_ compactionv1connect.WorkerServiceClient    = (*Server)(nil)
	_ compactionv1connect.JobServiceClient       = (*Server)(nil)
	_ adminv1connect.DeletionServiceClient       = (*Server)(nil)
)

// AddSegments registers segments.
func (s *Server) AddSegments(ctx context.Context, req *connect.Request[metastorev1.AddSegmentsRequest]) (*connect.Response[metastorev1.AddSegmentsResponse], error) {
	return s.Metastore().Index().AddSegments(ctx, req)
}

// Find finds entries.
func (s *Server) Find(ctx context.Context, req *connect.Request[metastorev1.FindRequest]) (*connect.Response[metastorev1.FindResponse], error) {
	return s.Metastore().Index().Find(ctx, req)
}

// Heartbeat announces a node.
func (s *Server) Heartbeat(ctx context.Context, req *connect.Request[metastorev1.HeartbeatRequest]) (*connect.Response[metastorev1.HeartbeatResponse], error) {
	return s.Metastore().Membership().Heartbeat(ctx, req)
}

// Leave takes a node off the list.
func (s *Server) Leave(ctx context.Context, req *connect.Request[metastorev1.LeaveRequest]) (*connect.Response[metastorev1.LeaveResponse], error) {
	return s.Metastore().Membership().Leave(ctx, req)
}

// Poll waits for jobs.
func (s *Server) Poll(ctx context.Context, req *connect.Request[compactionv1.PollRequest]) (*connect.Response[compactionv1.PollResponse], error) {
	return s.Metastore().Workers().Poll(ctx, req)
}

// Renew extends leases.
func (s *Server) Renew(ctx context.Context, req *connect.Request[compactionv1.RenewRequest]) (*connect.Response[compactionv1.RenewResponse], error) {
	return s.Metastore().Workers().Renew(ctx, req)
}

// Complete reports the result of a job.
func (s *Server) Complete(ctx context.Context, req *connect.Request[compactionv1.CompleteRequest]) (*connect.Response[compactionv1.CompleteResponse], error) {
	return s.Metastore().Workers().Complete(ctx, req)
}

// Fail gives a job back.
func (s *Server) Fail(ctx context.Context, req *connect.Request[compactionv1.FailRequest]) (*connect.Response[compactionv1.FailResponse], error) {
	return s.Metastore().Workers().Fail(ctx, req)
}

// List shows jobs.
func (s *Server) List(ctx context.Context, req *connect.Request[compactionv1.ListRequest]) (*connect.Response[compactionv1.ListResponse], error) {
	return s.Metastore().Jobs().List(ctx, req)
}

// Delete begins a deletion.
func (s *Server) Delete(ctx context.Context, req *connect.Request[adminv1.DeleteRequest]) (*connect.Response[adminv1.DeleteResponse], error) {
	return s.Metastore().Deletions().Delete(ctx, req)
}

// GetDeletion shows a deletion.
func (s *Server) GetDeletion(ctx context.Context, req *connect.Request[adminv1.GetDeletionRequest]) (*connect.Response[adminv1.GetDeletionResponse], error) {
	return s.Metastore().Deletions().GetDeletion(ctx, req)
}

// ListDeletions shows deletions.
func (s *Server) ListDeletions(ctx context.Context, req *connect.Request[adminv1.ListDeletionsRequest]) (*connect.Response[adminv1.ListDeletionsResponse], error) {
	return s.Metastore().Deletions().ListDeletions(ctx, req)
}
