package metastore

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/metastore/index"
	"github.com/kilndb/kiln/tenant"
)

// The bounds of one call of AddSegments, which is one log entry at most. A segment-writer sends one segment per shard.
const (
	maxSegments     = 1024
	maxSegmentBytes = 32 << 20
)

// indexService serves IndexService.
type indexService struct{ m *Metastore }

// AddSegments registers segments and returns once that is committed.
func (s indexService) AddSegments(ctx context.Context, req *connect.Request[metastorev1.AddSegmentsRequest]) (*connect.Response[metastorev1.AddSegmentsResponse], error) {
	segments := req.Msg.GetSegments()
	if len(segments) == 0 || len(segments) > maxSegments {
		return nil, invalid(fmt.Sprintf("segments: %d are given, want 1 to %d", len(segments), maxSegments))
	}
	if size := proto.Size(req.Msg); size > maxSegmentBytes {
		return nil, invalid(fmt.Sprintf("segments: %d bytes are above %d", size, maxSegmentBytes))
	}
	for _, m := range segments {
		if err := index.CheckNew(m); err != nil {
			return nil, coded(err)
		}
		if m.GetLevel() != 0 {
			return nil, invalid(fmt.Sprintf("segments: %s has level %d; blocks come from compaction", m.GetId(), m.GetLevel()))
		}
	}
	result, err := s.m.append(ctx, segments)
	if err := errors.Join(err, errors.Join(result.refused...)); err != nil {
		return nil, coded(err)
	}
	answer := &metastorev1.AddSegmentsResponse{}
	for i, m := range segments {
		for _, dataset := range result.dropped[i] {
			d := m.GetDatasets()[dataset]
			answer.Dropped = append(answer.Dropped, &metastorev1.DroppedDataset{
				Segment: m.GetId(), Tenant: m.GetStrings()[d.GetTenant()], Service: m.GetStrings()[d.GetService()],
			})
		}
	}
	return connect.NewResponse(answer), nil
}

// Find answers from one view of the index.
func (s indexService) Find(ctx context.Context, req *connect.Request[metastorev1.FindRequest]) (*connect.Response[metastorev1.FindResponse], error) {
	answer, err := s.m.find(ctx, req.Msg)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(answer), nil
}

// find answers from one view of the index. The entries are the view's: they must not be changed.
func (m *Metastore) find(ctx context.Context, req *metastorev1.FindRequest) (*metastorev1.FindResponse, error) {
	q, err := parseQuery(req)
	if err != nil {
		return nil, err
	}
	if !req.GetStale() {
		if _, err := m.node.ReadIndex(ctx); err != nil {
			return nil, coded(err)
		}
	}
	view := m.machine.index.View()
	return &metastorev1.FindResponse{Entries: view.Find(q), Index: view.Index()}, nil
}

func parseQuery(r *metastorev1.FindRequest) (q index.Query, err error) {
	if len(r.GetTenants()) == 0 {
		return q, invalid("tenants: none is given")
	}
	for _, name := range r.GetTenants() {
		if _, err := tenant.Parse(name); err != nil {
			return q, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("tenants: %w", err))
		}
	}
	if r.GetStart() >= r.GetEnd() && (r.GetStart() != 0 || r.GetEnd() != 0) {
		return q, invalid(fmt.Sprintf("end: %d is not after start %d", r.GetEnd(), r.GetStart()))
	}
	selector, err := labels.ParseSelector(r.GetSelector())
	if err != nil {
		return q, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("selector: %w", err))
	}
	return index.Query{Tenants: r.GetTenants(), Start: r.GetStart(), End: r.GetEnd(), Selector: selector}, nil
}
