package metastore

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	"github.com/kilndb/kiln/metastore/fsm"
)

// stateService serves StateService.
type stateService struct{ m *Metastore }

// StateHash returns the hash of this member's state at an index.
func (s stateService) StateHash(ctx context.Context, req *connect.Request[adminv1.StateHashRequest]) (*connect.Response[adminv1.StateHashResponse], error) {
	index, sum, err := s.m.state.HashAt(ctx, req.Msg.GetIndex())
	switch {
	case errors.Is(err, fsm.ErrPassed):
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	case errors.Is(err, fsm.ErrHalted), errors.Is(err, fsm.ErrClosed):
		return nil, connect.NewError(connect.CodeUnavailable, err)
	case err != nil:
		return nil, coded(err)
	}
	return connect.NewResponse(&adminv1.StateHashResponse{Index: index, Hash: sum[:]}), nil
}
