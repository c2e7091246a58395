package metastore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/metastore/fsm"
	"github.com/kilndb/kiln/tenant"
)

// deletionService serves DeletionService.
type deletionService struct{ m *Metastore }

// Delete drops everything of a tenant or a service that is in the index, or those of its series that a selector means.
func (s deletionService) Delete(ctx context.Context, req *connect.Request[adminv1.DeleteRequest]) (*connect.Response[adminv1.DeleteResponse], error) {
	if _, err := tenant.Parse(req.Msg.GetTenant()); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("tenant: %w", err))
	}
	selector, err := spelled(req.Msg.GetSelector())
	if err != nil {
		return nil, err
	}
	now := time.Now()
	drop := &storagev1.Drop{Tenant: req.Msg.GetTenant(), Service: req.Msg.Service, Stored: true, Selector: selector}
	if selector == "" {
		drop.Before = now.UnixNano()
	}
	id := ulid.MustNew(ulid.Timestamp(now), rand.Reader).String()
	result, err := s.m.drop(ctx, "deletion", &storagev1.DropData{Deletion: id, Drops: []*storagev1.Drop{drop}})
	if err != nil {
		return nil, coded(err)
	}
	s.m.log.Info("deletion began", "id", id, "tenant", drop.GetTenant(), "service", drop.GetService(), "selector", selector,
		"objects", result.Gone, "reduced", result.Reduced)
	d, err := s.find(id)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.DeleteResponse{Deletion: d}), nil
}

// spelled returns a selector of series to be deleted as kiln writes it, so that one that comes twice is the same text: equal
// selectors of a dataset count once.
func spelled(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	selector, err := block.ParseExcluded(text)
	if err != nil {
		return "", connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("selector: %w", err))
	}
	if _, err := block.ParseExcluded(selector.String()); err != nil {
		return text, nil // too long with its escapes written out
	}
	return selector.String(), nil
}

// GetDeletion shows one deletion.
func (s deletionService) GetDeletion(ctx context.Context, req *connect.Request[adminv1.GetDeletionRequest]) (*connect.Response[adminv1.GetDeletionResponse], error) {
	if _, err := s.m.node.ReadIndex(ctx); err != nil {
		return nil, coded(err)
	}
	d, err := s.find(req.Msg.GetId())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.GetDeletionResponse{Deletion: d}), nil
}

// ListDeletions shows all deletions that are remembered.
func (s deletionService) ListDeletions(ctx context.Context, req *connect.Request[adminv1.ListDeletionsRequest]) (*connect.Response[adminv1.ListDeletionsResponse], error) {
	if _, err := s.m.node.ReadIndex(ctx); err != nil {
		return nil, coded(err)
	}
	answer := &adminv1.ListDeletionsResponse{}
	if err := s.each(func(d *adminv1.Deletion) {
		if t := req.Msg.GetTenant(); t == "" || t == d.GetTenant() {
			answer.Deletions = append(answer.Deletions, d)
		}
	}); err != nil {
		return nil, coded(err)
	}
	return connect.NewResponse(answer), nil
}

func (s deletionService) find(id string) (found *adminv1.Deletion, err error) {
	if err := s.each(func(d *adminv1.Deletion) {
		if d.GetId() == id {
			found = d
		}
	}); err != nil {
		return nil, coded(err)
	}
	if found == nil {
		return nil, connect.NewError(connect.CodeNotFound, errors.New("there is no such deletion"))
	}
	return found, nil
}

func (s deletionService) each(fn func(*adminv1.Deletion)) error {
	return s.m.state.View(func(tx *fsm.Tx) error {
		return s.m.machine.jobs.Deletions(tx, func(d *storagev1.Deletion, remaining uint64) error {
			state := adminv1.DeletionState_DELETION_STATE_HIDDEN
			if d.GetFinished() != 0 {
				state = adminv1.DeletionState_DELETION_STATE_FINISHED
			}
			fn(&adminv1.Deletion{
				Id: d.GetId(), Tenant: d.GetTenant(), Service: d.Service, Selector: d.GetSelector(), State: state,
				Requested: d.GetRequested(), Finished: d.GetFinished(), Objects: d.GetObjects(), Remaining: remaining,
			})
			return nil
		})
	})
}
