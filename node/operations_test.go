package node_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/node/nodetest"
)

func get(t *testing.T, n *nodetest.Node, path string) (*http.Response, string) {
	t.Helper()
	resp, err := n.HTTP().Get(n.URL() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// TestOperations asks for what people and their tools look at.
func TestOperations(t *testing.T) {
	n := nodetest.New(t).Whole(nil)
	for path, says := range map[string]string{
		"/":             "<!doctype html>",
		"/ready":        "ready",
		"/healthz":      "ok",
		"/metrics":      "kiln_",
		"/debug/pprof/": "goroutine",
	} {
		resp, body := get(t, n, path)
		if resp.StatusCode != http.StatusOK || !strings.Contains(strings.ToLower(body), says) {
			t.Errorf("GET %s: %s, no %q in %.80s", path, resp.Status, says, body)
		}
	}
	if resp, _ := get(t, n, "/nothing"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("GET /nothing: %s", resp.Status)
	}
	health := connect.NewClient[healthv1.HealthCheckRequest, healthv1.HealthCheckResponse](n.HTTP(), n.URL()+"/grpc.health.v1.Health/Check", connect.WithGRPC())
	resp, err := health.CallUnary(context.Background(), connect.NewRequest(&healthv1.HealthCheckRequest{Service: "push.v1.PusherService"}))
	if err != nil || resp.Msg.Status != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("gRPC health: %v, %v", resp, err)
	}
}

// TestInternalCallsHaveTheirOwnDoor wants the calls of other nodes, which name any tenant they like, out of
// reach of whoever may use the API; and within reach where a door was asked for.
func TestInternalCallsHaveTheirOwnDoor(t *testing.T) {
	cluster := nodetest.New(t)
	n := cluster.Whole(func(cfg *node.Config) { cfg.RPC = "kiln:4041" })
	find := func(url string) error {
		client := metastorev1connect.NewIndexServiceClient(n.HTTP(), url)
		_, err := client.Find(context.Background(), connect.NewRequest(&metastorev1.FindRequest{Tenants: []string{"anonymous"}}))
		return err
	}
	if err := find(n.URL()); connect.CodeOf(err) != connect.CodeUnimplemented {
		t.Errorf("the public door answers an internal call with %v", err)
	}
	if err := find("http://kiln:4041"); err != nil {
		t.Errorf("the internal door answers with %v", err)
	}
}

// TestLargeBodies wants a body above the limit refused, and the process to live.
func TestLargeBodies(t *testing.T) {
	n := nodetest.New(t).Whole(nil)
	err := push(n, "", series("process_cpu", "large", bytes.Repeat([]byte{1}, 33<<20)))
	if code := connect.CodeOf(err); code != connect.CodeResourceExhausted && code != connect.CodeInvalidArgument {
		t.Errorf("33 MiB by Push: %v", err)
	}
	if err := post(n, "/ingest?format=pprof&name=large", "", strings.Repeat("x", 33<<20)); err == nil || !strings.HasPrefix(err.Error(), "413 ") {
		t.Errorf("33 MiB by /ingest: %v, want 413", err)
	}
	if resp, _ := get(t, n, "/ready"); resp.StatusCode != http.StatusOK {
		t.Errorf("afterwards /ready says %s", resp.Status)
	}
}
