package node_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	gprofile "github.com/google/pprof/profile"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/objstore/objstoretest"
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
	waitDeleted(t, n, "red", id)
	if err := push(n, "red", series("memory", "shop", body)); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a profile as old as what was deleted: %v", err)
	}
	_, young := scaled(base, 2, time.Now().Add(time.Second))
	if err := push(n, "red", series("memory", "shop", young)); err != nil {
		t.Errorf("a profile that is newer: %v", err)
	}
}

// waitDeleted waits until a deletion is finished.
func waitDeleted(t *testing.T, n *nodetest.Node, of tenant.ID, id string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got, err := n.Deletions(of).GetDeletion(t.Context(), connect.NewRequest(&adminv1.GetDeletionRequest{Id: id}))
		if err != nil {
			t.Fatal(err)
		}
		if got.Msg.GetDeletion().GetState() == adminv1.DeletionState_DELETION_STATE_FINISHED {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not end: %v", got)
		}
	}
}

// What the story plants in what is to be deleted.
const (
	plantedFunction = "QzPlantedFunction_b1946ac92492d2347c6235b4d2611184"
	plantedLabel    = "QyPlantedLabel_591785b794601e212b260e25925636fd"
)

// answers are those to every kind of question about some series, byte for byte as they come.
func answers(t *testing.T, n *nodetest.Node, s scope, ids ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	ask := func(what string, m proto.Message, err error) {
		t.Helper()
		b, encodeErr := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err := errors.Join(err, encodeErr); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		all[what] = string(b)
	}
	ctx, q, nodes := t.Context(), n.Querier(s.tenant), int64(1<<20)
	for _, id := range ids {
		for _, f := range []querierv1.ProfileFormat{querierv1.ProfileFormat_PROFILE_FORMAT_FLAMEGRAPH, querierv1.ProfileFormat_PROFILE_FORMAT_TREE} {
			flame, err := q.SelectMergeStacktraces(ctx, connect.NewRequest(&querierv1.SelectMergeStacktracesRequest{
				ProfileTypeID: id, LabelSelector: s.selector, Start: s.start, End: s.end, MaxNodes: &nodes, Format: f,
			}))
			ask(fmt.Sprint("stack traces ", id, f), flame.Msg, err)
		}
		points, err := q.SelectSeries(ctx, connect.NewRequest(&querierv1.SelectSeriesRequest{
			ProfileTypeID: id, LabelSelector: s.selector, Start: s.start, End: s.end, Step: 15, GroupBy: []string{"pod"},
		}))
		ask("time series "+id, points.Msg, err)
	}
	names, err := q.LabelNames(ctx, connect.NewRequest(&typesv1.LabelNamesRequest{Matchers: []string{s.selector}, Start: s.start, End: s.end}))
	ask("label names", names.Msg, err)
	values, err := q.LabelValues(ctx, connect.NewRequest(&typesv1.LabelValuesRequest{Name: "team", Matchers: []string{s.selector}, Start: s.start, End: s.end}))
	ask("label values", values.Msg, err)
	series, err := q.Series(ctx, connect.NewRequest(&querierv1.SeriesRequest{Matchers: []string{s.selector}, Start: s.start, End: s.end}))
	ask("series", series.Msg, err)
	types, err := q.ProfileTypes(ctx, connect.NewRequest(&querierv1.ProfileTypesRequest{Start: s.start, End: s.end}))
	ask("profile types", types.Msg, err)
	return all
}

func TestSeriesAreDeletedFromEveryByte(t *testing.T) {
	cluster := nodetest.New(t)
	cluster.Bucket = memory.New()
	n := cluster.Whole(func(cfg *node.Config) {
		cfg.MultiTenant, cfg.CompactAfter, cfg.DeleteAfter = true, 50*time.Millisecond, 50*time.Millisecond
	})
	base := oracle.Parse(corpus.Get("compress-mem-0").Gzipped)
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	loudly := base.Copy()
	loudly.Function[0].Name = plantedFunction
	var quiet []*gprofile.Profile
	pushBoth := func(i int64) {
		t.Helper()
		p, body := scaled(base, i, at.Add(time.Duration(i)*time.Second))
		_, loud := scaled(loudly, i, at.Add(time.Duration(i)*time.Second))
		if err := push(n, "red", series("memory", "shop", body, "pod", "quiet", "team", "a"), series("memory", "shop", loud, "pod", "loud", "team", plantedLabel)); err != nil {
			t.Fatal(err)
		}
		quiet = append(quiet, p)
	}
	for i := range int64(4) {
		pushBoth(1 + i)
	}
	if err := push(n, "blue", series("memory", "shop", corpus.Get("compress-mem-0").Gzipped, "pod", "loud")); err != nil {
		t.Fatal(err)
	}
	ids := expect(scope{}, "memory", quiet[0]).ids
	one, all := around(`{pod="quiet"}`, quiet...), around(`{}`, quiet...)
	one.tenant, all.tenant = "red", "red"
	before := answers(t, n, one, ids...)
	if len(objstoretest.Holding(t, cluster.Bucket, plantedFunction)) == 0 || len(objstoretest.Holding(t, cluster.Bucket, plantedLabel)) == 0 {
		t.Fatal("nothing holds what is planted: this tests nothing")
	}
	answer, err := n.Deletions("red").Delete(t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Selector: `{ pod =~ 'lou.+' }`}))
	if err != nil {
		t.Fatal(err)
	}
	d := answer.Msg.GetDeletion()
	if d.GetSelector() != `{pod=~"lou.+"}` || d.Service != nil || d.GetTenant() != "red" || d.GetObjects() == 0 {
		t.Errorf("deletion begins as %v", d)
	}
	check := func(when string) {
		t.Helper()
		for s, of := range map[string]scope{"the series that stay": one, "all": all} {
			for what, got := range answers(t, n, of, ids...) {
				if got != before[what] {
					t.Errorf("%s of %s %s: %q, want %q", what, s, when, got, before[what])
				}
			}
		}
		expect(all, "memory", quiet...).verify(t, n)
	}
	check("at once")
	waitDeleted(t, n, "red", d.GetId())
	check("in the end")
	if keys := objstoretest.Holding(t, cluster.Bucket, plantedFunction, plantedLabel); len(keys) != 0 {
		t.Errorf("what is planted is still in %v", keys)
	}
	n = n.Restart()
	check("after a restart")
	blue := around(`{pod="loud"}`, oracle.Parse(corpus.Get("compress-mem-0").Gzipped))
	blue.tenant = "blue"
	if got := labelValues(t, n, "blue", "pod", blue); len(got) != 1 {
		t.Errorf("the other tenant has the pods %v", got)
	}
	pushBoth(5) // the same series again
	if got := labelValues(t, n, "red", "team", around("{}", quiet...)); len(got) != 2 {
		t.Errorf("pushed again, the teams are %v", got)
	}
}

func TestDeletionsBySelectorAreRefused(t *testing.T) {
	n := nodetest.New(t).Whole(func(cfg *node.Config) { cfg.MultiTenant = true })
	for selector, says := range map[string]string{
		`{pod="a"`: "end of input", `{}`: "not empty", `{pod!="a"}`: "not empty", `{pod=~".*",team!="x"}`: "not empty", `{__type__="cpu"}`: "one sample type",
		`{pod="` + strings.Repeat("x", 4096) + `"}`: "limit of 4096",
	} {
		_, err := n.Deletions("red").Delete(t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Selector: selector}))
		if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), says) {
			t.Errorf("%.30s: %v, want %q", selector, err, says)
		}
	}
	if _, err := n.Deletions("red").Delete(t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Tenant: "blue", Selector: `{pod="a"}`})); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("another tenant's series: %v", err)
	}
	all, err := n.Deletions("red").ListDeletions(t.Context(), connect.NewRequest(&adminv1.ListDeletionsRequest{}))
	if err != nil || len(all.Msg.GetDeletions()) != 0 {
		t.Errorf("deletions: %v, %v", all, err)
	}
}
