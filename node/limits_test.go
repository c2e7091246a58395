package node_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/tenant"
)

// TestRulesOfTheLimitsFile has a node drop and rename by the rules in its file.
func TestRulesOfTheLimitsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "limits.yaml")
	rules := `
relabel:
  defaults:
    series:
      - {source_labels: [namespace], regex: "test-.*", action: drop}
      - {source_labels: [pod], target_label: instance}
`
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	n := nodetest.New(t).Whole(func(cfg *node.Config) { cfg.LimitsFile = file })
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	kept, body := scaled(oracle.Parse(corpus.Get("compress-mutex-1").Gzipped), 1, at)
	if err := push(n, "", series("mutex", "relabelled", body, "namespace", "prod", "pod", "p1")); err != nil {
		t.Fatal(err)
	}
	if err := push(n, "", series("mutex", "relabelled", body, "namespace", "test-7", "pod", "p2")); err != nil {
		t.Fatal(err)
	}
	expect(around(`{service_name="relabelled"}`, kept), "mutex", kept).verify(t, n)
	expect(around(`{service_name="relabelled",instance="p1"}`, kept), "mutex", kept).verify(t, n)
	if err := node.CheckLimitsFile([]byte(rules)); err != nil {
		t.Error(err)
	}
	if err := node.CheckLimitsFile([]byte(strings.Replace(rules, "action: drop", "action: fly", 1))); err == nil || !strings.Contains(err.Error(), "fly") {
		t.Errorf("an action that there is not: %v", err)
	}
}

// TestLimitsHoldAtOnce changes the limits of one tenant of a node that runs: the next request keeps to the new ones, and so do those of
// others to theirs.
func TestLimitsHoldAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "limits.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("tenants: {small: {max_samples: 1}}")
	n := nodetest.New(t).Whole(func(cfg *node.Config) {
		neverCompact(cfg)
		cfg.MultiTenant, cfg.LimitsFile = true, file
	})
	send := func(id tenant.ID) error {
		return push(n, id, series("mutex", "limited", corpus.Get("compress-mutex-1").Gzipped))
	}
	if err := send("small"); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "more than 1 samples") {
		t.Errorf("beyond the limit: %v", err)
	}
	if err := send("large"); err != nil {
		t.Errorf("a tenant without limits of its own: %v", err)
	}
	write("{defaults: {max_labels: 1}, tenants: {small: {max_labels: 20}}}")
	n.Hangup()
	deadline := time.Now().Add(20 * time.Second)
	for send("small") != nil && time.Now().Before(deadline) { // until the signal has been heard
	}
	if err := send("small"); err != nil {
		t.Errorf("with the new limits: %v", err)
	}
	if err := send("large"); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "limit of 1") {
		t.Errorf("new defaults: %v", err)
	}
}
