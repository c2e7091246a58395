package node_test

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/tenant"
)

func TestATenantDeletesWhatIsItsOwn(t *testing.T) {
	n := nodetest.New(t).Whole(func(cfg *node.Config) {
		cfg.MultiTenant, cfg.CompactAfter, cfg.DeleteAfter = true, 50*time.Millisecond, 50*time.Millisecond
	})
	base := oracle.Parse(corpus.Get("compress-mem-0").Gzipped)
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	prof, body := scaled(base, 2, at)
	for _, id := range []tenant.ID{"red", "blue"} {
		for _, service := range []string{"shop", "till"} {
			if err := push(n, id, series("memory", service, body)); err != nil {
				t.Fatal(err)
			}
		}
	}
	services := func(id tenant.ID) int {
		t.Helper()
		s := around("{}", prof)
		s.tenant = id
		return len(labelValues(t, n, id, "service_name", s))
	}
	ctx := context.Background()
	red := "red"
	_, err := n.Deletions("blue").Delete(ctx, connect.NewRequest(&adminv1.DeleteRequest{Tenant: red}))
	if connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("another tenant's data: %v", err)
	}
	shop := "shop"
	answer, err := n.Deletions("red").Delete(ctx, connect.NewRequest(&adminv1.DeleteRequest{Service: &shop}))
	if err != nil {
		t.Fatal(err)
	}
	if got := services("red"); got != 1 {
		t.Errorf("red has %d services, want the one that is left", got)
	}
	if got := services("blue"); got != 2 {
		t.Errorf("blue has %d services, want 2", got)
	}
	id := answer.Msg.GetDeletion().GetId()
	if _, err := n.Deletions("blue").GetDeletion(ctx, connect.NewRequest(&adminv1.GetDeletionRequest{Id: id})); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("another tenant's deletion: %v", err)
	}
	if all, err := n.Deletions("blue").ListDeletions(ctx, connect.NewRequest(&adminv1.ListDeletionsRequest{})); err != nil || len(all.Msg.GetDeletions()) != 0 {
		t.Errorf("blue's deletions: %v, %v", all, err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got, err := n.Deletions("red").GetDeletion(ctx, connect.NewRequest(&adminv1.GetDeletionRequest{Id: id}))
		if err != nil {
			t.Fatal(err)
		}
		if got.Msg.GetDeletion().GetState() == adminv1.DeletionState_DELETION_STATE_FINISHED {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not end: %v", got)
		}
	}
	if err := push(n, "red", series("memory", "shop", body)); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a profile as old as what was deleted: %v", err)
	}
	_, young := scaled(base, 2, time.Now().Add(time.Second))
	if err := push(n, "red", series("memory", "shop", young)); err != nil {
		t.Errorf("a profile that is newer: %v", err)
	}
}
